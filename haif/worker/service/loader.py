"""How models come into memory and leave it again: one at a time, and nobody's running answer is cut for it.

A model whose child dies once too often is quarantined (`worker.quarantine`): then its engine is ended, too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from haif.base import limits
from haif.base.clock import Clock
from haif.base.errors import EngineDied, HaifError, Misuse, Overloaded
from haif.worker.quarantine import Case, Quarantine
from haif.worker.room import leaving
from haif.worker.service.entry import Entry
from haif.worker.service.roster import Roster
from haif.worker.standing import State


class Loader:
    """Loads and unloads the models of a roster. The callbacks are those of `Pool`."""

    def __init__(
        self, roster: Roster, clock: Clock, quarantine: Quarantine, *, on_change: Callable[[], None],
        on_died: Callable[[str, str], None], on_progress: Callable[[str, str, int], None],
        on_quarantine: Callable[[str, Case | None], None],
    ) -> None:  # fmt: skip
        self._roster = roster
        self._clock = clock
        self._quarantine = quarantine
        self._on_change = on_change
        self._on_died = on_died
        self._on_progress = on_progress
        self._on_quarantine = on_quarantine
        self._ending: set[asyncio.Task[None]] = set()  # engines of models that were quarantined at work
        self._turn = asyncio.Lock()
        self._idle = asyncio.Event()  # somebody stopped using a model
        self._loads = self._unloads = self._deaths = 0
        self._pace = float(limits.MODEL_LOAD_BYTES_PER_SECOND)

    def begin(self, entry: Entry) -> asyncio.Task[None]:
        """Have the model loaded, if that is not under way."""
        if entry.task is None:
            entry.task = asyncio.create_task(self._load(entry), name=f"load {entry.served.name}")
            entry.task.add_done_callback(_heard)
        return entry.task

    def left(self) -> None:
        """Somebody stopped using a model."""
        self._idle.set()

    async def _load(self, entry: Entry) -> None:
        try:
            self.check_held(entry)
            async with self._turn:
                while entry.state is State.LEAVING:  # a person has it unloaded
                    await self._until_somebody_left()
                if entry.state is State.COLD:
                    await self._make_room(entry)
                    await self._open(entry)
            self._hand_out(entry)
        except BaseException as error:
            for waiter in entry.waiting:
                if not waiter.done():
                    waiter.set_exception(_as_seen(error))
            entry.waiting.clear()
            raise
        finally:
            entry.task = None

    def _hand_out(self, entry: Entry) -> None:
        """Before this returns nobody can have the model leave."""
        assert entry.engine is not None
        for waiter in entry.waiting:
            if not waiter.done():
                waiter.set_result(entry.engine)
                entry.running += 1
        entry.waiting.clear()

    async def _make_room(self, entry: Entry) -> None:
        for model in leaving(self._roster.residents(), entry.size, self._roster.memory_bytes):
            await self.let_go(self._roster.entries[model], seconds=None)

    async def _open(self, entry: Entry) -> None:
        entry.begun = self._clock.now()
        self._now(entry, State.LOADING)
        engine = entry.served.open(
            on_died=lambda cause: self._died(entry, cause),
            on_progress=lambda stage, percent: self._progress(entry, stage, percent),
            meter=entry.meter,
        )
        try:
            entry.engine = await engine.__aenter__()
        except BaseException as error:
            self._now(entry, State.COLD)
            if isinstance(error, HaifError) and not isinstance(error, Misuse):  # settings can be changed
                self._died(entry, error.message, loading=True)
            raise
        entry.about = engine.model
        entry.size = max(entry.size, engine.memory_bytes())
        entry.seconds = self._clock.now() - entry.begun
        if entry.served.needs.file:
            self._pace = max(entry.served.needs.file / max(entry.seconds, 1e-3), 1.0)
        self._loads += 1
        entry.loads += 1
        self._now(entry, State.WARM)

    def _died(self, entry: Entry, cause: str, *, loading: bool = False) -> None:
        self._deaths += 1
        self._on_died(entry.served.name, cause)
        case = None
        if entry.served.verifiable:  # a server that is not ours comes back by itself, and hurts nobody meanwhile
            case = self._quarantine.died(entry.served.model, cause, self._clock.wall(), loading=loading)
        if case is not None:
            self._on_quarantine(entry.served.name, case)
            if not loading:  # its engine would start another child
                ending = asyncio.create_task(self.close(entry), name=f"quarantine {entry.served.name}")
                self._ending.add(ending)
                ending.add_done_callback(self._ending.discard)
        self._on_change()

    def held(self, entry: Entry) -> Case | None:
        """Why the model may not be loaded now."""
        return self._quarantine.held(entry.served.model, self._clock.wall())

    def check_held(self, entry: Entry) -> None:
        """Return if the model may be loaded now. Raises `EngineDied` with what its child died of."""
        case = self.held(entry)
        if case is not None:
            left = (case.until - self._clock.wall()) / 1000
            name = entry.served.name
            raise EngineDied(
                f"{name} is quarantined here: {case.cause}. To try it again: haif worker models release {name}",
                retry_after=left,
            )

    def release(self, entry: Entry) -> bool:
        """Forget what a model is quarantined for; whether there was anything."""
        released = self._quarantine.release(entry.served.model)
        if released:
            self._on_quarantine(entry.served.name, None)
            self._on_change()
        return released

    def _progress(self, entry: Entry, stage: str, percent: int) -> None:
        entry.stage, entry.percent = stage, percent
        self._on_progress(entry.served.name, stage, percent)

    async def let_go(self, entry: Entry, seconds: float | None) -> int:
        """Have a model leave once its answers have ended, or after `seconds`; how many answers were cut then."""
        while entry.state in {State.LOADING, State.LEAVING}:
            await self._until_somebody_left()
        if entry.state is not State.WARM:
            return 0
        self._now(entry, State.LEAVING)
        try:
            async with asyncio.timeout(seconds):
                while entry.running:
                    await self._until_somebody_left()
        except TimeoutError:
            pass
        except BaseException:
            self._now(entry, State.WARM)  # nobody wants it gone any more
            raise
        cut = entry.running
        await self.close(entry)
        return cut

    async def close(self, entry: Entry) -> None:
        """End its engine."""
        engine, entry.engine = entry.engine, None
        if engine is not None:
            await engine.__aexit__()
            self._unloads += 1
        entry.stage, entry.percent = "", 0
        self._now(entry, State.COLD)

    async def stop(self) -> None:
        """End all that is under way, and every engine."""
        tasks = [entry.task for entry in self._roster.entries.values() if entry.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, *self._ending, return_exceptions=True)
        await asyncio.gather(*(self.close(entry) for entry in self._roster.entries.values()))

    async def _until_somebody_left(self) -> None:
        self._idle.clear()
        await self._idle.wait()

    def _now(self, entry: Entry, state: State) -> None:
        entry.state = state
        self._idle.set()
        self._on_change()

    @property
    def counts(self) -> tuple[int, int, int]:
        """How often a model was loaded, unloaded, and how many children ended unasked."""
        return self._loads, self._unloads, self._deaths

    def ready_seconds(self, entry: Entry) -> float:
        """Until a request given now could begin."""
        return entry.ready_seconds(self._clock.now(), self._pace)


def _as_seen(error: BaseException) -> BaseException:
    """What whoever waited for a model is told when it was not loaded."""
    if isinstance(error, Overloaded):
        return Overloaded(error.message, retry_after=limits.HEARTBEAT_SECONDS)
    if isinstance(error, HaifError):
        return EngineDied(f"the model could not be loaded: {error.message}", retry_after=limits.HEARTBEAT_SECONDS)
    return EngineDied("the worker is stopping", retry_after=1.0)


def _heard(loading: asyncio.Task[None]) -> None:
    """What went wrong was told to those who wait, and to `on_died`."""
    with suppress(asyncio.CancelledError):
        loading.exception()
