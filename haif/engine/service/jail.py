"""The jail as the parent sees it: a child's statement counts for what the kernel confirms."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from haif.base import limits
from haif.base.errors import EngineDied
from haif.engine.frames import Sealed
from haif.engine.sandbox.layers import LAYERS, level

_NONE: Final = "0000000000000000"
_PROOFS: Final[Mapping[str, Mapping[str, str]]] = {
    "no new privileges": {"NoNewPrivs": "1"},
    "seccomp": {"Seccomp": "2", "Threads": "1"},
    "no capabilities": {"CapInh": _NONE, "CapPrm": _NONE, "CapEff": _NONE, "CapAmb": _NONE},
}
"""Lines of /proc/PID/status that must be there where a layer is said to hold; see proc_pid_status(5)."""


def verify(sealed: Sealed, *, monitor: int, allowed: bool) -> None:
    """Raise `EngineDied` for a statement that is not complete, not enough unless `allowed`, or not true."""
    claimed = set(sealed.enforced)
    if claimed & set(sealed.missing) or claimed | set(sealed.missing) != set(LAYERS):
        raise EngineDied("its statement about its jail does not have every layer once")
    if level(sealed.enforced) == "none" and not allowed:
        raise EngineDied(f"its jail lacks what nothing is served without: {', '.join(sealed.missing)}")
    if sys.platform == "linux":
        wrong = contradictions(claimed, status_of(sealed.pid))
        if sealed.pid != monitor and status_of(sealed.pid).get("PPid") != str(monitor):
            wrong.append("it is not the child's child")
        if wrong:
            raise EngineDied(f"it says that it restricted itself, and did not: {', '.join(wrong)}")


class Idleness:
    """Whether an engine that owes no answer leaves the processors alone."""

    def __init__(self) -> None:
        self._since: tuple[float, int, float] | None = None

    def suspicious(self, now: float, asked: int, pid: int, *, busy: bool) -> bool:
        """Looked at every now and then: did it owe nothing for a whole while, and compute for a tenth of it or more?

        `asked` counts the requests so far, so that one that came and went between two looks is noticed.
        """
        if busy or self._since is None or self._since[1] != asked:
            self._since = None if busy else (now, asked, processor_seconds(pid))
            return False
        began, _, before = self._since
        idle = now - began
        if idle < limits.ENGINE_SILENCE_SECONDS:
            return False
        used = processor_seconds(pid) - before
        self._since = (now, asked, before + used)
        return used > idle / 10


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
