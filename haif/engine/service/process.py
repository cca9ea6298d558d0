"""The child process as its parent sees it: started bare, heard with suspicion, ended for certain."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, Generic, Protocol, Self, TypeVar

from haif.base import limits
from haif.base.clock import Clock
from haif.base.errors import (
    EngineDied,
    HaifError,
    Malformed,
    Oversize,
    Refusal,
    from_reason,
)
from haif.engine.embed import Embed, Embedded, Vectors
from haif.engine.frames import (
    Batch,
    FrameReader,
    Load,
    Order,
    Output,
    Ready,
    Refused,
    Report,
    Sealed,
    Step,
    Submit,
    SubmitEmbed,
    decode_report,
    frame,
)
from haif.engine.mailbox import Mailbox
from haif.engine.meter import Meter
from haif.engine.request import Finished, Generate, Piece
from haif.engine.service.causes import explain, oom_kills
from haif.engine.service.jail import Exertion, processor_seconds, status_of, verify, with_cgroups
from haif.engine.service.settings import EngineSettings, context_tokens, environment, kv_tokens
from haif.engine.vectorbox import VectorBox

CHILD_PROGRAM: Final = (
    "import os, sys; sys.path += sys.argv.pop(1).split(os.pathsep); from haif.engine.child import main; main()"
)
"""-I and -S keep everything out of the child's path; so it gets the folders of this package and its libraries named."""


M = TypeVar("M")
E = TypeVar("E", covariant=True)


