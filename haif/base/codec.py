"""Bytes to values and back: bounded msgpack for live messages, deterministic CBOR for what is signed as evidence.

A message type is a `Message`: a frozen struct whose fields have types and travel in order. Decoding checks, in this
order: length, structure (depth, array and map sizes, no extension types, no duplicate keys, no trailing bytes), then
types. CBOR additionally must be the deterministic encoding (RFC 8949 §4.2.1: shortest heads, definite lengths, keys in
order) without floats or tags: exactly one byte string means one value.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any, Final, TypeVar, cast

import cbor2
import msgpack
import msgspec
from msgspec import inspect

from haif.base import limits
from haif.base.errors import Malformed, Oversize
from haif.base.ids import FixedBytes

T = TypeVar("T")


class Message(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Base of everything that travels. msgpack: an array of the fields. CBOR: a map from 1, 2, 3… to the fields."""


def _encode_id(value: Any) -> Any:
    if isinstance(value, FixedBytes):
        return bytes(value)
    raise TypeError(f"{type(value).__name__} cannot travel")


def _decode_id(kind: type, value: Any) -> Any:
    if issubclass(kind, FixedBytes) and isinstance(value, bytes):
        return kind(value)
    raise TypeError(f"{kind.__name__} must be bytes")


_encoder = msgspec.msgpack.Encoder(enc_hook=_encode_id)


def encode(message: Message) -> bytes:
    """The msgpack bytes of a message."""
    return _encoder.encode(message)


def decode(kind: type[T], data: bytes, *, size_max: int = limits.MESSAGE_BYTES_MAX) -> T:
    """A message of type `kind` from untrusted msgpack bytes. Raises `Oversize` or `Malformed`.

    Short ones of a flat kind go the way of `decode_flat`.
    """
    if len(data) <= limits.MESSAGE_ITEMS_MAX and len(data) <= size_max and _flat(cast("Any", kind)):
        return decode_flat(kind, data, size_max=size_max)
    return _typed(kind, decode_any(data, size_max=size_max))


def decode_flat(kind: type[T], data: bytes, *, size_max: int) -> T:
    """The same in one pass, a tenth of the work, for a kind that has neither maps nor fields of any type.

    Its type then bounds the depth, and its size, at most `limits.MESSAGE_ITEMS_MAX`, the length of its arrays. Raises
    `Oversize` or `Malformed`.
    """
    if len(data) > size_max:
        raise Oversize(f"a message of {len(data)} bytes is over the limit of {size_max}")
    assert len(data) <= limits.MESSAGE_ITEMS_MAX, "an element takes a byte at least"
    decoder: msgspec.msgpack.Decoder[T] = _flat_decoder(cast("Any", kind))
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, ValueError, TypeError, RecursionError) as error:
        raise Malformed(f"not a {kind.__name__}: {error}") from None


def reader(kind: type[T]) -> Callable[[bytes], T]:
    """`decode` for many messages of one kind: what it costs to find out how is paid once."""
    if not _flat(cast("Any", kind)):
        return partial(decode, kind)
    read: Callable[[bytes], T] = _flat_decoder(cast("Any", kind)).decode

    def message(data: bytes) -> T:
        if len(data) > limits.MESSAGE_ITEMS_MAX:
            return decode(kind, data)
        try:
            return read(data)
        except (msgspec.MsgspecError, ValueError, TypeError, RecursionError) as error:
            raise Malformed(f"not a {kind.__name__}: {error}") from None

    return message


@cache
def _flat(kind: Any) -> bool:
    return _is_flat(inspect.type_info(kind))


@cache
def _flat_decoder(kind: Any) -> Any:
    assert _flat(kind), f"{kind.__name__} has a map, or a field of any type"
    return msgspec.msgpack.Decoder(kind, dec_hook=_decode_id, ext_hook=_no_extension)


def _is_flat(kind: inspect.Type) -> bool:
    match kind:
        case inspect.StructType(fields=fields):
            return all(_is_flat(field.type) for field in fields)
        case inspect.VarTupleType(item_type=item) | inspect.ListType(item_type=item):
            return _is_flat(item)
        case inspect.UnionType(types=types) | inspect.TupleType(item_types=types):
            return all(map(_is_flat, types))
        case inspect.CustomType(cls=cls):
            return issubclass(cls, FixedBytes)
        case _:
            return isinstance(kind, _FLAT_LEAVES)


_FLAT_LEAVES = (
    inspect.NoneType, inspect.BoolType, inspect.IntType, inspect.FloatType, inspect.StrType, inspect.BytesType,
    inspect.EnumType,
)  # fmt: skip


def encode_any(value: Any) -> bytes:
    """msgpack of plain values (None, bool, int, float, str, bytes, list, dict)."""
    return bytes(msgpack.packb(value, use_bin_type=True))


def decode_any(data: bytes, *, size_max: int = limits.MESSAGE_BYTES_MAX) -> Any:
    """Plain values from untrusted msgpack bytes. Raises `Oversize` or `Malformed`."""
    if len(data) > size_max:
        raise Oversize(f"a message of {len(data)} bytes is over the limit of {size_max}")
    try:
        value = msgspec.msgpack.decode(data, ext_hook=_no_extension)
    except (msgspec.DecodeError, ValueError, TypeError, RecursionError) as error:
        raise Malformed(f"not a valid msgpack message: {error}") from None
    if _check_plain(value, limits.MESSAGE_DEPTH_MAX, _MSGPACK_LEAVES):
        _check_unique(data)
    return value


def _no_extension(code: int, _data: memoryview) -> Any:
    raise ValueError(f"extension type {code} is not allowed")


