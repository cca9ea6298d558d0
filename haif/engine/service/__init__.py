"""The engine's parent side: it checks the model's file, owns one child process, and believes nothing the child says.

1. Open the model's file and those of its adapters. 2. Start the child, which restricts itself. 3. Meanwhile digest the
very files that were opened. 4. Only if all digests are as expected, and the child reports its restrictions, tell it to
load. 5. Requests and tokens.

When the child ends unasked, every running request gets `EngineDied` with the cause, and a new child is started, after a
pause that grows with each death.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Self

from haif.base import limits
from haif.base.clock import Clock
from haif.base.errors import DigestMismatch, EngineDied, HaifError, InvalidRequest, Misuse, Overloaded, Unsupported
from haif.base.tasks import Task, listed, tasks_of
from haif.engine.embed import Embed, Embedded, Vectors, check_embed
from haif.engine.frames import Ready, Sealed
from haif.engine.meter import Meter
from haif.engine.profile import numerics
from haif.engine.request import SAMPLER, EngineStatistics, Finished, Generate, ModelInfo, Piece, check
from haif.engine.sandbox.layers import level, residual
from haif.engine.service.api import Backend
from haif.engine.service.http import Server, server_at
from haif.engine.service.process import Process
from haif.engine.service.settings import (
    AdapterFile,
    EngineSettings,
    check_settings,
    context_tokens,
    digest_of,
    kv_tokens,
    opened,
)
from haif.engine.service.spawn import CHILD_PROGRAM
from haif.engine.service.upstream import Upstream, UpstreamSettings

__all__ = [
    "CHILD_PROGRAM", "AdapterFile", "Backend", "Engine", "EngineSettings", "Server", "Upstream", "UpstreamSettings",
    "server_at",
]  # fmt: skip


class Engine:
    """Runs one model in a child process.

    Entering raises `DigestMismatch` when the file is not the one its digest names, `Misuse` for settings that cannot
    work, `Unsupported` for a model that cannot be served, `EngineDied` when the child ends before it is ready. Leaving
    ends the child; requests still running get `EngineDied`. `on_died(cause)` is called for each unasked end,
    `on_progress(stage, percent)` while the file is checked and then loaded. `meter` goes on counting where it stands.
    """

    def __init__(
        self,
        settings: EngineSettings,
        *,
        clock: Clock,
        entropy: Callable[[int], bytes],
        on_died: Callable[[str], None],
        on_progress: Callable[[str, int], None] = lambda _stage, _percent: None,
        meter: Meter | None = None,
        program: str = CHILD_PROGRAM,
    ) -> None:
        check_settings(settings)
        self._settings = settings
        self._clock = clock
        self._entropy = entropy
        self._on_died = on_died
        self._program = program
        self._child: Process | None = None
        self._alive = asyncio.Event()
        self._cause = "it has not been started"
        self._task: asyncio.Task[None] | None = None
        self._model: ModelInfo | None = None
        self._meter = meter or Meter()
        self._on_progress = on_progress
        self._deaths = 0
        self._vector_bytes = 0  # of all vectors that were asked for and not given yet

    @property
    def model(self) -> ModelInfo:
        """What is loaded. Known once the engine was entered."""
        if self._model is None:
            raise Misuse("the engine has not been entered")
        return self._model

    async def __aenter__(self) -> Self:
        started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._supervise(started), name="engine")
        try:
            await started
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    @asynccontextmanager
    async def generate(self, request: Generate) -> AsyncIterator[AsyncIterator[Piece | Finished]]:
        """The pieces of an answer as they are computed, then one `Finished`. Leaving early cancels within one step.

        Entering raises `InvalidRequest`, `Overloaded` or `EngineDied`; iterating raises `ContextTooLong`,
        `InvalidRequest`, `Unsupported`, or `EngineDied` when the child ends.
        """
        check(request)
        if request.adapter is not None and request.adapter not in {each.digest for each in self._settings.adapters}:
            raise Unsupported("this engine does not have that adapter", param="model")
        child = self._ready_for(request.task)
        number, stream = child.submit(request, self._clock.wall() * 1_000_000)
        try:
            yield stream
        finally:
            child.withdraw(number)

    def memory_bytes(self) -> int:
        """What the child has in memory now; 0 where nobody can say."""
        return self._child.memory_bytes() if self._child else 0

    @asynccontextmanager
    async def embed(self, request: Embed) -> AsyncIterator[AsyncIterator[Vectors | Embedded]]:
        """The vectors of a request as they are computed, in order, then one `Embedded`. Raises as `generate` does.

        Leaving early cancels before the next batch.
        """
        check_embed(request)
        child = self._ready_for(request.task)
        size = request.count * request.vector_bytes(self.model.dimensions)
        if size > limits.EMBEDDING_BYTES_MAX:
            raise InvalidRequest(
                f"these vectors are {size} bytes, at most {limits.EMBEDDING_BYTES_MAX} go at once: ask for fewer",
                param="input",
            )
        if self._vector_bytes + size > limits.ENGINE_VECTOR_BYTES_MAX:
            raise Overloaded("this engine owes as many vectors as it may already", retry_after=1.0)
        number, stream = child.embed(request, self._clock.wall() * 1_000_000)
        self._vector_bytes += size
        try:
            yield stream
        finally:
            self._vector_bytes -= size
            child.withdraw(number)

    def _ready_for(self, task: Task) -> Process:
        """The child, if it can take a request of this kind now."""
        if self._model is not None and task not in self._model.tasks:
            raise Unsupported(
                f"this model cannot do {task.value}; its file says it can do {listed(self._model.tasks)}", param="model"
            )
        if self._child is None:
            raise EngineDied(f"the engine is not running: {self._cause}", retry_after=limits.ENGINE_RESPAWN_SECONDS_MAX)
        if len(self._child.answers) >= self._settings.slots + limits.ENGINE_QUEUE_MAX:
            raise Overloaded(f"{limits.ENGINE_QUEUE_MAX} requests are waiting at this engine already", retry_after=1.0)
        return self._child

    async def wait_alive(self) -> None:
        """Return once a child is ready for requests."""
        await self._alive.wait()

    def statistics(self) -> EngineStatistics:
        """A snapshot."""
        child, meter = self._child, self._meter
        last = child.last if child else None
        tokens_per_second, batch_tokens = meter.rates(self._clock.now())
        outstanding = len(child.answers) if child else 0
        running = min(last.running if last else 0, outstanding)
        return EngineStatistics(
            slots=self._settings.slots,
            running=running,
            queued=outstanding - running,
            kv_tokens=last.kv_tokens if last else 0,
            kv_tokens_max=kv_tokens(self._settings, self._model.context_tokens if self._model else 0),
            tokens_per_second=tokens_per_second,
            batch_tokens=batch_tokens,
            steps=meter.steps,
            prompt_tokens=meter.prompt_tokens,
            cached_tokens=meter.cached_tokens,
            completion_tokens=meter.completion_tokens,
            preemptions=meter.preemptions,
            deaths=self._deaths,
            usable=child is not None and not child.stalled(),
        )

    async def _supervise(self, started: asyncio.Future[None]) -> None:
        """Keep a child running: at first for whoever waits for `started`, then for good."""
        pause = limits.ENGINE_RESPAWN_SECONDS_MIN
        while True:
            born = self._clock.now()
            try:
                error: HaifError = await self._live(started)
            except (HaifError, OSError) as failure:
                error = failure if isinstance(failure, HaifError) else EngineDied(f"it could not be started: {failure}")
            if not started.done():
                started.set_exception(error)
                return
            self._cause = error.message
            self._deaths += 1
            self._on_died(error.message)
            if self._clock.now() - born > limits.ENGINE_HEALTHY_SECONDS:
                pause = limits.ENGINE_RESPAWN_SECONDS_MIN
            await asyncio.sleep(pause * (0.5 + self._entropy(1)[0] / 512))
            pause = min(2 * pause, limits.ENGINE_RESPAWN_SECONDS_MAX)

    async def _live(self, started: asyncio.Future[None]) -> HaifError:
        """The life of one child; why it ended. Raises what kept it from starting."""
        child = Process(self._settings, self._clock, self._meter, lambda percent: self._on_progress("loading", percent))
        with opened(self._settings) as (descriptors, size):  # closed also when we are told to stop meanwhile
            try:
                await child.start(self._program, *descriptors)
                async with asyncio.timeout(limits.ENGINE_START_SECONDS + size / (256 << 20)):
                    self._model = await self._prepare(child, descriptors)
                self._child = child
                self._alive.set()
                if not started.done():
                    started.set_result(None)
                return await child.watch()
            except TimeoutError:
                raise EngineDied("it did not load the model in time") from None
            finally:
                self._child = None
                self._alive.clear()
                await _to_the_end(child.close())

    async def _prepare(self, child: Process, descriptors: list[int]) -> ModelInfo:
        loop = asyncio.get_running_loop()
        checked = partial(self._on_progress, "checking")
        for descriptor, (path, digest) in zip(descriptors, self._settings.files, strict=True):
            found = await asyncio.to_thread(digest_of, descriptor, partial(loop.call_soon_threadsafe, checked))
            if found != digest:
                raise DigestMismatch(
                    f"{path} has the digest {found.short}…, not {digest[:4].hex()}…: "
                    "it was altered or is another file; it was not loaded"
                )
        sealed = await child.sealed()
        ready = await child.load()
        return _describe(ready, sealed, self._settings)


async def _to_the_end(work: Coroutine[None, None, None]) -> None:
    """Await bounded work that must not be left half done; a cancellation takes effect after it."""
    task = asyncio.create_task(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            cancelled = error
    task.result()
    if cancelled is not None:
        raise cancelled


def _describe(ready: Ready, sealed: Sealed, settings: EngineSettings) -> ModelInfo:
    most = limits.MODEL_TEXT_BYTES_MAX
    exact = "bit-exact" if ready.exact else "not bit-exact"
    numbers = numerics(ready.build, ready.recipe, settings.threads)
    return ModelInfo(
        name=ready.name[:most],
        architecture=ready.architecture[:most],
        parameters=ready.parameters,
        vocabulary=ready.vocabulary,
        context_trained=ready.context_trained,
        context_tokens=context_tokens(settings, ready),
        has_chat_template=ready.has_chat_template,
        engine=f"{ready.build[:most]}; profile {settings.profile}, {exact}; numerics {numbers}; {SAMPLER}",
        exact=ready.exact,
        tasks=tasks_of(ready.tasks),
        dimensions=ready.dimensions,
        sandbox=level(sealed.enforced),
        enforced=tuple(sealed.enforced),
        missing=tuple(sealed.missing),
        residual=tuple(text[:most] for text in residual(sealed.missing, sealed.notes)),
    )
