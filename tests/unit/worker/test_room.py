"""Who leaves memory for whom."""

import pytest

from haif.base.clock import Instant
from haif.base.errors import Overloaded
from haif.base.ids import ModelDigest
from haif.worker.room import Resident, leaving

A, B, C = (ModelDigest(letter * 32) for letter in (b"a", b"b", b"c"))


def resident(model: ModelDigest, used: float, *, size: int = 10, idle: bool = True, pinned: bool = False) -> Resident:
    return Resident(model, size, idle, pinned, Instant(used))


def test_nobody_leaves_while_there_is_room() -> None:
    assert () == leaving([resident(A, 1), resident(B, 2)], 10, 30)


def test_the_least_recently_used_leaves_first_and_no_more_than_must() -> None:
    assert (B,) == leaving([resident(A, 3), resident(B, 1), resident(C, 2)], 10, 30)
    assert (B, C) == leaving([resident(A, 3), resident(B, 1), resident(C, 2)], 20, 30)


def test_an_idle_model_leaves_before_one_at_work_that_was_used_earlier() -> None:
    assert (B,) == leaving([resident(A, 1, idle=False), resident(B, 2)], 10, 20)
    assert (B, A) == leaving([resident(A, 1, idle=False), resident(B, 2)], 20, 20)


def test_a_pinned_model_never_leaves() -> None:
    assert (B,) == leaving([resident(A, 1, pinned=True), resident(B, 2)], 10, 20)
    with pytest.raises(Overloaded, match="pinned"):
        leaving([resident(A, 1, pinned=True)], 11, 20)
