"""A heap of things that will happen, a clock that jumps from one to the next, and a hash of all that did.

    world = World(seed=7, conditions=Conditions(loss=0.05))
    world.add(address, machine)
    number = world.do(address, lambda now: machine.find(target, now))
    world.run(seconds=10, until=lambda: world.events_of(address))

The same seed and the same calls give the same `trace()`, datagram for datagram.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from heapq import heappop, heappush
from math import inf
from random import Random
from struct import Struct
from typing import Any, TypeVar

from haif.base.clock import Instant, WallTime
from haif.base.machine import Address, Machine
from haif.testing.nat import Realms
from haif.testing.net import Conditions, Fault, Links

T = TypeVar("T")
WALL_AT_START = WallTime(1_700_000_000_000)
Tap = Callable[[Instant, Address, Address, bytes], None]
"""Told of each datagram as it is delivered: when, from where, to where, what."""

Ear = Callable[[Instant, Address, Any], None]
"""Told of each event as a machine tells its owner: when, whose, what."""

_Delivery = tuple[bytes, Address]
_Happening = _Delivery | Callable[[], None] | None  # None: a wish to be woken
_NOBODY: Address = ("", 0)
_NEVER = Instant(inf)
_HEAD = Struct(">dI")  # in the trace: when, how many bytes
_EVENTS_KEPT = 8192  # of one machine; whoever wants them reads them sooner


class World:
    """Virtual time, virtual network. Also a `base.clock.Clock`."""

    def __init__(self, *, seed: int, conditions: Conditions | None = None) -> None:
        self.seed = seed
        self.datagrams = 0
        self.taps: list[Tap] = []
        self.ears: list[Ear] = []
        self.realms = Realms()
        self._links = Links(Random(seed), str(seed), conditions or Conditions())  # noqa: S311 - replayed, never secret
        self._now = Instant(0.0)
        self._order = 0
        self._heap: list[tuple[Instant, int, Address, _Happening]] = []
        self._machines: dict[Address, Machine[Any]] = {}
        self._wakes: dict[Address, Instant] = {}
        self._events: dict[Address, list[Any]] = {}
        self._skews_ms: dict[Address, int] = {}
        self._trace = sha256()
        self._names: dict[Address, bytes] = {}

    # --- time ---------------------------------------------------------------------------------------------------------

    def now(self) -> Instant:
        """Virtual seconds since the world began."""
        return self._now

    def wall(self) -> WallTime:
        """Virtual milliseconds since the epoch, as a true clock shows them."""
        return WallTime(WALL_AT_START + int(self._now * 1000))

    def wall_at(self, address: Address) -> Callable[[], WallTime]:
        """The time of day as the clock of one machine shows it."""
        return lambda: WallTime(self.wall() + self._skews_ms.get(address, 0))

    def step_clock(self, address: Address, milliseconds: int) -> None:
        """Set a machine's time of day so much further ahead, or back."""
        self._skews_ms[address] = self._skews_ms.get(address, 0) + milliseconds

    def entropy(self, name: str) -> Callable[[int], bytes]:
        """A stream of random bytes that follows from the seed and the name."""
        return Random(f"{self.seed}/{name}").randbytes  # noqa: S311 - replayed, never secret

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        """Have something done when so much time has passed."""
        self._push(Instant(self._now + seconds), _NOBODY, action)

    def run(self, *, seconds: float, until: Callable[[], object] = lambda: False) -> bool:
        """Let time pass until something is true; False when `seconds` passed first."""
        end = Instant(self._now + seconds)
        while not until():
            if not self._heap or self._heap[0][0] > end:
                self._now = end
                return bool(until())
            self._step()
        return True

    # --- machines -----------------------------------------------------------------------------------------------------

    def add(self, address: Address, machine: Machine[Any]) -> None:
        """Put a machine on the network."""
        self._machines[address] = machine
        self._events[address] = []
        self._settle(address, machine)

    def replace(self, address: Address, machine: Machine[Any]) -> None:
        """Another machine answers at an address from now on; what the old one told stays."""
        self._machines[address] = machine
        self._wakes.pop(address, None)
        self._settle(address, machine)

    def kill(self, address: Address) -> None:
        """A machine falls silent without a word."""
        del self._machines[address]
        del self._events[address]
        self._wakes.pop(address, None)

    def do(self, address: Address, action: Callable[[Instant], T]) -> T:
        """Let a machine's owner do something now; what it wants to send is sent."""
        result = action(self._now)
        self._settle(address, self._machines[address])
        return result

    def events_of(self, address: Address) -> list[Any]:
        """What a machine told its owner, oldest first."""
        return self._events[address]

    # --- the network --------------------------------------------------------------------------------------------------

    @property
    def conditions(self) -> Conditions:
        """What holds on every link that no fault touches."""
        return self._links.conditions

    @conditions.setter
    def conditions(self, conditions: Conditions) -> None:
        self._links.conditions = conditions

    def strike(self, *faults: Fault) -> None:
        """Let faults hold, each from its beginning to its end, beside those that were announced before."""
        self._links.faults = [fault for fault in self._links.faults if fault.ends > self._now] + list(faults)

    def send(self, data: bytes, source: Address, destination: Address) -> None:
        """Put a datagram on the network in anybody's name. Boxes translate it as it leaves, and again as it arrives."""
        seen = self.realms.leave(source, destination, self._now) if self.realms else source
        if seen is None:
            return
        for at in self._links.arrivals(source, destination, self._now):
            self._push(at, destination, (data, seen))

    def trace(self) -> str:
        """The hash of every datagram delivered so far: when, from where, to where, what."""
        return self._trace.hexdigest()

    # --- below --------------------------------------------------------------------------------------------------------

    def _step(self) -> None:
        at, _, address, happening = heappop(self._heap)
        self._now = at
        if happening is not None and not isinstance(happening, tuple):
            happening()
            return
        if happening is not None and self.realms:
            inside = self.realms.enter(happening[1], address, at)
            if inside is None:
                return
            address = inside
        machine = self._machines.get(address)
        if machine is None:
            return
        if happening is None:
            if self._wakes.get(address) != at:
                return  # it has since asked for an earlier time
            del self._wakes[address]
            wish = machine.wake_at()
            if wish is None or wish > at:
                self._wake_later(address, wish)
                return  # it has since asked for a later time
            machine.wake(at)
        else:
            data, source = happening
            self.datagrams += 1
            self._trace.update(_HEAD.pack(at, len(data)) + self._name(source) + self._name(address) + data)
            for tap in self.taps:
                tap(at, source, address, data)
            machine.receive(data, source, at)
        self._settle(address, machine)

    def _settle(self, address: Address, machine: Machine[Any]) -> None:
        for data, destination in machine.outgoing(self._now):
            self.send(data, address, destination)
        events = self._events[address]
        while (event := machine.next_event()) is not None:
            events.append(event)
            for ear in self.ears:
                ear(self._now, address, event)
        if len(events) > _EVENTS_KEPT:
            del events[: _EVENTS_KEPT // 2]
        self._wake_later(address, machine.wake_at())

    def _wake_later(self, address: Address, wish: Instant | None) -> None:
        """Wake a machine when it wishes; where it will be asked earlier anyway, it is asked again then."""
        if wish is None:
            return
        wake_at = max(wish, self._now)
        if wake_at < self._wakes.get(address, _NEVER):
            self._wakes[address] = wake_at
            self._push(wake_at, address, None)

    def _name(self, address: Address) -> bytes:
        name = self._names.get(address)
        if name is None:
            name = self._names[address] = f"{address[0]}:{address[1]} ".encode()
        return name

    def _push(self, at: Instant, address: Address, happening: _Happening) -> None:
        self._order += 1
        heappush(self._heap, (at, self._order, address, happening))
