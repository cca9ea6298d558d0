"""A world of its own: no other process, network, mount, host name or shared memory, and a root folder without a file.

See namespaces(7), user_namespaces(7), pivot_root(2). A user namespace that was entered half-way cannot be left, so the
whole is tried in a throw-away process first.
"""

from __future__ import annotations

import os
from typing import Final

from haif.engine.sandbox import calls

_ALL: Final = 0x10000000 | 0x20000000 | 0x40000000 | 0x20000 | 0x8000000 | 0x4000000 | 0x2000000
"""user, pid, net, mount, ipc, uts, cgroup."""

_READ_ONLY, _NO_SUID, _NO_DEVICES, _NO_EXEC, _REMOUNT, _BIND, _RECURSIVE, _PRIVATE = (
    1, 2, 4, 8, 32, 4096, 16384, 1 << 18,
)  # fmt: skip
_DETACH: Final = 2
_PLACE: Final = b"/proc"  # any folder that exists everywhere; it is covered in the new mount namespace only


def why_not() -> str | None:
    """Why namespaces and an empty root cannot be had here, or None if they can."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reading)
            enter()
            empty_root()
            status = 0
        except OSError as error:
            os.write(writing, (error.strerror or str(error)).encode()[:200])
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        words = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    return None if status == 0 else words or "the kernel ended the attempt"


def enter() -> None:
    """Leave all namespaces at once for new ones; the pid namespace begins with the next fork. Raises `OSError`."""
    user, group = os.geteuid(), os.getegid()
    calls.call("unshare", _ALL)
    _write("/proc/self/setgroups", "deny")
    _write("/proc/self/uid_map", f"{user} {user} 1")
    _write("/proc/self/gid_map", f"{group} {group} 1")


def empty_root() -> None:
    """Make the root an empty, read-only folder, and every file that was there unreachable. Raises `OSError`."""
    calls.call("mount", None, b"/", None, _RECURSIVE | _PRIVATE, None)
    flags = _NO_SUID | _NO_DEVICES | _NO_EXEC
    calls.call("mount", b"empty", _PLACE, b"tmpfs", flags, b"size=4k,nr_inodes=1,mode=555")
    os.chdir(_PLACE)
    calls.call("pivot_root", b".", b".")  # the old root is now stacked on the new one …
    calls.call("umount2", b".", _DETACH)  # … and gone
    os.chdir("/")
    calls.call("mount", None, b"/", None, _REMOUNT | _BIND | _READ_ONLY | flags, None)
    if os.access("/proc/self", os.F_OK):
        raise OSError("the old root can still be reached")


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)
