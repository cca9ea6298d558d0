"""The same machines under trio: a task each, channels between them, MockClock's virtual time; all replayed by a seed.

trio's tasks that wake at one instant run in an order it deliberately draws. `deterministic` draws it from our seed,
through trio's two private switches, which are touched nowhere else; a test fails if they vanish.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from random import Random
from typing import Any, Final, TypeVar

import trio
import trio.testing
from trio._core import _run  # the switches live here

from haif.base.clock import Instant
from haif.base.machine import Address, Machine
from haif.testing.net import Conditions, Fault, Links
from haif.testing.replay import Input, Sent, flush

T = TypeVar("T")
SWITCHES: Final = ("_ALLOW_DETERMINISTIC_SCHEDULING", "_r")
_INBOX_DATAGRAMS: Final = 4096  # more are lost, as in a socket's buffer
_Letter = tuple[bytes, Address] | None  # None: look at the clock again


@contextmanager
def deterministic(seed: int) -> Iterator[None]:
    """Inside, trio schedules tasks in an order that follows from the seed."""
    for name in SWITCHES:
        assert hasattr(_run, name), f"trio {trio.__version__} has no {name}: its runs cannot be replayed"
    before = {name: getattr(_run, name) for name in SWITCHES}
    try:
        for name, value in zip(SWITCHES, (True, Random(seed)), strict=True):  # noqa: S311 - replayed, never secret
            setattr(_run, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(_run, name, value)


def run(main: Callable[[], Any], *, seed: int) -> Any:
    """Run an async function under virtual time, replayed by the seed."""
    with deterministic(seed):
        return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


class TrioNet:
    """Machines as tasks of one nursery, with a network of `Links` between them."""

    def __init__(self, nursery: trio.Nursery, *, seed: int, conditions: Conditions) -> None:
        self._nursery = nursery
        self._links = Links(Random(seed), str(seed), conditions)  # noqa: S311 - replayed, never secret
        self._machines: dict[Address, Machine[Any]] = {}
        self._inboxes: dict[Address, trio.MemorySendChannel[_Letter]] = {}
        self._news: dict[Address, tuple[trio.MemorySendChannel[Any], trio.MemoryReceiveChannel[Any]]] = {}
        self._lives: dict[Address, trio.CancelScope] = {}
        self.sent: list[tuple[Address, Sent]] = []

    def add(self, address: Address, machine: Machine[Any]) -> None:
        """Put a machine on the network."""
        outbox, inbox = trio.open_memory_channel[_Letter](_INBOX_DATAGRAMS)
        self._machines[address], self._inboxes[address] = machine, outbox
        self._news[address] = trio.open_memory_channel[Any](math.inf)
        self._lives[address] = trio.CancelScope()
        self._nursery.start_soon(self._live, address, machine, inbox)

    def kill(self, address: Address) -> None:
        """A machine falls silent without a word: its task is cancelled."""
        del self._machines[address], self._inboxes[address]
        self._lives.pop(address).cancel()

    def strike(self, *faults: Fault) -> None:
        """Let faults hold, each from its beginning to its end."""
        self._links.faults += faults

    def do(self, address: Address, action: Callable[[Instant], T]) -> T:
        """Let a machine's owner do something now."""
        result = action(_now())
        self._inboxes[address].send_nowait(None)
        return result

    async def event_of(self, address: Address) -> Any:
        """The next thing that a machine tells its owner."""
        return await self._news[address][1].receive()

    async def _live(self, address: Address, machine: Machine[Any], inbox: trio.MemoryReceiveChannel[_Letter]) -> None:
        with self._lives[address]:
            while True:
                self._flush(address, machine)
                wish = machine.wake_at()
                letter: _Letter = None
                with trio.move_on_at(math.inf if wish is None else wish) as wait:
                    letter = await inbox.receive()
                if letter is not None:
                    machine.receive(*letter, _now())
                elif wait.cancelled_caught and wish is not None:
                    machine.wake(max(wish, _now()))

    def _flush(self, address: Address, machine: Machine[Any]) -> None:
        now = _now()
        for data, destination in machine.outgoing(now):
            self.sent.append((address, Sent(now, data, destination)))
            for at in self._links.arrivals(address, destination, now):
                self._nursery.start_soon(self._carry, at, (data, address), destination)
        while (event := machine.next_event()) is not None:
            self._news[address][0].send_nowait(event)

    async def _carry(self, at: Instant, letter: tuple[bytes, Address], destination: Address) -> None:
        await trio.sleep_until(at)
        if (inbox := self._inboxes.get(destination)) is not None:
            try:
                inbox.send_nowait(letter)
            except trio.WouldBlock:
                return  # lost


@asynccontextmanager
async def network(*, seed: int, conditions: Conditions | None = None) -> AsyncIterator[TrioNet]:
    """A network whose tasks end with the block."""
    async with trio.open_nursery() as nursery:
        yield TrioNet(nursery, seed=seed, conditions=conditions or Conditions())
        nursery.cancel_scope.cancel()


def by_trio(machine: Machine[Any], inputs: Sequence[Input], *, seconds: float) -> list[Sent]:
    """Drive a machine by a trio task: a deadline for its wish, a channel for its inputs."""
    sent: list[Sent] = []

    async def feed(to: trio.MemorySendChannel[Input]) -> None:
        for each in inputs:
            await trio.sleep_until(each.at)
            await to.send(each)

    async def live(inbox: trio.MemoryReceiveChannel[Input]) -> None:
        flush(machine, Instant(0.0), sent)
        while True:
            wish = machine.wake_at()
            given: Input | None = None
            with trio.move_on_at(math.inf if wish is None else wish):
                given = await inbox.receive()
            if given is not None:
                now = given.at
                given.act(machine, now)
            else:
                assert wish is not None, "only a wish ends the wait for an input"
                now = wish
                machine.wake(now)
            flush(machine, now, sent)

    async def main() -> None:
        outbox, inbox = trio.open_memory_channel[Input](0)
        with trio.move_on_after(seconds):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(feed, outbox)
                nursery.start_soon(live, inbox)

    run(main, seed=0)
    return sent


def _now() -> Instant:
    return Instant(trio.current_time())
