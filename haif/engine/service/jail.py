"""The jail as the parent sees it: a child's statement counts for what the kernel confirms."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from haif.base import limits
from haif.base.confinement import suffices
from haif.base.errors import EngineDied
from haif.engine.frames import Sealed
from haif.engine.sandbox.layers import LAYERS, level
from haif.engine.service.cgroups import why_not

_NONE: Final = "0000000000000000"
_PROOFS: Final[Mapping[str, Mapping[str, str]]] = {
    "no new privileges": {"NoNewPrivs": "1"},
    "seccomp": {"Seccomp": "2", "Threads": "1"},
    "no capabilities": {"CapInh": _NONE, "CapPrm": _NONE, "CapEff": _NONE, "CapAmb": _NONE},
}
"""Lines of /proc/PID/status that must be there where a layer is said to hold; see proc_pid_status(5)."""


def verify(sealed: Sealed, *, monitor: int, demanded: str) -> None:
    """Raise `EngineDied` for a statement that is not complete, not of the level that is demanded, or not true."""
    claimed = set(sealed.enforced)
    if claimed & set(sealed.missing) or claimed | set(sealed.missing) != set(LAYERS):
        raise EngineDied("its statement about its jail does not have every layer once")
    found = level(sealed.enforced)
    if not suffices(found, demanded):
        lacking = ", ".join(f"{layer} ({why})" if why else layer for layer, why in sealed.missing.items())
        raise EngineDied(f"its jail is of level {found}, and {demanded} is demanded; it lacks {lacking}"[:1000])
    if sys.platform == "linux":
        wrong = contradictions(claimed, status_of(sealed.pid))
        if sealed.pid != monitor and status_of(sealed.pid).get("PPid") != str(monitor):
            wrong.append("it is not the child's child")
        if wrong:
            raise EngineDied(f"it says that it restricted itself, and did not: {', '.join(wrong)}")


def with_cgroups(sealed: Sealed) -> Sealed:
    """The statement with what the kernel says of the child's cgroup, which nobody sees from inside the jail."""
    why = why_not(sealed.pid) if sys.platform == "linux" else sealed.missing.get("cgroups", "not Linux")
    enforced = [layer for layer in sealed.enforced if layer != "cgroups"]
    missing = {layer: reason for layer, reason in sealed.missing.items() if layer != "cgroups"}
    if why is None:
        enforced.append("cgroups")
    else:
        missing["cgroups"] = why
    return Sealed(enforced, missing, sealed.notes, sealed.pid)


class Exertion:
    """Whether an engine leaves the processors alone: those beyond its threads always, all when it owes no answer.

    Processor time is what it used, however loaded the machine is; so this needs no cgroup and accuses nobody of being
    slow.
    """

    def __init__(self, threads: int) -> None:
        self._cores = threads + 0.5  # its housekeeping, and the grain of the kernel's clock
        self._began: tuple[float, float] | None = None  # when, and the processor time used until then
        self._idle: tuple[float, float, int] | None = None  # the same, and how many requests there were

    def accuse(self, now: float, used: float, *, asked: int, busy: bool, settled: bool) -> str | None:
        """What it did, if that was too much. `used` is its processor time in seconds.

        `asked` counts the requests so far, so that one that came and went between two looks is noticed. `settled`: the
        last of them was answered to its end; of one that was cancelled, a step may still be under way.
        """
        allowed = limits.ENGINE_IDLE_SECONDS if settled else limits.ENGINE_SILENCE_SECONDS
        return self._on_cores(now, used) or self._unasked(now, used, asked, None if busy else allowed)

    def _on_cores(self, now: float, used: float) -> str | None:
        if self._began is None:
            self._began = now, used
        began, before = self._began
        if now - began < limits.ENGINE_CORES_SECONDS:
            return None
        self._began = now, used
        cores = (used - before) / (now - began)
        return f"it computed on {cores:.1f} cores, more than it was given" if cores > self._cores else None

    def _unasked(self, now: float, used: float, asked: int, allowed: float | None) -> str | None:
        if allowed is None or self._idle is None or self._idle[2] != asked:
            self._idle = None if allowed is None else (now, used, asked)
            return None
        began, before, _ = self._idle
        idle = now - began
        if idle < allowed:
            return None
        self._idle = now, used, asked
        return f"it owed nothing and computed for {used - before:.1f} seconds" if used - before > idle / 10 else None


def processor_seconds(pid: int) -> float:
    """User and system time of a process and its threads; 0 where it cannot be known."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def contradictions(claimed: set[str], status: Mapping[str, str]) -> list[str]:
    """What the kernel says of the engine that is not as claimed; nothing if all is well."""
    wrong = []
    for layer in sorted(claimed & set(_PROOFS)):
        for line, value in _PROOFS[layer].items():
            if status.get(line) != value:
                wrong.append(f"{line} is {status.get(line)}, not {value}")
    if "not root" in claimed and "0" in status.get("Uid", "0").split():
        wrong.append("it runs as root")
    if "namespaces" in claimed and len(status.get("NSpid", "").split()) < 2:
        wrong.append("it is in the host's pid namespace")
    return wrong


def status_of(pid: int) -> dict[str, str]:
    """/proc/PID/status; empty when the process is gone."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return {}
    return {name: value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}
