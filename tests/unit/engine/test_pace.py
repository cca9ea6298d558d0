from hypothesis import given
from hypothesis import strategies as st

from haif.base import limits
from haif.engine.pace import Pace

MOST = limits.PREFILL_CHUNK_TOKENS


def taught(base: int, each: int, *, streams: int) -> Pace:
    """Steps take `base` and `each` more per token, streams' and prompts' alike."""
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
def test_beside_streams_a_step_takes_at_most_so_much_longer_or_computes_one_token(base, each, streams):
    room = taught(base, each, streams=streams).room(streams)
    alone = base + each * streams
    assert 1 <= room <= MOST
    assert room == 1 or alone + each * room <= 1.05 * limits.PREFILL_SLOWDOWN * alone
    assert room == MOST or alone + each * (room + 1) >= 0.95 * limits.PREFILL_SLOWDOWN * alone


def test_more_streams_than_ever_ran_before_are_reckoned_from_fewer():
    pace = taught(0, 1000, streams=4)
    assert pace.room(4) == 3
    assert pace.room(16) == 12


def test_a_step_that_had_to_wait_for_the_processor_does_not_count():
    pace = taught(0, 1000, streams=8)
    before = pace.room(8)
    pace.learn(8, before, 10**12)
    assert before == pace.room(8)


def test_beside_prompts_one_step_of_eight_computes_streams_alone():
    pace = taught(0, 1000, streams=8)
    pace.learn(8, 0, 8000)
    rooms = []
    for _ in range(16):
        rooms.append(pace.room(8))
        pace.learn(8, rooms[-1], 1000 * (8 + rooms[-1]))
    assert rooms == 2 * ([6] * 7 + [0])


def test_when_everything_gets_slower_prompts_keep_their_share():
    pace = taught(20_000, 1000, streams=8)
    for _ in range(200):
        room = pace.room(8)
        pace.learn(8, room, 3 * (20_000 + 1000 * (8 + room)))
    assert pace.room(8) in (0, 20, 21)
