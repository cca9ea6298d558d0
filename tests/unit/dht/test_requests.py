"""Open queries: timeouts that follow the round trip, one more try, then the end."""

from random import Random

import pytest

from haif.base import limits
from haif.base.clock import Instant
from haif.base.ids import Digest
from haif.dht.lookup import Ask
from haif.dht.messages import Command
from haif.dht.requests import Requests, RoundTrips

HERE = ("10.0.0.1", 4000)
ASK = Ask(None, HERE, Command.PING, Digest(bytes(32)))


def at(seconds: float) -> Instant:
    return Instant(seconds)


def opened(requests: Requests, now: float = 0.0) -> bytes:
    tid = requests.fresh_tid()
    requests.opened(tid, ASK, b"query", None, at(now))
    return tid


def test_a_query_is_due_after_one_timeout_and_again_after_three() -> None:
    requests = Requests(Random(1).randbytes)
    opened(requests)
    assert requests.wake_at() == limits.DHT_RTO_SECONDS_FIRST
    assert requests.due(at(0.39)) == []
    [query] = requests.due(at(0.4))
    assert not query.resent
    requests.again(query)
    assert requests.wake_at() == limits.DHT_DROP_RTOS * limits.DHT_RTO_SECONDS_FIRST
    [query] = requests.due(at(1.3))
    assert query.resent
    requests.closed(query)
    assert requests.wake_at() is None
    assert len(requests) == 0


def test_an_answered_query_is_never_due() -> None:
    requests = Requests(Random(1).randbytes)
    query = requests.get(opened(requests))
    assert query is not None
    requests.answered(query, at(0.1))
    assert requests.due(at(9)) == []


def test_who_became_slower_than_its_timeout_is_given_a_strangers_the_next_time() -> None:
    requests = Requests(Random(1).randbytes)
    for _ in range(30):
        query = requests.get(opened(requests))
        assert query is not None
        requests.answered(query, at(0.05))
    query = requests.get(opened(requests))
    assert query is not None
    assert query.rto < 0.1
    requests.failed(query)
    again = requests.get(opened(requests))
    assert again is not None
    assert again.rto == limits.DHT_RTO_SECONDS_FIRST


def test_the_timeout_follows_the_round_trip_within_its_floor_and_cap() -> None:
    trips = RoundTrips()
    assert trips.timeout(HERE) == 0.4
    for _ in range(30):
        trips.measured(HERE, 0.001)
    assert trips.timeout(HERE) == 0.08
    for _ in range(30):
        trips.measured(HERE, 0.2)
    assert 0.2 < trips.timeout(HERE) < 0.25
    for _ in range(30):
        trips.measured(HERE, 5.0)
    assert trips.timeout(HERE) == 1.5


def test_an_address_never_heard_from_is_given_what_nearly_all_others_need() -> None:
    trips = RoundTrips()
    for number in range(limits.DHT_ROUND_TRIPS_COMPARED):
        trips.measured(("10.0.0.2", number), 0.04 + 0.001 * number)
    assert 0.1 < trips.timeout(HERE) < 0.13
    for number in range(limits.DHT_ROUND_TRIPS_COMPARED):
        trips.measured(("10.0.0.3", number), 2.0)
    assert trips.timeout(HERE) == limits.DHT_RTO_SECONDS_FIRST


def test_an_address_heard_from_once_deviates_as_the_others_do() -> None:
    trips = RoundTrips()
    trips.measured(HERE, 0.2)
    assert trips.timeout(HERE) == pytest.approx(0.6)
    trips.measured(HERE, 0.21)
    trips.measured(("10.0.0.2", 1), 0.2)
    assert trips.timeout(("10.0.0.2", 1)) == pytest.approx(0.24)


def test_no_round_trip_is_measured_on_a_query_sent_twice() -> None:
    requests = Requests(Random(1).randbytes)
    query = requests.get(opened(requests))
    assert query is not None
    requests.again(query)
    requests.answered(query, at(1.1))
    opened(requests, now=2.0)
    assert requests.wake_at() == 2.0 + limits.DHT_RTO_SECONDS_FIRST


def test_only_so_many_round_trips_are_remembered() -> None:
    trips = RoundTrips()
    for number in range(limits.DHT_ROUND_TRIPS_MAX + 100):
        trips.measured(("10.0.0.1", number), 0.001)
    assert len(trips._known) == limits.DHT_ROUND_TRIPS_MAX
