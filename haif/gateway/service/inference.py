"""One inference request, from its parsed body to the last byte of its answer, streamed or whole.

Each choice is a job of its own, with its own seed and receipt. The first goes ahead: when its first token is there its
prompt was computed, and the others, where they come to the same worker, take that over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any

from haif.base import limits
from haif.base.clock import Clock, Deadline, Instant
from haif.base.errors import Refusal
from haif.base.execution import VERIFIABLE
from haif.base.ids import JobId, PeerId
from haif.gateway.admission import seconds_allowed
from haif.gateway.ask import Ask, in_words_of
from haif.gateway.letters import Try
from haif.gateway.service.exchange import Exchange
from haif.gateway.service.lines import Lines
from haif.gateway.service.mesh import Mesh, Trip
from haif.gateway.service.travel import travel
from haif.gateway.service.wanted import while_wanted
from haif.gateway.session import Journey
from haif.gateway.told import Choice, Settled, Stream
from haif.gateway.voices import reply_to
from haif.protocol.inference import Chunk, encode_request
from haif.protocol.receipts import Receipt
from haif.telemetry import names
from haif.telemetry.service import Span, Telemetry

Deliver = Callable[[int, Chunk], Coroutine[Any, Any, None] | None]
Take = Callable[[Chunk], Coroutine[Any, Any, None] | None]
Ended = Callable[[int, Settled], Awaitable[None]]


@dataclass(frozen=True, kw_only=True)
class Means:
    """What answering needs. `stopping` is done when the gateway can wait no longer for answers to end."""

    mesh: Mesh
    lines: Lines
    telemetry: Telemetry
    clock: Clock
    entropy: Callable[[int], bytes]
    peer: PeerId
    stopping: asyncio.Future[None]
    keepalive_seconds: float = limits.SSE_KEEPALIVE_SECONDS
    first_token_seconds: float = limits.FIRST_TOKEN_SECONDS
    token_seconds: float = limits.TOKEN_SECONDS
    execution: str = VERIFIABLE  # demanded where a tenant demands nothing


class Inference:
    """Answers one request. Raises what ended it; the exchange then knows whether a stream had begun."""

    def __init__(self, means: Means, exchange: Exchange, ask: Ask, *, tenant: str, model: str) -> None:
        """`model` is the model's name as it may be recorded: "unknown" where nobody offers it."""
        self._means = means
        self._exchange = exchange
        self._ask = ask
        self._model = model
        self._begun = means.clock.now()
        encoded = encode_request(ask.request)
        self._journeys = [
            Journey(
                ask, job=JobId(means.entropy(JobId.size)), tenant=tenant, gateway=means.peer, choice=choice,
                encoded=encoded,
            )
            for choice in range(ask.choices)
        ]  # fmt: skip
        self._reply = reply_to(self._journeys[0].job, ask, means.clock.wall() // 1000)
        self._streams: list[Stream] = []
        if ask.stream:
            self._streams = [self._reply.stream(choice, each.job) for choice, each in enumerate(self._journeys)]
            exchange.broken = self._streams[0].broken
        self._settled: list[Settled] = []  # in the order in which they came
        self._opened: set[int] = set()  # choices of which something was shown
        self._first: Instant | None = None
        self._listener_matters = True

    @property
    def jobs(self) -> tuple[JobId, ...]:
        """As which jobs it is answered: one for each choice."""
        return tuple(journey.job for journey in self._journeys)

    @property
    def receipts(self) -> list[Receipt]:
        """Of the choices whose answers are whole."""
        return [each.receipt for each in self._settled]

    @property
    def taken(self) -> int:
        """How many tokens came beyond those that receipts tell of."""
        whole = sum(each.completion_tokens for each in self.receipts)
        return max(0, sum(journey.tokens for journey in self._journeys) - whole)

    @property
    def history(self) -> list[Try]:
        """What was tried and failed."""
        return [each for journey in self._journeys for each in journey.history]

    async def answer_for_later(self) -> None:
        """Answer, also if the tenant hangs up: it will come back for the answer."""
        self._listener_matters = False
        await self.answer()

    async def answer(self) -> None:
        """Answer while the tenant listens, at most until its deadline."""
        means, seconds = self._means, seconds_allowed(self._exchange.headers)
        parent = self._exchange.headers.get(b"traceparent", b"").decode("latin-1")
        operation = names.CHAT if self._ask.kind == "chat" else names.TEXT_COMPLETION
        name = names.inference_span(operation, self._model)
        with means.telemetry.span(name, parent=parent, attributes=self._attributes(operation)) as span:
            self._announce(span)
            trip = Trip(
                Deadline.after(seconds, self._begun), span.traceparent, means.first_token_seconds, means.token_seconds
            )
            try:
                settled = await while_wanted(
                    self._whole(trip) if not self._ask.stream else self._streamed(trip), self._exchange, self._idle,
                    means.keepalive_seconds, means.stopping, seconds=seconds, listener_matters=self._listener_matters,
                )  # fmt: skip
                self._record(settled, span)
            except Refusal as refusal:
                in_words_of(self._ask.dialect, refusal)
                raise

    # --- the two kinds of answer --------------------------------------------------------------------------------------

    async def _whole(self, trip: Trip) -> list[Settled]:
        def keep(_: int, __: Chunk) -> None:
            """Nothing: the journey keeps the text, and nothing is shown before it is whole."""

        settled = await self._travel_all(trip, keep, self._bring)
        self._name_workers()
        choices = [Choice(each.said, each.scores, end) for each, end in zip(self._journeys, settled, strict=True)]
        await self._exchange.reply(self._reply.whole(choices))
        return settled

    async def _streamed(self, trip: Trip) -> list[Settled]:
        ends = self._bring if self._ask.choices == 1 else self._show_end
        settled = await self._travel_all(trip, self._deliver, ends)
        last = await self._end_of(0, settled[0]) if self._ask.choices == 1 else b""
        await self._exchange.end_stream(last + self._reply.done(settled))
        return settled

    async def _travel_all(self, trip: Trip, deliver: Deliver, ended: Ended) -> list[Settled]:
        """Bring back every choice, or raise what ended the first that failed; then none goes on."""
        if self._ask.choices == 1:
            settled = await self._travel(0, trip, partial(deliver, 0))
            await ended(0, settled)
            return [settled]
        ahead = asyncio.Event()

        async def one(choice: int) -> Settled:
            if choice:
                await ahead.wait()

            def take(chunk: Chunk) -> Coroutine[Any, Any, None] | None:
                ahead.set()
                return deliver(choice, chunk)

            settled = await self._travel(choice, trip, take)
            ahead.set()
            await ended(choice, settled)
            return settled

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(choice)) for choice in range(self._ask.choices)]
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None
        return [task.result() for task in tasks]

    async def _travel(
        self, choice: int, trip: Trip, take: Callable[[Chunk], Coroutine[Any, Any, None] | None]
    ) -> Settled:
        means, journey = self._means, self._journeys[choice]
        async with means.lines.turn(journey, trip.deadline) as turn:
            settled = await travel(journey, means.mesh, trip, means.telemetry, take, means.entropy)
            self._settled.append(settled)
            turn.used = settled.receipt.prompt_tokens + settled.receipt.completion_tokens
        return settled

    async def _bring(self, _: int, __: Settled) -> None:
        """Nothing: what there is to show of a choice's end is shown with the others'."""

    async def _show_end(self, choice: int, settled: Settled) -> None:
        await self._say(await self._end_of(choice, settled))

    async def _end_of(self, choice: int, settled: Settled) -> bytes:
        return await self._open(choice) + self._streams[choice].last(settled)

    def _deliver(self, choice: int, chunk: Chunk) -> Coroutine[Any, Any, None] | None:
        if not (chunk.text or chunk.scores or chunk.asides):
            return None
        if choice in self._opened:
            return self._exchange.event(self._streams[choice].chunk(chunk))
        return self._begin_with(choice, chunk)

    async def _begin_with(self, choice: int, chunk: Chunk) -> None:
        opening = await self._open(choice, text=bool(chunk.text))
        await self._say(opening + self._streams[choice].chunk(chunk))

    async def _say(self, data: bytes) -> None:
        waiting = self._exchange.event(data)
        if waiting is not None:
            await waiting

    async def _open(self, choice: int, *, text: bool = True) -> bytes:
        """The event that goes before a choice's first; with the very first the stream begins."""
        if choice in self._opened:
            return b""
        self._opened.add(choice)
        if self._first is None:
            self._first = self._means.clock.now()
            self._name_workers()
        await self._exchange.begin_stream()
        return self._streams[choice].first(text=text)

    async def _idle(self) -> None:
        """Nothing came for a while: show the tenant, and every proxy between us, that somebody is here."""
        if self._ask.stream and not self._exchange.finished:
            await self._exchange.begin_stream()
            await self._say(self._reply.keepalive)

    # --- what is said and recorded about it ---------------------------------------------------------------------------

    def _announce(self, span: Span) -> None:
        out = self._exchange.out
        jobs = ", ".join(str(journey.job) for journey in self._journeys)
        out += [(b"x-haif-job", jobs.encode()), (b"traceparent", span.traceparent.encode())]
        if self._ask.ignored:
            out.append((b"x-haif-ignored-params", ", ".join(self._ask.ignored).encode()))

    def _name_workers(self) -> None:
        """Those who are known when the answer's headers leave."""
        tickets = [journey.ticket for journey in self._journeys if journey.ticket is not None]
        if tickets and not self._exchange.streaming:
            workers = dict.fromkeys(str(ticket.worker) for ticket in tickets)
            self._exchange.out += [
                (b"x-haif-worker", ", ".join(workers).encode()),
                (b"x-haif-model-digest", str(tickets[0].reservation.payload.model).encode()),
            ]

    def _attributes(self, operation: str) -> dict[str, str | int | float | bool]:
        request = self._ask.request
        return {
            names.JOB: str(self._journeys[0].job), names.TENANT: self._journeys[0].tenant, names.OPERATION: operation,
            names.PROVIDER: "haif", names.REQUEST_MODEL: self._model, names.REQUEST_STREAM: self._ask.stream,
            names.REQUEST_MAX_TOKENS: request.tokens_max, names.REQUEST_TEMPERATURE: request.sampling.temperature,
            names.REQUEST_TOP_P: request.sampling.top_p,
        }  # fmt: skip

    def _record(self, settled: list[Settled], span: Span) -> None:
        telemetry = self._means.telemetry
        prompt = sum(each.receipt.prompt_tokens for each in settled)
        completion = sum(each.receipt.completion_tokens for each in settled)
        span.set(names.RESPONSE_ID, self._reply.id)
        span.set(names.RESPONSE_MODEL, self._model)
        span.set(names.RESPONSE_FINISH_REASON, ",".join(each.receipt.finish_reason for each in settled))
        span.set(names.INPUT_TOKENS, prompt)
        span.set(names.OUTPUT_TOKENS, completion)
        telemetry.count(names.GATEWAY_TOKENS_IN, prompt, model=self._model)
        telemetry.count(names.GATEWAY_TOKENS_OUT, completion, model=self._model)
        if self._first is None:
            return
        waited = self._first - self._begun
        span.set(names.RESPONSE_FIRST_CHUNK, waited)
        telemetry.observe(names.GATEWAY_TIME_TO_FIRST_TOKEN, waited, model=self._model)
        longest = max(each.receipt.completion_tokens for each in settled)
        if longest > 1:
            pace = (self._means.clock.now() - self._first) / (longest - 1)
            telemetry.observe(names.GATEWAY_TIME_PER_OUTPUT_TOKEN, pace, model=self._model)
