"""The two shapes of logic: a `Machine` converses, a `Decider` judges. Neither knows a socket, a clock or a file."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeVar

from haif.base.clock import Instant

Address = tuple[str, int]
"""An IP address and a port."""

EventOut = TypeVar("EventOut", covariant=True)
StateT = TypeVar("StateT", contravariant=True)
EventIn = TypeVar("EventIn", contravariant=True)
ActionOut = TypeVar("ActionOut", covariant=True)


class Machine(Protocol[EventOut]):
    """A conversation. Bytes and time come in; bytes, events and a wish to be woken come out."""

    def receive(self, data: bytes, source: Address, now: Instant) -> None: ...
    def outgoing(self, now: Instant) -> Iterable[tuple[bytes, Address]]: ...
    def next_event(self) -> EventOut | None: ...
    def wake_at(self) -> Instant | None: ...
    def wake(self, now: Instant) -> None: ...


class Decider(Protocol[StateT, EventIn, ActionOut]):
    """A judgement. Facts fold into a state; a state and the time yield what to do next."""

    def apply(self, state: StateT, event: EventIn) -> None: ...
    def decide(self, state: StateT, now: Instant) -> tuple[ActionOut, ...]: ...
