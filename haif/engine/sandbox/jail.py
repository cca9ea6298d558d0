"""The jail that an engine child builds around itself before it reads anything it does not trust.

    1 one thread, no other file, clean environment, rlimits, no_new_privs     7 no capability, dies with the monitor
    2 root becomes nobody                                                     8 not traceable
    3 user, pid, net, mount, ipc, uts and cgroup namespaces                   9 Landlock: no file, no TCP, no signal
    4 fork: the first process stays outside as monitor                       10 seccomp: 36 system calls
    5 (in the engine) /proc/self/statm is opened                             11 what holds is said, and the worker asks
    6 an empty, read-only root                                                  the kernel whether it is true

Where the machine offers no namespaces or no Landlock, the statement says so and why; without the other layers the child
does not start, unless the operator allowed it by name.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from haif.base import limits
from haif.engine.sandbox import ENVIRONMENT, LIBRARY, landlock, monitor, namespaces, privileges, seccomp
from haif.engine.sandbox.layers import LAYERS, REQUIRED, Statement
from haif.engine.sandbox.privileges import NotEnforced

_GPU: Final = "the driver of a GPU needs devices, files and calls for which HAIF has no jail yet"
_statm: list[int] = []  # /proc/self/statm, open until `settle`


def seal(
    parent: int, files: frozenset[int], model_bytes: int, *, insecure: bool = False, gpu: bool = False
) -> Statement:
    """Restrict this process for good, and go on as the engine in a process below it; what is enforced.

    `parent` is the process whose child this must still be, `files` the descriptors it may hold besides 0, 1 and 2.
    Raises `NotEnforced` naming the first required layer that does not hold; with `insecure` it is only stated. With
    `gpu` the walls are left out that a GPU's driver does not live behind, which needs `insecure`.
    """
    jail = _Jail(insecure)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    if sys.platform != "linux":
        return jail.only_here("HAIF's jail needs Linux")
    jail.add("own process", lambda: None)
    files |= {0, 1, 2}
    jail.add("no other files", lambda: _close_others(files))
    jail.add("clean environment", _check_environment)
    jail.add("rlimits", lambda: _limit_resources(None if gpu else model_bytes))
    _die_first(jail)
    jail.add("no new privileges", privileges.gain_nothing)
    jail.add("not root", privileges.become_nobody)
    privileges.traceable(True)  # until the maps of the namespace are written
    jail.add("dies with its parent", lambda: _die_with(parent))
    why_not = _GPU if gpu else namespaces.why_not()
    if why_not is None:
        jail.add("namespaces", _enter_namespaces)
    else:
        jail.missing["namespaces"] = jail.missing["empty root"] = why_not
    birth = monitor.split(files, first=why_not is None)
    if not gpu:
        _statm.append(os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC))
    if why_not is None:
        jail.add("empty root", namespaces.empty_root)
    jail.add("no capabilities", privileges.drop_capabilities)
    jail.add("dies with its parent", birth.die_with_monitor)
    os.close(birth.life)
    jail.add("not traceable", lambda: privileges.traceable(False))
    if not gpu:
        jail.add("landlock", lambda: jail.notes.extend(landlock.deny_all()))
    jail.missing["cgroups"] = "not to be seen from inside"  # the worker looks
    if gpu:
        jail.add("landlock", _no_wall)
        jail.add("seccomp", _no_wall)
        _close_all(birth.handover)
    else:
        jail.add("seccomp", lambda: seccomp.restrict(birth.handover))
    return jail.statement(birth.pid)


def settle() -> None:
    """The model is loaded: from here on only a little more memory. Raises `NotEnforced`."""
    while _statm:
        descriptor = _statm.pop()
        pages = int(os.pread(descriptor, 100, 0).split()[0])
        os.close(descriptor)
        privileges.limit(resource.RLIMIT_AS, pages * resource.getpagesize() + limits.ENGINE_GROWTH_BYTES_MAX)


class _Jail:
    """The layers so far."""

    def __init__(self, insecure: bool) -> None:
        self._insecure = insecure
        self._enforced: set[str] = set()
        self.missing: dict[str, str] = {}
        self.notes: list[str] = []

    def add(self, layer: str, build: Callable[[], object]) -> None:
        """Build a layer, or say why it is missing."""
        try:
            build()
        except OSError as error:
            why = error.strerror or str(error)
            if layer in REQUIRED and not self._insecure:
                raise NotEnforced(f"the engine child could not be restricted: {layer}: {why}") from None
            self.missing[layer] = why
            self._enforced.discard(layer)
        else:
            self._enforced.add(layer)

    def only_here(self, why: str) -> Statement:
        """Another system than Linux: nothing of this is known to hold."""
        if not self._insecure:
            raise NotEnforced(f"the engine child could not be restricted: {why}")
        self.missing = dict.fromkeys(LAYERS, why)
        return self.statement(os.getpid())

    def statement(self, pid: int) -> Statement:
        return Statement(
            tuple(layer for layer in LAYERS if layer in self._enforced), dict(self.missing), tuple(self.notes), pid
        )


def _close_others(keep: frozenset[int]) -> None:
    for descriptor in _open_files() - keep:  # those that libraries opened for themselves too
        with suppress(OSError):  # that of the listing itself
            os.close(descriptor)
    privileges.check("the end of other files", len(_open_files() - keep) <= 1)
    threads = len(os.listdir("/proc/self/task"))  # noqa: PTH208 - threads, not paths
    privileges.check("a process of one thread", threads == 1)  # the layers to come bind one thread


def _open_files() -> frozenset[int]:
    return frozenset(int(name) for name in os.listdir("/proc/self/fd"))  # noqa: PTH208


def _check_environment() -> None:
    privileges.check("an environment of known names", set(os.environ) <= {*ENVIRONMENT, LIBRARY})


def _no_wall() -> None:
    raise NotEnforced(_GPU)


def _close_all(*descriptors: int | None) -> None:
    for descriptor in descriptors:
        if descriptor is not None:
            os.close(descriptor)


def _limit_resources(model_bytes: int | None) -> None:
    privileges.limit(resource.RLIMIT_CORE, 0)
    privileges.limit(resource.RLIMIT_FSIZE, 0)
    privileges.limit(resource.RLIMIT_NOFILE, limits.ENGINE_FILES_MAX)
    privileges.limit(resource.RLIMIT_MEMLOCK, 0)
    if model_bytes is not None:  # a GPU's driver reserves terabytes of addresses
        privileges.limit(resource.RLIMIT_AS, limits.ENGINE_LOAD_BYTES_BASE + 3 * model_bytes)


def _die_first(jail: _Jail) -> None:
    """When memory runs out, the kernel is to end this process and not its worker."""
    try:
        with open("/proc/self/oom_score_adj", "w") as score:  # noqa: PTH123 - no further module
            score.write("1000")
    except OSError as error:
        jail.notes.append(f"the kernel may end the worker first when memory runs out ({error.strerror})")


def _die_with(parent: int) -> None:
    privileges.ask_to_die_with_parent()
    privileges.check("the life of the parent", os.getppid() == parent)


def _enter_namespaces() -> None:
    namespaces.enter()
    privileges.limit(resource.RLIMIT_NPROC, limits.ENGINE_TASKS_MAX)  # counted by namespace only from here on
