"""A relay that was announced at an address which is none for us is dialled where its own presence puts it."""

from collections.abc import Sequence

import pytest

from haif.base import codec
from haif.base.errors import ConnectionLost
from haif.base.ids import Digest, PeerId
from haif.base.machine import Address
from haif.identity.signing import Verified
from haif.protocol.offers import Presence
from haif.protocol.reach import Place
from haif.protocol.records import Record, RecordKind, presence_topic
from haif.protocol.relay import RelayAt
from haif.reach.service import Relayed
from haif.wire.service import Session
from tests.support.reach_peers import NET

RELAY, PEER = PeerId(b"r" * 32), PeerId(b"p" * 32)
NOWHERE = RelayAt(RELAY, "0.0.0.0", 4000)  # as an address of the other family is
HERE: Address = ("127.0.0.1", 4040)


class Directory:
    """Stands where the DHT stands."""

    def __init__(self, addresses: Sequence[Address] | None) -> None:
        self.asked: list[Digest] = []
        self._addresses = addresses

    async def lookup(self, topic: Digest) -> tuple[Verified[Record], ...]:
        self.asked.append(topic)
        if self._addresses is None:
            return ()
        body = codec.encode(Presence("relay", Place(tuple(self._addresses)), b""))
        return (Verified(Record(RecordKind.PRESENCE, topic, RELAY, 1, 2, False, body), RELAY, b""),)


class Carried(Exception):
    """Dialled through this relay."""


async def carry(relay: RelayAt, peer: PeerId, certificate: bytes) -> Session:
    assert (PEER, b"certificate") == (peer, certificate)
    raise Carried(relay)


def relayed(directory: Directory) -> Relayed:
    return Relayed(carry, directory, NET, site=False)  # type: ignore[arg-type]


async def dialled(directory: Directory, relay: RelayAt) -> RelayAt:
    with pytest.raises(Carried) as through:
        await relayed(directory)(relay, PEER, b"certificate")
    chosen: RelayAt = through.value.args[0]
    return chosen


async def test_a_relay_that_can_be_dialled_is_dialled_as_it_was_announced_and_nobody_is_asked() -> None:
    directory = Directory([HERE])
    assert RelayAt(RELAY, "127.0.0.1", 9) == await dialled(directory, RelayAt(RELAY, "127.0.0.1", 9))
    assert [] == directory.asked


async def test_one_that_cannot_is_dialled_where_it_says_that_it_is() -> None:
    directory = Directory([("0.0.0.0", 1), HERE])
    assert RelayAt(RELAY, *HERE) == await dialled(directory, NOWHERE)
    assert [presence_topic(NET, RELAY)] == directory.asked


@pytest.mark.parametrize("addresses", [None, [], [("0.0.0.0", 1)], [("10.99.0.7", 4000)]])
async def test_one_that_says_nothing_of_use_is_no_way(addresses: list[Address] | None) -> None:
    """Not even an address inside somebody's network: `candidates` has the rules."""
    with pytest.raises(ConnectionLost):
        await relayed(Directory(addresses))(NOWHERE, PEER, b"certificate")
