"""No capability, no other user's rights, no way to gain either, and no life after the parent's.

See capabilities(7), prctl(2). The kernel forgets the wish to die with the parent at every change of credentials, so
whoever changes them asks again.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import signal
from typing import Final

from haif.engine.sandbox import calls

NOBODY: Final = 65534

_SET_PDEATHSIG, _GET_PDEATHSIG = 1, 2
_GET_DUMPABLE, _SET_DUMPABLE = 3, 4
_DROP_BOUNDING: Final = 24
_SET_NO_NEW_PRIVS, _GET_NO_NEW_PRIVS = 38, 39
_AMBIENT, _CLEAR_ALL = 47, 4
_CAPABILITIES: Final = range(64)
_CAP_VERSION_3: Final = 0x20080522


class NotEnforced(OSError):
    """A protection could not be set up."""


def check(protection: str, holds: bool) -> None:
    """Raise `NotEnforced` unless it holds."""
    if not holds:
        raise NotEnforced(f"{protection} does not hold")


def ask_to_die_with_parent() -> None:
    """The kernel kills this process when the thread that made it ends. Raises `OSError`."""
    asked = ctypes.c_int(0)
    calls.prctl(_SET_PDEATHSIG, signal.SIGKILL)
    calls.prctl(_GET_PDEATHSIG, ctypes.addressof(asked))
    check("the wish to die with the parent", asked.value == signal.SIGKILL)


def gain_nothing() -> None:
    """No program this process might start gains privileges. Raises `OSError`."""
    calls.prctl(_SET_NO_NEW_PRIVS, 1)
    check("no_new_privs", calls.prctl(_GET_NO_NEW_PRIVS) == 1)


def traceable(value: bool) -> None:
    """Whether others of the same user may trace and dump this process. Raises `OSError`."""
    calls.prctl(_SET_DUMPABLE, int(value))
    check("dumpable", calls.prctl(_GET_DUMPABLE) == int(value))


def become_nobody() -> None:
    """Give root up, if this is root, and with it every group. Raises `OSError`."""
    if 0 not in (os.geteuid(), os.getuid()):
        return
    drop_bounding()  # needs what the next lines give away
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    check("another user than root", os.getresuid() == (NOBODY,) * 3 and os.getresgid() == (NOBODY,) * 3)


def drop_bounding() -> None:
    """Empty the bounding set, as far as this process may: with no_new_privs it is a second lock only."""
    for capability in _CAPABILITIES:
        try:
            calls.prctl(_DROP_BOUNDING, capability)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EPERM):
                raise


def drop_capabilities() -> None:
    """Give every capability up for good. Raises `OSError`."""
    drop_bounding()
    calls.call("prctl", _AMBIENT, _CLEAR_ALL, 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(_CAP_VERSION_3, 0)
    calls.call("capset", header, (ctypes.c_uint32 * 6)())
    found = (ctypes.c_uint32 * 6)(1)
    calls.call("capget", header, found)
    check("the end of all capabilities", not any(found))


def limit(kind: int, value: int) -> None:
    """A resource limit that cannot be raised again. Raises `OSError`."""
    _, hard = resource.getrlimit(kind)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (value, value))
    check(f"rlimit {kind}", resource.getrlimit(kind) == (value, value))
