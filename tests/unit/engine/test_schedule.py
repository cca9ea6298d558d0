from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from haif.engine.schedule import Work, schedule, share, victim


@dataclass
class Demand:
    computed: int
    wanted: int


def test_running_answers_go_before_prompts_and_a_short_prompt_does_not_wait_for_a_long_one():
    sequences = [Demand(0, 300), Demand(10, 11), Demand(0, 40), Demand(7, 8)]
    expected = [Work(1, 10, 1), Work(3, 7, 1), Work(0, 0, 216), Work(2, 0, 40)]
    assert expected == schedule(sequences, batch_tokens_max=264, prefill_tokens_max=256)


@given(st.lists(st.integers(1, 700), max_size=12), st.integers(0, 300))
def test_prompts_use_all_the_room_they_need_and_the_oldest_at_least_half_of_it(missing, room):
    chunks = share(missing, room)
    assert sum(chunks) == min(room, sum(missing))
    assert all(0 <= chunk <= most for chunk, most in zip(chunks, missing, strict=True))
    assert not missing or chunks[0] >= min(missing[0], room // 2)


def test_the_shortest_of_the_others_comes_next():
    assert share([500, 90, 10, 90], 100) == [50, 40, 10, 0]
    assert share([20, 90, 10, 90], 100) == [20, 70, 10, 0]


def test_the_last_chunk_of_a_prompt_leaves_room_for_the_next_prompt():
    sequences = [Demand(256, 300), Demand(0, 400)]
    expected = [Work(0, 256, 44), Work(1, 0, 212)]
    assert expected == schedule(sequences, batch_tokens_max=264, prefill_tokens_max=256)


def test_nothing_to_do_gives_nothing():
    assert [] == schedule([Demand(5, 5)], batch_tokens_max=8, prefill_tokens_max=8)


demands = st.lists(st.builds(Demand, st.integers(0, 50), st.integers(0, 700)), max_size=12).map(
    lambda found: [d for d in found if d.computed <= d.wanted]
)


@given(demands, st.integers(1, 300), st.integers(1, 256))
def test_every_plan_is_bounded_contiguous_and_makes_progress(sequences, batch, prefill):
    plan = schedule(sequences, batch_tokens_max=batch, prefill_tokens_max=prefill)
    assert sum(work.length for work in plan) <= batch
    assert sum(work.length for work in plan if work.length > 1) <= prefill
    assert len({work.place for work in plan}) == len(plan)
    for work in plan:
        demand = sequences[work.place]
        assert work.start == demand.computed
        assert 0 < work.length <= demand.wanted - demand.computed
    assert bool(plan) == any(demand.computed < demand.wanted for demand in sequences)


@given(demands, st.integers(1, 300))
def test_computed_tokens_catch_up_with_the_tokens_there_are(sequences, batch):
    for _ in range(sum(d.wanted for d in sequences) + 1):
        for work in schedule(sequences, batch_tokens_max=batch, prefill_tokens_max=batch):
            sequences[work.place].computed += work.length
    assert all(demand.computed == demand.wanted for demand in sequences)


@given(demands, st.integers(1, 256))
def test_whoever_is_one_token_behind_is_in_every_step_that_has_a_place_for_each(sequences, prefill):
    plan = schedule(sequences, batch_tokens_max=len(sequences) + prefill, prefill_tokens_max=prefill)
    behind = {place for place, demand in enumerate(sequences) if demand.wanted - demand.computed == 1}
    assert behind <= {work.place for work in plan}


@dataclass(frozen=True)
class Member:
    number: int
    scope: bytes


@given(st.lists(st.sampled_from([b"", b"a", b"b"]), min_size=2, max_size=8))
def test_the_victim_is_young_and_of_a_busy_tenant_and_never_the_oldest(scopes):
    members = [Member(number, scope) for number, scope in enumerate(scopes)]
    chosen = victim(members[::-1])
    assert chosen.number > 0
    rivals = [each for each in members[1:] if scopes.count(each.scope) == scopes.count(chosen.scope)]
    assert chosen == rivals[-1]
    assert scopes.count(chosen.scope) == max(scopes.count(scope) for scope in scopes[1:])
