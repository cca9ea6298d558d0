"""A breaker opens on what is too much, tries again, and never lets more than a probe through meanwhile."""

from hypothesis import given
from hypothesis import strategies as st

from haif.base.clock import Instant
from haif.policy.breaker import Breaker, Position, Rules

RULES = Rules(
    in_a_row=5, window_seconds=10.0, calls_min=20, share=0.5, open_seconds=5.0, open_seconds_max=60.0, probe_seconds=1.0
)
START = Instant(100.0)


def after(seconds: float) -> Instant:
    return Instant(START + seconds)


def opened(times: int = 5) -> Breaker:
    breaker = Breaker(RULES, START)
    for _ in range(times):
        breaker = breaker.failed(START)
    return breaker


def test_five_failures_in_a_row_open_it_and_four_do_not() -> None:
    assert opened(4).position(START) is Position.CLOSED
    assert opened(5).position(START) is Position.OPEN
    assert not opened(5).allows(after(4.9))
    assert opened(4).succeeded(START).failed(START).position(START) is Position.CLOSED


def test_half_of_twenty_within_a_window_open_it() -> None:
    breaker = Breaker(RULES, START)
    for _ in range(9):
        breaker = breaker.failed(START).succeeded(START)
    later = breaker.failed(after(10.0)).succeeded(after(10.0))
    assert breaker.succeeded(START).failed(START).position(START) is Position.OPEN
    assert later.position(after(10.0)) is Position.CLOSED


def test_it_lets_a_probe_through_every_second_and_a_success_closes_it() -> None:
    now = after(5.0)
    breaker = opened()
    assert breaker.position(now) is Position.HALF_OPEN
    assert breaker.allows(now)
    breaker = breaker.tried(now)
    assert not breaker.allows(after(5.9))
    assert breaker.allows(after(6.0))
    assert breaker.succeeded(after(6.0)).position(after(6.0)) is Position.CLOSED


def test_it_stays_open_twice_as_long_after_each_probe_that_failed_up_to_a_minute() -> None:
    breaker, now, lengths = opened(), after(0.0), []
    for _ in range(6):
        assert breaker.until is not None
        lengths.append(breaker.until - now)
        now = breaker.until
        breaker = breaker.failed(now)
    assert lengths == [5.0, 10.0, 20.0, 40.0, 60.0, 60.0]


def reopened(breaker: Breaker, now: Instant) -> float:
    """For how long it opens when it does now."""
    for _ in range(RULES.in_a_row):
        breaker = breaker.failed(now)
    assert breaker.until is not None
    return breaker.until - now


def test_a_window_without_a_failure_ends_the_series() -> None:
    now = after(5.0)
    closed = opened().succeeded(now)
    assert reopened(closed, after(6.0)) == 10.0
    assert reopened(closed, after(15.0)) == 5.0


def test_calls_from_before_it_opened_change_nothing() -> None:
    breaker = opened()
    assert breaker.succeeded(after(1.0)) == breaker.failed(after(1.0)) == breaker


@given(st.lists(st.tuples(st.sampled_from(["good", "bad", "try"]), st.floats(0, 30)), max_size=60))
def test_whatever_happens_a_half_open_breaker_passes_at_most_one_call_a_second(steps: list[tuple[str, float]]) -> None:
    breaker, now = Breaker(RULES, START), START
    probes: list[Instant] = []
    for what, seconds in steps:
        now = Instant(now + seconds)
        if what != "try":
            breaker = breaker.succeeded(now) if what == "good" else breaker.failed(now)
            if breaker.position(now) is not Position.HALF_OPEN:
                probes.clear()
        elif breaker.allows(now) and breaker.position(now) is Position.HALF_OPEN:
            assert not probes or now - probes[-1] >= RULES.probe_seconds
            probes.append(now)
            breaker = breaker.tried(now)
