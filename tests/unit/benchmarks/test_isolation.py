"""One tenant's crowd and the others, in simulated time: the gate of what `benchmarks.isolation` shows."""

import pytest

from benchmarks.isolation import Plain, isolation, overload


@pytest.mark.parametrize("load", [0.5, 0.9])
def test_a_tenant_at_100_times_its_rate_moves_the_others_p99_by_at_most_a_tenth(load: float) -> None:
    usual = isolation(load=load, factor=1, seconds=400)
    under = isolation(load=load, factor=100, seconds=400)
    assert 0 == usual.refused == under.refused
    assert under.total <= 1.1 * usual.total


def test_in_a_plain_queue_it_would_cost_them_their_answers() -> None:
    under = isolation(load=0.5, factor=100, seconds=100, line=Plain)
    assert under.refused > 100
    assert under.wait > 20


def test_ten_times_too_much_leaves_what_there_is_used_and_evenly_shared() -> None:
    it = overload(factor=10, seconds=200)
    assert it.goodput >= 0.95
    assert it.jain >= 0.95
