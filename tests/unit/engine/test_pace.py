from hypothesis import given
from hypothesis import strategies as st

from haif.base import limits
from haif.engine.pace import Pace

LEAST, MOST = limits.PREFILL_CHUNK_TOKENS_MIN, limits.PREFILL_CHUNK_TOKENS


def taught(base: int, each: int, *, streams: int) -> Pace:
    """Steps cost `base` and `each` more per token, streams' and prompts' alike."""
    pace = Pace()
    pace.learn(0, MOST, base + each * MOST)
    for _ in range(50):
        pace.learn(streams, 0, base + each * streams)
        room = pace.room(streams)
        pace.learn(streams, room, base + each * (streams + room))
    return pace


def test_with_nobody_to_wait_a_chunk_is_as_large_as_it_may_be():
    assert taught(1000, 10, streams=8).room(0) == MOST
    assert Pace().room(0) == Pace().room(8) == MOST


@given(st.integers(0, 10**9), st.integers(1, 10**8), st.integers(1, 64))
def test_beside_streams_a_step_takes_at_most_so_much_more_or_computes_a_few_tokens(base, each, streams):
    room = taught(base, each, streams=streams).room(streams)
    alone = base + each * streams
    assert LEAST <= room <= MOST
    assert room == LEAST or alone + each * room <= 1.05 * limits.PREFILL_SLOWDOWN * alone
    assert room == MOST or alone + each * (room + 1) >= 0.95 * limits.PREFILL_SLOWDOWN * alone


def test_more_streams_than_ever_ran_before_are_reckoned_from_fewer():
    pace = taught(0, 1000, streams=4)
    assert pace.room(4) == LEAST
    assert pace.room(16) == 12


def test_one_step_that_cost_far_more_than_others_does_not_count():
    pace = taught(0, 1000, streams=8)
    before = pace.room(8)
    pace.learn(8, before, 10**12)
    assert before == pace.room(8)


def test_beside_prompts_one_step_of_eight_computes_streams_alone():
    pace = taught(0, 1000, streams=16)
    pace.learn(16, 0, 16_000)
    rooms = []
    for _ in range(16):
        rooms.append(pace.room(16))
        pace.learn(16, rooms[-1], 1000 * (16 + rooms[-1]))
    assert 2 * ([12] * 7 + [0]) == rooms


def test_where_streams_and_prompts_are_computed_apart_no_step_leaves_prompts_out():
    pace = taught(0, 1000, streams=16)
    for _ in range(16):
        pace.learn(16, 0, 16_000)
        assert 12 == pace.room(16)
        pace.learn(0, 12, 12_000)


def test_when_everything_gets_slower_prompts_keep_their_share():
    pace = taught(20_000, 1000, streams=8)
    for _ in range(200):
        room = pace.room(8)
        pace.learn(8, room, 3 * (20_000 + 1000 * (8 + room)))
    assert pace.room(8) in (0, 20, 21)


def test_where_many_wait_and_few_run_prompts_get_more():
    pace = taught(0, 1000, streams=16)
    assert (12, 48, MOST) == (pace.room(16), pace.room(16, 4), pace.room(16, 40))
