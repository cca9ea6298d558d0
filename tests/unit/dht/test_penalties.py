"""Penalties: three faults bar a peer for an hour, in bounded memory."""

from haif.base import limits
from haif.base.clock import Instant
from haif.base.ids import PeerId
from haif.dht.contact import Contact
from haif.dht.penalties import Penalties

BERT = PeerId(b"b" * 32)
HOME, AWAY = Contact(BERT, ("8.8.8.8", 1)), Contact(BERT, ("9.9.9.9", 1))


def at(seconds: float) -> Instant:
    return Instant(seconds)


def test_the_third_fault_bars_a_peer_everywhere_for_an_hour() -> None:
    penalties = Penalties()
    assert [penalties.fault(BERT, at(n)) for n in range(3)] == [False, False, True]
    assert penalties.bars(HOME, at(3))
    assert penalties.bars(AWAY, at(3601))
    assert not penalties.bars(HOME, at(3602))
    assert not penalties.fault(BERT, at(3603))  # it begins anew


def test_a_fault_at_one_address_bars_the_peer_only_there() -> None:
    penalties = Penalties()
    for n in range(3):
        penalties.fault(AWAY, at(n))
    assert penalties.bars(AWAY, at(3))
    assert not penalties.bars(HOME, at(3))


def test_memory_is_bounded_and_the_least_recent_is_forgotten() -> None:
    penalties = Penalties()
    for n in range(3):
        penalties.fault(BERT, at(n))
    for n in range(limits.DHT_PENALTIES_MAX):
        penalties.fault(PeerId(n.to_bytes(32, "big")), at(4))
    assert len(penalties) == limits.DHT_PENALTIES_MAX
    assert not penalties.bars(HOME, at(5))
