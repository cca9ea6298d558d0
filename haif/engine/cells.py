"""How many cells of one KV cache are taken, where sequences may share them: counted cell by cell, by their users."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection


class Cells:
    """The cells of a cache that all slots draw from: each slot's chain of them, and how many chains each is in."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._chains: defaultdict[int, list[int]] = defaultdict(list)
        self._users: dict[int, int] = {}
        self._named = 0

    @property
    def free(self) -> int:
        """How many are in no chain."""
        return self.capacity - len(self._users)

    @property
    def used(self) -> int:
        """How many are in some chain; each counts once."""
        return len(self._users)

    def grow(self, slot: int, count: int) -> None:
        """`count` more cells for a slot."""
        assert count <= self.free, "llama.cpp has no cell for this token"
        for cell in range(self._named, self._named + count):
            self._users[cell] = 1
            self._chains[slot].append(cell)
        self._named += count

    def share(self, source: int, target: int) -> None:
        """`target`, which has none, takes part in all cells of `source`."""
        assert not self._chains[target], "only a free slot takes part in another's cells"
        self._chains[target] = list(self._chains[source])
        for cell in self._chains[target]:
            self._users[cell] += 1

    def cut(self, slot: int, count: int) -> None:
        """A slot keeps its first `count` cells only."""
        for cell in self._chains[slot][count:]:
            self._users[cell] -= 1
            if not self._users[cell]:
                del self._users[cell]
        del self._chains[slot][count:]

    def only_in(self, slots: Collection[int]) -> int:
        """How many would be free if these slots kept none."""
        users: defaultdict[int, int] = defaultdict(int)
        for slot in slots:
            for cell in self._chains[slot]:
                users[cell] += 1
        return sum(self._users[cell] == count for cell, count in users.items())
