"""Hostile GGUF files by seed: a whole model with one thing in it that should not be, and its digest to match.

A file is read into its fields (`fields`), each with its kind and place, so that a mutation hits what it is named after.
Some break the form, which our reader must see; others keep it, and say what no model means: those reach llama.cpp.
"""

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random

SCALARS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
BOMBS = (
    b"{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    b"{% set n = namespace(x='aaaaaaaaaaaaaaaa') %}{% for i in range(40) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
    b"{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    b"{{ ''.__class__.__mro__[1].__subclasses__() }}",
    b"{{ 'a' * 1000000000 }}{% include '/etc/passwd' %}",
    b"{% if %}{{ messages[9].content.nothing }}",
    b"\xff\xfe{{ messages }}",
    b"{{" * 20000,
)
EDGES = (
    0,
    1,
    2,
    3,
    7,
    255,
    256,
    65_535,
    1 << 20,
    (1 << 31) - 1,
    1 << 31,
    (1 << 32) - 1,
    1 << 32,
    1 << 62,
    (1 << 64) - 1,
)


@dataclass(frozen=True)
class Field:
    """`size` bytes at `place`, of the kind `what`; `of` is the key or tensor it belongs to."""

    what: str
    place: int
    size: int
    of: str = ""


def fields(raw: bytes) -> list[Field]:
    """Every field of a well-formed file's header, in order, and the weights as the last."""
    return list(_fields(raw))


def _fields(raw: bytes) -> Iterator[Field]:
    place = 0

    def number(size: int) -> int:
        nonlocal place
        place += size
        return int.from_bytes(raw[place - size : place], "little")

    def text(what: str, of: str) -> Iterator[Field]:
        nonlocal place
        length = number(8)
        yield Field(f"{what} length", place - 8, 8, of)
        yield Field(what, place, length, of)
        place += length

    yield Field("magic", 0, 4)
    yield Field("version", 4, 4)
    yield Field("tensor count", 8, 8)
    yield Field("key count", 16, 8)
    place = 8
    tensors, keys = number(8), number(8)
    for _ in range(keys):
        length = int.from_bytes(raw[place : place + 8], "little")
        key = raw[place + 8 : place + 8 + length].decode()
        yield from text("key", key)
        kind = number(4)
        yield Field("type", place - 4, 4, key)
        if kind == 8:
            yield from text("string", key)
        elif kind == 9:
            inner = number(4)
            yield Field("array type", place - 4, 4, key)
            count = number(8)
            yield Field("array count", place - 8, 8, key)
            for _ in range(count):
                if inner == 8:
                    yield from text("element", key)
                else:
                    yield Field("number element", place, SCALARS[inner], key)
                    place += SCALARS[inner]
        else:
            yield Field("value", place, SCALARS[kind], key)
            place += SCALARS[kind]
    for _ in range(tensors):
        length = int.from_bytes(raw[place : place + 8], "little")
        name = raw[place + 8 : place + 8 + length].decode()
        yield from text("tensor name", name)
        dimensions = number(4)
        yield Field("dimensions", place - 4, 4, name)
        for _ in range(dimensions):
            yield Field("dimension", place, 8, name)
            place += 8
        yield Field("tensor type", place, 4, name)
        yield Field("offset", place + 4, 8, name)
        place += 12
    begin = -(-place // 32) * 32
    yield Field("padding", place, begin - place)
    yield Field("weights", begin, len(raw) - begin)


class Model:
    """A whole model that mutants are made of."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.by_kind: dict[str, list[Field]] = {}
        for field in fields(raw):
            self.by_kind.setdefault(field.what, []).append(field)

    def pick(self, random: Random, *kinds: str, of: str = "") -> Field:
        """A field of one of these kinds, each kind as likely as the others."""
        there = [kind for kind in kinds if any(of in field.of for field in self.by_kind.get(kind, ()))]
        return random.choice([field for field in self.by_kind[random.choice(there)] if of in field.of])

    def changed(self, field: Field, data: bytes) -> bytes:
        """The file with other bytes in a field, which may be more or fewer; nothing else follows the change."""
        return self.raw[: field.place] + data + self.raw[field.place + field.size :]

    def retold(self, field: Field, data: bytes) -> bytes:
        """The file with another text in a text field, whose length says so and after which the weights are in place."""
        padding = self.by_kind["padding"][0]
        header = self.raw[: field.place - 8] + struct.pack("<Q", len(data)) + data
        header += self.raw[field.place + field.size : padding.place]
        return header.ljust(-(-len(header) // 32) * 32, b"\0") + self.raw[padding.place + padding.size :]


def _edge(random: Random, size: int) -> bytes:
    return (random.choice(EDGES) & ((1 << 8 * size) - 1)).to_bytes(size, "little")


def _near(random: Random, model: Model, field: Field) -> bytes:
    """A number not far from the one that is there."""
    found = int.from_bytes(model.raw[field.place : field.place + field.size], "little")
    other = random.choice(
        (found + 1, found - 1, 2 * found, found // 2, found * 1000, found ^ 1 << random.randrange(16))
    )
    return (other & ((1 << 8 * field.size) - 1)).to_bytes(field.size, "little")


def _number(*kinds: str) -> Callable[[Model, Random], bytes]:
    def mutate(model: Model, random: Random) -> bytes:
        field = model.pick(random, *kinds)
        other = _edge(random, field.size) if random.random() < 0.5 else _near(random, model, field)
        return model.changed(field, other)

    return mutate


def _flip(model: Model, random: Random) -> bytes:
    weights = model.by_kind["weights"][0]
    raw = bytearray(model.raw)
    for _ in range(random.choice((1, 2, 8, 64))):
        raw[random.randrange(weights.place)] ^= 1 << random.randrange(8)
    return bytes(raw)


def _truncated(model: Model, random: Random) -> bytes:
    field = random.choice([field for each in model.by_kind.values() for field in each])
    return model.raw[: field.place + random.randrange(field.size + 1)]


def _inserted(model: Model, random: Random) -> bytes:
    place = random.randrange(model.by_kind["weights"][0].place)
    return model.raw[:place] + random.randbytes(random.choice((1, 8, 4096))) + model.raw[place:]


def _vocabulary(model: Model, random: Random) -> bytes:
    if random.random() < 0.3:
        return model.changed(field := model.pick(random, "value", of="token_id"), _near(random, model, field))
    if random.random() < 0.4:
        field = model.pick(random, "number element", of="tokenizer")
        return model.changed(field, random.randbytes(field.size))
    field = model.pick(random, "element", of="tokenizer")
    other = model.pick(random, "element", of="tokenizer")
    same = model.raw[other.place : other.place + other.size][: field.size].ljust(field.size)
    texts = (
        random.randbytes(field.size),
        b"\0" * field.size,
        b"\xff" * field.size,
        same[: field.size].ljust(field.size),
    )
    return model.changed(field, random.choice(texts))


def _weights(model: Model, random: Random) -> bytes:
    field = model.by_kind["weights"][0]
    raw = bytearray(model.raw)
    count = min(field.size, random.choice((64, 4096, 65_536)))
    place = field.place + random.randrange(field.size - count + 1)
    raw[place : place + count] = random.choice(
        (random.randbytes(count), b"\xff" * count, (struct.pack("<f", float("nan")) * count)[:count])
    )
    return bytes(raw)


def _swapped(model: Model, random: Random) -> bytes:
    """Two tensors change names, dimensions or places."""
    kind = random.choice(("tensor name", "dimension", "offset", "tensor type"))
    one, other = random.choice(model.by_kind[kind]), random.choice(model.by_kind[kind])
    raw, data = bytearray(model.raw), model.raw
    if one.size == other.size:
        raw[one.place : one.place + one.size] = data[other.place : other.place + other.size]
        raw[other.place : other.place + other.size] = data[one.place : one.place + one.size]
    else:
        raw[one.place] = ord("x")
    return bytes(raw)


def _text(model: Model, random: Random) -> bytes:
    field = model.pick(random, "string", "key")
    if field.what == "string" and random.random() < 0.5:
        return model.retold(field, random.choice((b"", b"gpt2", b"mamba", b"bert", b"llama", b"t5", b"x" * 100_000)))
    return model.changed(field, random.randbytes(field.size))


def _template(model: Model, random: Random) -> bytes:
    return model.retold(model.pick(random, "string", of="chat_template"), random.choice(BOMBS))


def _meant(model: Model, random: Random) -> bytes:
    """A number of the model that keeps the form and contradicts its weights."""
    field = model.pick(random, "value", of="llama.")
    other = random.choice((_near(random, model, field), struct.pack("<I", random.choice((0, 1, 3, 5, 1023, 1 << 16)))))
    return model.changed(field, other[: field.size].ljust(field.size, b"\0"))


MUTATIONS: dict[str, Callable[[Model, Random], bytes]] = {
    "counts": _number("version", "tensor count", "key count", "array count"),
    "lengths": _number("key length", "string length", "element length", "tensor name length"),
    "types": _number("type", "array type", "tensor type"),
    "values": _number("value"),
    "dimensions": _number("dimension", "dimensions"),
    "offsets": _number("offset"),
    "contradictions": _meant,
    "vocabulary": _vocabulary,
    "texts": _text,
    "templates": _template,
    "swapped tensors": _swapped,
    "weights": _weights,
    "flipped bits": _flip,
    "inserted bytes": _inserted,
    "truncated": _truncated,
}


OF_ADAPTERS = tuple(kind for kind in MUTATIONS if kind not in {"contradictions", "vocabulary", "templates"})
"""Those that an adapter, which has no vocabulary, can undergo."""


def mutants(
    models: list[bytes], count: int, seed: int, kinds: Sequence[str] = tuple(MUTATIONS)
) -> Iterator[tuple[str, bytes]]:
    """`count` mutants, each kind in turn, of each model in turn. The same for the same arguments."""
    known = [Model(raw) for raw in models]
    for number in range(count):
        random = Random(seed * 1_000_003 + number)
        kind = kinds[number % len(kinds)]
        model = known[number // len(kinds) % len(known)]
        data = MUTATIONS[kind](model, random)
        yield kind, data
