"""Conditions and faults as values: each does what its name says, as often as it says, and for as long."""

from itertools import pairwise
from math import inf
from random import Random
from statistics import mean

import pytest

from haif.base.clock import Instant
from haif.base.machine import Address
from haif.testing.net import Bursts, Conditions, Fault, Links, clog, one_way, partition

A: Address = ("10.0.0.1", 1)
B: Address = ("10.0.1.1", 1)
C: Address = ("10.0.2.1", 1)
STEADY = Conditions(delay_min=0.01, delay_max=0.01, jitter=0)


def links(conditions: Conditions = STEADY, *faults: Fault) -> Links:
    return Links(Random(1), "1", conditions, list(faults))


def count(many: Links, source: Address, destination: Address, *, datagrams: int = 1000, apart: float = 0.0) -> int:
    return sum(len(many.arrivals(source, destination, Instant(n * apart))) for n in range(datagrams))


@pytest.mark.parametrize(("name", "low", "high"), [("loss", 850, 950), ("duplication", 1050, 1150)])
def test_loss_and_duplication_are_as_frequent_as_told(name: str, low: int, high: int) -> None:
    assert low <= count(links(Conditions(**{name: 0.1})), A, B) <= high


def test_a_link_keeps_its_delay_in_both_directions_and_another_has_another() -> None:
    many = links(Conditions(jitter=0))
    (there,), (back,), (elsewhere,) = (many.arrivals(*pair, Instant(0)) for pair in ((A, B), (B, A), (A, C)))
    assert there == back
    assert there != elsewhere
    assert 0.005 <= there <= 0.085


def test_the_delays_of_links_are_spread_evenly() -> None:
    many = links(Conditions(delay_min=0, delay_max=1, jitter=0))
    hosts = [(f"10.0.{n}.1", 1) for n in range(60)]
    delays = [many.arrivals(a, b, Instant(0))[0] for a in hosts for b in hosts if a < b]
    assert mean(delays) == pytest.approx(0.5, abs=0.05)
    assert mean(delay < 0.25 for delay in delays) == pytest.approx(0.25, abs=0.05)


def test_jitter_comes_on_top_with_the_mean_told() -> None:
    many = links(Conditions(delay_min=0.01, delay_max=0.01, jitter=0.02))
    assert mean(many.arrivals(A, B, Instant(0))[0] for _ in range(5000)) == pytest.approx(0.03, abs=0.002)


def test_bursts_lose_the_share_they_should_and_in_runs() -> None:
    bursts = Bursts(good_seconds=9, bad_seconds=1, loss=1.0)
    many = links(Conditions(bursts=bursts))
    lost = [not many.arrivals(A, B, Instant(n / 10)) for n in range(50_000)]
    after_a_loss = [now for before, now in pairwise(lost) if before]
    assert mean(lost) == pytest.approx(0.1, abs=0.02)
    assert mean(after_a_loss) == pytest.approx(bursts.bad_after(True, 0.1), abs=0.02)


def test_the_past_of_a_burst_is_forgotten_in_the_long_run() -> None:
    bursts = Bursts(good_seconds=9, bad_seconds=1)
    assert bursts.bad_after(True, 0.0) == pytest.approx(1.0)
    assert bursts.bad_after(False, 0.0) == pytest.approx(0.0)
    assert bursts.bad_after(True, 1e6) == pytest.approx(bursts.bad_share)


def test_a_partition_cuts_both_ways_spares_the_inside_and_heals() -> None:
    many = links(STEADY, partition([A, B], begins=10, ends=20))
    assert [len(many.arrivals(A, C, Instant(t))) for t in (9, 10, 19, 20)] == [1, 0, 0, 1]
    assert many.arrivals(C, A, Instant(15)) == []
    assert len(many.arrivals(A, B, Instant(15))) == 1


def test_an_asymmetric_link_is_bad_one_way_only() -> None:
    many = links(STEADY, one_way([A], Conditions(loss=1.0)))
    assert count(many, A, B) == 0
    assert count(many, B, A) == 1000


def test_a_clogged_link_holds_everything_and_then_releases_it() -> None:
    many = links(STEADY, clog([A], begins=5, ends=8))
    assert many.arrivals(A, B, Instant(4)) == [pytest.approx(4.01)]
    assert many.arrivals(A, B, Instant(5)) == [pytest.approx(8.01)]
    assert many.arrivals(B, A, Instant(7.5)) == [pytest.approx(8.01)]
    assert many.arrivals(B, C, Instant(6)) == [pytest.approx(6.01)]


def test_of_two_faults_on_one_link_the_last_holds() -> None:
    bad, good = one_way([A], Conditions(loss=1.0)), Fault(destinations=frozenset([B]), conditions=STEADY)
    assert count(links(STEADY, bad, good), A, B) == 1000
    assert count(links(STEADY, bad, good), A, C) == 0


def test_a_fault_without_conditions_of_its_own_leaves_those_that_hold() -> None:
    many = links(Conditions(loss=1.0), Fault(begins=0, ends=inf))
    assert count(many, A, B) == 0


def test_one_seed_is_one_fate_and_another_salt_other_delays() -> None:
    hard = Conditions(loss=0.2, duplication=0.2, reordering=0.2, bursts=Bursts())
    several = [Links(Random(1), salt, hard) for salt in ("1", "1", "2")]
    fates = [[many.arrivals(A, B, Instant(n)) for n in range(50)] for many in several]
    assert fates[0] == fates[1]
    assert fates[0] != fates[2]
