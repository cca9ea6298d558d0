"""A strict, bounded reader of a GGUF file's header: what llama.cpp would have to believe, checked before it sees it.

Nothing of the weights is read. Every length is checked against its limit and against the bytes that are left before
anything is read or made; tensors must lie one behind the other, each where it must, inside the file. Whatever does not
hold is `Malformed`, with the place. What the numbers mean for a model is `artifacts.shape`'s to check.

Format: ggml's docs/gguf.md, versions 2 and 3, little-endian. Types and block sizes are those of ggml.h.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NoReturn, Protocol

from haif.base import limits
from haif.base.errors import Malformed

_MAGIC: Final = b"GGUF"
_VERSIONS: Final = (2, 3)
_SCALARS: Final[Mapping[int, struct.Struct]] = {
    number: struct.Struct("<" + code)
    for number, code in ((0, "B"), (1, "b"), (2, "H"), (3, "h"), (4, "I"), (5, "i"), (6, "f"), (7, "B"),
                         (10, "Q"), (11, "q"), (12, "d"))
}  # fmt: skip
_BOOL, _STRING, _ARRAY, _DOUBLE = 7, 8, 9, 12
_UNIQUE: Final = "tokenizer.ggml.tokens"

# type: elements and bytes of a block
_BLOCKS: Final[Mapping[int, tuple[int, int]]] = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 40),
    10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292), 16: (256, 66),
    17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82), 23: (256, 136),
    24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8), 29: (256, 56), 30: (1, 2), 34: (256, 54),
    35: (256, 66), 39: (32, 17),
}  # fmt: skip


class Source(Protocol):
    """Something to read from, such as an open file."""

    def read(self, count: int, /) -> bytes:
        """The next bytes; fewer at the end."""


@dataclass(frozen=True, slots=True)
class Array:
    """An array in the metadata: the type of its elements, and how many. `numbers` are kept of short ones only."""

    kind: int
    count: int
    numbers: tuple[int | float, ...] = ()


class Double(float):
    """A number of eight bytes, which llama.cpp does not take for one of four."""


Value = int | float | bool | str | Array


@dataclass(frozen=True, slots=True)
class Tensor:
    """Where a tensor lies: `offset` in bytes from the beginning of the data."""

    name: str
    shape: tuple[int, ...]
    kind: int
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Header:
    """All that stands before the weights. Texts are a stranger's: show them, never trust them."""

    version: int
    metadata: Mapping[str, Value]
    tensors: Mapping[str, Tensor]
    data: int  # where the weights begin, in bytes


def read_header(source: Source, size: int) -> Header:
    """The header of a file of `size` bytes. Raises `Malformed` for whatever is not exactly as it must be."""
    reader = _Reader(source, min(size, limits.GGUF_HEADER_BYTES_MAX))
    if reader.take(4, "the magic") != _MAGIC:
        reader.refuse("it does not begin with GGUF")
    version = reader.number(4, "the version")
    if version not in _VERSIONS:
        reader.refuse(f"version {version} is not one that is read here (2 and 3, little-endian)")
    tensors = reader.count(8, limits.GGUF_TENSORS_MAX, "tensors")
    keys = reader.count(8, limits.GGUF_KEYS_MAX, "keys")
    metadata = _metadata(reader, keys)
    alignment = _alignment(reader, metadata)
    found: dict[str, Tensor] = {}
    end = 0
    for _ in range(tensors):
        tensor = _tensor(reader, end, size)
        if found.setdefault(tensor.name, tensor) is not tensor:
            reader.refuse(f"the tensor {tensor.name!r} is there twice")
        end = _aligned(tensor.offset + tensor.size, alignment)
    data = _aligned(reader.place, alignment)
    if not data + (tensor.offset + tensor.size if found else 0) <= size <= data + end + alignment:
        reader.refuse(f"its tensors end at byte {data + end}, the file at {size}")
    return Header(version, metadata, found, data)


def _metadata(reader: _Reader, keys: int) -> dict[str, Value]:
    metadata: dict[str, Value] = {}
    for _ in range(keys):
        key = reader.name(limits.GGUF_KEY_BYTES_MAX, "a key")
        if key in metadata:
            reader.refuse(f"the key {key!r} is there twice")
        metadata[key] = reader.value(key)
    return metadata


def _alignment(reader: _Reader, metadata: Mapping[str, Value]) -> int:
    found = metadata.get("general.alignment", 32)
    if type(found) is not int or not 8 <= found <= limits.GGUF_ALIGNMENT_MAX or found & (found - 1):
        reader.refuse(f"general.alignment is no power of two from 8 to {limits.GGUF_ALIGNMENT_MAX}")
    return found


