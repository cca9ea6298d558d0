"""What comes from outside is bounded and typed before it is believed."""

import contextlib
import tracemalloc

import cbor2
import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haif.base import codec, limits
from haif.base.errors import Malformed, Oversize, Reason
from haif.base.ids import PeerId


class Sample(codec.Message, frozen=True):
    peer: PeerId
    count: int
    words: list[str]


SAMPLE = Sample(PeerId(bytes(range(32))), 7, ["a", "b"])
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=8) | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=8,
)


def test_a_message_comes_back_as_it_was_sent() -> None:
    assert codec.decode(Sample, codec.encode(SAMPLE)) == SAMPLE
    assert codec.decode_evidence(Sample, codec.encode_evidence(SAMPLE)) == SAMPLE


def test_the_bytes_of_a_message_are_those_msgpack_and_cbor_define() -> None:
    assert msgpack.packb([bytes(SAMPLE.peer), 7, ["a", "b"]]) == codec.encode(SAMPLE)
    assert cbor2.dumps({1: bytes(SAMPLE.peer), 2: 7, 3: ["a", "b"]}, canonical=True) == codec.encode_evidence(SAMPLE)


def test_ids_keep_their_type() -> None:
    assert type(codec.decode(Sample, codec.encode(SAMPLE)).peer) is PeerId


@pytest.mark.parametrize(
    "value",
    [
        [b"short", 7, []],
        [bytes(32), "7", []],
        [bytes(32), 7, [], 8],
        [bytes(32)],
        {"peer": bytes(32), "count": 7},
        [bytes(32), 7, [1]],
        [bytes(32), True, []],
        None,
    ],
)
def test_a_message_of_another_shape_is_malformed(value: object) -> None:
    with pytest.raises(Malformed) as caught:
        codec.decode(Sample, msgpack.packb(value))
    assert caught.value.reason is Reason.MALFORMED


def test_too_many_bytes_are_oversize_before_they_are_read() -> None:
    with pytest.raises(Oversize) as caught:
        codec.decode(Sample, bytes(limits.MESSAGE_BYTES_MAX + 1))
    assert caught.value.reason is Reason.OVERSIZE
    with pytest.raises(Oversize):
        codec.decode_cbor(bytes(limits.EVIDENCE_BYTES_MAX + 1))


@pytest.mark.parametrize(
    "data",
    [
        b"\xdd\x7f\xff\xff\xff",  # an array said to have 2^31 elements
        b"\xc7\x01\x05\x00",  # an extension type
        b"\xd4\x05\x00",
        b"\x82\xa1a\x01\xa1a\x02",  # the same key twice
        b"\x01\x02",  # trailing bytes
        b"\x92\x01",  # truncated
        b"\xa1\xff",  # not UTF-8
        b"",
        b"\x81\x91\x01\x02",  # an array as a key
        b"\x91" * 5000,
    ],
)
def test_hostile_msgpack_is_refused(data: bytes) -> None:
    with pytest.raises(Malformed):
        codec.decode_any(data)


@pytest.mark.parametrize(
    "value", [dict.fromkeys(range(limits.MESSAGE_KEYS_MAX + 1)), list(range(limits.MESSAGE_ITEMS_MAX + 1))]
)
def test_more_elements_than_the_limit_are_oversize(value: object) -> None:
    with pytest.raises(Oversize):
        codec.decode_any(msgpack.packb(value))


def test_what_arrays_announce_takes_no_memory() -> None:
    """Arrays inside arrays that each announce thousands of elements: 5,000 bytes took 33 MB."""
    tracemalloc.start()
    try:
        with pytest.raises(Malformed):
            codec.decode_any(b"\xdd\x00\x00\x10\x00" * 1000)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_nesting_is_bounded() -> None:
    deep: object = 1
    for _ in range(limits.MESSAGE_DEPTH_MAX):
        deep = [deep]
    with pytest.raises(Oversize):
        codec.decode_any(msgpack.packb(deep))
    with pytest.raises((Oversize, Malformed)):
        codec.decode_any(b"\x91" * 5000 + b"\x01")
    with pytest.raises((Oversize, Malformed)):
        codec.decode_cbor(b"\x81" * 5000 + b"\x01")


@pytest.mark.parametrize(
    "data",
    [
        b"\x18\x01",  # 1 in two bytes
        b"\x9f\x01\xff",  # indefinite length
        b"\xa2\x02\x00\x01\x00",  # keys out of order
        b"\xa2\x01\x01\x01\x02",  # the same key twice
        b"\xf9\x3c\x00",  # a float
        b"\xc1\x1a\x00\x00\x00\x00",  # a tag
        b"\xf7",  # undefined
        b"\x01\x01",  # trailing bytes
        b"\xa1\x01",
    ],
)
def test_cbor_is_accepted_only_in_its_deterministic_form(data: bytes) -> None:
    with pytest.raises(Malformed):
        codec.decode_cbor(data)


