"""What llama.cpp computes at once, and the logits that come of it, as numpy arrays over its own memory."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import llama_cpp as api
import numpy as np
import numpy.typing as npt

from haif.engine.passes import Span

Rows = npt.NDArray[np.float32]


class Batch:
    """A `llama_batch` whose columns are numpy arrays, so that filling it is a few slice assignments."""

    def __init__(self, size: int) -> None:
        self._tokens = np.zeros(size, np.int32)
        self._positions = np.zeros(size, np.int32)
        self._slots = np.zeros(size, np.int32)
        self._due = np.zeros(size, np.int8)
        self._counts = np.ones(size, np.int32)
        self._slot_pointers = self._slots.ctypes.data + 4 * np.arange(size, dtype=np.uint64)
        self._size = size
        self.batch = api.llama_batch(
            n_tokens=0,
            token=ctypes.cast(self._tokens.ctypes.data, ctypes.POINTER(ctypes.c_int32)),
            embd=None,
            pos=ctypes.cast(self._positions.ctypes.data, ctypes.POINTER(ctypes.c_int32)),
            n_seq_id=ctypes.cast(self._counts.ctypes.data, ctypes.POINTER(ctypes.c_int32)),
            seq_id=ctypes.cast(self._slot_pointers.ctypes.data, ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))),
            logits=ctypes.cast(self._due.ctypes.data, ctypes.POINTER(ctypes.c_int8)),
        )

    def fill(self, spans: Sequence[Span]) -> int:
        """Write the spans; how many rows of logits they ask for."""
        tokens: list[int] = []
        positions: list[int] = []
        slots: list[int] = []
        due: list[bool] = []
        for slot, start, these, wanted in spans:
            count = len(these)
            tokens += these
            positions += range(start, start + count)
            slots += [slot] * count
            due += [False] * (count - wanted)
            due += [True] * wanted
        count = len(tokens)
        assert 0 < count <= self._size, "llama.cpp aborts the process on a larger batch"
        self._tokens[:count] = tokens
        self._positions[:count] = positions
        self._slots[:count] = slots
        self._due[:count] = due
        self.batch.n_tokens = count
        return sum(due)


class LogitsView:
    """llama.cpp's logits as a numpy matrix, without copying; a new view only when the library moved its buffer."""

    def __init__(self, vocabulary: int) -> None:
        self._vocabulary = vocabulary
        self._address = 0
        self._view: Rows = np.empty((0, vocabulary), np.float32)

    def rows(self, pointer: Any, count: int) -> Rows:
        """The first `count` rows at llama.cpp's pointer."""
        if count == 0:
            return self._view[:0]
        address = ctypes.addressof(pointer.contents)
        if address != self._address or count > len(self._view):
            raw = (ctypes.c_float * (count * self._vocabulary)).from_address(address)
            self._view = np.frombuffer(memoryview(raw), np.float32).reshape(count, self._vocabulary)
            self._address = address
        return self._view[:count]
