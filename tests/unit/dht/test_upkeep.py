"""The timetable of a node's table."""

from haif.base import limits
from haif.base.clock import Instant
from haif.base.ids import PeerId
from haif.dht.contact import Contact
from haif.dht.table import RoutingTable
from haif.dht.upkeep import Upkeep


def at(seconds: float) -> Instant:
    return Instant(seconds)


def test_a_node_with_contacts_looks_around_every_five_minutes() -> None:
    table = RoutingTable(PeerId(b"o" * 32))
    table.heard(Contact(PeerId(b"p" * 32), ("10.0.0.1", 1)), at(0))
    upkeep = Upkeep(table, at(0))
    assert [second for second in range(1000) if upkeep.neighbourhood_due(at(second))] == [300, 600, 900]


def test_a_node_without_contacts_looks_around_every_five_seconds_once_it_has_noticed() -> None:
    upkeep = Upkeep(RoutingTable(PeerId(b"o" * 32)), at(0))
    assert [second for second in range(312) if upkeep.neighbourhood_due(at(second))] == [300, 305, 310]


def test_a_lookup_of_the_neighbourhood_for_another_cause_postpones_the_next() -> None:
    upkeep = Upkeep(RoutingTable(PeerId(b"o" * 32)), at(0))
    upkeep.postpone(at(200))
    assert not upkeep.neighbourhood_due(at(200 + limits.DHT_SELF_LOOKUP_SECONDS - 1))
    assert upkeep.neighbourhood_due(at(200 + limits.DHT_SELF_LOOKUP_SECONDS))


def test_idle_buckets_are_looked_for_every_minute_and_wake_at_says_when() -> None:
    upkeep = Upkeep(RoutingTable(PeerId(b"o" * 32)), at(0))
    assert upkeep.wake_at() == 60
    assert [second for second in range(200) if upkeep.inspection_due(at(second))] == [60, 120, 180]
    assert upkeep.wake_at() == 240
