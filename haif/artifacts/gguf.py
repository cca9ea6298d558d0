"""The header of a GGUF, read strictly: the few numbers that say how much memory a model takes.

Nothing but plain values come out of it, and no more is read than `limits` allow: the file may be anybody's. The model
itself is opened by the engine child alone. Format: docs/gguf.md of ggml-org/ggml, version 3 (and 2, which differs in
nothing that is read here).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

from haif.base import limits
from haif.base.errors import Malformed, Oversize

Header = dict[str, int | float | bool | str]
"""Metadata by key. Of an array there is only its length."""

_MAGIC: Final = b"GGUF"
_VERSIONS: Final = (2, 3)
_NUMBERS: Final = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING: Final = 8
_ARRAY: Final = 9


def read_header(read: Callable[[int], bytes]) -> Header:
    """The metadata; `read(n)` gives the file's next n bytes, or fewer at its end.

    Raises `Malformed` for what is no GGUF header, `Oversize` for one over its limits.
    """
    source = _Source(read)
    if source.take(4) != _MAGIC or source.number("<I") not in _VERSIONS:
        raise Malformed("this is not a GGUF of version 2 or 3")
    source.number("<Q")  # tensors
    count = source.number("<Q")
    if count > limits.GGUF_KEYS_MAX:
        raise Oversize(f"a GGUF header has at most {limits.GGUF_KEYS_MAX} keys, not {count}")
    header: Header = {}
    for _ in range(int(count)):
        key = source.text(limits.GGUF_KEY_BYTES_MAX)
        if key in header:
            raise Malformed("a GGUF header names a key twice")
        header[key] = _value(source, int(source.number("<I")))
    return header


def _value(source: _Source, kind: int) -> int | float | bool | str:
    if kind in _NUMBERS:
        return source.number(_NUMBERS[kind])
    if kind == _STRING:
        return source.text(limits.GGUF_STRING_BYTES_MAX)
    if kind == _ARRAY:
        return _length(source)
    raise Malformed(f"a GGUF value of unknown type {kind}")


def _length(source: _Source) -> int:
    """How many items the array has that comes next; the items are passed over."""
    kind, count = int(source.number("<I")), int(source.number("<Q"))
    if count > limits.GGUF_ITEMS_MAX:
        raise Oversize(f"a GGUF array has at most {limits.GGUF_ITEMS_MAX} items, not {count}")
    if kind in _NUMBERS:
        source.skip(count * struct.calcsize(_NUMBERS[kind]))
    elif kind == _STRING:
        for _ in range(count):
            source.skip(int(source.number("<Q")))
    else:
        raise Malformed(f"a GGUF array of type {kind}")
    return count


class _Source:
    """Bytes in order, `limits.GGUF_HEADER_BYTES_MAX` of them at most."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self._buffer = b""
        self._place = 0
        self._left = limits.GGUF_HEADER_BYTES_MAX

    def take(self, count: int) -> bytes:
        """The next bytes. Raises `Malformed` where the file ends before, `Oversize` beyond the limit."""
        while len(self._buffer) - self._place < count:
            if count > self._left:
                raise Oversize(f"a GGUF header has at most {limits.GGUF_HEADER_BYTES_MAX} bytes")
            more = self._read(max(count, 1 << 16))
            if not more:
                raise Malformed("a GGUF header that ends in the middle")
            self._buffer = self._buffer[self._place :] + more
            self._place = 0
        found = self._buffer[self._place : self._place + count]
        self._place += count
        self._left -= count
        return found

    def skip(self, count: int) -> None:
        """Pass over bytes, as `take`."""
        if count > self._left:
            raise Oversize(f"a GGUF header has at most {limits.GGUF_HEADER_BYTES_MAX} bytes")
        while count:
            step = min(count, 1 << 16)
            self.take(step)
            count -= step

    def number(self, form: str) -> int | float | bool:
        """One number."""
        value: int | float | bool = struct.unpack(form, self.take(struct.calcsize(form)))[0]
        return value

    def text(self, most: int) -> str:
        """One string of at most `most` bytes."""
        size = int(self.number("<Q"))
        if size > most:
            raise Oversize(f"a text of {size} bytes where a GGUF header may have {most}")
        return self.take(size).decode(errors="replace")
