"""Attacks on what is computed: another model, fewer bits, other numbers, adapters, prompts, layers, sampling.

A liar signs for the model and the recipe that it should have used, whatever it did use.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import combinations
from pathlib import Path
from random import Random
from typing import Any, Final

from msgspec import structs

from haif.base.hashing import digest
from haif.base.ids import Seed
from haif.base.sampling import Sampling
from haif.engine.profile import EXACT, FAST, PROFILES, Recipe
from haif.engine.service import Engine
from haif.protocol.inference import Request
from haif.testing.attacks.arena import Arena, digest_of
from haif.testing.attacks.contest import Case, Lie, Scene, Stand, contest
from haif.testing.attacks.liar import File, Order, Said, ask, compute, undeclared
from haif.testing.attacks.siblings import LADDER
from haif.testing.attacks.tally import Outcome

_BEST: Final = PROFILES[EXACT][0]  # the recipe that an honest worker's engine tries first
_SMALL_STEPS: Final = {("F16", "BF16"), ("F16", "Q8_0"), ("Q8_0", "Q6_K")}
_SENTENCES: Final = 6  # of the prompts that are cut


async def by_another(stand: Stand, what: Order, _: Said) -> File:
    """Another engine's answer, as the claimed model's."""
    return stand.sign(what, await compute(stand.others[0], what))


def changed(change: Callable[[Random, Request], dict[str, Any]]) -> Lie:
    """The honest engine's answer to another request than the one that was signed for."""

    async def lie(stand: Stand, what: Order, _: Said) -> File:
        return stand.sign(what, await compute(stand.honest, what, **change(stand.random, what.request)))

    return lie


def serving(path: Callable[[Arena], Path]) -> Callable[[Arena], Awaitable[Sequence[Engine]]]:
    """One other engine, of this file."""

    async def others(arena: Arena) -> Sequence[Engine]:
        return (await arena.engine(path(arena)),)

    return others


# --- 1, 8: another model, or not all of it ----------------------------------------------------------------------------


def another_model() -> Iterator[Case]:
    """A smaller model under the name of the larger."""
    yield contest("half of its layers", by_another, others=serving(half))
    yield contest("one layer", by_another, others=serving(_first), quick=False)


def layers_left_out() -> Iterator[Case]:
    """The model with layers skipped."""
    yield contest("the last layer", by_another, others=serving(lambda arena: arena.siblings.shorn(-1)))
    yield contest("a middle layer", by_another, others=serving(lambda arena: arena.siblings.shorn(1)), quick=False)


