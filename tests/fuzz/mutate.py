"""What a hostile sender does to bytes: blindly, or knowing that they are msgpack or CBOR."""

from collections.abc import Callable
from random import Random
from typing import Any

import cbor2
import msgpack

from tests.fuzz.values import plain

_LENGTHS = (
    b"\xff",
    b"\xff\xff",
    b"\xff\xff\xff\xff",
    b"\0",
    b"\x7f\xff\xff\xff",
    b"\0\0\0\0",
    b"\x80",
    b"\xdd\xff\xff\xff\xff",
)
_NESTS = (b"\x91", b"\x81", b"\xdd\0\0\x10\0", b"\xdc\xff\xff", b"\x9a\0\0\xff\xff")
_HEADS = b"\x81\x91\x9a\x9b\x9f\xbb\xc1\xc4\xc7\xd4\xd8\xdc\xdd\xde\xdf\x5b\x7b\xfb"


def mutated(data: bytes, rng: Random) -> bytes:
    """The bytes with one to three things done to them."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        data = rng.choice(_WAYS)(data, rng)
    return data


def _flip(data: bytes, rng: Random) -> bytes:
    if not data:
        return b"\0"
    at = rng.randrange(len(data))
    return data[:at] + bytes((data[at] ^ 1 << rng.randrange(8),)) + data[at + 1 :]


def _overwrite(data: bytes, rng: Random) -> bytes:
    at, new = rng.randrange(len(data) + 1), rng.choice(_LENGTHS)
    return data[:at] + new + data[at + len(new) :]


def _head(data: bytes, rng: Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + bytes((rng.choice(_HEADS),)) + data[at + 1 :]


def _insert(data: bytes, rng: Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.randbytes(rng.choice((1, 2, 4, 30))) + data[at:]


def _cut(data: bytes, rng: Random) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _delete(data: bytes, rng: Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + data[at + rng.choice((1, 2, 4, 16)) :]


def _double(data: bytes, rng: Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + data[at:] * rng.choice((2, 2, 20))


def _nest(data: bytes, rng: Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.choice(_NESTS) * 200 + data[at:]


_WAYS = (_flip, _flip, _overwrite, _head, _insert, _cut, _cut, _delete, _double, _nest)


def _grafted(value: Any, rng: Random) -> Any:
    """The value with one of its parts replaced, dropped or doubled."""
    if isinstance(value, (list, tuple)) and value and rng.random() < 0.8:
        items, at = list(value), rng.randrange(len(value))
        match rng.randrange(6):
            case 0:
                del items[at]
            case 1:
                items.insert(at, items[at])
            case 2:
                items.append(plain(rng))
            case _:
                items[at] = _grafted(items[at], rng)
        return items
    if isinstance(value, dict) and value and rng.random() < 0.8:
        pairs, key = dict(value), rng.choice(list(value))
        match rng.randrange(4):
            case 0:
                del pairs[key]
            case 1:
                pairs[rng.choice((0, "new", 9))] = plain(rng)
            case _:
                pairs[key] = _grafted(pairs[key], rng)
        return pairs
    return plain(rng)


def grafted_msgpack(data: bytes, rng: Random) -> bytes:
    """A valid msgpack value, one of its parts another than it should be."""
    return _grafted_with(data, rng, lambda raw: msgpack.unpackb(raw, raw=False, strict_map_key=False), msgpack.packb)


def grafted_cbor(data: bytes, rng: Random) -> bytes:
    """The same in CBOR, mostly in its deterministic encoding."""
    return _grafted_with(data, rng, cbor2.loads, lambda value: cbor2.dumps(value, canonical=rng.random() < 0.9))


def _grafted_with(data: bytes, rng: Random, load: Callable[[bytes], Any], dump: Callable[[Any], bytes]) -> bytes:
    try:
        return bytes(dump(_grafted(load(data), rng)))
    except (ValueError, TypeError, OverflowError):
        return mutated(data, rng)
