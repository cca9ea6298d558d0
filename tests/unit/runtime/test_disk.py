"""Files are private, whole, and have one owner."""

import stat
from pathlib import Path

import pytest

from haif.base.errors import Misuse
from haif.runtime import disk


def test_a_private_file_is_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    disk.write_private(path, b"one")
    disk.write_private(path, b"two")
    assert disk.read_private(path) == b"two"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in path.parent.iterdir()] == ["file"]


def test_a_lock_has_one_owner_and_is_free_afterwards(tmp_path: Path) -> None:
    with (
        disk.owned(tmp_path / "lock", "the mesh"),
        pytest.raises(Misuse, match="already running"),
        disk.owned(tmp_path / "lock", "the mesh"),
    ):
        pass
    with disk.owned(tmp_path / "lock", "the mesh"):
        pass
