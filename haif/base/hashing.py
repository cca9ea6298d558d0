"""BLAKE3 with one context per use, so that a digest made for one thing can never stand for another."""

from __future__ import annotations

from functools import cache

import blake3

from haif.base.ids import Digest


def digest(context: str, *parts: bytes) -> Digest:
    """BLAKE3 in `derive_key` mode over length-prefixed parts.

    `context` is a constant of the program such as "haif v1 output": never data (BLAKE3 paper, section 2.3).
    """
    hasher = _primed(context).copy()
    for part in parts:
        hasher.update(len(part).to_bytes(8, "big"))
        hasher.update(part)
    return Digest(hasher.digest())


@cache
def _primed(context: str) -> blake3.blake3:
    """The hasher of one use, before any data: to derive its key is half the cost of a short digest."""
    return blake3.blake3(derive_key_context=context)
