"""The engine's parent side: it checks the model's file, owns one child process, and believes nothing the child says.

1. Open the file. 2. Start the child, which restricts itself. 3. Meanwhile digest the very file that was opened. 4. Only
if that is the expected digest, and the child reports its restrictions, tell it to load. 5. Requests and tokens.

When the child ends unasked, every running request gets `EngineDied` with the cause, and a new child is started, after a
pause that grows with each death.
"""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Self, TypeVar

import blake3

from haif.base import limits
from haif.base.clock import Clock, Instant
from haif.base.errors import (
    DigestMismatch,
    EngineDied,
    HaifError,
    Malformed,
    Misuse,
    Overloaded,
    Oversize,
    Refusal,
    from_reason,
)
from haif.base.ids import ModelDigest
from haif.engine.frames import (
    FrameReader,
    Load,
    Order,
    Ready,
    Refused,
    Report,
    Sealed,
    Step,
    Submit,
    decode_report,
    frame,
)
from haif.engine.mailbox import Mailbox
from haif.engine.request import SAMPLER, EngineStatistics, Finished, Generate, ModelInfo, Piece, check
from haif.engine.sandbox import ENVIRONMENT, LEVEL

CHILD_PROGRAM: Final = (
    "import os, sys; sys.path += sys.argv.pop(1).split(os.pathsep); from haif.engine.child import main; main()"
)
"""-I and -S keep everything out of the child's path; so it gets the folders of this package and its libraries named."""

_READ_BYTES: Final = 4 << 20
M = TypeVar("M")


@dataclass(frozen=True)
class EngineSettings:
    """What to run and with what.

    `context_tokens` is per slot; 0 takes what the model was trained for, at most
    `limits.ENGINE_CONTEXT_TOKENS_DEFAULT`.
    """

    model: Path
    digest: ModelDigest
    slots: int
    context_tokens: int
    threads: int
    profile: Literal["exact"] = "exact"


