"""Models that kill their children are kept apart, for longer each time."""

from itertools import pairwise

import pytest

from haif.base import limits
from haif.base.clock import WallTime
from haif.base.errors import Malformed
from haif.base.ids import ModelDigest
from haif.worker.quarantine import Case, Quarantine, load_quarantine

A, B = ModelDigest(b"a" * 32), ModelDigest(b"b" * 32)
NOW = WallTime(1_700_000_000_000)


def later(milliseconds: float) -> WallTime:
    return WallTime(NOW + int(milliseconds))


def test_one_death_while_loading_is_enough_and_has_its_cause() -> None:
    kept = Quarantine()
    case = kept.died(A, "SIGABRT", NOW, loading=True)
    assert Case(cause="SIGABRT", times=1, since=NOW, until=NOW + limits.QUARANTINE_MS_MIN) == case
    assert (case, None) == (kept.held(A, NOW), kept.held(B, NOW))
    assert kept.held(A, later(limits.QUARANTINE_MS_MIN)) is None


def test_a_running_model_is_kept_apart_when_it_died_too_often_within_the_window() -> None:
    kept = Quarantine()
    for n in range(limits.QUARANTINE_DEATHS - 1):
        assert kept.died(A, "SIGSEGV", later(n), loading=False) is None
    assert kept.died(B, "SIGSEGV", NOW, loading=False) is None
    assert kept.died(A, "SIGSEGV", later(9), loading=False) is not None


def test_deaths_that_are_far_apart_do_not_add_up() -> None:
    kept = Quarantine()
    for n in range(10 * limits.QUARANTINE_DEATHS):
        assert kept.died(A, "SIGSEGV", later(n * limits.QUARANTINE_WINDOW_MS), loading=False) is None


def test_the_pause_doubles_up_to_a_bound_and_begins_anew_after_a_good_trial() -> None:
    kept, now, pauses = Quarantine(), NOW, []
    for _ in range(20):
        case = kept.died(A, "x", now, loading=True)
        assert case is not None
        pauses.append(case.until - case.since)
        now = WallTime(case.until)
    assert limits.QUARANTINE_MS_MIN == pauses[0]
    assert all(after == min(2 * before, limits.QUARANTINE_MS_MAX) for before, after in pairwise(pauses))
    assert limits.QUARANTINE_MS_MAX == pauses[-1]
    well = kept.died(A, "x", WallTime(now + limits.QUARANTINE_TRIAL_MS + 1), loading=True)
    assert well is not None
    assert 1 == well.times


def test_a_person_releases_a_model_with_its_record() -> None:
    kept = Quarantine()
    kept.died(A, "x", NOW, loading=True)
    assert kept.release(A)
    assert not kept.release(A)
    assert kept.held(A, NOW) is None
    assert 1 == kept.died(A, "x", NOW, loading=True).times  # type: ignore[union-attr]


def test_the_record_outlives_the_worker_and_forgets_what_is_long_over() -> None:
    kept = Quarantine()
    case = kept.died(A, "it tried system call 41 (socket) " * 100, NOW, loading=True)
    assert case is not None
    assert limits.QUARANTINE_CAUSE_CHARS_MAX == len(case.cause)
    again = load_quarantine(kept.dump(), NOW)
    assert case == again.held(A, NOW)
    assert (
        b"{}" == load_quarantine(kept.dump(), later(limits.QUARANTINE_MS_MIN + limits.QUARANTINE_TRIAL_MS + 1)).dump()
    )


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"{", b'{"a": {}}', b'{"aa": 1}', b"\xff", b'{"%s": {"cause": 1}}' % (b"a" * 64)]
)
def test_a_damaged_record_is_malformed(raw: bytes) -> None:
    with pytest.raises(Malformed):
        load_quarantine(raw, NOW)


def test_a_record_that_no_worker_writes_is_malformed() -> None:
    many = Quarantine(
        {ModelDigest(n.to_bytes(32, "big")): Case(cause="", times=1, since=0, until=NOW) for n in range(99)}
    )
    with pytest.raises(Malformed, match="longer"):
        load_quarantine(many.dump(), NOW)
