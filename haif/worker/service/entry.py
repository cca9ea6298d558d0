"""One model of a pool: what it is, and where it stands. The pool moves it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from haif.base import limits
from haif.base.adapters import Adapted
from haif.base.clock import Instant
from haif.base.ids import ModelDigest
from haif.base.tasks import Task, Tasks
from haif.engine.meter import Meter
from haif.engine.request import ModelInfo
from haif.engine.service import Backend
from haif.worker.memory import Needs
from haif.worker.quarantine import Case
from haif.worker.room import Resident
from haif.worker.standing import Standing, State

IN_MEMORY: Final = frozenset({State.WARM, State.LEAVING, State.LOADING})


class Opener(Protocol):
    """Makes an engine for one model; it is entered to load it and left to unload it."""

    def __call__(
        self, *, on_died: Callable[[str], None], on_progress: Callable[[str, int], None], meter: Meter
    ) -> Backend:
        """The engine, not yet entered."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A model with an adapter on it: a model of its own, which the engine of its base computes. `size` in bytes."""

    name: str
    adapted: Adapted
    size: int

    @property
    def model(self) -> ModelDigest:
        """What it is asked for as."""
        return self.adapted.model


@dataclass(frozen=True, kw_only=True)
class Served:
    """A model to serve: under which name, how it is opened, how many requests at once, what memory it needs.

    `verifiable`: whether an engine of ours computes it. `tasks` and `dimensions`: what is expected of it before its
    engine has said. `variants`: what its engine serves besides.
    """

    model: ModelDigest
    name: str
    slots: int
    needs: Needs
    open: Opener
    pinned: bool = False
    verifiable: bool = True
    tasks: Tasks = frozenset({Task.CHAT, Task.TEXT})
    dimensions: int = 0
    variants: tuple[Variant, ...] = ()


@dataclass(slots=True)
class Entry:
    """`running` requests have its engine, `waiting` ones wait for it; `task` is loading it."""

    served: Served
    pinned: bool
    size: int
    used: Instant  # last
    begun: Instant  # to be loaded, last
    state: State = State.COLD
    engine: Backend | None = None
    running: int = 0
    waiting: list[asyncio.Future[Backend]] = field(default_factory=list)
    task: asyncio.Task[None] | None = None
    stage: str = ""
    percent: int = 0
    seconds: float = 0.0  # its last loading took
    loads: int = 0
    about: ModelInfo | None = None
    meter: Meter = field(default_factory=Meter)

    def resident(self) -> Resident:
        """As one that takes memory."""
        idle = not self.running and not self.waiting
        return Resident(self.served.model, self.size, idle=idle, pinned=self.pinned, used=self.used)

    def ready_seconds(self, now: Instant, pace: float) -> float:
        """Until a request given now could begin, if `pace` bytes of a file are loaded in a second."""
        if self.state is State.WARM:
            return 0.0
        whole = self.seconds or limits.MODEL_LOAD_SECONDS_BASE + self.served.needs.file / pace
        if self.state is not State.LOADING:
            return whole
        return max(whole - (now - self.begun), 0.05 * whole)

    def standings(
        self, *, fits: bool, case: Case | None, sibling: ModelInfo | None, ready_seconds: float
    ) -> Iterator[Standing]:
        """How it stands, and each variant with it; what the pool alone knows is told."""
        about, served = self.about, self.served
        now = self.engine.statistics() if self.engine is not None else None
        own = Standing(
            model=served.model, name=served.name, slots=served.slots,
            state=State.QUARANTINED if case else self.state, case=case, sibling=sibling,
            verifiable=served.verifiable, pinned=self.pinned, fits=fits, size=self.size,
            context_tokens=about.context_tokens if about else served.needs.context_tokens,
            stage=self.stage if self.state is State.LOADING else "", percent=self.percent,
            ready_seconds=ready_seconds, waiting=len(self.waiting), about=about,
            tasks=about.tasks if about else served.tasks,
            dimensions=about.dimensions if about else served.dimensions,
            statistics=now, life=(self.loads << 20) + (now.deaths if now else 0),
        )  # fmt: skip
        yield own
        for each in served.variants:
            yield replace(own, model=each.model, name=each.name, size=each.size, adapted=each.adapted)
