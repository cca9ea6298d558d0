"""Landlock: a second lock that denies every file, TCP port and outside process, whatever the filter lets through.

See landlock(7); the numbers and structures are those of linux/landlock.h, the same on every architecture.
"""

from __future__ import annotations

import ctypes
import os
from typing import Final

from haif.engine.sandbox import calls

_VERSION: Final = 1
_FILES: Final = {1: 0x1FFF, 2: 0x3FFF, 3: 0x7FFF, 4: 0x7FFF}  # rights to handle, by ABI; later 0xFFFF
_TCP_ABI, _DEVICES_ABI, _SCOPES_ABI = 4, 5, 6


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scopes", ctypes.c_uint64))


def deny_all() -> tuple[str, ...]:
    """Restrict this thread and all it makes, for good; what this kernel's version does not cover.

    Needs no_new_privs and a process with one thread. Raises `OSError` where the kernel has no Landlock.
    """
    abi = calls.call("landlock_create_ruleset", 0, 0, _VERSION)
    ruleset = _Ruleset(_FILES.get(abi, 0xFFFF), 3 if abi >= _TCP_ABI else 0, 3 if abi >= _SCOPES_ABI else 0)
    size = 8 if abi < _TCP_ABI else 16 if abi < _SCOPES_ABI else 24
    descriptor = calls.call("landlock_create_ruleset", ctypes.byref(ruleset), size, 0)
    try:
        calls.call("landlock_restrict_self", descriptor, 0)
    finally:
        os.close(descriptor)
    return uncovered(abi)


def uncovered(abi: int) -> tuple[str, ...]:
    """What a version of Landlock does not lock."""
    gaps = (
        (_TCP_ABI, "TCP"),
        (_DEVICES_ABI, "ioctl on devices"),
        (_SCOPES_ABI, "abstract UNIX sockets and signals"),
    )
    lacking = [what for since, what in gaps if abi < since]
    return (f"landlock version {abi} does not cover {', '.join(lacking)}; seccomp does",) if lacking else ()
