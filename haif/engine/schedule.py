"""Which tokens the next batch computes, decided by one rule: computed tokens catch up with the tokens there are.

Prefill, chunked prefill and decode are the same thing seen at different distances (the rule is vLLM v1's). Sequences
one token behind go first, so that running answers never wait for a long prompt; what room is left goes to the prompts
in order of arrival.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Protocol


class Demand(Protocol):
    """A sequence that has `wanted` tokens, of which the first `computed` are in the KV cache."""

    @property
    def wanted(self) -> int:
        """How many tokens there are."""

    @property
    def computed(self) -> int:
        """How many of them are in the KV cache."""


class Work(NamedTuple):
    """Compute `length` tokens of the sequence at `place`, from position `start`. `last`: its logits are due."""

    place: int
    start: int
    length: int
    last: bool


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
            decode.append(Work(place, start, 1, last=True))
            room -= 1
        elif missing > 0:
            behind.append((place, start, missing))
    room = min(room, prefill_tokens_max)
    for place, start, missing in behind:
        length = min(missing, room)
        if length:
            decode.append(Work(place, start, length, last=length == missing))
            room -= length
    return decode