class Process(asyncio.Protocol):
    """One child process from start to end, and the answers it owes."""

    def __init__(
        self, settings: EngineSettings, clock: Clock, meter: Meter, on_progress: Callable[[int], None]
    ) -> None:
        loop = asyncio.get_running_loop()
        self.answers: dict[int, Stream[Piece | Finished] | Stream[Vectors | Embedded]] = {}
        self.last: Step | None = None
        self._settings = settings
        self._clock = clock
        self._meter = meter
        self._on_progress = on_progress
        self._loaded = -1  # percent
        self._heard = clock.now()
        self._settled = True  # all that was asked was answered to its end
        self._longest = 0.0  # time from one report to the next, while one was owed
        self._exertion = Exertion(settings.threads)
        self._oom_kills = oom_kills()
        self._engine = 0
        self._next = 0
        self._vocabulary = self._context = self._dimensions = 0
        self._exact = False
        self._frames = FrameReader()
        self._sealed: asyncio.Future[Sealed] = loop.create_future()
        self._ready: asyncio.Future[Ready] = loop.create_future()
        self._silent: asyncio.Future[None] = loop.create_future()
        self._error: HaifError | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._orders: asyncio.WriteTransport | None = None
        self._reports: asyncio.BaseTransport | None = None
        self._words: _Words | None = None

    async def start(self, program: str, model: int, *adapters: int) -> None:
        """Make the process. It inherits the ends of three pipes, the files, a clean environment, and nothing else.

        The error stream is a pipe of ours too: what an event loop makes for that purpose may be a socket.
        """
        orders_in, orders_out = os.pipe()
        reports_in, reports_out = os.pipe()
        words_in, words_out = os.pipe()
        try:
            loop = asyncio.get_running_loop()
            self._orders, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, os.fdopen(orders_out, "wb", 0))
            self._reports, _ = await loop.connect_read_pipe(lambda: self, os.fdopen(reports_in, "rb", 0))
            _, self._words = await loop.connect_read_pipe(_Words, os.fdopen(words_in, "rb", 0))
            flags = (int(self._settings.insecure_no_sandbox), int(self._settings.offload.layers > 0))
            numbers = (os.getpid(), orders_in, reports_out, model, *flags, *adapters)
            arguments = (_search_path(), *map(str, numbers))
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-I", "-S", "-B", "-c", program, *arguments,
                stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=words_out,
                pass_fds=(orders_in, reports_out, model, *adapters), start_new_session=True,
                env=environment(self._settings.profile),
            )  # fmt: skip
        finally:
            os.close(orders_in)
            os.close(reports_out)
            os.close(words_out)

    async def sealed(self) -> Sealed:
        """What the child says it enforced, once the kernel agrees where it can be asked. Raises `EngineDied`."""
        sealed = with_cgroups(await self._first(self._sealed))
        assert self._process is not None
        verify(sealed, monitor=self._process.pid, demanded=self._settings.demanded)
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
        self._vocabulary = ready.vocabulary
        self._exact = ready.exact
        self._context = context_tokens(settings, ready)
        self._dimensions = ready.dimensions
        if not 0 <= ready.dimensions <= limits.EMBEDDING_DIMENSIONS_MAX:
            raise Malformed(f"vectors of {ready.dimensions} numbers, which no model makes")
        return ready

    def submit(self, request: Generate, submitted_ns: int) -> tuple[int, Stream[Piece | Finished]]:
        """Hand a request over."""
        number = self._number()
        mailbox = Mailbox(
            request,
            vocabulary=self._vocabulary,
            context_tokens=self._context,
            submitted_ns=submitted_ns,
            witnessed=self._exact,
        )
        self.answers[number] = stream = Stream[Piece | Finished](mailbox)
        self._settled = False
        self._send(Order(submit=Submit(number, request)))
        return number, stream

    def embed(self, request: Embed, submitted_ns: int) -> tuple[int, Stream[Vectors | Embedded]]:
        """Hand a request for vectors over."""
        number = self._number()
        box = VectorBox(
            request, dimensions=self._dimensions, context_tokens=self._context, submitted_ns=submitted_ns
        )  # fmt: skip
        self.answers[number] = stream = Stream[Vectors | Embedded](box)
        self._settled = False
        self._send(Order(embed=SubmitEmbed(number, request)))
        return number, stream

    def _number(self) -> int:
        if not self.answers:
            self._heard = self._clock.now()
        self._next += 1
        return self._next - 1

    def withdraw(self, number: int) -> None:
        """Forget a request; the child stops working on it if it still is."""
        if self.answers.pop(number, None) is not None:
            self._send(Order(cancel=number))

    async def watch(self) -> HaifError:
        """Wait for the end; why it came."""
        while not self._silent.done():
            await asyncio.wait((self._silent,), timeout=limits.ENGINE_LOOK_SECONDS)
            if self.answers and self._clock.now() - self._heard > limits.ENGINE_SILENCE_SECONDS:
                self._condemn(f"it owed an answer and said nothing for {limits.ENGINE_SILENCE_SECONDS:g} seconds")
            accusation = self._exertion.accuse(
                self._clock.now(), processor_seconds(self._engine), asked=self._next, busy=bool(self.answers),
                settled=self._settled,
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
        process = self._process
        if self._orders is not None:
            self._orders.close()
        if process is not None and process.returncode is None:
            if self._error is not None or not self._ready.done():
                _kill(process)
            try:
                async with asyncio.timeout(limits.ENGINE_CLOSE_SECONDS):
                    await process.wait()
            except TimeoutError:
                _kill(process)
                await process.wait()
        if self._words is not None:
            await self._words.end
        if self._reports is not None:
            self._reports.close()
            await self._silent
        self._fail_all(self._error or EngineDied("the engine was closed"))

    async def _cause(self) -> HaifError:
        """Why the child ended; the process is over when this returns."""
        process, words = self._process, self._words
        assert process is not None
        assert words is not None
        try:
            async with asyncio.timeout(limits.ENGINE_CLOSE_SECONDS):
                await process.wait()
        except TimeoutError:  # it closed its pipe and lives on
            _kill(process)
            await process.wait()
        if self._error is None:
            killed = oom_kills() > self._oom_kills
            cause = explain(process.returncode or 0, await words.end, oom_killed=killed)
            self._error = EngineDied(f"the engine child ended: {cause}")
        self._fail_all(self._error)
        return self._error

    async def _first(self, message: asyncio.Future[M]) -> M:
        await asyncio.wait((message, self._silent), return_when=asyncio.FIRST_COMPLETED)
        if not message.done():
            raise await self._cause()
        return message.result()

    def _send(self, order: Order) -> None:
        if self._orders is not None and not self._orders.is_closing():
            self._orders.write(frame(order))

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
            self._step(report.step)
        elif report.batch is not None and self._ready.done():
            self._batch(report.batch)
        elif report.refused is not None and self._ready.done():
            self._refused(report.refused)
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

    def _step(self, step: Step) -> None:
        self._count(step, self._settings.slots + limits.PREFILL_CHUNK_TOKENS)
        for output in step.retold:
            self._deliver(output, Mailbox.retell)
        for output in step.outputs:
            self._deliver(output, Mailbox.put)
        for refused in step.refused:
            self._refused(refused)
        self._meter.preemptions += step.preempted
        self._meter.add(self._heard, len(step.outputs), step.batch_tokens)

    def _deliver(self, output: Output, take: Callable[[Mailbox, Output], None]) -> None:
        stream = self._answer(output.number)
        if stream is None:
            return
        if not isinstance(stream.mailbox, Mailbox):
            raise Malformed("it answered a request for vectors with tokens")
        take(stream.mailbox, output)
        if output.end is not None:
            del self.answers[output.number]
            self._meter.prompt_tokens += output.end.prompt_tokens
            self._meter.cached_tokens += output.end.cached_tokens
        stream.wake()

    def _batch(self, batch: Batch) -> None:
        step = Step([], [], batch.batch_tokens, batch.running, batch.queued, 0)
        self._count(step, self._context)
        for part in batch.parts:
            stream = self._answer(part.number)
            if stream is not None:
                if not isinstance(stream.mailbox, VectorBox):
                    raise Malformed("it answered a request for text with vectors")
                stream.mailbox.put(part)
                if part.end is not None:
                    del self.answers[part.number]
                    self._meter.prompt_tokens += part.end.prompt_tokens
                stream.wake()
        for refused in batch.refused:
            self._refused(refused)
        self._meter.add(self._heard, 0, batch.batch_tokens)

    def _count(self, step: Step, batch_tokens_max: int) -> None:
        slots = self._settings.slots
        for value, most in (
            (step.batch_tokens, batch_tokens_max),
            (step.running, slots),
            (step.queued, limits.ENGINE_QUEUE_MAX + slots),  # those that were preempted among them
            (step.kv_tokens, kv_tokens(self._settings, self._context)),
            (step.preempted, slots),
        ):
            if not 0 <= value <= most:
                raise Malformed(f"a count of {value} where at most {most} is possible")
        self.last = step

    def _refused(self, refused: Refused) -> None:
        param = refused.param and refused.param[: limits.PARAMETER_CHARACTERS_MAX]
        error = from_reason(refused.reason, refused.message[:400], param=param)
        if not isinstance(error, Refusal):
            raise Malformed(f"{refused.reason[:40]!r} is no reason to refuse a request")
        stream = self._answer(refused.number)
        if stream is not None:
            del self.answers[refused.number]
            self._settled = not self.answers
            stream.fail(error)

    def _answer(self, number: int) -> Stream[Piece | Finished] | Stream[Vectors | Embedded] | None:
        """The stream of a request, or None if it was cancelled meanwhile. Raises `Malformed` for one never made."""
        if not 0 <= number < self._next:
            raise Malformed("an answer to a request that was never made")
        return self.answers.get(number)

    def _condemn(self, why: str) -> None:
        if self._error is None:
            self._error = EngineDied(f"the engine child was killed: {why}")
        if self._process is not None:
            _kill(self._process)

    def _fail_all(self, error: HaifError) -> None:
        for stream in self.answers.values():
            stream.fail(EngineDied(error.message, retry_after=limits.ENGINE_RESPAWN_SECONDS_MIN))
        self.answers.clear()


class Box(Protocol[E]):
    """What collects an answer: a mailbox of tokens or of vectors."""

    complete: bool

    def take(self) -> E | None:
        """What there is, then the end, then None."""

    def fail(self, error: HaifError) -> None:
        """Nothing more will come."""


class Stream(Generic[E]):
    """An asynchronous iterator over a mailbox."""

    def __init__(self, mailbox: Box[E]) -> None:
        self.mailbox = mailbox
        self._arrived = asyncio.Event()

    def wake(self) -> None:
        """Something arrived in the mailbox."""
        self._arrived.set()

    def fail(self, error: HaifError) -> None:
        """Nothing more will arrive."""
        self.mailbox.fail(error)
        self.wake()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> E:
        while True:
            item = self.mailbox.take()
            if item is not None:
                return item
            if self.mailbox.complete:
                raise StopAsyncIteration
            self._arrived.clear()
            await self._arrived.wait()


def _says_something(report: Report) -> bool:
    """Whether it is more than a step in which nothing happened: those would be a way to be silent unnoticed."""
    step = report.step
    return step is None or bool(step.batch_tokens or step.outputs or step.refused)


def _search_path() -> str:
    """Where the child finds this package and its libraries."""
    package = str(Path(__file__).resolve().parents[3])
    libraries = [folder for folder in sys.path if folder.endswith("-packages")]
    return os.pathsep.join(dict.fromkeys([package, *libraries]))


class _Words(asyncio.Protocol):
    """The end of what the child wrote to its error stream."""

    def __init__(self) -> None:
        self.end: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._last = b""

    def data_received(self, data: bytes) -> None:
        self._last = (self._last + data)[-limits.ENGINE_STDERR_BYTES_MAX :]

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio names it
        if not self.end.done():
            self.end.set_result(self._last)


def _kill(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        process.kill()
