"""Honest answers of every kind, each judged: whoever is accused of one of these was accused falsely."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from random import Random
from typing import Any, Final

from msgspec import structs

from haif.artifacts.service import StoredModel
from haif.base.conversation import Turn
from haif.base.sampling import Sampling
from haif.engine.profile import EXACT_NATIVE
from haif.engine.service import Engine
from haif.node.replay import Bench
from haif.protocol.inference import Request
from haif.testing.attacks.arena import SLOTS, Arena
from haif.testing.attacks.contest import Case, Play, Tell
from haif.testing.attacks.court import judge
from haif.testing.attacks.liar import ask, compute, order, sign
from haif.testing.attacks.tally import Trial

Asked = Callable[[Random], Request]

_SCHEMA: Final = (
    '{"type": "object", "properties": {"name": {"type": "string", "maxLength": 8}, "age": {"type": "integer"}}, '
    '"required": ["name", "age"]}'
)


def kinds() -> Iterator[Case]:
    """What tenants ask for, in which ways it is computed: eight at once, resumed, from a cache, with threads."""
    for name, asked in (
        ("long answers", _long), ("every option of sampling", _options), ("chats", _chat), ("stop strings", _stop),
        ("JSON by a schema", _schema), ("short answers", _short),
        ("one prompt, again and again, cached", _cached),
    ):  # fmt: skip
        yield Case(name, _judged(asked))
    yield Case("gone on with after another worker", _resumed)
    yield Case("two threads", _judged(_long, threads=2))
    yield Case("the profile exact-native", _native)


def _judged(asked: Asked, **told: Any) -> Play:
    async def play(arena: Arena, random: Random, tries: int, tell: Tell) -> None:
        await _by(await arena.engine(**told), arena.model, arena.bench, asked, random, tries, tell)

    return play


async def _native(arena: Arena, random: Random, tries: int, tell: Tell) -> None:
    """Worker and validator with the build for this machine's own instructions, which keeps the bits of Q8_0."""
    model = arena.claim(arena.siblings.quantised("Q8_0"))
    async with Bench(replace(arena.settings, profile=EXACT_NATIVE)) as bench:
        engine = await arena.engine(model.path, profile=EXACT_NATIVE)
        await _by(engine, model, bench, _long, random, tries, tell)


async def _by(
    engine: Engine, model: StoredModel, bench: Bench, asked: Asked, random: Random, tries: int, tell: Tell
) -> None:
    """Answer so many orders, several at once, and judge them."""
    while tries > 0:
        orders = [order(random, model, asked(random)) for _ in range(min(tries, SLOTS))]
        tries -= len(orders)
        said = await asyncio.gather(*(compute(engine, each) for each in orders))
        for pair in zip(orders, said, strict=True):
            tell(Trial(True, await judge(bench, sign(*pair, engine.model, exact=engine.model.exact))))


async def _resumed(arena: Arena, random: Random, tries: int, tell: Tell) -> None:
    """Answers that broke off somewhere and were gone on with."""
    engine = await arena.engine()
    for _ in range(tries):
        request = _long(random)
        whole = await compute(engine, order(random, arena.model, request))
        begun = whole.tokens[: random.randrange(1, max(2, len(whole.tokens)))]
        what = order(random, arena.model, request, begun)
        tell(Trial(True, await judge(arena.bench, sign(what, await compute(engine, what), engine.model))))


def _long(random: Random) -> Request:
    return ask(random, tokens_max=160)


def _short(random: Random) -> Request:
    return ask(random, tokens_max=1 + random.randrange(4))


def _options(random: Random) -> Request:
    chosen = Sampling(
        random.choice((0.0, 0.5, 1.0, 1.5)), top_p=random.choice((0.8, 1.0)), top_k=random.choice((0, 40)),
        min_p=random.choice((0.0, 0.05)), repeat_penalty=random.choice((1.0, 1.2)),
        presence_penalty=random.choice((0.0, 0.5)), frequency_penalty=random.choice((0.0, 0.5)),
        bias=[(5, -50.0), (9, 5.0)] * random.randrange(2),
    )  # fmt: skip
    return ask(random, tokens_max=64, sampling=chosen)


def _chat(random: Random) -> Request:
    question = f"Tell me a story about the {random.choice(('windmill', 'baker', 'bridge', 'inn'))}."
    return structs.replace(ask(random, tokens_max=64), text=None, chat=[Turn("user", question)])


def _stop(random: Random) -> Request:
    return ask(random, tokens_max=64, stop=[" the", ".", ","])


def _schema(random: Random) -> Request:
    return ask(random, tokens_max=48, json_schema=_SCHEMA)


def _cached(random: Random) -> Request:
    return ask(random, tokens_max=64, text="The river runs slowly through the valley, past the mill", scope=b"one")
