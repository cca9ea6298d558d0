"""Senders who change one bit of what somebody signed."""

import pytest

from haif.base.errors import PeerFault
from haif.base.ids import Digest
from haif.identity.signing import Domain, open_sealed, seal
from haif.identity.voice import Voice
from tests.fuzz.doors import DOMAINS, LIVE, Watch
from tests.fuzz.registry import signed
from tests.fuzz.values import example
from tests.support.wire_pair import CLIENT, NET, SERVER, entropy


def changed(data: bytes) -> list[bytes]:
    """The bytes with each single bit of them changed, with each end cut off, and with one byte more."""
    bits = [data[:at] + bytes((data[at] ^ 1 << bit,)) + data[at + 1 :] for at in range(len(data)) for bit in range(8)]
    return bits + [data[:length] for length in range(len(data))] + [data + b"\0"]


@pytest.mark.parametrize("domain", Domain, ids=lambda domain: domain.name)
def test_no_bit_of_evidence_can_change(domain: Domain) -> None:
    whole = seal(CLIENT, domain, example(DOMAINS[domain]))
    assert open_sealed(DOMAINS[domain], domain, whole).signer == CLIENT.peer
    for data in changed(whole):
        with pytest.raises(PeerFault):
            open_sealed(DOMAINS[domain], domain, data)


@pytest.mark.parametrize("live", LIVE)
def test_no_bit_of_a_live_message_can_change(live: int) -> None:
    whole = signed(live, LIVE[live])
    ear = Voice(SERVER, NET, Watch(), entropy())
    for data in changed(whole):
        with pytest.raises(PeerFault):
            ear.hear(LIVE[live], live, data, Digest(b"s" * 32))
    assert ear.hear(LIVE[live], live, whole, Digest(b"s" * 32)).header.sender == CLIENT.peer
