"""An attack as it is run: answers of an honest worker and of a liar to the same orders, each judged."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from random import Random

from haif.artifacts.service import StoredModel
from haif.engine.service import Engine
from haif.protocol.inference import Request
from haif.testing.attacks.arena import SLOTS, Arena
from haif.testing.attacks.court import judge
from haif.testing.attacks.liar import File, Order, Said, ask, compute, order, sign
from haif.testing.attacks.tally import Finding, Outcome, Trial

Tell = Callable[[Trial], None]
Play = Callable[[Arena, Random, int, Tell], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Case:
    """One way to lie: its name, what plays it so many times, and what must come of it.

    What costs next to nothing has a number of `tries` of its own; else it shares those of its row. What is not `quick`
    is left out of a short run. `unit` is what is counted until it is caught. `open`: why it is not caught yet.
    """

    name: str
    play: Play
    must: Outcome = Outcome.CAUGHT
    tries: int = 0
    quick: bool = True
    unit: str = "tokens"
    open: str = ""


@dataclass(frozen=True, slots=True)
class Stand:
    """What a liar has: the model it claims, an honest engine of it, and `others`."""

    arena: Arena
    model: StoredModel
    honest: Engine
    others: Sequence[Engine]
    random: Random

    def sign(self, what: Order, said: Said, **told: object) -> File:
        """Sign as a worker of the honest engine."""
        return sign(what, said, self.honest.model, **told)  # type: ignore[arg-type]


Lie = Callable[[Stand, Order, Said], Awaitable[File]]
"""What is signed for an order, by one who could see what an honest worker says."""


@dataclass(frozen=True, slots=True)
class Scene:
    """The model that is claimed, and the engine that is honest about it."""

    model: StoredModel
    engine: Engine


async def as_it_is(arena: Arena) -> Scene:
    """The model that is attacked, honestly served."""
    return Scene(arena.model, await arena.engine())


async def no_others(_: Arena) -> Sequence[Engine]:
    """For a liar that lies with the honest engine."""
    return ()


def contest(
    name: str, lie: Lie, *, scene: Callable[[Arena], Awaitable[Scene]] = as_it_is,
    others: Callable[[Arena], Awaitable[Sequence[Engine]]] = no_others, asked: Callable[[Random], Request] = ask,
    must: Outcome = Outcome.CAUGHT, quick: bool = True, open: str = "",  # noqa: A002 -- as in `Case`
) -> Case:  # fmt: skip
    """The case of a lie, with an honest answer to each of its orders beside it."""

    async def play(arena: Arena, random: Random, tries: int, tell: Tell) -> None:
        claimed = await scene(arena)
        stand = Stand(arena, claimed.model, claimed.engine, await others(arena), random)
        while tries > 0:
            orders = [order(random, claimed.model, asked(random)) for _ in range(min(tries, SLOTS))]
            tries -= len(orders)
            said = await asyncio.gather(*(compute(claimed.engine, each) for each in orders))
            honest = [stand.sign(*pair) for pair in zip(orders, said, strict=True)]
            lies = await asyncio.gather(*(lie(stand, *pair) for pair in zip(orders, said, strict=True)))
            for truth, told in zip(honest, lies, strict=True):
                tell(Trial(True, await judge(arena.bench, truth)))
                same = truth == told
                tell(Trial(False, Finding(Outcome.SAME) if same else await judge(arena.bench, told)))

    return Case(name, play, must, quick=quick, open=open)
