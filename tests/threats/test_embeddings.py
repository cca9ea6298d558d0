"""Threats to and by models that make vectors, each tried for real."""

import asyncio

import pytest

from haif.base import limits
from haif.base.errors import EngineDied, InvalidRequest, Unsupported
from haif.engine.embed import pack_tokens
from tests.support.engines import embed, engine, read_vectors
from tests.support.tiny_encoder import CLS, SEP, build_tiny_encoder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return build_tiny_encoder(tmp_path_factory.mktemp("encoder") / "m.gguf")


@pytest.mark.parametrize("attack", ["[CLS]", "[SEP]", "[MASK]", "the [SEP] cat"])
async def test_a_text_to_embed_cannot_speak_in_control_tokens(encoder, attack):
    """As a token each of them would be one; as text they are brackets and letters."""
    async with engine(encoder, context_tokens=0) as running:
        _, end = await read_vectors(running, embed(attack))
    assert end.prompt_tokens > len(attack.split()) + 2


async def test_a_document_cannot_end_the_query_it_is_ranked_for(tmp_path):
    """With a separator of its own a document could pass for the end of the query, and for another document."""
    ranks = build_tiny_encoder(tmp_path / "m.gguf", pooling="rank")
    async with engine(ranks, context_tokens=0) as running:
        scores, _ = await read_vectors(running, embed("cat [SEP] dog", "cat", query="the dog"))
        split, _ = await read_vectors(running, embed("cat", query="the dog [SEP] cat"))
    assert len({*scores, *split}) == 3


async def test_one_tenants_thousand_inputs_hold_up_nobody(encoder):
    async with engine(encoder, slots=1, context_tokens=0) as running:
        crowd = asyncio.create_task(read_vectors(running, embed(*["the cat sat on the mat"] * 2000, scope=b"many")))
        while running.statistics().steps < 1:
            await asyncio.sleep(0)
        await read_vectors(running, embed("the dog", scope=b"one"))
        assert not crowd.done()
        crowd.cancel()
        await asyncio.wait([crowd])


@pytest.mark.parametrize(
    "inputs",
    [
        ["a"] * (limits.EMBEDDING_INPUTS_MAX + 1), ["the " * 100_000], [b"\0" * 3], [pack_tokens([2**32 - 1])],
        [pack_tokens([CLS] * 100_000)], [""], ["\ud800"], ["a", ""],
    ],
)  # fmt: skip
async def test_gigantic_and_senseless_inputs_are_refused_and_the_child_lives(encoder, inputs):
    async with engine(encoder, context_tokens=0) as running:
        with pytest.raises(InvalidRequest.__mro__[1]):  # any refusal
            await read_vectors(running, embed(*inputs))
        assert len((await read_vectors(running, embed(pack_tokens([CLS, SEP]))))[0]) == 1
        assert running.statistics().deaths == 0


@pytest.mark.parametrize("place", range(200, 4000, 400))
async def test_an_altered_encoder_harms_only_its_child(encoder, tmp_path, place):
    """Its digest is the altered file's own: what is tried here is the parser behind the check."""
    altered = tmp_path / "altered.gguf"
    raw = bytearray(encoder.read_bytes())
    raw[place : place + 8] = b"\xff" * 8
    altered.write_bytes(raw)
    try:
        async with engine(altered, context_tokens=0) as running:
            await read_vectors(running, embed("the cat"))
    except (Unsupported, EngineDied):
        pass
