"""Retries are a share of what is asked for; waiting is spread over the whole interval."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haif.base.clock import Instant
from haif.policy.backoff import full_jitter
from haif.policy.budget import RetryBudget

START = Instant(10.0)


def budget(rate: float = 0.0) -> RetryBudget:
    return RetryBudget.full(share=0.125, rate=rate, most=5.0, now=START)


def test_eight_requests_buy_one_retry_where_an_eighth_is_allowed() -> None:
    left = budget()
    while left.has_one(START):
        left = left.retried(START)
    for count in range(8):
        assert left.has_one(START) == (count >= 8)
        left = left.asked(START)
    assert left.has_one(START)
    assert not left.retried(START).has_one(START)


def test_some_a_second_are_free() -> None:
    left = budget(rate=2.0)
    for _ in range(5):
        left = left.retried(START)
    assert not left.has_one(START)
    assert left.has_one(Instant(START + 0.5))


@given(st.lists(st.booleans(), max_size=400))
def test_an_outage_is_amplified_by_that_share_and_no_more(asked: list[bool]) -> None:
    left, requests, retries = budget(), 0, 0
    for request in asked:
        if request:
            requests, left = requests + 1, left.asked(START)
        elif left.has_one(START):
            retries, left = retries + 1, left.retried(START)
    assert retries <= 5 + 0.125 * requests + 1e-9


@pytest.mark.parametrize(("tries", "bound"), [(1, 0.1), (2, 0.2), (4, 0.8), (5, 1.0), (99, 1.0)])
def test_who_failed_waits_anything_up_to_a_bound_that_doubles(tries: int, bound: float) -> None:
    waits = [
        full_jitter(tries, lambda count, each=each: each * count, first=0.1, most=1.0) for each in (b"\0", b"\xff")
    ]
    assert waits == [0.0, pytest.approx(bound)]


def test_who_never_failed_does_not_wait() -> None:
    with pytest.raises(ValueError, match="never failed"):
        full_jitter(0, bytes, first=1.0, most=1.0)