def test_evidence_has_the_keys_one_two_three() -> None:
    for keys in ((0, 1, 2), (1, 2, 4), (2, 1, 3), (True, 2, 3), (1.0, 2, 3), (1, 2.0, 3)):
        with pytest.raises(Malformed):
            codec.decode_evidence(Sample, cbor2.dumps(dict(zip(keys, (bytes(32), 7, []), strict=True))))


@given(plain)
def test_plain_values_survive_both_codecs_or_are_refused(value: object) -> None:
    for encode, decode in ((codec.encode_any, codec.decode_any), (codec.cbor, codec.decode_cbor)):
        try:
            data = encode(value)
        except Oversize:
            continue
        try:
            assert value == decode(data)
        except Oversize:
            continue


class Named(codec.Message, frozen=True):
    names: dict[str, int]


class Anything(codec.Message, frozen=True):
    value: object


_ENCODED = codec.encode(SAMPLE)


@given(st.integers(0, len(_ENCODED) - 1), st.binary(max_size=6), st.integers(0, 6))
def test_in_one_pass_nothing_is_accepted_that_is_not_in_two(at: int, put: bytes, cut: int) -> None:
    data = _ENCODED[:at] + put + _ENCODED[at + cut :]
    try:
        decoded = codec.decode_flat(Sample, data, size_max=1200)
    except (Malformed, Oversize):
        return
    assert codec._typed(Sample, codec.decode_any(data)) == codec.decode(Sample, data) == decoded
    assert codec.reader(Sample)(data) == decoded
    assert type(decoded.peer) is PeerId


@pytest.mark.parametrize("data", [b"\xdd\x7f\xff\xff\xff", b"\x93\xc4\x20" + bytes(32) + b"\x07\xdd\x7f\xff\xff\xff"])
def test_an_array_said_to_be_long_takes_no_memory_in_one_pass_either(data: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(Malformed):
            codec.decode_flat(Sample, data, size_max=1200)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_in_one_pass_too_many_bytes_are_oversize_and_text_is_not_bytes() -> None:
    with pytest.raises(Oversize):
        codec.decode_flat(Sample, bytes(1201), size_max=1200)
    with pytest.raises(Malformed):
        codec.decode_flat(Sample, _ENCODED + b"\x00", size_max=1200)
    with pytest.raises(Malformed):
        codec.decode_flat(Sample, msgpack.packb(["0" * 32, 7, []]), size_max=1200)


@pytest.mark.parametrize("kind", [Named, Anything])
def test_only_a_kind_without_maps_and_free_fields_is_decoded_in_one_pass(kind: type[codec.Message]) -> None:
    with pytest.raises(AssertionError):
        codec.decode_flat(kind, b"\x91\x80", size_max=1200)


def test_what_reads_many_messages_reads_long_ones_too_and_refuses_as_decode_does() -> None:
    assert codec.reader(Named)(b"\x91\x80") == codec.decode(Named, b"\x91\x80")
    read = codec.reader(Sample)
    long = Sample(SAMPLE.peer, 1, ["x" * 2 * limits.MESSAGE_ITEMS_MAX])
    assert long == read(codec.encode(long))
    for data in (b"", codec.encode(SAMPLE) + b"\x00", codec.encode(SAMPLE)[:-1]):
        with pytest.raises(Malformed):
            read(data)


_EVIDENCE = codec.encode_evidence(SAMPLE)


@given(st.integers(0, len(_EVIDENCE) - 1), st.binary(max_size=6), st.integers(0, 6))
def test_evidence_is_accepted_in_one_encoding_only(at: int, put: bytes, cut: int) -> None:
    data = _EVIDENCE[:at] + put + _EVIDENCE[at + cut :]
    try:
        decoded = codec.decode_evidence(Sample, data)
    except (Malformed, Oversize):
        return
    fields = dict(enumerate((bytes(decoded.peer), decoded.count, decoded.words), start=1))
    assert cbor2.dumps(fields, canonical=True) == data


@pytest.mark.parametrize("key", [True, 1.0])
def test_what_is_equal_to_one_is_no_other_way_to_say_one(key: object) -> None:
    data = cbor2.dumps({key: [], 2: b""})
    with pytest.raises(Malformed):
        codec.decode_cbor(data)


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_but_our_errors(data: bytes) -> None:
    for decode in (
        codec.decode_any,
        codec.decode_cbor,
        lambda raw: codec.decode(Sample, raw),
        lambda raw: codec.decode_flat(Sample, raw, size_max=200),
    ):
        with contextlib.suppress(Malformed, Oversize):
            decode(data)
