"""Values of a message's own shape, made from its type: one that is always the same, and any number of wild ones."""

import types
import typing
from enum import Enum
from functools import cache
from random import Random
from typing import Any

import msgspec

from haif.base.codec import Message
from haif.base.ids import FixedBytes

INTEGERS = (
    0,
    1,
    -1,
    127,
    128,
    255,
    256,
    65_535,
    65_536,
    2**31 - 1,
    2**31,
    2**32,
    2**53,
    2**63 - 1,
    2**64 - 1,
    -(2**63),
)
FLOATS = (0.0, -0.0, 1.0, -1.5, 1e308, 5e-324, float("inf"), float("-inf"), float("nan"))
TEXTS = ("", "a", "stop", "\0", "é", "\u202e", "😀", "../../etc/passwd", "a" * 300, "%s%n", "127.0.0.1", "::1", "full")


def messages_in(hint: object) -> set[type[Message]]:
    """Every message type that a type hint names."""
    if isinstance(hint, type) and issubclass(hint, Message):
        return {hint}.union(*map(messages_in, fields(hint)))
    return set().union(*(messages_in(part) for part in typing.get_args(hint)))


@cache
def fields(kind: type[Message]) -> tuple[Any, ...]:
    """The types of a message's fields, in order."""
    hints = typing.get_type_hints(kind)
    return tuple(hints[field.name] for field in msgspec.structs.fields(kind))


def example(hint: Any) -> Any:
    """The one value of a type that golden bytes are made of."""
    parts = typing.get_args(hint)
    origin = typing.get_origin(hint)
    if origin in {typing.Union, types.UnionType}:
        return example(next(part for part in parts if part is not type(None)))
    if origin is list:
        return [example(parts[0])]
    if origin is tuple:
        return (example(parts[0]),) if parts[-1] is Ellipsis else tuple(example(part) for part in parts)
    if origin is dict:
        return {example(parts[0]): example(parts[1])}
    if issubclass(hint, FixedBytes):
        return hint(bytes(range(hint.size)))
    if issubclass(hint, Enum):
        return next(iter(hint))
    if issubclass(hint, Message):
        return hint(*map(example, fields(hint)))
    return _EXAMPLES[hint]


_EXAMPLES = {int: 7, float: 0.5, bool: True, str: "text", bytes: b"bytes"}


def wild(hint: Any, rng: Random) -> Any:
    """A value that the type allows, as strange as it allows."""
    parts = typing.get_args(hint)
    origin = typing.get_origin(hint)
    if origin in {typing.Union, types.UnionType}:
        return wild(rng.choice(parts), rng)
    if origin is list:
        return [wild(parts[0], rng) for _ in range(rng.choice((0, 1, 2, 3, 20)))]
    if origin is tuple:
        if parts[-1] is Ellipsis:
            return tuple(wild(parts[0], rng) for _ in range(rng.choice((0, 1, 2, 5))))
        return tuple(wild(part, rng) for part in parts)
    if origin is dict:
        return {wild(parts[0], rng): wild(parts[1], rng) for _ in range(rng.choice((0, 1, 3)))}
    if hint is type(None):
        return None
    if issubclass(hint, Enum):
        return rng.choice(list(hint))
    if issubclass(hint, FixedBytes):
        return hint(rng.choice((bytes(hint.size), b"\xff" * hint.size, rng.randbytes(hint.size))))
    if issubclass(hint, Message):
        return hint(*(wild(field, rng) for field in fields(hint)))
    return _WILD[hint](rng)


_WILD = {
    int: lambda rng: rng.choice(INTEGERS) if rng.random() < 0.5 else rng.randrange(1 << rng.choice((4, 16, 40))),
    float: lambda rng: rng.choice(FLOATS) if rng.random() < 0.5 else rng.random(),
    bool: lambda rng: rng.random() < 0.5,
    str: lambda rng: rng.choice(TEXTS),
    bytes: lambda rng: rng.randbytes(rng.choice((0, 1, 8, 16, 32, 64, 300))),
}


def plain(rng: Random, depth: int = 3) -> Any:
    """Any value at all that msgpack or CBOR could carry."""
    choice = rng.randrange(9 if depth else 6)
    if choice < 6:
        return (
            None, rng.choice(INTEGERS), rng.choice(FLOATS), rng.choice(TEXTS), rng.randbytes(rng.randrange(40)), True,
        )[choice]  # fmt: skip
    if choice < 8:
        return [plain(rng, depth - 1) for _ in range(rng.randrange(4))]
    return {rng.choice((1, 2, "a", b"b")): plain(rng, depth - 1) for _ in range(rng.randrange(3))}
