"""A token bucket never gives more than its capacity and its rate allow, and says when to come back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haif.base.clock import Instant
from haif.policy.bucket import Bucket

START = Instant(1000.0)


def bucket(capacity: float = 3, rate: float = 2) -> Bucket:
    return Bucket.full(capacity=capacity, rate=rate, now=START)


def test_a_full_bucket_gives_its_capacity_at_once_and_no_more() -> None:
    now, given_out = bucket(), []
    for _ in range(4):
        now, answer = now.take(1, START)
        given_out.append(answer.allowed)
    assert given_out == [True, True, True, False]


def test_a_refusal_says_when_the_same_take_succeeds() -> None:
    empty, _ = bucket().take(3, START)
    after, refused = empty.take(1, START)
    assert refused.retry_after == 0.5
    _, answer = after.take(1, Instant(START + refused.retry_after))
    assert answer.allowed


def test_a_refused_take_costs_nothing() -> None:
    empty, _ = bucket().take(2.5, START)
    after, refused = empty.take(1, START)
    assert not refused.allowed
    assert after.level == empty.level


def test_what_is_left_and_when_it_is_full_again() -> None:
    _, answer = bucket().take(1, START)
    assert (answer.remaining, answer.full_in, answer.retry_after) == (2, 0.5, 0.0)


def test_more_than_the_capacity_is_never_there() -> None:
    _, answer = bucket().take(4, START)
    assert (answer.allowed, answer.retry_after) == (False, float("inf"))


def test_time_that_runs_backwards_gives_nothing() -> None:
    empty, _ = bucket().take(3, START)
    after, answer = empty.take(1, Instant(START - 60))
    assert not answer.allowed
    assert after.updated == START


def test_a_smaller_bucket_keeps_what_fits() -> None:
    assert bucket().resized(capacity=2, rate=1, now=START).level == 2
    empty, _ = bucket().take(3, START)
    assert empty.resized(capacity=9, rate=1, now=START).level == 0


@pytest.mark.parametrize(("capacity", "rate"), [(0, 1), (1, 0), (-1, 1)])
def test_a_bucket_needs_a_capacity_and_a_rate(capacity: float, rate: float) -> None:
    with pytest.raises(ValueError, match="above zero"):
        Bucket.full(capacity=capacity, rate=rate, now=START)


@given(
    st.floats(1, 100), st.floats(0.1, 100),
    st.lists(st.tuples(st.floats(0, 10), st.floats(0.1, 5)), max_size=60),
)  # fmt: skip
def test_no_window_ever_holds_more_than_capacity_plus_what_flowed_in(
    capacity: float, rate: float, takes: list[tuple[float, float]]
) -> None:
    now, state, taken = START, bucket(capacity, rate), 0.0
    for pause, amount in takes:
        now = Instant(now + pause)
        state, answer = state.take(amount, now)
        taken += amount if answer.allowed else 0
        assert taken <= capacity + (now - START) * rate + 1e-6
        assert 0 <= state.level <= capacity
        if not answer.allowed and answer.retry_after != float("inf"):
            assert state.take(amount, Instant(now + answer.retry_after + 1e-6))[1].allowed
