"""Where answers are computed: each slot has its own KV cells, and keeps them when its answer is over.

A later request of the same scope that begins with the same tokens takes over what is there instead of computing it
again: at once where the slot is free, by a copy where an answer is still at work in it. Scopes never mix, for how fast
a prompt is answered tells what was asked before (Song et al. 2024, "The Early Bird Catches the Leak"); and what was
computed with an adapter is no beginning without it, or with another (`realm`). What is cut back or copied are the very
cells that were computed, so an answer has the same bits either way.

Slots at work should be neighbours: where each has a share of the cache, llama.cpp computes together only those whose
numbers follow one another (`llama_batch_allocr::split_equal`), and each gap is one more pass over the weights.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from haif.base import limits
from haif.base.hashing import digest
from haif.base.ids import Digest

_STRIDE: Final = 256  # tokens compared at once


class Slot:
    """The cells of the first `computed` of `tokens`, of which nobody outside `scope` may learn. Free if not `busy`."""

    __slots__ = ("busy", "computed", "number", "scope", "tokens", "used")

    def __init__(self, number: int) -> None:
        self.number = number
        self.scope = b""
        self.tokens: Sequence[int] = ()
        self.computed = 0
        self.used = 0  # when it was last freed, counted in answers
        self.busy = False


def realm(scope: bytes, adapter: Digest | None) -> bytes:
    """Within which cells are taken over: those of one scope, computed with one adapter; none has none."""
    return digest("haif v1 adapted scope", adapter, scope) if scope and adapter else scope


def choose(
    slots: Collection[Slot], scope: bytes, prompt: Sequence[int], copy_min: int = limits.PREFIX_COPY_TOKENS_MIN
) -> tuple[Slot, Slot, int]:
    """The free slot a prompt should take, the slot whose cells it should begin with, and how many of them.

    Both are the same where cells need not be copied, which is done for `copy_min` tokens and more only. The last token
    of a prompt is always computed: its logits are needed. Raises `ValueError` if no slot is free.
    """
    free = [slot for slot in slots if not slot.busy]
    shared = {slot.number: _shared(slot, scope, prompt) for slot in slots}
    busy = {slot.number for slot in slots if slot.busy}
    near = {slot.number for slot in free if not busy or busy & {slot.number - 1, slot.number + 1}}
    target = max(free, key=lambda slot: (shared[slot.number], slot.number in near, -slot.computed, -slot.used))
    source = max(slots, key=lambda slot: shared[slot.number])
    if shared[source.number] < shared[target.number] + copy_min:
        return target, target, shared[target.number]
    if shared[target.number]:  # what is there may be wanted again: take the slot that is missed least
        target = min(
            free, key=lambda slot: (shared[slot.number], slot.number not in near, slot.computed > 0, slot.used)
        )
    return target, source, shared[source.number]


def _shared(slot: Slot, scope: bytes, prompt: Sequence[int]) -> int:
    """How many tokens a prompt of `scope` may take over from a slot."""
    if not scope or slot.scope != scope:
        return 0
    return min(common(slot.tokens, prompt), slot.computed, len(prompt) - 1)


def common(left: Sequence[int], right: Sequence[int]) -> int:
    """How many tokens two sequences begin with alike."""
    end = min(len(left), len(right))
    start = 0
    while start < end and left[start : start + _STRIDE] == right[start : start + _STRIDE]:
        start += _STRIDE
    for place in range(start, min(start + _STRIDE, end)):
        if left[place] != right[place]:
            return place
    return min(start + _STRIDE, end) if start < end else end
