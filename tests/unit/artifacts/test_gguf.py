"""The header of a GGUF is believed only where every byte of it can be."""

import io
import struct

import pytest

from haif.artifacts.gguf import Array, read_header
from haif.artifacts.shape import Shape, shape_of
from haif.base import limits
from haif.base.errors import Malformed
from tests.support.mutants import Model, fields
from tests.support.tiny_model import build_tiny_model


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return build_tiny_model(
        tmp_path_factory.mktemp("m") / "m.gguf", layers=1, width=64, heads=2, feed_forward=64
    ).read_bytes()


def read(raw):
    return read_header(io.BytesIO(raw), len(raw))


def refused(raw):
    with pytest.raises(Malformed) as caught:
        shape_of(read(raw))
    return caught.value.message


def u64(number):
    return struct.pack("<Q", number)


def text(value):
    return u64(len(value)) + value


def header(*pairs, tensors=0, version=3):
    return b"GGUF" + struct.pack("<IQQ", version, tensors, len(pairs)) + b"".join(pairs)


def pair(key, kind, value):
    return text(key) + struct.pack("<I", kind) + value


def test_a_whole_file_is_described(whole):
    found = read(whole)
    assert Shape("llama", "tiny random llama", 94_400, 1024, 512) == shape_of(found)
    assert 3 == found.version
    assert (64, 512) == found.tensors["token_embd.weight"].shape
    assert Array(8, 512) == found.metadata["tokenizer.ggml.tokens"]
    assert next(field.place for field in fields(whole) if field.what == "weights") == found.data
    assert len(whole) == found.data + sum(-(-tensor.size // 32) * 32 for tensor in found.tensors.values())


def test_cut_anywhere_it_is_refused(whole):
    for place in {field.place for field in fields(whole)} | {len(whole) - 1}:
        refused(whole[:place])


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"", "the magic takes 4 bytes"),
        (b"GGML" + bytes(40), "does not begin with GGUF"),
        (header(version=1), "version 1"),
        (header(version=3 << 24), "little-endian"),
        (header(tensors=limits.GGUF_TENSORS_MAX + 1), "tensors are more than"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1 << 63), "keys are more than"),
        (header(pair(b"a", 4, bytes(4)), pair(b"a", 4, bytes(4))), "'a' is there twice"),
        (header(pair(b"", 4, bytes(4))), "empty or not printable"),
        (header(pair(b"\x00", 4, bytes(4))), "empty or not printable"),
        (header(u64(1 << 60)), "a key has 1152921504606846976 bytes"),
        (header(pair(b"a", 13, bytes(8))), "type 13, which is not known"),
        (header(pair(b"a", 7, b"\x02")), "neither true nor false"),
        (header(pair(b"a", 8, u64(1 << 40))), "a has 1099511627776 bytes"),
        (header(pair(b"a", 8, u64(9))), "beyond the end of the file"),
        (header(pair(b"a", 8, text(b"\xff"))), "no UTF-8"),
        (header(pair(b"a", 9, struct.pack("<IQ", 9, 1))), "an array of type 9"),
        (header(pair(b"a", 9, struct.pack("<IQ", 4, 1 << 61))), "elements of a are more than"),
        (header(pair(b"a", 9, struct.pack("<IQ", 4, 1 << 20))), "beyond the end of the file"),
        (header(pair(b"general.alignment", 4, struct.pack("<I", 33))), "no power of two"),
        (header(pair(b"general.alignment", 4, struct.pack("<I", 1 << 31))), "no power of two"),
        (header(pair(b"general.alignment", 8, text(b"32"))), "no power of two"),
    ],
)
def test_what_does_not_hold_is_refused_with_its_place(raw, why):
    assert why in refused(raw)


def tensor(name=b"t", shape=(4,), kind=0, offset=0):
    shapes = b"".join(map(u64, shape))
    return text(name) + struct.pack("<I", len(shape)) + shapes + struct.pack("<IQ", kind, offset)


