"""What a worker commits to when it signs for an answer: its tokens, and the logits they were chosen from.

An answer is cut into windows of 32 tokens. Each window's leaf holds its tokens and the BLAKE3 digest of the logits rows
they were sampled from, as raw float32; the receipt signs the root of the tree of leaves. Under the profile `exact`
whoever has the model and the request gets the same rows bit for bit, from one prefill of prompt and answer, and so the
same root: a worker that ran another model, another quantisation, another prompt or other options does not. Nothing in a
leaf is the worker's to choose, so that there is nothing to try until a lottery comes out well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from haif.base import codec, limits
from haif.base.ids import Digest
from haif.proof import merkle


@dataclass(frozen=True, slots=True)
class Window:
    """Tokens `first` and following of an answer, each as four little-endian bytes, and the digest of their logits."""

    number: int
    first: int
    tokens: bytes
    rows: Digest

    def leaf(self) -> Digest:
        """Its place in the tree: over the deterministic CBOR of its fields under the keys 1 to 4."""
        return merkle.leaf(codec.cbor({1: self.number, 2: self.first, 3: self.tokens, 4: bytes(self.rows)}))


def windows(first: int, tokens: Sequence[int], rows: Sequence[Digest]) -> list[Window]:
    """The windows of an answer, or of its part from token `first`: `rows` has the digest of each, in order.

    Raises `ValueError` if there are more or fewer digests than windows.
    """
    size = limits.TRANSCRIPT_WINDOW_TOKENS
    parts = [tokens[start : start + size] for start in range(0, len(tokens), size)]
    return [
        Window(number, first + number * size, b"".join(token.to_bytes(4, "little") for token in part), digest)
        for number, (part, digest) in enumerate(zip(parts, rows, strict=True))
    ]


def root(these: Sequence[Window]) -> Digest:
    """What a receipt signs: the root of RFC 9162's tree over the windows."""
    return merkle.root([window.leaf() for window in these])
