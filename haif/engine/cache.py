"""The slots of a model and what is kept in them: who computes where, and whose cells are given up when they are short.

With shares, each slot has the cells of a whole context to itself. With one cache for all, slots draw from the same
cells and may share those of a common beginning, so more answers can be at work than would fit if all grew to their
longest: then what idle slots keep for later goes first, the least recently used before the others, and after that the
core preempts an answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from haif.base import limits
from haif.engine.cells import Cells
from haif.engine.slots import Slot, choose


class Memory(Protocol):
    """What the cache needs of a model."""

    def forget(self, slot: int) -> None:
        """Free the KV cells of a slot."""

    def keep(self, slot: int, count: int) -> bool:
        """Free all cells of a slot but the first `count`; False, and all are free, where that cannot be done."""

    def copy(self, source: int, target: int) -> None:
        """Fill a slot with the cells of another."""


class Cache:
    """`slots` slots; `cells` in all of them together, or 0 where each has its share."""

    def __init__(self, memory: Memory, slots: int, cells: int) -> None:
        self._memory = memory
        self._slots = [Slot(number) for number in range(slots)]
        self._cells = Cells(cells) if cells else None
        self._copy_min = 1 if cells else limits.PREFIX_COPY_TOKENS_MIN  # to share a cell costs nothing
        self.freed = 0  # answers whose slot became free

    @property
    def free(self) -> bool:
        """Whether a slot is free."""
        return not all(slot.busy for slot in self._slots)

    @property
    def used(self) -> int:
        """Cells with a token in them; where slots share cells, each counts once."""
        return sum(slot.computed for slot in self._slots) if self._cells is None else self._cells.used

    def holds(self, scope: bytes, tokens: Sequence[int], more: int) -> bool:
        """Whether these tokens and `more` would have cells, if all that is only kept for later were given up."""
        if self._cells is None:
            return True
        _, source, length = self._choose(scope, tokens)
        spare = [slot.number for slot in self._slots if not slot.busy and slot is not source]
        return len(tokens) - length + more <= self._cells.free + self._cells.only_in(spare)

    def take(self, scope: bytes, tokens: Sequence[int]) -> tuple[Slot, int]:
        """A free slot for these tokens, and how many of them it has cells for: computed for the same scope before."""
        target, source, length = self._choose(scope, tokens)
        if source is not target:
            self._forget(target)
            self._memory.copy(source.number, target.number)
            if self._cells is not None:
                self._cells.share(source.number, target.number)
        if length and self._memory.keep(target.number, length):
            if self._cells is not None:
                self._cells.cut(target.number, length)
        else:
            self._forget(target)
            length = 0
        target.busy, target.computed, target.scope, target.tokens = True, length, scope, tokens
        return target, length

    def computed(self, slot: Slot, count: int) -> None:
        """A slot has `count` more tokens in its cells."""
        slot.computed += count
        if self._cells is not None:
            self._cells.grow(slot.number, count)

    def cut(self, slot: Slot, count: int) -> int:
        """Give up all cells of a slot but those of its first `count` tokens; how many it has then: so many or none."""
        if self._memory.keep(slot.number, count):
            slot.computed = count
            if self._cells is not None:
                self._cells.cut(slot.number, count)
        else:
            tokens = slot.tokens
            self._forget(slot)
            slot.tokens = tokens
        return slot.computed

    def release(self, slot: Slot, *, keep: bool) -> None:
        """An answer left its slot. `keep` what is there for later, as long as nobody needs the place."""
        self.freed += 1
        slot.busy, slot.used = False, self.freed
        if not (keep and slot.scope):
            self._forget(slot)

    def make_room(self, count: int) -> bool:
        """Have `count` cells free, at the cost of what is only kept for later; whether they are."""
        if self._cells is None:
            return True
        idle = sorted((slot for slot in self._slots if not slot.busy and slot.computed), key=lambda slot: slot.used)
        while self._cells.free < count and idle:
            self._forget(idle.pop(0))
        return self._cells.free >= count

    def _choose(self, scope: bytes, tokens: Sequence[int]) -> tuple[Slot, Slot, int]:
        return choose(self._slots, scope, tokens, self._copy_min)

    def _forget(self, slot: Slot) -> None:
        self._memory.forget(slot.number)
        slot.tokens, slot.computed = (), 0
        if self._cells is not None:
            self._cells.cut(slot.number, 0)
