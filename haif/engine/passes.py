"""How a batch is computed where flash attention must be exact: in passes that llama.cpp adds up in one way only.

Its kernel sums a token's attention alone and in the order of the cells, whoever else is in the batch (so it is exact),
but for two cases (`ggml_compute_forward_flash_attn_ext_f16`): 64 or more tokens of one sequence are summed in tiles,
and one token of one sequence alone, before 512 cells or more, in a share for each thread. So longer spans are cut, and
a token that would be alone gets a companion in a neighbouring slot, which is forgotten again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Final, NamedTuple

Span = tuple[int, int, Sequence[int], int]  # slot, position of the first token, tokens; logits of so many last are due

ROWS_MAX: Final = 63  # of one sequence in a pass
ALONE_FROM: Final = 256  # position from which a token may not be alone: llama.cpp looks at cells 256 at a time


class Piece(NamedTuple):
    """Part of the span at `place` of a batch."""

    place: int
    span: Span


def passes(spans: Sequence[Span]) -> list[list[Piece]]:
    """The passes that compute a batch: all single tokens at once, then each longer span, those of one length together.

    Slots ascend within a pass, as they do in `spans`.
    """
    singles: list[Piece] = []
    groups: list[list[Piece]] = []
    for place, span in enumerate(spans):
        if len(span[2]) == 1:
            singles.append(Piece(place, span))
            continue
        last = groups[-1][-1].span if groups else None
        if last and last[0] + 1 == span[0] and len(last[2]) == len(span[2]):
            groups[-1].append(Piece(place, span))
        else:
            groups.append([Piece(place, span)])
    return [*([singles] if singles else []), *(piece for group in groups for piece in _cut(group))]


def _cut(group: list[Piece]) -> Iterable[list[Piece]]:
    """Spans of one length in as few equal parts as there may be; none has a single token."""
    length = len(group[0].span[2])
    parts = -(-length // ROWS_MAX)
    for part in range(parts):
        begin, end = length * part // parts, length * (part + 1) // parts
        yield [
            Piece(place, (slot, start + begin, tokens[begin:end], max(0, end - max(begin, length - due))))
            for place, (slot, start, tokens, due) in group
        ]


def companions(singles: Iterable[Span], slots: int) -> list[int]:
    """Slots that must have a token too, so that none of these, one token each, is alone where it may not be.

    `slots`: how many there are, two at least.
    """
    starts = {slot: start for slot, start, *_ in singles}
    added: list[int] = []
    for slot in sorted(starts):
        if starts[slot] >= ALONE_FROM and not _has_neighbour(slot, starts.keys() | set(added)):
            added.append(slot + 1 if slot + 1 < slots else slot - 1)
    return added


def _has_neighbour(slot: int, present: Collection[int]) -> bool:
    return slot - 1 in present or slot + 1 in present
