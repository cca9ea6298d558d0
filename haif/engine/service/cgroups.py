"""Whether the cgroup of an engine bounds its memory, its processes and its processors, as the kernel says.

HAIF makes no cgroups: a service manager or a container runtime does, by rules of its own, and the engine is in the
group of its worker. Here it is only looked up, in both versions of cgroups; a bound of any group above counts.
(cgroups(7), the kernel's admin-guide/cgroup-v2.rst and cgroup-v1/)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

_BOUNDS: Final[Mapping[str, tuple[str, str]]] = {
    "memory": ("memory.max", "memory.limit_in_bytes"),
    "pids": ("pids.max", "pids.max"),
    "cpu": ("cpu.max", "cpu.cfs_quota_us"),
}
"""By controller: the file that has its bound, in version 2 and in version 1."""
_UNBOUNDED_BYTES: Final = 1 << 60  # version 1 says "no limit" by a huge one


@dataclass(frozen=True, slots=True)
class _Mount:
    point: Path
    root: PurePosixPath
    controllers: frozenset[str]  # of version 1; none: version 2


def why_not(pid: int, *, proc: Path = Path("/proc")) -> str | None:
    """What is not bounded by the cgroup of a process, as the reason why the layer is missing; None if all is."""
    try:
        mounts = list(_mounts((proc / "self" / "mountinfo").read_text()))
        groups = dict(_groups((proc / str(pid) / "cgroup").read_text()))
    except OSError:
        return "the kernel does not say"
    lacking = [name for name in _BOUNDS if not _bounded(name, mounts, groups)]
    return f"the worker's cgroup bounds no {', '.join(lacking)}" if lacking else None


def _bounded(controller: str, mounts: list[_Mount], groups: Mapping[str, PurePosixPath]) -> bool:
    newer, older = _BOUNDS[controller]
    for mount in mounts:
        if controller in mount.controllers and controller in groups:
            return any(_is_bound(folder / older) for folder in _upwards(mount, groups[controller]))
    return any(
        _is_bound(folder / newer)
        for mount in mounts
        if not mount.controllers and "" in groups
        for folder in _upwards(mount, groups[""])
    )


def _is_bound(file: Path) -> bool:
    try:
        word = file.read_text().split()[0]
    except (OSError, IndexError):
        return False
    return word.isdecimal() and int(word) < _UNBOUNDED_BYTES


def _upwards(mount: _Mount, group: PurePosixPath) -> Iterator[Path]:
    """The folder of a group and of each group above it, as far as they are mounted."""
    if not group.is_relative_to(mount.root):
        return
    inner = group.relative_to(mount.root)
    for each in (inner, *inner.parents):
        yield mount.point / each


def _mounts(text: str) -> Iterator[_Mount]:
    """The cgroup file systems of a mountinfo; see proc_pid_mountinfo(5)."""
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        fields = before.split()
        if kind == "cgroup2":
            yield _Mount(Path(fields[4]), PurePosixPath(fields[3]), frozenset())
        elif kind == "cgroup":
            yield _Mount(Path(fields[4]), PurePosixPath(fields[3]), frozenset(options.split(",")) & frozenset(_BOUNDS))


def _groups(text: str) -> Iterator[tuple[str, PurePosixPath]]:
    """By controller, "" for version 2: the group of a process; see cgroups(7)."""
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        for each in controllers.split(","):
            yield each, PurePosixPath(path)