class Engine:
    """Runs one model in a child process.

    Entering raises `DigestMismatch` when the file is not the one its digest names, `Misuse` for settings that cannot
    work, `Unsupported` for a model that cannot be served, `EngineDied` when the child ends before it is ready. Leaving
    ends the child; requests still running get `EngineDied`. `on_died(cause)` is called for each unasked end.
    """

    def __init__(
        self,
        settings: EngineSettings,
        *,
        clock: Clock,
        entropy: Callable[[int], bytes],
        on_died: Callable[[str], None],
        program: str = CHILD_PROGRAM,
    ) -> None:
        _check_settings(settings)
        self._settings = settings
        self._clock = clock
        self._entropy = entropy
        self._on_died = on_died
        self._program = program
        self._child: _Child | None = None
        self._alive = asyncio.Event()
        self._cause = "it has not been started"
        self._task: asyncio.Task[None] | None = None
        self._model: ModelInfo | None = None
        self._meter = _Meter(clock)
        self._deaths = 0

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
        child = self._child
        if child is None:
            raise EngineDied(f"the engine is not running: {self._cause}", retry_after=limits.ENGINE_RESPAWN_SECONDS_MAX)
        if len(child.answers) >= self._settings.slots + limits.ENGINE_QUEUE_MAX:
            raise Overloaded(f"{limits.ENGINE_QUEUE_MAX} requests are waiting at this engine already", retry_after=1.0)
        number, stream = child.submit(request, self._clock.wall() * 1_000_000)
        try:
            yield stream
        finally:
            child.withdraw(number)

    async def wait_alive(self) -> None:
        """Return once a child is ready for requests."""
        await self._alive.wait()

    def statistics(self) -> EngineStatistics:
        """A snapshot."""
        child, meter = self._child, self._meter
        last = child.last if child else None
        tokens_per_second, batch_tokens = meter.rates()
        outstanding = len(child.answers) if child else 0
        running = min(last.running if last else 0, outstanding)
        return EngineStatistics(
            slots=self._settings.slots,
            running=running,
            queued=outstanding - running,
            kv_tokens=last.kv_tokens if last else 0,
            kv_tokens_max=self._settings.slots * (self._model.context_tokens if self._model else 0),
            tokens_per_second=tokens_per_second,
            batch_tokens=batch_tokens,
            steps=meter.steps,
            prompt_tokens=meter.prompt_tokens,
            completion_tokens=meter.completion_tokens,
            deaths=self._deaths,
            alive=child is not None,
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
        descriptor, size = _open_model(self._settings.model)
        child = _Child(self._settings, self._clock, self._meter)
        try:
            await child.start(self._program, descriptor)
            async with asyncio.timeout(limits.ENGINE_START_SECONDS + size / (256 << 20)):
                self._model = await self._prepare(child, descriptor)
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
            await child.close()
            os.close(descriptor)

    async def _prepare(self, child: _Child, descriptor: int) -> ModelInfo:
        found = await asyncio.to_thread(_digest, descriptor)
        if found != self._settings.digest:
            raise DigestMismatch(
                f"{self._settings.model} has the digest {found.short}…, not {self._settings.digest.short}…: "
                "it was altered or is another file; it was not loaded"
            )
        sealed = await child.sealed()
        ready = await child.load()
        return _describe(ready, sealed, self._settings)


class _Child(asyncio.Protocol):
    """One child process from start to end, and the answers it owes."""

    def __init__(self, settings: EngineSettings, clock: Clock, meter: _Meter) -> None:
        loop = asyncio.get_running_loop()
        self.answers: dict[int, _Stream] = {}
        self.last: Step | None = None
        self._settings = settings
        self._clock = clock
        self._meter = meter
        self._heard = clock.now()
        self._next = 0
        self._vocabulary = self._context = 0
        self._frames = FrameReader()
        self._sealed: asyncio.Future[Sealed] = loop.create_future()
        self._ready: asyncio.Future[Ready] = loop.create_future()
        self._silent: asyncio.Future[None] = loop.create_future()
        self._error: HaifError | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._orders: asyncio.WriteTransport | None = None
        self._reports: asyncio.BaseTransport | None = None
        self._words: asyncio.Task[bytes] | None = None

    async def start(self, program: str, model: int) -> None:
        """Make the process. It inherits the two pipes' ends and the model, a clean environment, and nothing else."""
        orders_in, orders_out = os.pipe()
        reports_in, reports_out = os.pipe()
        try:
            loop = asyncio.get_running_loop()
            self._orders, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, os.fdopen(orders_out, "wb", 0))
            self._reports, _ = await loop.connect_read_pipe(lambda: self, os.fdopen(reports_in, "rb", 0))
            arguments = (_search_path(), *map(str, (os.getpid(), orders_in, reports_out, model)))
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-I", "-S", "-B", "-c", program, *arguments,
                stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
                pass_fds=(orders_in, reports_out, model), env=ENVIRONMENT, start_new_session=True,
            )  # fmt: skip
        finally:
            os.close(orders_in)
            os.close(reports_out)
        assert self._process.stderr is not None
        self._words = asyncio.create_task(_last_words(self._process.stderr), name="engine last words")

    async def sealed(self) -> Sealed:
        """What the child says it enforced, once the kernel agrees where it can be asked. Raises `EngineDied`."""
        sealed = await self._first(self._sealed)
        assert self._process is not None
        status = Path(f"/proc/{self._process.pid}/status").read_text()  # noqa: ASYNC240 - procfs does not block
        if "NoNewPrivs:\t1\n" not in status:
            raise EngineDied("it says that it restricted itself, and did not")
        return sealed

    async def load(self) -> Ready:
        """Let the child load the model. Raises what kept it from doing so."""
        settings = self._settings
        self._send(Order(load=Load(settings.slots, settings.context_tokens, settings.threads)))
        ready = await self._first(self._ready)
        self._vocabulary = ready.vocabulary
        self._context = context_tokens(settings, ready)
        return ready

    def submit(self, request: Generate, submitted_ns: int) -> tuple[int, _Stream]:
        """Hand a request over."""
        number = self._next
        self._next += 1
        if not self.answers:
            self._heard = self._clock.now()
        mailbox = Mailbox(
            request,
            vocabulary=self._vocabulary,
            context_tokens=self._context,
            submitted_ns=submitted_ns,
        )
        self.answers[number] = stream = _Stream(mailbox)
        self._send(Order(submit=Submit(number, request)))
        return number, stream

    def withdraw(self, number: int) -> None:
        """Forget a request; the child stops working on it if it still is."""
        if self.answers.pop(number, None) is not None:
            self._send(Order(cancel=number))

    async def watch(self) -> HaifError:
        """Wait for the end; why it came."""
        while not self._silent.done():
            await asyncio.wait((self._silent,), timeout=limits.ENGINE_SILENCE_SECONDS / 8)
            if self.answers and self._clock.now() - self._heard > limits.ENGINE_SILENCE_SECONDS:
                self._condemn(f"it owed an answer and said nothing for {limits.ENGINE_SILENCE_SECONDS:g} seconds")
        return await self._cause()

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
            await self._words
        if self._reports is not None:
            self._reports.close()
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
            self._error = EngineDied(f"the engine child ended: {_explain(process.returncode or 0, await words)}")
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
        self._heard = self._clock.now()
        try:
            for body in self._frames.feed(data):
                self._hear(decode_report(body))
        except (Malformed, Oversize) as fault:
            self._condemn(f"it broke the protocol: {fault.message}")

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio names it
        """The child closed its end, or is gone."""
        if self._frames.waiting and self._error is None:
            self._error = EngineDied("the engine child ended in the middle of a message")
        if not self._silent.done():
            self._silent.set_result(None)

    def _hear(self, report: Report) -> None:
        if report.step is not None and self._ready.done():
            self._step(report.step)
        elif report.refused is not None and self._ready.done():
            self._refused(report.refused)
        elif report.sealed is not None and not self._sealed.done():
            self._sealed.set_result(report.sealed)
        elif report.ready is not None and self._sealed.done() and not self._ready.done():
            self._ready.set_result(report.ready)
        elif report.failed is not None and not self._ready.done():
            self._error = from_reason(report.failed.reason, report.failed.message[:400])
        else:
            raise Malformed("a report that is not due")

    def _step(self, step: Step) -> None:
        slots, context = self._settings.slots, self._context
        for value, most in (
            (step.batch_tokens, slots + limits.PREFILL_CHUNK_TOKENS),
            (step.running, slots),
            (step.queued, limits.ENGINE_QUEUE_MAX),
            (step.kv_tokens, slots * context),
        ):
            if not 0 <= value <= most:
                raise Malformed(f"a count of {value} where at most {most} is possible")
        self.last = step
        for output in step.outputs:
            stream = self._answer(output.number)
            if stream is not None:
                stream.mailbox.put(output)
                if output.end is not None:
                    del self.answers[output.number]
                    self._meter.prompt_tokens += output.end.prompt_tokens
                stream.wake()
        self._meter.add(len(step.outputs), step.batch_tokens)

    def _refused(self, refused: Refused) -> None:
        error = from_reason(refused.reason, refused.message[:400])
        if not isinstance(error, Refusal):
            raise Malformed(f"{refused.reason[:40]!r} is no reason to refuse a request")
        error.param = refused.param
        stream = self._answer(refused.number)
        if stream is not None:
            del self.answers[refused.number]
            stream.fail(error)

    def _answer(self, number: int) -> _Stream | None:
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