@pytest.mark.parametrize(
    ("tensors", "why"),
    [
        ([tensor(name=b"x" * 64)], "64 bytes, more than 63"),
        ([tensor(shape=())], "0 dimensions"),
        ([tensor(shape=(1,) * 5)], "5 dimensions"),
        ([tensor(shape=(0,))], "more elements than the file has room for, or none"),
        ([tensor(shape=(1 << 62, 1 << 62))], "more elements than the file has room for"),
        ([tensor(kind=4)], "type 4, which is not known"),
        ([tensor(kind=8)], "no whole number of blocks"),
        ([tensor(offset=32)], "at offset 32, and the one before ends at 0"),
        ([tensor(), tensor(b"u", offset=16)], "at offset 16, and the one before ends at 32"),
        ([tensor(), tensor(b"u")], "at offset 0, and the one before ends at 32"),
        ([tensor(), tensor(offset=32)], "'t' is there twice"),
    ],
)
def test_tensors_lie_one_behind_the_other_inside_the_file(tensors, why):
    head = header(tensors=len(tensors)) + b"".join(tensors)
    assert why in refused(head + bytes(256))


def test_what_lies_behind_the_last_tensor_is_refused():
    head = header(tensors=1) + tensor()
    whole = head.ljust(-(-len(head) // 32) * 32, b"\0") + bytes(16)
    assert {"t"} == set(read(whole).tensors)
    assert {"t"} == set(read(whole + bytes(16)).tensors), "padding"
    for raw in (whole[:-1], whole + bytes(4096)):
        with pytest.raises(Malformed, match="its tensors end at byte"):
            read(raw)


NO_NUMBER = struct.pack("<f", float("nan"))


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("llama.block_count", u64(0)[:4], "is 0"),
        ("llama.block_count", u64(513)[:4], "no number from 0 to 512"),
        ("llama.context_length", b"\xff" * 4, "no number from 0 to"),
        ("llama.attention.head_count", b"\xff" * 4, "no number from 0 to"),
        ("llama.attention.layer_norm_rms_epsilon", NO_NUMBER, "is no number"),
        ("tokenizer.ggml.bos_token_id", u64(512)[:4], "names no token"),
        ("general.architecture", b"ll/ma", "missing or no name"),
        ("tokenizer.chat_template", b"\xff", "no UTF-8"),
    ],
)
def test_numbers_that_no_model_has_are_refused(whole, key, value, why):
    model = Model(whole)
    (field,) = [each for each in fields(whole) if each.of == key and each.what in ("value", "string")]
    changed = model.changed(field, value) if field.what == "value" else model.retold(field, value)
    assert why in refused(changed)


def test_a_vocabulary_has_no_text_twice(whole):
    """Found by hostile models: llama.cpp asserts it, and its process ends."""
    one, other = [each for each in fields(whole) if each.of == "tokenizer.ggml.tokens" and each.what == "element"][5:7]
    twice = whole[other.place : other.place + other.size]
    assert "has a text twice" in refused(Model(whole).changed(one, twice))
    assert "has a text twice" in refused(Model(whole).retold(one, twice + b"\0x")), "llama.cpp stops at the zero"
    empty = Model(whole).retold(one, b"")
    assert 512 == shape_of(read(empty)).vocabulary


@pytest.mark.parametrize("missing", ["general.architecture", "llama.block_count", "tokenizer.ggml.tokens"])
def test_what_every_model_has_must_be_there(whole, missing):
    (field,) = [each for each in fields(whole) if each.what == "key" and each.of == missing]
    renamed = Model(whole).changed(field, b"x" * field.size)
    assert "missing" in refused(renamed) or "no vocabulary" in refused(renamed)


@pytest.mark.parametrize("key", ["tokenizer.ggml.scores", "tokenizer.ggml.token_type"])
def test_every_token_has_one_number(whole, key):
    (count,) = [each for each in fields(whole) if each.of == key and each.what == "array count"]
    fewer = whole[: count.place] + u64(511) + whole[count.place + 8 : count.place + 8 + 511 * 4]
    rest = whole[count.place + 8 + 512 * 4 :]
    padding = next(each for each in fields(whole) if each.what == "padding")
    moved = (fewer + rest)[: padding.place - 4]
    moved = moved.ljust(-(-len(moved) // 32) * 32, b"\0") + whole[padding.place + padding.size :]
    assert f"{key} does not have one number for each of 512 tokens" in refused(moved)
