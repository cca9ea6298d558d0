"""Vectors of real tiny models in real children, against the same networks in numpy."""

import asyncio

import numpy as np
import pytest

from haif.base import limits
from haif.base.errors import ContextTooLong, EngineDied, InvalidRequest, Overloaded, Unsupported
from haif.base.tasks import Task
from haif.base.vectors import numbers_of
from haif.engine.embed import pack_tokens
from tests.support.engines import LIAR_OF_VECTORS, embed, engine, read, read_vectors, request
from tests.support.tiny_encoder import (
    CLS,
    SEP,
    build_tiny_encoder,
    tiny_encoder_tokens,
    tiny_encoder_vector,
    tiny_encoder_weights,
)
from tests.support.tiny_model import build_tiny_model

TEXTS = ("the cat sat on the mat", "red car", "the river sun moon tree fast blue dog")
CLOSE = 2e-4  # llama.cpp looks GELU up in a table of halves


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoders")
    return {
        pooling: build_tiny_encoder(folder / f"{pooling}.gguf", pooling=pooling, matryoshka=[16, 32])
        for pooling in ("mean", "cls", "rank")
    }


@pytest.fixture(scope="module")
def last(tmp_path_factory):
    return build_tiny_model(tmp_path_factory.mktemp("decoder") / "last.gguf", pooling=3)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
async def test_the_vectors_of_an_encoder_are_those_of_its_network(encoders, pooling):
    weights = tiny_encoder_weights()
    async with engine(encoders[pooling], context_tokens=0) as running:
        assert ({Task.EMBED}, 64, 128) == (running.model.tasks, running.model.dimensions, running.model.context_tokens)
        vectors, end = await read_vectors(running, embed(*TEXTS))
    tokens = [tiny_encoder_tokens(text) for text in TEXTS]
    for vector, each in zip(vectors, tokens, strict=True):
        assert np.allclose(tiny_encoder_vector(each, weights, pooling=pooling), numbers_of(vector), atol=CLOSE)
    assert sum(map(len, tokens)) == end.prompt_tokens


async def test_a_rank_model_scores_documents_as_its_network_does(encoders):
    weights = tiny_encoder_weights(rank=True)
    async with engine(encoders["rank"], context_tokens=0) as running:
        assert ({Task.RERANK}, 1) == (running.model.tasks, running.model.dimensions)
        scores, end = await read_vectors(running, embed(*TEXTS, query="the dog"))
    pairs = [[CLS, *tiny_encoder_tokens("the dog")[1:-1], SEP, *tiny_encoder_tokens(text)[1:-1]] for text in TEXTS]
    for score, pair in zip(scores, pairs, strict=True):
        assert np.allclose(tiny_encoder_vector(pair, weights, pooling="rank"), numbers_of(score), atol=10 * CLOSE)
    assert sum(map(len, pairs)) == end.prompt_tokens


async def test_text_and_its_tokens_have_the_same_bits_whoever_computes_beside(encoders, last):
    for path in (encoders["mean"], encoders["cls"], last):
        async with engine(path, context_tokens=0) as running:
            assert running.model.exact
            assert "bit-exact" in running.model.engine
            alone = [(await read_vectors(running, embed(text)))[0][0] for text in TEXTS]
            crowd = await asyncio.gather(*(read_vectors(running, embed(text, *TEXTS)) for text in TEXTS))
        assert alone == [vectors[0] for vectors, _ in crowd]
        assert all(alone == vectors[1:] for vectors, _ in crowd)
    tokens = [pack_tokens(tiny_encoder_tokens(text)) for text in TEXTS]
    async with engine(encoders["mean"], context_tokens=0) as running:
        assert (await read_vectors(running, embed(*TEXTS)))[0] == (await read_vectors(running, embed(*tokens)))[0]


async def test_a_decoder_that_pools_its_last_token_makes_vectors_in_batches(last):
    async with engine(last, context_tokens=0) as running:
        assert ({Task.EMBED}, 256) == (running.model.tasks, running.model.dimensions)
        vectors, _ = await read_vectors(running, embed("once upon a time", "once upon", "the end"))
        again, _ = await read_vectors(running, embed("once upon a time, said she", "the end"))
        assert running.statistics().steps < 5
    assert vectors[2] == again[1]
    assert len({*vectors, *again}) == 4


async def test_vectors_are_cut_to_the_lengths_that_the_file_allows_and_no_other(encoders):
    async with engine(encoders["mean"], context_tokens=0) as running:
        whole, _ = await read_vectors(running, embed(TEXTS[0]))
        short, _ = await read_vectors(running, embed(TEXTS[0], dimensions=16))
        beginning = np.array(numbers_of(whole[0])[:16])
        assert np.allclose(beginning / np.linalg.norm(beginning), numbers_of(short[0]), atol=1e-6)
        with pytest.raises(Unsupported, match="16, 32, 64") as caught:
            await read_vectors(running, embed(TEXTS[0], dimensions=17))
        assert "dimensions" == caught.value.param
        assert 0 == running.statistics().deaths