class _Stream:
    """An asynchronous iterator over a mailbox."""

    def __init__(self, mailbox: Mailbox) -> None:
        self.mailbox = mailbox
        self._arrived = asyncio.Event()

    def wake(self) -> None:
        self._arrived.set()

    def fail(self, error: HaifError) -> None:
        self.mailbox.fail(error)
        self.wake()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Piece | Finished:
        while True:
            item = self.mailbox.take()
            if item is not None:
                return item
            if self.mailbox.complete:
                raise StopAsyncIteration
            self._arrived.clear()
            await self._arrived.wait()


class _Meter:
    """Totals, and rates over the last few seconds."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._steps: deque[tuple[Instant, int, int]] = deque(maxlen=limits.ENGINE_RATE_STEPS_MAX)
        self.steps = 0
        self.prompt_tokens = 0
        self.completion_tokens = 0

    def add(self, sampled: int, batch_tokens: int) -> None:
        """One step."""
        self.steps += 1
        self.completion_tokens += sampled
        self._steps.append((self._clock.now(), sampled, batch_tokens))

    def rates(self) -> tuple[float, float]:
        """Sampled tokens per second, and mean tokens per batch."""
        now = self._clock.now()
        recent = [step for step in self._steps if now - step[0] <= limits.ENGINE_RATE_SECONDS]
        if not recent:
            return 0.0, 0.0
        span = max(now - recent[0][0], 1e-3)
        return sum(step[1] for step in recent) / span, sum(step[2] for step in recent) / len(recent)


def _check_settings(settings: EngineSettings) -> None:
    if not 1 <= settings.slots <= limits.ENGINE_SLOTS_MAX:
        raise Misuse(f"an engine has 1 to {limits.ENGINE_SLOTS_MAX} slots, not {settings.slots}")
    if settings.context_tokens < 0 or settings.threads < 1:
        raise Misuse("an engine needs a context that is not negative and at least 1 thread")
    if settings.profile != "exact":
        raise Misuse(f"there is no execution profile {settings.profile!r}: use 'exact'")


def _open_model(path: Path) -> tuple[int, int]:
    """An open descriptor and the size. Raises `Misuse`."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise Misuse(f"the model file {path} cannot be opened: {error.strerror}") from None
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        os.close(descriptor)
        raise Misuse(f"{path} is not a regular file")
    return descriptor, found.st_size


