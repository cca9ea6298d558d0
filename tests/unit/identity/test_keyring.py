"""Keys on disk belong to one user and are never overwritten."""

import os
import stat
from pathlib import Path

import pytest

from haif.base.errors import Misuse, Reason
from haif.identity.service import Keyring


def test_a_key_comes_back_as_it_was_made(tmp_path: Path) -> None:
    ring = Keyring(tmp_path / "keys")
    made = ring.create("worker", os.urandom)
    assert ring.load("worker").peer == made.peer
    assert ring.load_or_create("worker", os.urandom).peer == made.peer
    assert ring.names() == ["worker"]


def test_the_file_is_readable_by_its_owner_alone(tmp_path: Path) -> None:
    ring = Keyring(tmp_path / "keys")
    ring.create("worker", os.urandom)
    assert stat.S_IMODE(ring.path("worker").stat().st_mode) == 0o600
    assert stat.S_IMODE(ring.folder.stat().st_mode) == 0o700


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_key_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    ring = Keyring(tmp_path)
    ring.create("worker", os.urandom)
    ring.path("worker").chmod(mode)
    with pytest.raises(Misuse, match="chmod 600") as caught:
        ring.load("worker")
    assert caught.value.reason is Reason.MISUSE


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    ring = Keyring(tmp_path)
    ring.create("worker", os.urandom)
    with pytest.raises(Misuse, match="never overwrites"):
        ring.create("worker", os.urandom)


def test_a_missing_or_damaged_key_says_what_to_do(tmp_path: Path) -> None:
    ring = Keyring(tmp_path)
    with pytest.raises(Misuse, match="haif keys new worker"):
        ring.load("worker")
    ring.create("worker", os.urandom)
    ring.path("worker").write_text("not hex")
    with pytest.raises(Misuse, match="hex digits"):
        ring.load("worker")
