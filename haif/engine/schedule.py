"""Which tokens the next batch computes, decided by one rule: computed tokens catch up with the tokens there are.

Prefill, chunked prefill and decode are the same thing seen at different distances (the rule is vLLM v1's). Sequences
one token behind go first, so that running answers never wait for a long prompt. What room is left is shared by prompts:
the oldest gets half of it, so that it gets done, and the shortest of the others the rest, so that a short question does
not wait for a book.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol, TypeVar

from haif.base import limits


class Demand(Protocol):
    """A sequence that has `wanted` tokens, of which the first `computed` are in the KV cache."""

    @property
    def wanted(self) -> int:
        """How many tokens there are."""

    @property
    def computed(self) -> int:
        """How many of them are in the KV cache."""


class Member(Protocol):
    """An answer at work: `number` grows with the time it was asked for."""

    @property
    def number(self) -> int:
        """Which it is."""

    @property
    def scope(self) -> bytes:
        """Whose it is."""


M = TypeVar("M", bound=Member)


class Work(NamedTuple):
    """Compute `length` tokens of the sequence at `place`, from position `start`."""

    place: int
    start: int
    length: int


def schedule(sequences: Iterable[Demand], *, batch_tokens_max: int, prefill_tokens_max: int) -> list[Work]:
    """The work of one step over `sequences`, in order of arrival.

    Promises: at most `batch_tokens_max` tokens in all and `prefill_tokens_max` of prompts, contiguous from what is
    computed, at most one entry per sequence, and progress whenever a sequence is behind.
    """
    decode: list[Work] = []
    behind: list[tuple[int, int, int]] = []
    room = batch_tokens_max
    for place, sequence in enumerate(sequences):
        start = sequence.computed
        missing = sequence.wanted - start
        if missing == 1 and room:
            decode.append(Work(place, start, 1))
            room -= 1
        elif missing > 0:
            behind.append((place, start, missing))
    chunks = share([missing for _, _, missing in behind], min(room, prefill_tokens_max))
    for (place, start, _), length in zip(behind, chunks, strict=True):
        if length:
            decode.append(Work(place, start, length))
    return decode


def batch_tokens_max(slots: int) -> int:
    """The most tokens one batch can have: one of every running answer, and one chunk of prompts.

    llama.cpp aborts its process when a batch is larger than the context was made for, so both sides use this number.
    """
    return slots + limits.PREFILL_CHUNK_TOKENS


def share(missing: Sequence[int], room: int) -> list[int]:
    """How many of their missing tokens prompts may compute now, in order of arrival: all the room, if they need it."""
    chunks = [0] * len(missing)
    shortest = sorted(range(1, len(missing)), key=lambda place: missing[place])
    for place, most in ((0, (room + 1) // 2), *((place, room) for place in shortest), (0, room)):
        if place < len(missing):
            length = min(missing[place] - chunks[place], most, room)
            chunks[place] += length
            room -= length
    return chunks


def victim(running: Sequence[M]) -> M:
    """Whom to preempt: of the scope with the most answers, the youngest; never the oldest of all.

    So the oldest ends, then the next is the oldest: nobody is preempted for ever. Needs two answers at least.
    """
    count = Counter(each.scope for each in running)
    oldest = min(each.number for each in running)
    return max((each for each in running if each.number != oldest), key=lambda each: (count[each.scope], each.number))