def _digest(descriptor: int) -> ModelDigest:
    """BLAKE3 of the open file. Read, not mapped: a file that shrinks meanwhile must not kill us."""
    hasher = blake3.blake3()
    buffer = bytearray(_READ_BYTES)
    place = 0
    while count := os.preadv(descriptor, [buffer], place):
        hasher.update(memoryview(buffer)[:count])
        place += count
    return ModelDigest(hasher.digest())


def _search_path() -> str:
    """Where the child finds this package and its libraries."""
    package = str(Path(__file__).resolve().parents[2])
    libraries = [folder for folder in sys.path if folder.endswith("-packages")]
    return os.pathsep.join(dict.fromkeys([package, *libraries]))


def context_tokens(settings: EngineSettings, ready: Ready) -> int:
    """The context of one slot, as the child that is ready has it."""
    return settings.context_tokens or min(ready.context_trained, limits.ENGINE_CONTEXT_TOKENS_DEFAULT)


def _describe(ready: Ready, sealed: Sealed, settings: EngineSettings) -> ModelInfo:
    most = limits.MODEL_TEXT_BYTES_MAX
    exact = "bit-exact" if ready.exact else "not bit-exact"
    return ModelInfo(
        name=ready.name[:most],
        architecture=ready.architecture[:most],
        parameters=ready.parameters,
        vocabulary=ready.vocabulary,
        context_trained=ready.context_trained,
        context_tokens=context_tokens(settings, ready),
        has_chat_template=ready.has_chat_template,
        engine=f"{ready.build[:most]}; profile {settings.profile}, {exact}; {SAMPLER}",
        exact=ready.exact,
        sandbox=LEVEL,
        enforced=tuple(text[:most] for text in sealed.enforced),
        missing=tuple(text[:most] for text in sealed.missing),
    )


async def _last_words(stderr: asyncio.StreamReader) -> bytes:
    """The end of what the child wrote to its error stream."""
    words = b""
    while data := await stderr.read(limits.ENGINE_STDERR_BYTES_MAX):
        words = (words + data)[-limits.ENGINE_STDERR_BYTES_MAX :]
    return words


def _kill(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        process.kill()


_SIGNALS: Final = {
    signal.SIGKILL: "by the operating system for want of memory, or by somebody",
    signal.SIGABRT: "llama.cpp stopped itself at a state it does not handle",
    signal.SIGSEGV: "a memory fault in native code",
}


def _explain(status: int, words: bytes) -> str:
    """An exit status and last words as a sentence."""
    if status < 0:
        name = signal.Signals(-status).name
        cause = f"killed by {name}" + (f" ({_SIGNALS[signal.Signals(-status)]})" if -status in _SIGNALS else "")
    else:
        cause = f"it exited with status {status}"
    lines = words.decode(errors="replace").strip().splitlines()
    return f"{cause}; its last words: {lines[-1][:300]}" if lines else cause
