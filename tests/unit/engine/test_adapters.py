"""Adapters on a model in a real child: what each answers is its own, whoever else is computed and kept beside it."""

import asyncio

import pytest

from haif.base import limits
from haif.base.errors import DigestMismatch, Misuse, Unsupported
from haif.base.ids import Digest
from haif.engine.service import AdapterFile
from tests.support.engines import digest_of, engine, read, request
from tests.support.tiny_model import build_tiny_model
from tools.random_adapter import random_adapter

HOT = {"temperature": 1.0, "tokens_max": 24}


@pytest.fixture(scope="module")
def adapters(tiny, tmp_path_factory):
    """Two for the tiny model."""
    folder = tmp_path_factory.mktemp("adapters")
    paths = [random_adapter(tiny, folder / f"{seed}.gguf", seed=seed) for seed in (1, 2)]
    return tuple(AdapterFile(path, Digest(digest_of(path))) for path in paths)


def asks(adapters, **options):
    """The same three prompts with each adapter and without."""
    return [
        request(text, seed=place, adapter=adapter, **HOT | options)
        for adapter in (None, *(each.digest for each in adapters))
        for place, text in enumerate(("once upon a time", "the", "it was " * 20))
    ]


async def test_answers_with_an_adapter_are_exact_alone_and_beside_others_with_another_and_without(tiny, adapters):
    async with engine(tiny) as plain:
        without = [(await read(plain, what))[:2] for what in asks(())]
    async with engine(tiny, adapters=adapters) as running:
        assert running.model.exact
        alone = [(await read(running, what))[:2] for what in asks(adapters)]
        together = [found[:2] for found in await asyncio.gather(*(read(running, what) for what in asks(adapters)))]
    assert without == alone[:3]
    assert alone == together
    assert 9 == len({tuple(tokens) for tokens, _ in alone})


async def test_what_was_computed_with_one_adapter_is_no_beginning_with_another(tiny, adapters):
    prompt = "once upon a time there was a baker who had a dog " * 4
    chosen = [None, adapters[0].digest, adapters[1].digest]
    async with engine(tiny, adapters=adapters, context_tokens=1024) as running:
        fresh = [await read(running, request(prompt, adapter=each, **HOT)) for each in chosen]
        first = [await read(running, request(prompt, adapter=each, scope=b"a", **HOT)) for each in chosen]
        again = [await read(running, request(prompt, adapter=each, scope=b"a", **HOT)) for each in chosen]
    assert [0, 0, 0] == [end.cached_tokens for _, _, end in first]
    assert all(end.cached_tokens == end.prompt_tokens - 1 for _, _, end in again)
    assert [found[:2] for found in fresh] == [found[:2] for found in first] == [found[:2] for found in again]


async def test_an_answer_goes_on_elsewhere_with_its_adapter_and_a_draft_of_it_changes_nothing(tiny, adapters):
    adapter = adapters[1].digest
    async with engine(tiny, adapters=adapters) as one, engine(tiny, adapters=adapters[1:], slots=2) as other:
        tokens, text, _ = await read(one, request(adapter=adapter, **HOT))
        resumed = await read(other, request(adapter=adapter, resumed=tokens[:9], **HOT))
        drafted = await read(other, request(adapter=adapter, draft=tokens, **HOT))
    assert (tokens, text) == resumed[:2] == drafted[:2]


async def test_in_the_profile_fast_adapters_share_the_cells_and_not_their_contents(tiny, adapters):
    """Greedy: bits may vary there, beginnings may not."""
    prompt = "he is in the market of the town and " * 4
    what = [request(prompt, adapter=each, scope=b"a") for each in (None, adapters[0].digest, adapters[1].digest)]
    async with engine(tiny, adapters=adapters, profile="fast", context_tokens=1024) as running:
        ends = [(await read(running, each))[2] for each in what]
        again = [(await read(running, each))[2] for each in what]
    assert [0, 0, 0] == [end.cached_tokens for end in ends]
    assert all(end.cached_tokens > 100 for end in again)


async def test_an_adapter_that_was_altered_is_not_loaded(tiny, adapters, tmp_path):
    altered = tmp_path / "altered.gguf"
    altered.write_bytes(adapters[0].path.read_bytes()[:-1] + b"x")
    with pytest.raises(DigestMismatch, match=r"altered\.gguf has the digest"):
        await engine(tiny, adapters=(AdapterFile(altered, adapters[0].digest),)).__aenter__()


async def test_an_adapter_for_another_model_is_refused_by_name(tiny, tmp_path):
    other = build_tiny_model(tmp_path / "other.gguf", width=128)
    path = random_adapter(other, tmp_path / "a.gguf")
    digest = Digest(digest_of(path))
    with pytest.raises(Unsupported, match=rf"cannot put the adapter {digest.short}… on this model"):
        await engine(tiny, adapters=(AdapterFile(path, digest),)).__aenter__()


async def test_a_model_that_makes_vectors_has_none(adapters, tmp_path):
    pooled = build_tiny_model(tmp_path / "pooled.gguf", pooling=1)
    with pytest.raises(Unsupported, match="on models that make text"):
        await engine(pooled, adapters=adapters[:1]).__aenter__()


async def test_what_an_engine_does_not_have_it_refuses(tiny, adapters):
    async with engine(tiny, adapters=adapters[:1]) as running:
        with pytest.raises(Unsupported, match="does not have that adapter"):
            await read(running, request(adapter=adapters[1].digest))
    with pytest.raises(Misuse, match="each adapter once"):
        engine(tiny, adapters=adapters[:1] * 2)
    most = limits.WORKER_MODELS_MAX
    with pytest.raises(Misuse, match=f"at most {most - 1} adapters"):
        engine(tiny, adapters=tuple(AdapterFile(adapters[0].path, Digest(bytes([n]) * 32)) for n in range(most)))
