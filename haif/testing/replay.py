"""One machine, its recorded inputs, and several drivers: what a machine sends must not depend on who drives it.

    recorder = Recorder(machine)            # put into a `World` in the machine's place
    ...
    assert by_heap(twin, recorder.inputs, seconds=60) == recorder.sent

A driver gives a machine its inputs at their times, wakes it when it wishes, and notes whatever leaves it.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from haif.base.clock import Instant
from haif.base.machine import Address, Machine

Act = Callable[[Any, Instant], object]
"""Something done to a machine: a datagram that arrives, or its owner's wish."""

_NOWHERE: Final = float("inf")


class Sent(NamedTuple):
    """What left a machine: when, what, where to."""

    at: Instant
    data: bytes
    destination: Address


@dataclass(frozen=True, slots=True)
class Input:
    """What happened to a machine, and when."""

    at: Instant
    act: Act


class Recorder:
    """A machine that notes what happens to another and what leaves it."""

    def __init__(self, machine: Machine[Any]) -> None:
        self.machine = machine
        self.inputs: list[Input] = []
        self.sent: list[Sent] = []

    def act(self, act: Act, now: Instant) -> None:
        """The owner wants something."""
        self.inputs.append(Input(now, act))
        act(self.machine, now)

    def receive(self, data: bytes, source: Address, now: Instant) -> None:
        """A datagram arrived."""
        self.act(lambda machine, now: machine.receive(data, source, now), now)

    def outgoing(self, now: Instant) -> Iterable[tuple[bytes, Address]]:
        """What to send."""
        fresh = [Sent(now, data, destination) for data, destination in self.machine.outgoing(now)]
        self.sent += fresh
        return [(each.data, each.destination) for each in fresh]

    def next_event(self) -> Any:
        """What the machine tells."""
        return self.machine.next_event()

    def wake_at(self) -> Instant | None:
        """When the machine wants to be woken."""
        return self.machine.wake_at()

    def wake(self, now: Instant) -> None:
        """Time has passed."""
        self.machine.wake(now)


def flush(machine: Machine[Any], now: Instant, sent: list[Sent]) -> None:
    """Take from a machine what it wants to send and tell, as every driver does after each touch."""
    sent += [Sent(now, data, destination) for data, destination in machine.outgoing(now)]
    while machine.next_event() is not None:
        pass


def by_heap(machine: Machine[Any], inputs: Sequence[Input], *, seconds: float) -> list[Sent]:
    """Drive a machine by a loop that always does what is due next."""
    sent: list[Sent] = []
    left = list(reversed(inputs))
    flush(machine, Instant(0.0), sent)
    while True:
        wish = machine.wake_at()
        wake_at = _NOWHERE if wish is None else wish
        if min(left[-1].at if left else _NOWHERE, wake_at) > seconds:
            return sent
        if left and left[-1].at <= wake_at:
            now = left[-1].at
            left.pop().act(machine, now)
        else:
            now = Instant(wake_at)
            machine.wake(now)
        flush(machine, now, sent)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An asyncio loop whose clock jumps to the next timer instead of waiting for it."""

    def __init__(self) -> None:
        self.virtual = 0.0
        super().__init__(_Jumping(self))

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self.virtual


class _Jumping(selectors.SelectSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "a virtual world in which nothing will happen waits forever"
            self._loop.virtual += timeout
        return ready


def by_asyncio(machine: Machine[Any], inputs: Sequence[Input], *, seconds: float) -> list[Sent]:
    """Drive a machine by asyncio's timers, in virtual time: pump after each touch, one timer for its wish."""
    loop = VirtualLoop()
    sent: list[Sent] = []
    escaped: list[BaseException] = []
    left = list(reversed(inputs))
    timer: asyncio.TimerHandle | None = None

    def touch(act: Act, at: Instant) -> None:
        act(machine, at)
        pump(at)

    def pump(at: Instant) -> None:
        nonlocal timer
        flush(machine, at, sent)
        if timer is not None:
            timer.cancel()
        wish = machine.wake_at()
        timer = None if wish is None else loop.call_at(wish, touch, _wake, wish)

    def feed() -> None:
        """One input after the other: asyncio gives no order to timers of one instant."""
        if left:
            each = left.pop()
            loop.call_at(each.at, fed, each)

    def fed(each: Input) -> None:
        touch(each.act, each.at)
        while left and left[-1].at <= each.at:
            also = left.pop()
            touch(also.act, also.at)
        feed()

    loop.set_exception_handler(lambda _loop, context: escaped.append(context["exception"]))
    try:
        feed()
        pump(Instant(0.0))
        loop.run_until_complete(asyncio.wait_for(loop.create_future(), seconds))
    except TimeoutError:
        if escaped:
            raise escaped[0] from None
        return sent
    finally:
        loop.close()
    raise AssertionError("the end of time is a timeout")


def _wake(machine: Machine[Any], now: Instant) -> None:
    machine.wake(now)
