"""The child process as its parent sees it: what it says, how long it is silent, what it uses, and why it ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import TypeVar

from haif.base import limits
from haif.base.clock import Clock
from haif.base.errors import (
    EngineDied,
    HaifError,
    Malformed,
    Oversize,
    from_reason,
)
from haif.engine.embed import Embed, Embedded, Vectors
from haif.engine.frames import (
    FrameReader,
    Load,
    Order,
    Ready,
    Report,
    Sealed,
    Step,
    Submit,
    SubmitEmbed,
    decode_report,
    frame,
)
from haif.engine.meter import Meter
from haif.engine.request import Finished, Generate, Piece
from haif.engine.service.causes import explain, oom_kills
from haif.engine.service.jail import Exertion, processor_seconds, status_of, verify, with_cgroups
from haif.engine.service.owed import Owed
from haif.engine.service.settings import EngineSettings
from haif.engine.service.spawn import Child
from haif.engine.service.stream import Stream

M = TypeVar("M")


class Process(asyncio.Protocol):
    """One child process from start to end, and the answers it owes."""

    def __init__(
        self, settings: EngineSettings, clock: Clock, meter: Meter, on_progress: Callable[[int], None]
    ) -> None:
        loop = asyncio.get_running_loop()
        self._owed = Owed(settings, meter)
        self._child = Child()
        self._settings = settings
        self._clock = clock
        self._on_progress = on_progress
        self._loaded = -1  # percent
        self._heard = clock.now()
        self._longest = 0.0  # time from one report to the next, while one was owed
        self._exertion = Exertion(settings.threads)
        self._oom_kills = oom_kills()
        self._engine = 0
        self._frames = FrameReader()
        self._sealed: asyncio.Future[Sealed] = loop.create_future()
        self._ready: asyncio.Future[Ready] = loop.create_future()
        self._silent: asyncio.Future[None] = loop.create_future()
        self._error: HaifError | None = None

    async def start(self, program: str, *files: int) -> None:
        """Make the process, which inherits the model's file and those of its adapters."""
        await self._child.start(program, self._settings, files, self)

    @property
    def pid(self) -> int:
        """Of the process that was started, the monitor of the engine."""
        return self._child.pid

    @property
    def answers(self) -> Collection[int]:
        """The numbers of the requests it owes an answer to."""
        return self._owed.answers.keys()

    @property
    def last(self) -> Step | None:
        """What it last said of its batches."""
        return self._owed.last

    async def sealed(self) -> Sealed:
        """What the child says it enforced, once the kernel agrees where it can be asked. Raises `EngineDied`."""
        sealed = with_cgroups(await self._first(self._sealed))
        verify(sealed, monitor=self._child.pid, demanded=self._settings.demanded)
        self._engine = sealed.pid
        return sealed

    async def load(self) -> Ready:
        """Let the child load the model. Raises what kept it from doing so."""
        settings = self._settings
        load = Load(
            settings.slots, settings.context_tokens, settings.threads, settings.profile, settings.kv_tokens,
            settings.kv, settings.offload, [each.digest for each in settings.adapters],
        )  # fmt: skip
        self._send(Order(load=load))
        ready = await self._first(self._ready)
        self._owed.ready(ready)
        return ready

    def submit(self, request: Generate, submitted_ns: int) -> tuple[int, Stream[Piece | Finished]]:
        """Hand a request over."""
        self._begin()
        number, stream = self._owed.text(request, submitted_ns)
        self._send(Order(submit=Submit(number, request)))
        return number, stream

    def embed(self, request: Embed, submitted_ns: int) -> tuple[int, Stream[Vectors | Embedded]]:
        """Hand a request for vectors over."""
        self._begin()
        number, stream = self._owed.vectors(request, submitted_ns)
        self._send(Order(embed=SubmitEmbed(number, request)))
        return number, stream

    def _begin(self) -> None:
        """Silence counts from when something is owed."""
        if not self.answers:
            self._heard = self._clock.now()

    def withdraw(self, number: int) -> None:
        """Forget a request; the child stops working on it if it still is."""
        if self._owed.withdraw(number):
            self._send(Order(cancel=number))

    async def watch(self) -> HaifError:
        """Wait for the end; why it came."""
        while not self._silent.done():
            await asyncio.wait((self._silent,), timeout=limits.ENGINE_LOOK_SECONDS)
            if self.answers and self._clock.now() - self._heard > limits.ENGINE_SILENCE_SECONDS:
                self._condemn(f"it owed an answer and said nothing for {limits.ENGINE_SILENCE_SECONDS:g} seconds")
            accusation = self._exertion.accuse(
                self._clock.now(), processor_seconds(self._engine), asked=self._owed.asked,
                busy=bool(self.answers), settled=self._owed.settled,
            )  # fmt: skip
            if accusation:
                self._condemn(accusation)
        return await self._cause()

    def memory_bytes(self) -> int:
        """What the child has in memory, the model's file included as far as it was read; 0 where nobody can say."""
        words = status_of(self._engine).get("VmRSS", "0").split()
        return int(words[0]) << 10

    def stalled(self) -> bool:
        """Whether it owes an answer and has been silent for longer than any step of its own explains."""
        silence = self._clock.now() - self._heard
        return bool(self.answers) and silence > max(limits.ENGINE_STALL_SECONDS, 4 * self._longest)

    async def close(self) -> None:
        """End the process, politely first; whoever still waits gets `EngineDied`."""
        await self._child.close(at_once=self._error is not None or not self._ready.done())
        if self._child.connected:
            await self._silent
        self._owed.fail(self._error or EngineDied("the engine was closed"))

    async def _cause(self) -> HaifError:
        """Why the child ended; the process is over when this returns."""
        status, words = await self._child.ended()
        if self._error is None:
            killed = oom_kills() > self._oom_kills
            self._error = EngineDied(f"the engine child ended: {explain(status, words, oom_killed=killed)}")
        self._owed.fail(self._error)
        return self._error

    async def _first(self, message: asyncio.Future[M]) -> M:
        await asyncio.wait((message, self._silent), return_when=asyncio.FIRST_COMPLETED)
        if not message.done():
            raise await self._cause()
        return message.result()

    def _send(self, order: Order) -> None:
        self._child.send(frame(order))

    # --- what the child says: all of it may be a lie ---

    def data_received(self, data: bytes) -> None:
        """Read reports; a child that sends anything it may not is killed."""
        if self._error is not None:
            return
        try:
            for body in self._frames.feed(data):
                report = decode_report(body)
                if _says_something(report):
                    self._take_note()
                self._hear(report)
        except (Malformed, Oversize) as fault:
            self._condemn(f"it broke the protocol: {fault.message}")

    def _take_note(self) -> None:
        now = self._clock.now()
        if self.answers:
            self._longest = max(self._longest, now - self._heard)
        self._heard = now

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio names it
        """The child closed its end, or is gone."""
        if self._frames.waiting and self._error is None:
            self._error = EngineDied("the engine child ended in the middle of a message")
        if not self._silent.done():
            self._silent.set_result(None)

    def _hear(self, report: Report) -> None:
        if report.step is not None and self._ready.done():
            self._owed.step(report.step, self._heard)
        elif report.batch is not None and self._ready.done():
            self._owed.batch(report.batch, self._heard)
        elif report.refused is not None and self._ready.done():
            self._owed.refused(report.refused)
        elif report.sealed is not None and not self._sealed.done():
            self._sealed.set_result(report.sealed)
        elif report.loading is not None and self._sealed.done() and not self._ready.done():
            self._progress(report.loading)
        elif report.ready is not None and self._sealed.done() and not self._ready.done():
            self._ready.set_result(report.ready)
        elif report.failed is not None and not self._ready.done():
            self._error = from_reason(report.failed.reason, report.failed.message[:400])
        else:
            raise Malformed("a report that is not due")

    def _progress(self, percent: int) -> None:
        if not self._loaded < percent <= 100:
            raise Malformed("its progress does not rise from 0 to 100")
        self._loaded = percent
        self._on_progress(percent)

    def _condemn(self, why: str) -> None:
        if self._error is None:
            self._error = EngineDied(f"the engine child was killed: {why}")
        self._child.kill()


def _says_something(report: Report) -> bool:
    """Whether it is more than a step in which nothing happened: those would be a way to be silent unnoticed."""
    step = report.step
    return step is None or bool(step.batch_tokens or step.outputs or step.refused)