@pytest.mark.parametrize("pooling", ["none", None])
async def test_an_encoder_that_names_no_pooling_is_not_served(tmp_path, pooling):
    path = build_tiny_encoder(tmp_path / "m.gguf", pooling=pooling)
    with pytest.raises(Unsupported, match="names no pooling"):
        await engine(path, context_tokens=0).__aenter__()


async def test_what_a_model_cannot_do_is_refused_before_its_child_hears_of_it(tiny, encoders):
    async with engine(tiny) as running:
        assert {Task.CHAT, Task.TEXT} == running.model.tasks
        with pytest.raises(Unsupported, match="cannot do embedding"):
            await read_vectors(running, embed("x"))
    async with engine(encoders["rank"], context_tokens=0) as running:
        with pytest.raises(Unsupported, match="cannot do completion"):
            await read(running, request())
        with pytest.raises(Unsupported, match="cannot do embedding"):
            await read_vectors(running, embed("x"))


async def test_too_much_is_refused_and_hurts_nobody_else(encoders, monkeypatch):
    async with engine(encoders["mean"], context_tokens=0) as running:
        with pytest.raises(ContextTooLong):
            await read_vectors(running, embed("the cat", "the " * 200))
        with pytest.raises(InvalidRequest):
            await read_vectors(running, embed(*["a"] * (limits.EMBEDDING_INPUTS_MAX + 1)))
        with pytest.raises(InvalidRequest, match="vocabulary"):
            await read_vectors(running, embed(pack_tokens([70_000])))
        monkeypatch.setattr(limits, "EMBEDDING_BYTES_MAX", 4 * 64 * 2)
        with pytest.raises(InvalidRequest, match="ask for fewer"):
            await read_vectors(running, embed("a", "b", "c"))
        monkeypatch.setattr(limits, "ENGINE_VECTOR_BYTES_MAX", 4 * 64 * 2)
        async with running.embed(embed("a", "b")):
            with pytest.raises(Overloaded):
                await read_vectors(running, embed("a"))
        assert 1 == len((await read_vectors(running, embed("a")))[0])
        assert 0 == running.statistics().deaths


async def test_an_input_of_which_a_model_makes_no_number_is_refused_and_the_child_lives(tmp_path):
    path = build_tiny_encoder(tmp_path / "m.gguf", poison=True)
    async with engine(path, context_tokens=0) as running:
        with pytest.raises(Unsupported, match="input 1"):
            await read_vectors(running, embed("the cat", "the river"))
        assert 1 == len((await read_vectors(running, embed("the cat")))[0])
        assert 0 == running.statistics().deaths


GOOD = "struct.pack('<4f', 1, 0, 0, 0)"


def part(number=0, place=0, vector=GOOD, end="None"):
    return f"import struct; say(Report(batch=Batch([Part({number}, {place}, {vector}, {end})], [], 1, 1, 0)))"


@pytest.mark.parametrize(
    ("what", "cause"),
    [
        (part(vector="struct.pack('<4f', float('nan'), 0, 0, 1)"), "no vector of this model"),
        (part(vector="struct.pack('<4f', float('inf'), 0, 0, 1)"), "no vector of this model"),
        (part(vector="struct.pack('<4f', 3, 4, 0, 0)"), "no vector of this model"),
        (part(vector="bytes(12)"), "no vector of this model"), (part(vector="bytes(1 << 20)"), "no vector"),
        (part(place=1), "not due"), (part(number=1), "never made"),
        (part(end="EmbedEnd(3, 0, 0)"), "before or after its last"),
        ("say(Report(batch=Batch([], [], 1 << 30, 0, 0)))", "at most"),
        ("say(Report(step=Step([Output(0, [1], 'x', None)], [], 1, 1, 0, 1)))", "vectors with tokens"),
        (part() + "; " + part(place=1, end="EmbedEnd(1 << 40, 0, 0)"), "does not add up"),
    ],
)  # fmt: skip
async def test_a_child_that_lies_about_vectors_is_killed_and_the_cause_told(encoders, what, cause):
    async with engine(encoders["mean"], context_tokens=0, program=LIAR_OF_VECTORS.replace("LIE", what)) as running:
        with pytest.raises(EngineDied) as caught:
            await read_vectors(running, embed("a", "b"))
    assert cause in caught.value.message


async def test_whoever_leaves_early_is_computed_no_further(encoders):
    async with engine(encoders["mean"], context_tokens=0) as running:
        async with running.embed(embed(*["the cat sat on the mat"] * 2000)) as events:
            await anext(events)
        await read_vectors(running, embed("the cat"))
        assert running.statistics().steps < 1000
        assert 0 == running._vector_bytes
