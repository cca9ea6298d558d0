"""The models of one worker, each in an engine of its own, as many at a time as its memory holds.

1. Ask    a request leases its model; one that is not in memory begins to load, and the request waits, not for long.
2. Turn   one model is loaded at a time, in the order they were asked for.
3. Room   the least recently used leave first. Nobody's running answer is cut for it: a model at work takes no new
          requests, and leaves when its last answer has ended; who asks for it meanwhile waits for its next turn.
4. Load   whoever waited for the model has it before anybody else can have it leave again.

Asking is here, the rest in `loader`; which models there are is the `roster`'s to say. A model that kills its children
is quarantined (`worker.quarantine`): this worker and its other models live on.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterable
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Self

from haif.base import limits
from haif.base.adapters import Adapted
from haif.base.clock import Clock
from haif.base.errors import HaifError, ModelLoading, Overloaded
from haif.base.ids import ModelDigest
from haif.engine.service import Backend
from haif.worker.quarantine import Case, Quarantine
from haif.worker.service.entry import Entry, Served
from haif.worker.service.loader import Loader
from haif.worker.service.roster import Roster
from haif.worker.standing import Standing, State


class Pool:
    """Inside `async with`, models can be leased. Entering waits until one of them is loaded; those that fit follow.

    Entering raises what kept the first from being loaded if none can be, and `Misuse` for models that cannot fit.
    Leaving ends every engine. `on_change()` is called whenever a model stands elsewhere, `on_died(name, cause)` for
    each child that ended unasked or did not load, `on_progress(name, stage, percent)` while one is loaded,
    `on_quarantine(name, case)` when one is quarantined, and with None when a person released it.
    """

    def __init__(
        self,
        models: Iterable[Served],
        *,
        memory_bytes: int,
        clock: Clock,
        quarantine: Quarantine | None = None,
        on_change: Callable[[], None] = lambda: None,
        on_died: Callable[[str, str], None] = lambda _name, _cause: None,
        on_progress: Callable[[str, str, int], None] = lambda _name, _stage, _percent: None,
        on_quarantine: Callable[[str, Case | None], None] = lambda _name, _case: None,
    ) -> None:
        self.on_change = on_change
        self._clock = clock
        self._roster = Roster(models, memory_bytes, clock.now())
        self._loader = Loader(
            self._roster, clock, quarantine or Quarantine(), on_change=self._changed, on_died=on_died,
            on_progress=on_progress, on_quarantine=on_quarantine,
        )  # fmt: skip

    def _changed(self) -> None:
        self.on_change()  # whoever is told may be another by now

    async def __aenter__(self) -> Self:
        first = sorted(self._roster.entries.values(), key=lambda entry: not entry.pinned)
        failure: HaifError | None = None
        try:
            for place, entry in enumerate(first):
                try:
                    await asyncio.shield(self._loader.begin(entry))
                except HaifError as error:
                    failure = failure or error
                    continue
                self._warm_up(first[place + 1 :], self.memory_bytes - entry.size)
                return self
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        assert failure is not None, "there is at least one model"
        raise failure

    def _warm_up(self, others: Iterable[Entry], room: int) -> None:
        """Load what fits without having anybody leave."""
        for entry in others:
            if entry.size <= room and self._loader.held(entry) is None:
                room -= entry.size
                self._loader.begin(entry)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._loader.stop()

    # --- to ask -------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def lease(self, model: ModelDigest, *, seconds: float) -> AsyncIterator[Backend]:
        """The engine of a model, which stays in memory while the block is entered.

        Raises `ModelLoading` if that takes longer than `seconds`, `Overloaded` if too many wait for it or there is no
        room, what kept it from being loaded, and `UnknownModel`.
        """
        entry = self._roster.entry(model)
        engine = await self._engine(entry, seconds)
        try:
            yield engine
        finally:
            entry.running -= 1
            entry.used = self._clock.now()
            self._loader.left()

    async def _engine(self, entry: Entry, seconds: float) -> Backend:
        entry.used = self._clock.now()
        self._loader.check_held(entry)
        if entry.state is State.WARM and entry.engine is not None:
            entry.running += 1
            return entry.engine
        if len(entry.waiting) >= entry.served.slots + limits.ENGINE_QUEUE_MAX:
            raise Overloaded(f"{len(entry.waiting)} requests wait for this model to be loaded", retry_after=1.0)
        self._loader.begin(entry)
        left = self._loader.ready_seconds(entry)
        if left > seconds:
            raise ModelLoading(_slow(entry, left), retry_after=left)
        waiter: asyncio.Future[Backend] = asyncio.get_running_loop().create_future()
        entry.waiting.append(waiter)
        try:
            async with asyncio.timeout(seconds):
                return await waiter
        except TimeoutError:
            self._give_back(entry, waiter)
            left = self._loader.ready_seconds(entry)
            raise ModelLoading(_slow(entry, left), retry_after=max(1.0, left)) from None
        except BaseException:
            self._give_back(entry, waiter)
            raise

    def _give_back(self, entry: Entry, waiter: asyncio.Future[Backend]) -> None:
        """Nobody is there any more for what this waiter waited for, or already got."""
        if waiter in entry.waiting:
            entry.waiting.remove(waiter)
        elif waiter.done() and not waiter.cancelled() and waiter.exception() is None:
            entry.running -= 1
            self._loader.left()

    # --- what a person may want ---------------------------------------------------------------------------------------

    def find(self, name: str) -> ModelDigest:
        """The model of a name or digest. Raises `UnknownModel` naming those there are."""
        return self._roster.find(name)

    @property
    def models(self) -> Collection[ModelDigest]:
        """All that are served, those with an adapter among them."""
        return self._roster.models

    def name(self, model: ModelDigest) -> str:
        """What people call a model that is served here."""
        return self._roster.name(model)

    def adapted(self, model: ModelDigest) -> Adapted | None:
        """The base and the adapter of a model that is served here, where it has one."""
        return self._roster.adapted(model)

    async def load(self, model: ModelDigest) -> None:
        """Have a model in memory. Raises what keeps it from being loaded."""
        entry = self._roster.entry(model)
        if entry.state is not State.WARM:
            await asyncio.shield(self._loader.begin(entry))

    async def unload(self, model: ModelDigest, *, seconds: float) -> int:
        """Have a model leave memory, its running answers within `seconds`; how many were cut because they took longer.

        It stays offered: who asks for it has it loaded again.
        """
        return await self._loader.let_go(self._roster.entry(model), seconds)

    def pin(self, model: ModelDigest, *, pinned: bool) -> None:
        """Keep a model in memory once it is there, or no longer. Raises `Overloaded` if the pinned would not fit."""
        self._roster.pin(model, pinned=pinned)
        self.on_change()

    def release(self, model: ModelDigest) -> bool:
        """Let a quarantined model be loaded again, as if it had never died. Whether there was anything to forgive."""
        return self._loader.release(self._roster.entry(model))

    # --- how things stand ---------------------------------------------------------------------------------------------

    def standings(self) -> tuple[Standing, ...]:
        """Every model, those with an adapter beside their base."""
        entries = self._roster.entries.values()
        sibling = next((entry.about for entry in entries if entry.about), None)
        return tuple(
            standing
            for entry in entries
            for standing in entry.standings(
                fits=self._roster.fits(entry), case=self._loader.held(entry), sibling=sibling,
                ready_seconds=self._loader.ready_seconds(entry),
            )
        )  # fmt: skip

    @property
    def memory_bytes(self) -> int:
        """Bytes that models may take."""
        return self._roster.memory_bytes

    @property
    def memory_used(self) -> int:
        """Bytes that the models in memory take, or will."""
        return self._roster.memory_used

    @property
    def counts(self) -> tuple[int, int, int]:
        """How often a model was loaded, unloaded, and how many children ended unasked."""
        return self._loader.counts

    @property
    def preemptions(self) -> int:
        """How often an answer gave its KV cells up for others, in all engines there were."""
        return self._roster.preemptions

    def tokens(self) -> tuple[int, int]:
        """Prompt tokens and answer tokens computed, by all engines there were."""
        return self._roster.tokens()


def _slow(entry: Entry, left: float) -> str:
    return f"{entry.served.name} is being loaded and will take about {left:.0f} more seconds: ask again then"
