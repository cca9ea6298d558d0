"""Files as HAIF keeps them: private, written whole or not at all, and locked by one owner at a time."""

from __future__ import annotations

import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from haif.base.errors import Misuse

PRIVATE_FILE = 0o600
PRIVATE_FOLDER = 0o700


def private_folder(path: Path) -> Path:
    """Make the folder, readable by its owner only, unless it is there; return it."""
    path.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
    return path


def write_private(path: Path, content: bytes) -> None:
    """Write a file of mode 0600, whole or not at all, durable when this returns."""
    private_folder(path.parent)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink()
        raise


def remove(path: Path) -> None:
    """Delete a file, durably when this returns."""
    path.unlink()
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read_private(path: Path) -> bytes:
    """The content of a file that only its owner may read. Raises `Misuse` when others may, `FileNotFoundError`."""
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        mode = stat.S_IMODE(status.st_mode)
        if mode & 0o077:
            raise Misuse(
                f"{path} can be read by others (mode {mode:04o}), so its secret may be known. "
                f"If you are sure it is not, run: chmod 600 {path}"
            )
        if status.st_uid != os.geteuid():
            raise Misuse(f"{path} belongs to user {status.st_uid}; HAIF uses only secrets of the user it runs as")
        return file.read()


@contextmanager
def owned(path: Path, what: str) -> Iterator[None]:
    """Hold the lock file at `path`. The lock goes with the process, however it ends. Raises `Misuse` if it is held."""
    private_folder(path.parent)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE_FILE)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Misuse(
                f"{what} is already running with the state in {path.parent}; stop it, or use --state"
            ) from None
        yield
    finally:
        os.close(handle)
