"""Turns by tokens, weight and class: shares are kept, nobody waits for ever, and a crowd crowds out only itself."""

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haif.base.errors import Overloaded, Reason
from haif.policy.fair import Line, Place, Turns

SHARES = (8, 1)
CREDIT = 2000.0
costs = st.integers(1, 5000)
weights = st.integers(1, 16)
tenants = st.sampled_from("abcdef")
WEIGHTS = {"a": 1, "b": 2, "c": 3, "d": 5, "e": 8, "f": 16}


def place(tenant: str = "a", cost: int = 100, rank: int = 0, weight: int = 1) -> Place:
    return Place(rank, tenant, weight, cost)


def line(places_max: int = 10_000) -> Line:
    return Line(SHARES, places_max=places_max, credit=CREDIT)


@given(st.lists(st.tuples(weights, st.lists(costs, min_size=30, max_size=30)), min_size=2, max_size=6))
def test_those_who_always_wait_get_their_weights_share(tenants: list[tuple[int, list[int]]]) -> None:
    waiting = line()
    for number, (weight, theirs) in enumerate(tenants):
        for cost in theirs:
            waiting.join(place(str(number), cost, weight=weight))
    got = Counter[str]()
    left = Counter({str(number): 30 for number in range(len(tenants))})
    while all(left.values()):
        called = waiting.call()
        got[called.tenant] += called.cost
        left[called.tenant] -= 1
        if not all(left.values()):
            break
        for one, (weight_one, costs_one) in enumerate(tenants):
            for other, (weight_other, costs_other) in enumerate(tenants):
                apart = got[str(one)] / weight_one - got[str(other)] / weight_other
                assert apart <= max(costs_one) / weight_one + max(costs_other) / weight_other + 1e-6


@given(st.lists(st.tuples(st.sampled_from([0, 1]), costs), min_size=60, max_size=60), st.integers(1, 30))
def test_classes_share_by_weight_however_many_tenants_each_has(asked: list[tuple[int, int]], crowd: int) -> None:
    waiting = line()
    left = Counter[int]()
    for number, (rank, cost) in enumerate(asked):
        waiting.join(place(str(number % crowd) if rank else "one", cost, rank))
        left[rank] += 1
    got = Counter[int]()
    most = {rank: max((cost for each, cost in asked if each == rank), default=0) for rank in (0, 1)}
    while left[0] and left[1]:
        called = waiting.call()
        got[called.rank] += called.cost
        left[called.rank] -= 1
        if left[0] and left[1]:
            apart = abs(got[0] / SHARES[0] - got[1] / SHARES[1])
            assert apart <= most[0] / SHARES[0] + most[1] / SHARES[1] + 1e-6


@given(st.integers(0, 2**32), st.integers(1, 8), st.sampled_from([0, 1]))
def test_nobody_waits_for_ever_whatever_others_ask_for(seed: int, crowd: int, rank: int) -> None:
    """The others always have something waiting, in both classes, with any weight up to 16 times ours."""
    random, waiting = Random(seed), line()

    def another(number: int) -> Place:
        return place(str(number), random.randint(1, 1000), number % 2, random.randint(1, 16))

    for number in range(crowd):
        waiting.join(another(number))
    for _ in range(random.randint(0, 50)):
        waiting.join(another(int(waiting.call().tenant)))
    ours = place("ours", 1000, rank)
    waiting.join(ours)
    served = 0
    while (called := waiting.call()) is not ours:
        served += called.cost
        waiting.join(another(int(called.tenant)))
        assert served < (crowd + 2) * 2000 * 16 * sum(SHARES)


@given(st.lists(st.tuples(tenants, costs), min_size=1, max_size=100), st.integers(1, 100))
def test_who_asks_seldom_waits_for_no_backlog(asked: list[tuple[str, int]], served: int) -> None:
    waiting = line()
    for tenant, cost in asked:
        waiting.join(place(tenant, cost, weight=WEIGHTS[tenant]))
    for _ in range(min(served, len(asked) - 1)):
        waiting.call()
    seldom = place("seldom", 5000)
    others = len({tenant for tenant, _ in asked})
    waiting.join(seldom)
    called = [waiting.call() for _ in range(min(others + 1, len(waiting)))]
    assert seldom in called, "one of each other tenant at most goes before"


@given(st.data())
def test_everybody_is_called_once_or_left_and_each_tenants_in_order(data: st.DataObject) -> None:
    waiting = line()
    model: list[Place] = []
    for _ in range(data.draw(st.integers(0, 60))):
        do = data.draw(st.sampled_from(["join", "join", "call", "leave", "settle"]))
        if do == "join":
            tenant = data.draw(tenants)
            model.append(place(tenant, data.draw(costs), data.draw(st.sampled_from([0, 1])), WEIGHTS[tenant]))
            assert waiting.join(model[-1]) is None
        elif do == "call" and model:
            called = waiting.call()
            assert called is next(each for each in model if (each.rank, each.tenant) == (called.rank, called.tenant))
            model.remove(called)
        elif do == "leave" and model:
            waiting.leave(model.pop(data.draw(st.integers(0, len(model) - 1))))
        elif do == "settle" and model:
            waiting.settle(model[0], data.draw(st.integers(0, 6000)))
        assert len(model) == len(waiting)
    assert set(map(id, model)) == {id(waiting.call()) for _ in range(len(model))}


def test_a_crowd_crowds_out_only_itself() -> None:
    waiting = line(places_max=10)
    crowd = [place("crowd") for _ in range(9)]
    for each in [*crowd, place("small")]:
        assert waiting.join(each) is None
    with pytest.raises(Overloaded) as caught:
        waiting.join(place("crowd"))
    assert Reason.OVERLOADED is caught.value.reason
    assert crowd[-1] is waiting.join(place("small"))
    assert crowd[-2] is waiting.join(place("other"))
    assert 10 == len(waiting)
    assert crowd[-3] is waiting.join(place("heavy", weight=4)), "more weight, more places"


def test_what_was_charged_and_not_used_is_given_back_and_no_more() -> None:
    given_back, kept = line(), line()
    for waiting in (given_back, kept):
        for tenant in ("a", "b"):
            for _ in range(10):
                waiting.join(place(tenant, 1000))
        first = waiting.call()
        assert "a" == first.tenant
        if waiting is given_back:
            waiting.settle(first, 0)
    assert ["a", "b", "a", "b"] == [given_back.call().tenant for _ in range(4)]
    assert ["b", "a", "b", "a"] == [kept.call().tenant for _ in range(4)]


def test_how_many_go_before_is_told_by_shares() -> None:
    waiting = line()
    for _ in range(100):
        waiting.join(place("crowd"))
        waiting.join(place("batch", rank=1))
    assert 1 == waiting.ahead(place("new")), "one of the crowd; batches once in eight"
    assert 102 <= waiting.ahead(place("crowd")) <= 114
    assert 9 <= waiting.ahead(place("new", rank=1)) <= 18


def test_turns_remember_no_more_than_those_who_still_owe() -> None:
    turns = Turns[int](0.0)
    for key in range(10_000):
        turns.wait(key)
        turns.wait(-1)
        turns.served(turns.first(), 1.0, more=False)
        turns.served(turns.first(), 1.0, more=False)
    assert len(turns._ends) < 1000
    assert len(turns._order) < 1000
