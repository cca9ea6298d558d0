"""Events survive the journal, byte for byte, for ever."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haif.base.errors import Malformed
from haif.base.hashing import digest
from haif.base.ids import Digest, JobId, ModelDigest, PeerId, Seed
from haif.base.tasks import Task
from haif.orchestrator import events
from haif.orchestrator.events import (
    AttemptFailed,
    AttemptKept,
    AttemptReserved,
    JobArrived,
    JobFailed,
    JobFinalised,
    JobKept,
    JobLeft,
    JobSubmitted,
    LotteryRevealed,
    PanelRuled,
    PauseOrdered,
    StateKept,
    VerdictGiven,
)


def ids(kind: type) -> st.SearchStrategy:
    return st.binary(min_size=kind.size, max_size=kind.size).map(kind)


COUNT = st.integers(0, (1 << 64) - 1)
TEXT = st.text(max_size=40)
SEED = st.none() | st.integers(-(1 << 63), (1 << 63) - 1)
ANY_EVENT = st.one_of(
    st.builds(
        JobSubmitted, ids(JobId), ids(PeerId), TEXT, TEXT, ids(ModelDigest), ids(Digest), COUNT, SEED, ids(Seed),
        st.binary(max_size=80), COUNT, COUNT, TEXT,
    ),
    st.builds(
        AttemptReserved, ids(JobId), COUNT, ids(PeerId), TEXT, COUNT, st.binary(max_size=600), ids(Digest), COUNT,
        COUNT, COUNT,
    ),
    st.builds(AttemptFailed, ids(JobId), COUNT, TEXT, COUNT),
    st.builds(JobFinalised, ids(JobId), COUNT, COUNT, st.binary(max_size=900), st.binary(max_size=300), COUNT,
              COUNT),
    st.builds(VerdictGiven, ids(JobId), ids(PeerId), ids(PeerId), TEXT, TEXT, st.binary(max_size=600), COUNT),
    st.builds(LotteryRevealed, ids(PeerId), COUNT, st.binary(max_size=80), COUNT),
    st.builds(PanelRuled, ids(JobId), ids(PeerId), TEXT, st.binary(max_size=600), st.tuples(ids(PeerId)), COUNT),
    st.builds(JobFailed, ids(JobId), TEXT, COUNT),
    st.builds(StateKept, COUNT, COUNT, ids(Digest), COUNT),
    st.builds(JobLeft, ids(JobId), ids(PeerId), COUNT),
    st.builds(PauseOrdered, TEXT, TEXT, st.booleans(), TEXT, TEXT, COUNT),
)  # fmt: skip

JOB = JobId(bytes(range(16)))
ARRIVED = JobKept(
    JOB, PeerId(b"g" * 32), "ada", "tiny", ModelDigest(b"m" * 32), Digest(b"r" * 32), 16, -1, Seed(b"s" * 32), b"p", 9,
    "none", "verifiable", Task.TEXT, "reserved",
    [AttemptKept(1, PeerId(b"w" * 32), "127.0.0.1", 4000, b"sealed", Digest(b"d" * 32), 8, 3, 2, "timeout")],
    "", b"", b"", 7, 0, [], PeerId(b"o" * 32),
)  # fmt: skip
GOLDEN = {
    JobSubmitted(
        job=JOB, gateway=PeerId(b"g" * 32), tenant="ada", model="tiny", model_digest=ModelDigest(b"m" * 32),
        request_digest=Digest(b"r" * 32), tokens_max=16, tenant_seed=-1, seed=Seed(b"s" * 32), seed_proof=b"p",
        deadline=9, at=1,
    ): (
        "019fc410000102030405060708090a0b0c0d0e0fc42067676767676767676767676767676767676767676767676767676767"
        "67676767a3616461a474696e79c4206d6d6d6d6d6d6d6d6d6d6d6d6d6d6d6d6d6d6d6d6d6d6d6d6d6d6d6d6d6d6d6dc42072"
        "7272727272727272727272727272727272727272727272727272727272727210ffc420737373737373737373737373737373"
        "7373737373737373737373737373737373c401700901a46e6f6e65aa76657269666961626c65aa636f6d706c6574696f6e"
    ),
    AttemptReserved(JOB, 1, PeerId(b"w" * 32), "127.0.0.1", 4000, b"sealed", Digest(b"d" * 32), 8, 3, 2): (
        "029ac410000102030405060708090a0b0c0d0e0f01c420777777777777777777777777777777777777777777777777777777"
        "7777777777a93132372e302e302e31cd0fa0c4067365616c6564c42064646464646464646464646464646464646464646464"
        "64646464646464646464080302"
    ),
    AttemptFailed(JOB, 1, "timeout", 3): "0394c410000102030405060708090a0b0c0d0e0f01a774696d656f757403",
    JobFinalised(JOB, 2, 7, b"receipt", b"hand", 4, 50): (
        "0497c410000102030405060708090a0b0c0d0e0f0207c40772656365697074c40468616e640432"
    ),
    VerdictGiven(JOB, PeerId(b"v" * 32), PeerId(b"w" * 32), "convicted", "tokens", b"sealed", 7): (
        "0797c410000102030405060708090a0b0c0d0e0fc420" + "76" * 32 + "c420" + "77" * 32
        + "a9636f6e766963746564a6746f6b656e73c4067365616c656407"
    ),
    LotteryRevealed(PeerId(b"v" * 32), 9, b"proof", 8): "0894c420" + "76" * 32 + "09c40570726f6f6608",
    PanelRuled(JOB, PeerId(b"w" * 32), "honest", b"sealed", (PeerId(b"v" * 32),), 7): (
        "0b96c410000102030405060708090a0b0c0d0e0fc420" + "77" * 32 + "a6686f6e657374c4067365616c656491c420"
        + "76" * 32 + "07"
    ),
    StateKept(7, 2, Digest(b"d" * 32), 6): (
        "06940702c420" + "64" * 32 + "06"
    ),
    JobLeft(JOB, PeerId(b"h" * 32), 7): "0993c410000102030405060708090a0b0c0d0e0fc420" + "68" * 32 + "07",
    PauseOrdered("model", "tiny", paused=True, reason="leak", by="ada", at=9): (
        "0c96a56d6f64656ca474696e79c3a46c65616ba361646109"
    ),
    JobFailed(JOB, "cancelled", 5): ("0593c410000102030405060708090a0b0c0d0e0fa963616e63656c6c656405"),
}  # fmt: skip


@given(ANY_EVENT)
def test_an_event_comes_back_as_it_went(event: events.Entry) -> None:
    assert events.decode(events.encode(event)) == event


@pytest.mark.parametrize("event", GOLDEN, ids=lambda event: type(event).__name__)
def test_the_bytes_of_an_event_never_change(event: events.Entry) -> None:
    assert GOLDEN[event] == events.encode(event).hex()


def test_the_bytes_of_a_job_that_moves_never_change() -> None:
    event = JobArrived(JOB, PeerId(b"l" * 32), ARRIVED, 8)
    assert ("76047479335913251c6c7fab1822534a558880b089f3c5829be5b7ecb3f3d0ea") == digest(
        "test", events.encode(event)
    ).hex()
    assert events.decode(events.encode(event)) == event


@pytest.mark.parametrize("entry", [b"", b"\x00\x90", b"\x06\x90", b"\x05", b"\x05\x93", b"\x05\x90\x00"])
def test_what_is_no_event_is_refused(entry: bytes) -> None:
    with pytest.raises(Malformed):
        events.decode(entry)


@given(st.binary(max_size=80))
def test_random_bytes_are_an_event_or_refused(entry: bytes) -> None:
    with suppress(Malformed):
        events.decode(entry)
