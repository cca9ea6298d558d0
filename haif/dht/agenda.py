"""The operations in progress: which are still running, and how many of them are of our own accord."""

from __future__ import annotations

from haif.base import limits
from haif.base.errors import Overloaded
from haif.dht.operations import Find, Purpose

_OWN_ACCORD_MAX = limits.DHT_OPERATIONS_MAX // 4


class Agenda:
    """At most `limits.DHT_OPERATIONS_MAX` operations, a quarter of them not asked for by our owner."""

    def __init__(self) -> None:
        self._running: dict[int, Find] = {}
        self._own_accord = 0
        self._number = 0

    def number(self) -> int:
        """The number of the next operation. Raises `Overloaded` if there are enough."""
        if len(self) >= limits.DHT_OPERATIONS_MAX:
            raise Overloaded(f"this node has {limits.DHT_OPERATIONS_MAX} lookups in progress; ask again in a moment")
        self._number += 1
        return self._number

    @property
    def is_busy(self) -> bool:
        """Whether there is enough to do without beginning something of our own accord."""
        return self._own_accord >= _OWN_ACCORD_MAX or len(self) >= limits.DHT_OPERATIONS_MAX

    def add(self, operation: Find) -> None:
        """An operation begins."""
        self._running[operation.number] = operation
        self._own_accord += operation.purpose is not Purpose.OWNER

    def remove(self, operation: Find) -> None:
        """An operation has ended."""
        del self._running[operation.number]
        self._own_accord -= operation.purpose is not Purpose.OWNER

    def __contains__(self, operation: Find) -> bool:
        return operation.number in self._running

    def __len__(self) -> int:
        return len(self._running)
