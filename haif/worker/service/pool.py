"""The models of one worker, each in an engine of its own, as many at a time as its memory holds.

1. Ask    a request leases its model; one that is not in memory begins to load, and the request waits, not for long.
2. Turn   one model is loaded at a time, in the order they were asked for.
3. Room   the least recently used leave first. Nobody's running answer is cut for it: a model at work takes no new
          requests, and leaves when its last answer has ended; who asks for it meanwhile waits for its next turn.
4. Load   whoever waited for the model has it before anybody else can have it leave again.

A model that kills its children is quarantined (`worker.quarantine`): this worker and its other models live on.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterable
from contextlib import asynccontextmanager, suppress
from types import TracebackType
from typing import Self

from haif.base import limits
from haif.base.adapters import Adapted
from haif.base.amounts import bytes_text
from haif.base.clock import Clock
from haif.base.errors import EngineDied, HaifError, Misuse, ModelLoading, Overloaded, UnknownModel
from haif.base.ids import ModelDigest
from haif.engine.service import Backend
from haif.worker.quarantine import Case, Quarantine
from haif.worker.room import leaving
from haif.worker.service.entry import IN_MEMORY, Entry, Served
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
        self.memory_bytes = memory_bytes
        self.on_change = on_change
        self._clock = clock
        self._on_died = on_died
        self._on_progress = on_progress
        self._on_quarantine = on_quarantine
        self._quarantine = quarantine or Quarantine()
        self._ending: set[asyncio.Task[None]] = set()  # engines of models that were quarantined at work
        self._turn = asyncio.Lock()
        self._idle = asyncio.Event()  # somebody stopped using a model
        self._loads = self._unloads = self._deaths = 0
        self._pace = float(limits.MODEL_LOAD_BYTES_PER_SECOND)
        now = clock.now()
        self._entries = {each.model: Entry(each, each.pinned, each.needs.total, now, now) for each in models}
        self._variants = {
            variant.model: (variant, entry) for entry in self._entries.values() for variant in entry.served.variants
        }
        self._check()

    def _check(self) -> None:
        if not 1 <= len(self.models) <= limits.WORKER_MODELS_MAX:
            raise Misuse(
                f"a worker serves 1 to {limits.WORKER_MODELS_MAX} models, those with adapters counted, "
                f"not {len(self.models)}"
            )
        for entry in self._entries.values():
            if entry.size > self.memory_bytes:
                raise Misuse(
                    f"{entry.served.name} needs about {bytes_text(entry.size)}, and this worker has "
                    f"{bytes_text(self.memory_bytes)} for models: give --memory more, or it fewer --slots or "
                    "--context-tokens"
                )
        if sum(entry.size for entry in self._entries.values() if entry.pinned) > self.memory_bytes:
            raise Misuse(f"the pinned models need more than the {bytes_text(self.memory_bytes)} for models")

    async def __aenter__(self) -> Self:
        first = sorted(self._entries.values(), key=lambda entry: not entry.pinned)
        failure: HaifError | None = None
        try:
            for place, entry in enumerate(first):
                try:
                    await asyncio.shield(self._begin(entry))
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
            if entry.size <= room and self._held(entry) is None:
                room -= entry.size
                self._begin(entry)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        tasks = [entry.task for entry in self._entries.values() if entry.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, *self._ending, return_exceptions=True)
        await asyncio.gather(*(self._close(entry) for entry in self._entries.values()))

    # --- 1. ask -------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def lease(self, model: ModelDigest, *, seconds: float) -> AsyncIterator[Backend]:
        """The engine of a model, which stays in memory while the block is entered.

        Raises `ModelLoading` if that takes longer than `seconds`, `Overloaded` if too many wait for it or there is no
        room, what kept it from being loaded, and `UnknownModel`.
        """
        entry = self._entry(model)
        engine = await self._engine(entry, seconds)
        try:
            yield engine
        finally:
            entry.running -= 1
            entry.used = self._clock.now()
            self._idle.set()

    async def _engine(self, entry: Entry, seconds: float) -> Backend:
        entry.used = self._clock.now()
        self._check_held(entry)
        if entry.state is State.WARM and entry.engine is not None:
            entry.running += 1
            return entry.engine
        if len(entry.waiting) >= entry.served.slots + limits.ENGINE_QUEUE_MAX:
            raise Overloaded(f"{len(entry.waiting)} requests wait for this model to be loaded", retry_after=1.0)
        self._begin(entry)
        left = self._ready_seconds(entry)
        if left > seconds:
            raise ModelLoading(_slow(entry, left), retry_after=left)
        waiter: asyncio.Future[Backend] = asyncio.get_running_loop().create_future()
        entry.waiting.append(waiter)
        try:
            async with asyncio.timeout(seconds):
                return await waiter
        except TimeoutError:
            self._give_back(entry, waiter)
            left = self._ready_seconds(entry)
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
            self._idle.set()

    def _entry(self, model: ModelDigest) -> Entry:
        """The model, or whose variant it is."""
        if model in self._variants:
            return self._variants[model][1]
        if model not in self._entries:
            raise UnknownModel("this worker does not serve that model")
        return self._entries[model]

    # --- 2. turn, 3. room, 4. load ------------------------------------------------------------------------------------

    def _begin(self, entry: Entry) -> asyncio.Task[None]:
        """Have the model loaded, if that is not under way."""
        if entry.task is None:
            entry.task = asyncio.create_task(self._load(entry), name=f"load {entry.served.name}")
            entry.task.add_done_callback(_heard)
        return entry.task

    async def _load(self, entry: Entry) -> None:
        try:
            self._check_held(entry)
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
        residents = [each.resident() for each in self._entries.values() if each.state in IN_MEMORY]
        for model in leaving(residents, entry.size, self.memory_bytes):
            await self._let_go(self._entries[model], seconds=None)

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
                ending = asyncio.create_task(self._close(entry), name=f"quarantine {entry.served.name}")
                self._ending.add(ending)
                ending.add_done_callback(self._ending.discard)
        self.on_change()

    def _held(self, entry: Entry) -> Case | None:
        return self._quarantine.held(entry.served.model, self._clock.wall())

    def _check_held(self, entry: Entry) -> None:
        case = self._held(entry)
        if case is not None:
            left = (case.until - self._clock.wall()) / 1000
            name = entry.served.name
            raise EngineDied(
                f"{name} is quarantined here: {case.cause}. To try it again: haif worker models release {name}",
                retry_after=left,
            )

    def _progress(self, entry: Entry, stage: str, percent: int) -> None:
        entry.stage, entry.percent = stage, percent
        self._on_progress(entry.served.name, stage, percent)

    # --- leaving ------------------------------------------------------------------------------------------------------

    async def _let_go(self, entry: Entry, seconds: float | None) -> int:
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
        await self._close(entry)
        return cut

    async def _close(self, entry: Entry) -> None:
        engine, entry.engine = entry.engine, None
        if engine is not None:
            await engine.__aexit__()
            self._unloads += 1
        entry.stage, entry.percent = "", 0
        self._now(entry, State.COLD)

    async def _until_somebody_left(self) -> None:
        self._idle.clear()
        await self._idle.wait()

    def _now(self, entry: Entry, state: State) -> None:
        entry.state = state
        self._idle.set()
        self.on_change()

    # --- what a person may want ---------------------------------------------------------------------------------------

    def find(self, name: str) -> ModelDigest:
        """The model of a name or digest. Raises `UnknownModel` naming those there are."""
        for model in self.models:
            if name in (self.name(model), str(model)):
                return model
        known = ", ".join(sorted(map(self.name, self.models)))
        raise UnknownModel(f"this worker does not serve {name[: limits.MODEL_NAME_CHARS_MAX]!r}; it serves: {known}")

    @property
    def models(self) -> Collection[ModelDigest]:
        """All that are served, those with an adapter among them."""
        return [*self._entries, *self._variants]

    def name(self, model: ModelDigest) -> str:
        """What people call a model that is served here."""
        return self._variants[model][0].name if model in self._variants else self._entry(model).served.name

    def adapted(self, model: ModelDigest) -> Adapted | None:
        """The base and the adapter of a model that is served here, where it has one."""
        return self._variants[model][0].adapted if model in self._variants else None

    async def load(self, model: ModelDigest) -> None:
        """Have a model in memory. Raises what keeps it from being loaded."""
        entry = self._entry(model)
        if entry.state is not State.WARM:
            await asyncio.shield(self._begin(entry))

    async def unload(self, model: ModelDigest, *, seconds: float) -> int:
        """Have a model leave memory, its running answers within `seconds`; how many were cut because they took longer.

        It stays offered: who asks for it has it loaded again.
        """
        return await self._let_go(self._entry(model), seconds)

    def pin(self, model: ModelDigest, *, pinned: bool) -> None:
        """Keep a model in memory once it is there, or no longer. Raises `Overloaded` if the pinned would not fit."""
        entry = self._entry(model)
        others = sum(each.size for each in self._entries.values() if each.pinned and each is not entry)
        if pinned and others + entry.size > self.memory_bytes:
            raise Overloaded(f"with it, pinned models need more than the {bytes_text(self.memory_bytes)} for models")
        entry.pinned = pinned
        self.on_change()

    def release(self, model: ModelDigest) -> bool:
        """Let a quarantined model be loaded again, as if it had never died. Whether there was anything to forgive."""
        entry = self._entry(model)
        released = self._quarantine.release(entry.served.model)
        if released:
            self._on_quarantine(entry.served.name, None)
            self.on_change()
        return released

    # --- how things stand ---------------------------------------------------------------------------------------------

    def standings(self) -> tuple[Standing, ...]:
        """Every model."""
        pinned = sum(entry.size for entry in self._entries.values() if entry.pinned)
        sibling = next((entry.about for entry in self._entries.values() if entry.about), None)
        return tuple(
            standing
            for entry in self._entries.values()
            for standing in entry.standings(
                fits=entry.pinned or pinned + entry.size <= self.memory_bytes, case=self._held(entry), sibling=sibling,
                ready_seconds=self._ready_seconds(entry),
            )
        )  # fmt: skip

    @property
    def memory_used(self) -> int:
        """Bytes that the models in memory take, or will."""
        return sum(entry.size for entry in self._entries.values() if entry.state in IN_MEMORY)

    @property
    def counts(self) -> tuple[int, int, int]:
        """How often a model was loaded, unloaded, and how many children ended unasked."""
        return self._loads, self._unloads, self._deaths

    @property
    def preemptions(self) -> int:
        """How often an answer gave its KV cells up for others, in all engines there were."""
        return sum(entry.meter.preemptions for entry in self._entries.values())

    def tokens(self) -> tuple[int, int]:
        """Prompt tokens and answer tokens computed, by all engines there were."""
        meters = [entry.meter for entry in self._entries.values()]
        return sum(meter.prompt_tokens for meter in meters), sum(meter.completion_tokens for meter in meters)

    def _ready_seconds(self, entry: Entry) -> float:
        return entry.ready_seconds(self._clock.now(), self._pace)


def _slow(entry: Entry, left: float) -> str:
    return f"{entry.served.name} is being loaded and will take about {left:.0f} more seconds: ask again then"


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
