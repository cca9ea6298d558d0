"""What a model takes, told from its header, is at least what its engine child then has in memory."""

import io
from collections.abc import Mapping
from pathlib import Path

import pytest

from haif.artifacts.gguf import Value, read_header
from haif.base import limits
from haif.base.amounts import bytes_text, parse_bytes
from haif.base.errors import Misuse
from haif.worker.memory import needs
from tests.support.engines import engine, read, request
from tests.support.tiny_model import build_tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("model") / "tiny.gguf")


def opened(model: Path) -> tuple[Mapping[str, Value], int]:
    raw = model.read_bytes()
    return read_header(io.BytesIO(raw), len(raw)).metadata, len(raw)


async def test_the_estimate_covers_what_the_child_takes_and_is_near_it_where_models_are_large(model: Path) -> None:
    header, size = opened(model)
    assert ("llama", 1024, 2, 512) == (
        header["general.architecture"], header["llama.context_length"], header["llama.block_count"],
        header["tokenizer.ggml.tokens"].count,
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