def _tensor(reader: _Reader, expected: int, size: int) -> Tensor:
    name = reader.name(limits.GGUF_TENSOR_NAME_BYTES_MAX, "a tensor's name")
    dimensions = reader.number(4, "dimensions")
    if not 1 <= dimensions <= 4:
        reader.refuse(f"the tensor {name!r} has {dimensions} dimensions, not 1 to 4")
    shape = tuple(reader.number(8, "a dimension") for _ in range(dimensions))
    kind = reader.number(4, "a tensor's type")
    offset = reader.number(8, "an offset")
    if kind not in _BLOCKS:
        reader.refuse(f"the tensor {name!r} is of type {kind}, which is not known")
    elements, block = _BLOCKS[kind]
    count = 1
    for each in shape:
        count *= each
        if not 0 < count <= 8 * size:  # no type takes less than an eighth of a byte an element
            reader.refuse(f"the tensor {name!r} has more elements than the file has room for, or none")
    if shape[0] % elements:
        reader.refuse(f"a row of the tensor {name!r} is no whole number of blocks")
    if offset != expected:
        reader.refuse(f"the tensor {name!r} is at offset {offset}, and the one before ends at {expected}")
    return Tensor(name, shape, kind, offset, count // elements * block)


def _aligned(place: int, alignment: int) -> int:
    return -(-place // alignment) * alignment


class _Reader:
    """Takes bytes, and refuses to take more than there are."""

    def __init__(self, source: Source, most: int) -> None:
        self._source = source
        self._most = most
        self.place = 0

    def refuse(self, why: str) -> NoReturn:
        raise Malformed(f"not a GGUF model that can be served: at byte {self.place}, {why}")

    def take(self, count: int, what: str) -> bytes:
        """The next bytes, checked before they are read."""
        if count > self._most - self.place:
            self.refuse(f"{what} takes {count} bytes, beyond the end of the file or of what a header may have")
        data = self._source.read(count)
        if len(data) != count:
            self.refuse(f"{what} is cut short")
        self.place += count
        return data

    def number(self, size: int, what: str) -> int:
        return int.from_bytes(self.take(size, what), "little")

    def count(self, size: int, most: int, what: str) -> int:
        found = self.number(size, what)
        if found > most:
            self.refuse(f"{found} {what} are more than {most}")
        return found

    def string(self, most: int, what: str) -> bytes:
        length = self.number(8, what)
        if length > most:
            self.refuse(f"{what} has {length} bytes, more than {most}")
        return self.take(length, what)

    def name(self, most: int, what: str) -> str:
        raw = self.string(most, what)
        if not raw or not raw.isascii() or not raw.decode().isprintable():
            self.refuse(f"{what} is empty or not printable ASCII")
        return raw.decode()

    def value(self, key: str) -> Value:
        kind = self.number(4, f"the type of {key}")
        if kind == _ARRAY:
            return self._array(key)
        if kind == _STRING:
            return self._text(key)
        return self._scalar(kind, key)

    def _text(self, key: str) -> str:
        raw = self.string(limits.GGUF_STRING_BYTES_MAX, key)
        try:
            return raw.decode()
        except UnicodeDecodeError:
            self.refuse(f"{key} is no UTF-8")

    def _texts(self, key: str, count: int) -> None:
        seen: set[bytes] = set()
        for _ in range(count):
            text = self.string(limits.GGUF_STRING_BYTES_MAX, key).partition(b"\0")[0]  # as llama.cpp takes it
            if key == _UNIQUE and text:  # llama.cpp names the empty ones itself
                if text in seen:
                    self.refuse(f"{key} has a text twice, and llama.cpp ends its process over that")
                seen.add(text)

    def _scalar(self, kind: int, key: str) -> int | float | bool:
        if kind not in _SCALARS:
            self.refuse(f"{key} is of type {kind}, which is not known")
        form = _SCALARS[kind]
        (value,) = form.unpack(self.take(form.size, key))
        if kind == _BOOL:
            if value not in (0, 1):
                self.refuse(f"{key} is neither true nor false")
            return bool(value)
        if kind == _DOUBLE:
            return Double(value)
        return int(value) if isinstance(value, int) else float(value)

    def _array(self, key: str) -> Array:
        kind = self.number(4, f"the type in {key}")
        count = self.count(8, limits.GGUF_ARRAY_MAX, f"elements of {key}")
        if kind == _STRING:
            self._texts(key, count)
            return Array(kind, count)
        if kind not in _SCALARS:
            self.refuse(f"{key} is an array of type {kind}, which cannot be")
        form = _SCALARS[kind]
        raw = self.take(count * form.size, key)
        short = count <= limits.GGUF_NUMBERS_KEPT_MAX
        return Array(kind, count, tuple(each for (each,) in form.iter_unpack(raw)) if short else ())
