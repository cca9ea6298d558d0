"""The timetable of a node's table."""

from haif.base import limits
from haif.base.clock import Instant
from haif.base.ids import PeerId
from haif.dht.contact import Contact
from haif.dht.table import RoutingTable
from haif.dht.upkeep import Upkeep

OFTEN, SELDOM = limits.DHT_SELF_LOOKUP_SECONDS, limits.DHT_SELF_LOOKUP_SECONDS_MAX


def at(seconds: float) -> Instant:
    return Instant(seconds)


def table(contacts: int) -> RoutingTable:
    made = RoutingTable(PeerId(b"o" * 32))
    for number in range(contacts):
        made.heard(Contact(PeerId(bytes([number]) * 32), (f"{20 + number}.0.0.1", 1)), at(0))
    assert len(made) == contacts
    return made


def looks(upkeep: Upkeep, seconds: int) -> list[int]:
    """When the neighbourhood is looked up, if the node is woken every second."""
    times = []
    for second in range(seconds):
        if upkeep.neighbourhood_due(at(second)):
            times.append(second)
        upkeep.inspection_due(at(second))
    return times


def fail(upkeep: Upkeep, *, one_in: int, queries: int = 500) -> None:
    for number in range(queries):
        if number % one_in:
            upkeep.answered()
        else:
            upkeep.unanswered()


def test_a_node_that_knows_few_looks_around_every_five_minutes() -> None:
    assert looks(Upkeep(table(3), at(0)), 1000) == [300, 600, 900]


def test_a_node_that_knows_many_looks_around_every_hour_while_few_of_them_fail() -> None:
    upkeep = Upkeep(table(limits.DHT_K), at(0))
    fail(upkeep, one_in=6)
    assert looks(upkeep, 11_000) == [3600, 7200, 10_800]
    assert upkeep.bucket_seconds == limits.DHT_BUCKET_REFRESH_PERIODS * SELDOM


def test_the_more_contacts_fail_the_more_often_it_looks_around_but_never_more_than_every_five_minutes() -> None:
    periods = []
    for one_in in (6, 3, 2, 1):
        upkeep = Upkeep(table(limits.DHT_K), at(0))
        fail(upkeep, one_in=one_in)
        assert upkeep.inspection_due(at(60))
        periods.append(upkeep.bucket_seconds / limits.DHT_BUCKET_REFRESH_PERIODS)
    assert SELDOM == periods[0] > periods[1] > periods[2] >= periods[3] == OFTEN


def test_when_contacts_stop_failing_it_becomes_calm_again() -> None:
    upkeep = Upkeep(table(limits.DHT_K), at(0))
    fail(upkeep, one_in=1)
    fail(upkeep, one_in=1000)
    upkeep.inspection_due(at(60))
    assert upkeep.bucket_seconds == limits.DHT_BUCKET_REFRESH_PERIODS * SELDOM


def test_many_failures_bring_the_next_look_forward() -> None:
    upkeep = Upkeep(table(limits.DHT_K), at(0))
    assert looks(upkeep, 61) == []
    fail(upkeep, one_in=1)
    upkeep.inspection_due(at(120))
    assert upkeep.wake_at() == at(180)
    assert upkeep.inspection_due(at(540))
    assert upkeep.neighbourhood_due(at(540))


def test_a_node_that_lost_all_its_contacts_does_not_wait_for_the_end_of_a_calm_period() -> None:
    known = table(limits.DHT_K)
    upkeep = Upkeep(known, at(0))
    upkeep.inspection_due(at(60))
    for contact in known.closest(0, limits.DHT_K):
        known.drop(contact.peer)
    assert looks(upkeep, 400)[:2] == [300, 305]


def test_a_node_without_contacts_looks_around_every_five_seconds_once_it_has_noticed() -> None:
    assert looks(Upkeep(table(0), at(0)), 312) == [300, 305, 310]


def test_a_lookup_of_the_neighbourhood_for_another_cause_postpones_the_next() -> None:
    upkeep = Upkeep(table(1), at(0))
    upkeep.postpone(at(200))
    assert not upkeep.neighbourhood_due(at(200 + OFTEN - 1))
    assert upkeep.neighbourhood_due(at(200 + OFTEN))


def test_idle_buckets_are_looked_for_every_minute_and_wake_at_says_when() -> None:
    upkeep = Upkeep(table(1), at(0))
    assert upkeep.wake_at() == 60
    assert [second for second in range(200) if upkeep.inspection_due(at(second))] == [60, 120, 180]
    assert upkeep.wake_at() == 240