def _check_unique(data: bytes) -> None:
    """Refuse a map that has a key twice.

    Only for what is known to be flat: this library makes room for all the elements that an array announces, which is
    33 MB for 5,000 bytes of arrays inside arrays.
    """
    try:
        msgpack.unpackb(data, raw=False, strict_map_key=False, object_pairs_hook=_unique_pairs)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise Malformed(f"not a valid msgpack message: {error}") from None


def encode_evidence(message: Message) -> bytes:
    """The deterministic CBOR of a message: a map from 1, 2, 3… to its fields."""
    fields = dict(enumerate(_plain(message), start=1))
    return _cbor(fields, ordered=_is_numbered(fields))


def decode_evidence(kind: type[T], data: bytes) -> T:
    """A message from untrusted deterministic CBOR. Raises `Oversize` or `Malformed`.

    Of a flat kind its type bounds depth and elements, as in `decode_flat`, and nothing else is looked at.
    """
    value = _loaded(data) if _flat(cast("Any", kind)) and len(data) <= limits.MESSAGE_ITEMS_MAX else decode_cbor(data)
    if not isinstance(value, dict) or not _counts(value):
        raise Malformed("evidence must be a CBOR map with the keys 1, 2, 3… in order")
    message = _typed(kind, [*value.values()])
    if _cbor(value, ordered=True) != data:  # a flat kind has no other map than this one, whose keys are in order
        raise Malformed(_NOT_DETERMINISTIC)
    return message


def _loaded(data: bytes) -> Any:
    try:
        return cbor2.loads(data)
    except (cbor2.CBORDecodeError, ValueError, TypeError, RecursionError) as error:
        raise Malformed(f"not valid CBOR: {error}") from None


def decode_cbor(data: bytes) -> Any:
    """A value from untrusted CBOR, accepted only in its deterministic encoding. Raises `Oversize` or `Malformed`."""
    if len(data) > limits.EVIDENCE_BYTES_MAX:
        raise Oversize(f"evidence of {len(data)} bytes is over the limit of {limits.EVIDENCE_BYTES_MAX}")
    try:
        value = cbor2.loads(data)
        mapped = _check_plain(value, limits.MESSAGE_DEPTH_MAX, _CBOR_LEAVES)
        again = _cbor(value, ordered=not mapped or _is_numbered(value))
    except (cbor2.CBORDecodeError, cbor2.CBOREncodeError, ValueError, TypeError, RecursionError) as error:
        raise Malformed(f"not valid CBOR: {error}") from None
    if again != data:
        raise Malformed(_NOT_DETERMINISTIC)
    return value


_NOT_DETERMINISTIC: Final = "not the deterministic encoding of its value (RFC 8949 §4.2.1)"


def cbor(value: Any) -> bytes:
    """The deterministic CBOR of plain values without floats (RFC 8949 §4.2.1)."""
    _check_plain(value, limits.MESSAGE_DEPTH_MAX, _CBOR_LEAVES)
    return _cbor(value)


def _cbor(value: Any, *, ordered: bool = False) -> bytes:
    """Without sorting, half the work, where the keys of all maps are known to be `ordered`."""
    return cbor2.dumps(value, canonical=not ordered)


def _is_numbered(value: Any) -> bool:
    """Whether it is one map with the keys 1, 2, 3… in order, and no map in it: what evidence is."""
    return isinstance(value, dict) and _counts(value) and not any(map(_has_map, value.values()))


def _counts(value: dict[Any, Any]) -> bool:
    """Whether the keys are 1, 2, 3… in order; true and 1.0, which are equal to 1 here, are other keys."""
    return [*value] == [*range(1, len(value) + 1)] and {*map(type, value)} <= {int}


def _has_map(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and any(map(_has_map, value)))


def _plain(message: Message) -> list[Any]:
    fields = msgspec.to_builtins(message, builtin_types=(bytes,), enc_hook=_encode_id)
    assert isinstance(fields, list)
    return fields


def _typed(kind: type[T], value: Any) -> T:
    try:
        return msgspec.convert(value, kind, strict=True, dec_hook=_decode_id)
    except (msgspec.ValidationError, ValueError, TypeError) as error:
        raise Malformed(f"not a {kind.__name__}: {error}") from None


def _unique_pairs(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a map has the same key twice")
    return result


_CBOR_LEAVES = (type(None), bool, int, str, bytes)
_MSGPACK_LEAVES = (*_CBOR_LEAVES, float)


def _check_plain(value: Any, left: int, leaves: tuple[type, ...]) -> bool:
    """Refuse what is nested, long or of a type beyond the limits. Whether there is a map in it."""
    if left == 0:
        raise Oversize(f"nested deeper than {limits.MESSAGE_DEPTH_MAX}")
    if isinstance(value, leaves):
        return False
    if isinstance(value, list):
        if len(value) > limits.MESSAGE_ITEMS_MAX:
            raise Oversize(f"an array of {len(value)} is over the limit of {limits.MESSAGE_ITEMS_MAX}")
        found = False
        for item in value:
            found = _check_plain(item, left - 1, leaves) or found
        return found
    if isinstance(value, dict):
        if len(value) > limits.MESSAGE_KEYS_MAX:
            raise Oversize(f"a map of {len(value)} is over the limit of {limits.MESSAGE_KEYS_MAX}")
        for key, item in value.items():
            _check_plain(key, left - 1, leaves)
            _check_plain(item, left - 1, leaves)
        return True
    raise Malformed(f"a value of type {type(value).__name__} is not allowed here")
