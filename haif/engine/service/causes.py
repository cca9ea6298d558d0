"""Why an engine child ended, in words for the operator: how the kernel ended it, and what it said last.

The monitor ends as the engine did, so the exit status is the engine's own. A cause that has several names (an `abort`
that was want of memory) is told by the last words.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Final

_SIGNALS: Final[Mapping[signal.Signals, str]] = {
    signal.SIGKILL: "by somebody on this machine, or by a limit around the worker",
    signal.SIGTERM: "by somebody on this machine",
    signal.SIGABRT: "llama.cpp stopped itself at a state it does not handle",
    signal.SIGSEGV: "a memory fault in native code",
    signal.SIGBUS: "a page of the model is gone: its file was cut short while in use, or the disk failed",
    signal.SIGFPE: "an impossible division in native code",
    signal.SIGILL: "an instruction that this processor does not have: llama.cpp was built for another",
    signal.SIGSYS: "its jail forbids a system call that it tried",
    signal.SIGXCPU: "a limit of processor time around the worker (RLIMIT_CPU) was used up",
    signal.SIGXFSZ: "it wrote to a file",
}
_NO_MEMORY: Final = ("std::bad_alloc", "MemoryError", "Cannot allocate memory", "failed to allocate", "out of memory")
_OUT_OF_MEMORY: Final = "by the kernel, for want of memory on this machine or in the worker's cgroup (OOM)"
_LIMIT: Final = "it needed more memory than its jail allows (RLIMIT_AS)"


def explain(status: int, words: bytes, *, oom_killed: bool = False) -> str:
    """An exit status (negative: a signal) and last words as a sentence.

    `oom_killed`: the kernel ended processes for want of memory while the child lived.
    """
    lines = words.decode(errors="replace").strip().splitlines()
    last = lines[-1][:300] if lines else ""
    if status < 0:
        name, why = _signal(-status, oom_killed=oom_killed)
        cause = f"killed by {name}" + (f" ({why})" if why else "")
    else:
        cause = f"it exited with status {status}"
    if any(sign in line for sign in _NO_MEMORY for line in lines):
        cause += f": {_LIMIT}"
    return f"{cause}; its last words: {last}" if last else cause


def _signal(number: int, *, oom_killed: bool) -> tuple[str, str | None]:
    try:
        known = signal.Signals(number)
    except ValueError:  # a real-time signal
        return f"signal {number}", None
    if known is signal.SIGKILL and oom_killed:
        return known.name, _OUT_OF_MEMORY
    return known.name, _SIGNALS.get(known)


def oom_kills() -> int:
    """How many processes the kernel has ended for want of memory since it started; 0 where it does not say."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
