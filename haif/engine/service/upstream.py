"""A server of this machine's owner as an engine: vLLM, SGLang, llama-server, Ollama, or another HAIF gateway.

What it computes, nobody can check: its model, its sampler and its jail are its own affair, and the `ModelInfo` says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final, Self

from haif.base import limits
from haif.base.clock import Clock
from haif.base.errors import EngineDied, HaifError, Misuse, Overloaded, Refusal, Unsupported
from haif.base.tasks import Task
from haif.engine.embed import Embed, Embedded, Vectors
from haif.engine.meter import Meter
from haif.engine.request import EngineStatistics, Finished, Generate, ModelInfo, Piece, check
from haif.engine.sandbox.layers import LAYERS
from haif.engine.service.http import Reply, Server, asked
from haif.engine.upstream import AnswerReader, asking, find_model, refused

_RESIDUAL: Final = (
    "another program computes the answers: which model it has and how it runs it is its operator's word alone",
    "prompts and answers are outside of the jail, with that program",
)


@dataclass(frozen=True)
class UpstreamSettings:
    """Which server, what it calls the model, how much is asked of it at once; `context_tokens` 0: what it says."""

    server: Server
    model: str
    slots: int
    context_tokens: int


class Upstream:
    """Runs one model on a server that is there already.

    Entering raises `Unsupported` if the server has not the model, `EngineDied` if it is not there, `Malformed` or
    `Oversize` for nonsense. Leaving breaks off what is under way. `on_died(cause)` is called each time it goes away.
    """

    def __init__(
        self,
        settings: UpstreamSettings,
        *,
        clock: Clock,
        on_died: Callable[[str], None],
        meter: Meter | None = None,
    ) -> None:
        if not 1 <= settings.slots <= limits.ENGINE_SLOTS_MAX:
            raise Misuse(f"an engine has 1 to {limits.ENGINE_SLOTS_MAX} slots, not {settings.slots}")
        self._settings = settings
        self._clock = clock
        self._on_died = on_died
        self._meter = meter or Meter()
        self._alive = asyncio.Event()
        self._free = asyncio.Semaphore(settings.slots)
        self._asked = self._running = 0
        self._context = settings.context_tokens
        self._task: asyncio.Task[None] | None = None

    @property
    def model(self) -> ModelInfo:
        """What is known of it."""
        server, name = self._settings.server, self._settings.model[: limits.MODEL_TEXT_BYTES_MAX]
        return ModelInfo(
            name=name, architecture="", parameters=0, vocabulary=0, context_trained=0, context_tokens=self._context,
            has_chat_template=True,
            engine=f"upstream {name}{' on another machine' if server.allowed else ''}; unverifiable: "
            "its own sampler and tokens, a piece of text counted as a token",
            exact=False, sandbox="none", enforced=(), missing=LAYERS, residual=_RESIDUAL, verifiable=False,
            tasks=frozenset({Task.CHAT, Task.TEXT}), dimensions=0,
        )  # fmt: skip

    async def __aenter__(self) -> Self:
        stated = await self._look()
        self._context = self._context or stated or limits.ENGINE_CONTEXT_TOKENS_DEFAULT
        self._alive.set()
        self._task = asyncio.create_task(self._watch(), name="upstream")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _look(self) -> int:
        async with asked(self._settings.server, "GET", "/models") as reply:
            body = await reply.whole()
            if reply.status != 200:
                raise refused(reply.status, body, reply.retry_after)
        return find_model(body, self._settings.model)

    async def _watch(self) -> None:
        """Whether it is there, and still has the model."""
        while True:
            await asyncio.sleep(limits.UPSTREAM_LOOK_SECONDS)
            try:
                await self._look()
                self._alive.set()
            except HaifError as error:
                if self._alive.is_set() and not isinstance(error, Overloaded):
                    self._alive.clear()
                    self._on_died(error.message)

    @asynccontextmanager
    async def generate(self, request: Generate) -> AsyncIterator[AsyncIterator[Piece | Finished]]:
        """The pieces of an answer as they come, then one `Finished`. Leaving early closes the connection.

        Entering raises `InvalidRequest`, `Unsupported`, `Overloaded` or `EngineDied`; iterating raises what the server
        refuses with, and `EngineDied` for an answer that breaks off or is none.
        """
        check(request)
        path, body = asking(request, self._settings.model, self._context)
        if not self._alive.is_set():
            raise EngineDied("the server behind this worker is not there", retry_after=limits.UPSTREAM_LOOK_SECONDS)
        if self._asked >= self._settings.slots + limits.ENGINE_QUEUE_MAX:
            raise Overloaded(f"{limits.ENGINE_QUEUE_MAX} requests are waiting at this engine already", retry_after=1.0)
        self._asked += 1
        try:
            async with self._free, aclosing(self._answer(request, path, body)) as events:
                yield events
        finally:
            self._asked -= 1

    async def _answer(self, request: Generate, path: str, body: bytes) -> AsyncGenerator[Piece | Finished, None]:
        began, submitted_ns = self._clock.now(), self._clock.wall() * 1_000_000
        first = None
        answer = AnswerReader(request)
        self._running += 1
        try:
            async with asked(self._settings.server, "POST", path, body) as reply:
                await _check_begun(reply)
                async for data in reply.body():
                    for piece in answer.feed(data):
                        first = first or self._clock.now()
                        self._meter.add(self._clock.now(), len(piece.tokens), len(piece.tokens))
                        yield piece
                for piece in answer.end():
                    self._meter.add(self._clock.now(), len(piece.tokens), len(piece.tokens))
                    yield piece
        except HaifError as error:
            raise _as_seen(error) from None
        finally:
            self._running -= 1
        now = self._clock.now()
        done = answer.finished(
            submitted_ns=submitted_ns, first_ns=int(((first or now) - began) * 1e9), last_ns=int((now - began) * 1e9)
        )
        self._meter.prompt_tokens += done.prompt_tokens
        self._meter.cached_tokens += done.cached_tokens
        yield done

    def embed(self, request: Embed) -> AbstractAsyncContextManager[AsyncIterator[Vectors | Embedded]]:
        """Raises `Unsupported`: vectors are not asked of such a server."""
        del request
        raise Unsupported("a server behind a worker is asked for text only, not for vectors", param="model")

    async def wait_alive(self) -> None:
        """Return once the server is there."""
        await self._alive.wait()

    def memory_bytes(self) -> int:
        """None of ours."""
        return 0

    def statistics(self) -> EngineStatistics:
        """A snapshot."""
        meter = self._meter
        return EngineStatistics(
            slots=self._settings.slots, running=self._running, queued=self._asked - self._running, kv_tokens=0,
            kv_tokens_max=0, tokens_per_second=meter.rates(self._clock.now())[0], batch_tokens=0.0, steps=meter.steps,
            prompt_tokens=meter.prompt_tokens, cached_tokens=meter.cached_tokens,
            completion_tokens=meter.completion_tokens, preemptions=0, deaths=0, usable=self._alive.is_set(),
        )  # fmt: skip


async def _check_begun(reply: Reply) -> None:
    """Return if this is the beginning of an answer."""
    if reply.status != 200:
        raise refused(reply.status, await reply.whole(), reply.retry_after)
    if not reply.headers.get(b"content-type", b"").startswith(b"text/event-stream"):
        raise EngineDied("the server behind this worker does not stream its answers")
    if b"content-encoding" in reply.headers:
        raise EngineDied("the server behind this worker packs its answers, though nobody asked for that")


def _as_seen(error: HaifError) -> HaifError:
    """A server that breaks its own dialect did not answer; whose doing that is, is between it and its owner."""
    if isinstance(error, Refusal | EngineDied):
        return error
    return EngineDied(f"the server behind this worker cannot be followed: {error.message}")
