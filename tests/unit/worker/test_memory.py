"""What a model takes, told from its header, is at least what its engine child then has in memory."""

import io
import struct
from pathlib import Path
from random import Random

import pytest

from haif.artifacts.gguf import Header, read_header
from haif.base import limits
from haif.base.amounts import bytes_text, parse_bytes
from haif.base.errors import Malformed, Misuse, Oversize, PeerFault
from haif.worker.memory import needs
from tests.support.engines import engine, read, request
from tests.support.tiny_model import build_tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("model") / "tiny.gguf")


def opened(model: Path) -> tuple[Header, int]:
    raw = model.read_bytes()
    return read_header(io.BytesIO(raw).read), len(raw)


async def test_the_estimate_covers_what_the_child_takes_and_is_near_it_where_models_are_large(model: Path) -> None:
    header, size = opened(model)
    assert ("llama", 1024, 2, 512) == (
        header["general.architecture"], header["llama.context_length"], header["llama.block_count"],
        header["tokenizer.ggml.tokens"],
    )  # fmt: skip
    told = needs(header, size, slots=8, context_tokens=512)
    assert 2 * 8 * 512 * 2 * 4 * (64 + 64) == told.cache  # bytes, slots, tokens, layers, heads, key and value
    async with engine(model, slots=8) as running:
        await read(running, request())
        measured = running.memory_bytes()
    assert told.file + told.cache / 8 < measured <= told.total


def test_a_context_that_is_not_given_is_as_trained_within_the_default() -> None:
    header = {"general.architecture": "x", "x.context_length": 1 << 20}
    assert limits.ENGINE_CONTEXT_TOKENS_DEFAULT == needs(header, 1, slots=1, context_tokens=0).context_tokens
    assert 300 == needs(header | {"x.context_length": 300}, 1, slots=1, context_tokens=0).context_tokens


def test_a_header_that_says_nothing_or_nonsense_costs_the_file_and_the_child() -> None:
    for header in ({}, {"general.architecture": 7}, {"general.architecture": "x", "x.block_count": "many"}):
        told = needs(header, 1000, slots=4, context_tokens=0)
        assert 1000 + limits.ENGINE_BYTES_BASE <= told.total < 1000 + limits.ENGINE_BYTES_BASE + (1 << 20)


def header(*pairs: bytes, count: int | None = None, version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, 0, len(pairs) if count is None else count) + b"".join(pairs)


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        (b"", Malformed),
        (b"GGML" + bytes(100), Malformed),
        (header(version=1), Malformed),
        (header(count=1), Malformed),
        (header(count=1 << 40), Oversize),
        (header(text(b"k" * 300)), Oversize),
        (header(text(b"k") + struct.pack("<I", 99)), Malformed),
        (header(text(b"k") + struct.pack("<IQ", 8, 1 << 60)), Oversize),
        (header(text(b"k") + struct.pack("<IIQ", 9, 0, 1 << 60)), Oversize),
        (header(text(b"k") + struct.pack("<IIQ", 9, 12, limits.GGUF_ITEMS_MAX)), Malformed),
        (header(text(b"k") + struct.pack("<IIQQ", 9, 8, 1, 1 << 60)), Oversize),
        (header(text(b"k") + struct.pack("<IIQ", 9, 9, 1)), Malformed),
        (header(*[text(b"k") + struct.pack("<IB", 0, 1)] * 2), Malformed),
    ],
)
def test_a_header_that_is_none_is_refused(raw: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        read_header(io.BytesIO(raw).read)


def test_no_mutated_header_does_more_than_be_refused(model: Path) -> None:
    whole = model.read_bytes()[:20_000]
    for seed in range(1500):
        random = Random(seed)
        raw = bytearray(whole[: random.choice((20_000, random.randrange(20_000)))])
        for _ in range(random.randrange(1, 6)):
            if raw:
                raw[random.randrange(min(len(raw), 600))] = random.choice((0, 1, 8, 9, 255, random.randrange(256)))
        try:
            found = read_header(io.BytesIO(raw).read)
        except PeerFault:
            continue
        needs(found, len(raw), slots=8, context_tokens=0)


@pytest.mark.parametrize(
    ("text", "count"), [("8G", 8 << 30), ("512M", 512 << 20), ("1.5k", 1536), ("2GiB", 2 << 30), ("4096", 4096)]
)
def test_amounts_are_read_as_people_write_them(text: str, count: int) -> None:
    assert count == parse_bytes(text)


@pytest.mark.parametrize("text", ["", "G", "many", "-1G", "0", "nan", "inf", "1X"])
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(Misuse, match="no amount of memory"):
        parse_bytes(text)


def test_amounts_are_shown_as_people_read_them() -> None:
    assert ["0 B", "999 B", "1.0 KiB", "1.5 MiB", "2.0 GiB"] == [
        bytes_text(count) for count in (0, 999, 1024, 3 << 19, 2 << 30)
    ]
