"""What the engine child puts around itself before it reads anything it does not trust, and what it still lacks.

Level "process": a process of its own with a clean environment and only the files it needs, that dies with its parent,
cannot gain privileges, cannot be traced or dumped, and has limits. Each is read back after it was set; if one does not
hold the child does not start. The jail proper (namespaces, Landlock, seccomp, an empty root) is not here: `MISSING`
says so, in every statement.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
from typing import Final

from haif.base import limits

LEVEL: Final = "process"
MISSING: Final = ("seccomp", "landlock", "namespaces", "empty root", "cgroups", "uid separation")

_SET_PDEATHSIG, _GET_PDEATHSIG = 1, 2
_GET_DUMPABLE, _SET_DUMPABLE = 3, 4
_SET_NO_NEW_PRIVS, _GET_NO_NEW_PRIVS = 38, 39
_libc = ctypes.CDLL(None, use_errno=True)


class NotEnforced(OSError):
    """A protection could not be set up."""


def seal(parent: int, files: frozenset[int], model_bytes: int) -> tuple[str, ...]:
    """Restrict this process for good; what is enforced.

    `parent` is the process whose child this must still be, `files` the descriptors it may hold besides 0, 1 and 2.
    Raises `NotEnforced` naming the first protection that does not hold.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    _check("dies with its parent", _die_with_parent(parent))
    _check("no new privileges", _prctl(_SET_NO_NEW_PRIVS, 1) == 0 and _prctl(_GET_NO_NEW_PRIVS) == 1)
    _check("not traceable", _prctl(_SET_DUMPABLE, 0) == 0 and _prctl(_GET_DUMPABLE) == 0)
    _check("clean environment", set(os.environ) <= set(ENVIRONMENT))
    for descriptor in _open_files() - files - {0, 1, 2}:  # an event loop may have let its own slip through the spawn
        os.close(descriptor)
    _check("no other files", _open_files() <= files | {0, 1, 2})
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_FSIZE, 0)
    _limit(resource.RLIMIT_NOFILE, limits.ENGINE_FILES_MAX)
    _limit(resource.RLIMIT_MEMLOCK, 0)
    _limit(resource.RLIMIT_AS, limits.ENGINE_LOAD_BYTES_BASE + 3 * model_bytes)
    return (
        "own process", "clean environment", "no other files", "dies with its parent", "no new privileges",
        "not traceable", "rlimits",
    )  # fmt: skip


def settle() -> None:
    """The model is loaded: from here on only a little more memory. Raises `NotEnforced`."""
    with open("/proc/self/statm", "rb") as statm:  # noqa: PTH123 - one read, and pathlib is not loaded here
        pages = int(statm.read().split()[0])
    _limit(resource.RLIMIT_AS, pages * resource.getpagesize() + limits.ENGINE_GROWTH_BYTES_MAX)


ENVIRONMENT: Final = {
    "GGML_CPU_TILED_MM": "0",  # part of the exact recipe
    "GGML_NO_BACKTRACE": "1",  # an abort must not start a debugger
    "LC_ALL": "C.UTF-8",
    "MALLOC_MMAP_THRESHOLD_": "33554432",  # what a step allocates and frees stays ours for the next:
    "MALLOC_TRIM_THRESHOLD_": "268435456",  # page faults would cost more than sampling itself
    "OMP_WAIT_POLICY": "passive",  # idle threads of llama.cpp leave the cores to others
    "OPENBLAS_NUM_THREADS": "1",  # numpy starts no threads
}


def _die_with_parent(parent: int) -> bool:
    """The kernel kills us when the parent's thread that made us ends; it may have ended before we asked."""
    asked = ctypes.c_int(0)
    done = _prctl(_SET_PDEATHSIG, signal.SIGKILL) == 0 and _prctl(_GET_PDEATHSIG, ctypes.addressof(asked)) == 0
    return done and asked.value == signal.SIGKILL and os.getppid() == parent


def _open_files() -> frozenset[int]:
    """Descriptors that a child inherits across exec; what the interpreter and its libraries opened is not inherited."""
    files = set()
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - descriptors, not paths
        descriptor = int(name)
        try:
            if os.get_inheritable(descriptor):
                files.add(descriptor)
        except OSError:
            continue  # the descriptor of the listing itself
    return frozenset(files)


def _limit(kind: int, value: int) -> None:
    _, hard = resource.getrlimit(kind)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (value, value))
    _check(f"rlimit {kind}", resource.getrlimit(kind) == (value, value))


def _prctl(option: int, argument: int = 0) -> int:
    return int(_libc.prctl(option, ctypes.c_ulong(argument), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)))


def _check(protection: str, holds: bool) -> None:
    if not holds:
        raise NotEnforced(f"the engine child could not be restricted: {protection!r} does not hold")
