"""The processes around an engine: the first of its pid namespace, and the monitor, which says why the engine ended.

    worker ── monitor (outside, waits) ─┬─ init (pid 1, sleeps)
                                        └─ engine (pid 2, sealed)

The engine is not pid 1 because the kernel shields that one from signals: it could not even abort. Whoever loses its
parent dies; a process can lose it before it asked for that, which the `life` pipe shows: its other end is the
monitor's alone.
"""

from __future__ import annotations

import os
import select
import signal
import struct
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, NoReturn

from haif.engine.sandbox import calls, privileges, seccomp

_PID: Final = struct.Struct("=i")


@dataclass(frozen=True)
class Birth:
    """What the engine has from its monitor."""

    pid: int  # its own, as the monitor and the worker see it
    life: int
    handover: int | None

    def die_with_monitor(self) -> None:
        """Ask for it, again after each change of credentials. Raises `OSError` when the monitor is gone already."""
        privileges.ask_to_die_with_parent()
        _check_alive(self.life)


def split(files: frozenset[int], *, first: bool) -> Birth:
    """Go on as the engine in a new process; this one becomes its monitor and never returns.

    `files` are all that are open; only the engine keeps them. `first`: the process is the first in a pid namespace and
    needs an init before it.
    """
    life, held = os.pipe()
    init = _fork_init(files | {held}, life) if first else None
    ours, theirs = seccomp.handover_pair() if _can_wait_for_two() else (None, None)
    engine = os.fork()
    if engine == 0:
        os.close(held)
        if ours is not None:
            os.close(ours)
        privileges.ask_to_die_with_parent()
        told = os.read(life, _PID.size)
        privileges.check("life of the monitor", len(told) == _PID.size)
        return Birth(_PID.unpack(told)[0], life, theirs)
    try:
        _close(files - {2} | {life} | (set() if theirs is None else {theirs}))
        os.write(held, _PID.pack(engine))
        privileges.drop_capabilities()
        privileges.ask_to_die_with_parent()
        privileges.traceable(False)
        status, tried = _wait(engine, ours)
    except BaseException:
        os.kill(engine, signal.SIGKILL)
        raise
    finally:
        if init is not None:
            os.kill(init, signal.SIGKILL)
    return _end_like(status, tried)


def _close(files: set[int] | frozenset[int]) -> None:
    for descriptor in files:
        with suppress(OSError):  # 0, 1 or 2 may have been closed before us
            os.close(descriptor)


def _fork_init(files: frozenset[int], life: int) -> int:
    """A process that sleeps until the monitor is gone."""
    init = os.fork()
    if init != 0:
        return init
    try:
        _close(files)
        privileges.drop_capabilities()
        privileges.traceable(False)
        privileges.ask_to_die_with_parent()
        poll = select.poll()
        poll.register(life, 0)  # POLLHUP comes unasked
        poll.poll()
    finally:
        os._exit(0)


def _wait(engine: int, handover: int | None) -> tuple[int, int | None]:
    """The wait status of the engine, and the number of the system call for which it was killed, if it was."""
    listener = tried = None
    if handover is not None:
        listener = seccomp.receive(handover)
        os.close(handover)
    if listener is not None:
        tried = _listen(engine, listener)
        if tried is not None:
            os.kill(engine, signal.SIGKILL)
    _, status = os.waitpid(engine, 0)
    return status, tried


def _listen(engine: int, listener: int) -> int | None:
    """Wait for a forbidden call or the end of the engine."""
    end = os.pidfd_open(engine)
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    poll.register(end, select.POLLIN)
    while True:
        ready = dict(poll.poll())
        if ready.get(listener, 0) & select.POLLIN:
            tried = seccomp.violation(listener)
            if tried is not None:
                return tried
        if end in ready:
            return None
        if listener in ready:
            poll.unregister(listener)  # nobody is left to call


def _can_wait_for_two() -> bool:
    """Whether the kernel can tell by a descriptor that a process ended."""
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):
        return False
    return True


def _end_like(status: int, tried: int | None) -> NoReturn:
    """End as the engine did, so that the worker sees what it would see of its own child."""
    if tried is not None:
        os.write(2, f"\nit tried system call {tried} ({calls.name_of(tried)})\n".encode())
    if tried is None and os.WIFEXITED(status):
        os._exit(os.WEXITSTATUS(status))
    number = os.WTERMSIG(status) if tried is None else signal.SIGSYS
    if number not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    os.kill(os.getpid(), number)
    os._exit(128 + number)


def _check_alive(life: int) -> None:
    poll = select.poll()
    poll.register(life, 0)
    privileges.check("life of the monitor", not poll.poll(0))
