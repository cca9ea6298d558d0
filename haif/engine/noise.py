"""The Gumbel noise of haif-sampler-v1: a function of seed, position and token id, made only as far as it is needed.

    g[t, v] = -ln(-ln u)             u = (top 53 bits of word v) * 2^-53 + 2^-54
    word v  = the v-th little-endian u64 of AES-256-CTR(key = seed, initial counter block = t, 0 as two big-endian u64)

The counter blocks are written out and encrypted one by one (which is what CTR is), so that a key is expanded once per
answer, words can be had at random, and those of many positions at once where the vocabulary is small.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from haif.base.ids import Seed

Floats = npt.NDArray[np.float64]
Ids = npt.NDArray[np.intp]
Words = npt.NDArray[np.uint64]

_BLOCK: Final = 16  # bytes AES encrypts at once: two words
_AHEAD: Final = 16  # positions whose noise is made at once where all of it is needed


class Desk:
    """Memory for the words of one position, lent to one answer after another: fresh pages would cost more than AES."""

    def __init__(self) -> None:
        self._counters = np.zeros((0, 2), ">u8")
        self._stream = bytearray()
        self._words: Words = np.zeros(0, "<u8")

    def counters(self, t: int, count: int) -> memoryview:
        """The counter blocks of the first `count` words of position `t`."""
        blocks = -(-count // 2)
        if blocks > len(self._counters):
            self._counters = np.zeros((blocks, 2), ">u8")
            self._counters[:, 1] = np.arange(blocks)
            self._stream = bytearray(_BLOCK * (blocks + 1))  # one block more than it fills, as `update_into` asks
            self._words = np.frombuffer(self._stream, "<u8")
        self._counters[:, 0] = t
        return self._counters[:blocks].data.cast("B")

    @property
    def stream(self) -> bytearray:
        """Where they are encrypted to."""
        return self._stream

    @property
    def words(self) -> Words:
        """What was encrypted, as words."""
        return self._words


class Noise:
    """The noise of one seed."""

    def __init__(self, seed: Seed, desk: Desk | None = None) -> None:
        key = algorithms.AES256(bytes(seed))
        self._blocks = Cipher(key, modes.ECB()).encryptor()  # noqa: S305 - it is CTR by hand, above
        self._desk = desk or Desk()
        self._first = -1
        self._rows: Floats = np.empty((0, 0))

    def words(self, t: int, count: int) -> Words:
        """The first `count` words of position `t`. Valid until the desk is used again."""
        desk = self._desk
        self._blocks.update_into(desk.counters(t, count), desk.stream)
        return desk.words[:count]

    def words_at(self, t: int, ids: Ids) -> Words:
        """The words of position `t` for these token ids only: block `id // 2` holds words `id` and `id + 1`."""
        counters = np.empty((len(ids), 2), dtype=">u8")
        counters[:, 0] = t
        counters[:, 1] = ids >> 1
        blocks = np.frombuffer(self._blocks.update(counters.tobytes()), dtype="<u8").reshape(-1, 2)
        chosen: Words = blocks[np.arange(len(ids)), ids & 1]
        return chosen

    def row(self, t: int, count: int) -> Floats:
        """The noise of the first `count` tokens at position `t`, made for the following positions too."""
        first = t - t % _AHEAD
        if first != self._first or count != self._rows.shape[1]:
            self._rows = gumbel(self._ahead(first, count))
            self._first = first
        row: Floats = self._rows[t - first]
        return row

    def _ahead(self, first: int, count: int) -> Words:
        counters = np.empty((_AHEAD, -(-count // 2), 2), dtype=">u8")
        counters[:, :, 0] = np.arange(first, first + _AHEAD, dtype=np.uint64)[:, np.newaxis]
        counters[:, :, 1] = np.arange(counters.shape[1])
        stream = np.frombuffer(self._blocks.update(counters.tobytes()), dtype="<u8")
        return stream.reshape(_AHEAD, -1)[:, :count]


def gumbel(words: Words) -> Floats:
    """-ln(-ln u) of each word."""
    u = (words >> np.uint64(11)) * 2.0**-53 + 2.0**-54
    with np.errstate(divide="ignore"):
        noise: Floats = -np.log(-np.log(u))
    return noise