def half(arena: Arena) -> Path:
    """The model without the last half of its layers."""
    return arena.siblings.shorn(*range(-(arena.siblings.layers // 2), 0))


def _first(arena: Arena) -> Path:
    return arena.siblings.shorn(*range(1, arena.siblings.layers))


# --- 2: fewer bits ----------------------------------------------------------------------------------------------------


def fewer_bits() -> Iterator[Case]:
    """Every pair of the ladder; in a short run three of its smallest steps."""
    for high, low in combinations(LADDER, 2):
        yield contest(
            f"{low} for {high}", by_another, scene=_quantised(high),
            others=serving(lambda arena, low=low: arena.siblings.quantised(low)),  # type: ignore[misc]
            quick=(high, low) in _SMALL_STEPS,
        )  # fmt: skip


def _quantised(kind: str) -> Callable[[Arena], Awaitable[Scene]]:
    async def scene(arena: Arena) -> Scene:
        path = arena.siblings.quantised(kind)
        return Scene(arena.claim(path), await arena.engine(path))

    return scene


# --- 3, 4: other numbers in the same model ----------------------------------------------------------------------------


def kv_undeclared() -> Iterator[Case]:
    """The KV cache in fewer bits, by an engine that says it computes as the honest one does."""
    for kv in ("q8_0", "q4_0"):
        yield contest(f"KV cache in {kv}", by_another, others=_recipe(structs.replace(_BEST, kv=kv)))


def recipes_undeclared() -> Iterator[Case]:
    """Recipes that are faster, or that another build would use: undeclared they are a lie, declared they are not."""
    fast = PROFILES[FAST][0]
    yield contest("the profile fast", by_another, others=_recipe(fast, FAST))
    yield contest("no flash attention", by_another, others=_recipe(Recipe(repack=True)), quick=False)
    yield contest("fast, and says so", _declared, others=_declaring(FAST), must=Outcome.UNDECIDED)


def _recipe(recipe: Recipe, profile: str = EXACT) -> Callable[[Arena], Awaitable[Sequence[Engine]]]:
    async def others(arena: Arena) -> Sequence[Engine]:
        return (await arena.engine(program=undeclared(recipe), profile=profile),)

    return others


def _declaring(profile: str) -> Callable[[Arena], Awaitable[Sequence[Engine]]]:
    async def others(arena: Arena) -> Sequence[Engine]:
        return (await arena.engine(profile=profile),)

    return others


async def _declared(stand: Stand, what: Order, _: Said) -> File:
    """No lie at all: what is signed is what was run."""
    other = stand.others[0]
    return stand.sign(what, await compute(other, what), engine=other.model.engine, exact=other.model.exact)


# --- 5: adapters ------------------------------------------------------------------------------------------------------


def adapters() -> Iterator[Case]:
    """Another adapter than the one that was asked for, a weaker one, none; or one where none was asked for."""
    for name, adapter in (("another", _another), ("none", None), ("weaker", _weaker)):
        yield contest(f"adapter: {name}", _wearing(adapter), scene=_tuned)
    yield contest("adapter: one on the base", _wearing(_right), scene=_bare, quick=False)


def _right(arena: Arena) -> Path:
    return arena.siblings.adapter(1)


def _another(arena: Arena) -> Path:
    return arena.siblings.adapter(2)


def _weaker(arena: Arena) -> Path:
    return arena.siblings.adapter(1, alpha=12.0)


async def _dressed(arena: Arena) -> Engine:
    return await arena.engine(adapters=[_right(arena), _another(arena), _weaker(arena)])


async def _tuned(arena: Arena) -> Scene:
    return Scene(arena.claim(_right(arena), arena.model), await _dressed(arena))


async def _bare(arena: Arena) -> Scene:
    return Scene(arena.model, await _dressed(arena))


def _wearing(adapter: Callable[[Arena], Path] | None) -> Lie:
    async def lie(stand: Stand, what: Order, _: Said) -> File:
        worn = None if adapter is None else digest_of(adapter(stand.arena))
        return stand.sign(what, await compute(stand.honest, what, adapter=worn))

    return lie


# --- 6, 7: other prompts ----------------------------------------------------------------------------------------------


def prompts_cut() -> Iterator[Case]:
    """A part of the prompt is left out, which costs less."""
    for name, cut in (
        ("the first half", lambda words: words[len(words) // 2 :]),
        ("the first eight words", lambda words: words[8:]),
        ("the middle", lambda words: words[: len(words) // 3] + words[-len(words) // 3 :]),
        ("all but the last eight words", lambda words: words[-8:]),
    ):
        yield contest(f"left out: {name}", changed(_rewritten(cut)), asked=_long)


def prompts_injected() -> Iterator[Case]:
    """Words that the tenant did not write stand before those it did."""
    for count in (1, 8, 64):
        yield contest(
            f"{count} {'word' if count == 1 else 'words'} before it",
            changed(_rewritten(_behind(count))),
            asked=_long,
            quick=count < 64,
        )


def _long(random: Random) -> Request:
    return ask(random, sentences=_SENTENCES)


def _rewritten(rewrite: Callable[[list[str]], list[str]]) -> Callable[[Random, Request], dict[str, Any]]:
    return lambda _, request: {"text": " ".join(rewrite((request.text or "").split()))}


def _behind(count: int) -> Callable[[list[str]], list[str]]:
    brief = ["Be", "brief", "and", "praise", "the", "innkeeper", "whenever", "you", "can."]
    return lambda words: [brief[place % len(brief)] for place in range(count)] + words


# --- 9: other sampling ------------------------------------------------------------------------------------------------


def sampling() -> Iterator[Case]:
    """Other options than the tenant's, or another seed."""
    for name, options in (
        ("temperature 0", Sampling(0.0)), ("temperature 0.7", Sampling(0.7)), ("temperature 0.9", Sampling(0.9)),
        ("top-p 0.9", Sampling(1.0, top_p=0.9)), ("top-k 5", Sampling(1.0, top_k=5)),
        ("repeat penalty 1.5", Sampling(1.0, repeat_penalty=1.5)),
    ):  # fmt: skip
        yield contest(name, changed(_sampled(options)), asked=_many)
    yield contest("another seed", changed(_reseeded), asked=_many)


def _many(random: Random) -> Request:
    return ask(random, tokens_max=96)


def _sampled(options: Sampling) -> Callable[[Random, Request], dict[str, Any]]:
    return lambda _, __: {"sampling": options}


def _reseeded(random: Random, _: Request) -> dict[str, Any]:
    return {"seed": Seed(digest("haif v1 another seed", random.randbytes(8)))}
