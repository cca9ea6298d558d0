"""One inference request, from its parsed body to the last byte of its answer, streamed or whole."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from haif.base import limits
from haif.base.clock import Clock, Deadline, Instant
from haif.base.errors import Timeout
from haif.base.ids import JobId, PeerId
from haif.gateway.admission import seconds_allowed
from haif.gateway.openai import Ask
from haif.gateway.replies import KEEPALIVE, Envelope, Settled, Stream
from haif.gateway.service.exchange import Exchange
from haif.gateway.service.mesh import Mesh, Trip
from haif.gateway.service.travel import travel
from haif.gateway.service.wanted import while_wanted
from haif.gateway.session import Journey
from haif.protocol.inference import Chunk
from haif.telemetry import names
from haif.telemetry.service import Span, Telemetry

BACKSTOP_SECONDS = 1.0  # every step has the deadline itself; this ends what waits for a tenant that does not read


@dataclass(frozen=True, kw_only=True)
class Means:
    """What answering needs. `stopping` is done when the gateway can wait no longer for answers to end."""

    mesh: Mesh
    telemetry: Telemetry
    clock: Clock
    entropy: Callable[[int], bytes]
    peer: PeerId
    stopping: asyncio.Future[None]
    keepalive_seconds: float = limits.SSE_KEEPALIVE_SECONDS


class Inference:
    """Answers one request. Raises what ended it; the exchange then knows whether a stream had begun."""

    def __init__(self, means: Means, exchange: Exchange, ask: Ask, *, tenant: str, model: str) -> None:
        """`model` is the model's name as it may be recorded: "unknown" where nobody offers it."""
        self._means = means
        self._exchange = exchange
        self._ask = ask
        self._model = model
        self._begun = means.clock.now()
        self._job = JobId(means.entropy(JobId.size))
        self._journey = Journey(ask, job=self._job, tenant=tenant, gateway=means.peer)
        self._envelope = Envelope(self._job, ask, created=means.clock.wall() // 1000)
        self._stream = Stream(self._envelope)
        self._first: Instant | None = None

    async def answer(self) -> None:
        """Answer while the tenant listens, at most until its deadline."""
        means, seconds = self._means, seconds_allowed(self._exchange.headers)
        parent = self._exchange.headers.get(b"traceparent", b"").decode("latin-1")
        operation = names.CHAT if self._ask.kind == "chat" else names.TEXT_COMPLETION
        name = names.inference_span(operation, self._model)
        with means.telemetry.span(name, parent=parent, attributes=self._attributes(operation)) as span:
            self._announce(span)
            trip = Trip(Deadline.after(seconds, self._begun), span.traceparent)
            try:
                async with asyncio.timeout(seconds + BACKSTOP_SECONDS):
                    settled = await while_wanted(
                        self._whole(trip) if not self._ask.stream else self._streamed(trip), self._exchange, self._idle,
                        means.keepalive_seconds, means.stopping,
                    )  # fmt: skip
                    self._record(settled, span)
            except TimeoutError:
                raise Timeout(f"no whole answer within {seconds:.0f} seconds") from None

    # --- the two kinds of answer --------------------------------------------------------------------------------------

    async def _whole(self, trip: Trip) -> Settled:
        async def keep(_: Chunk) -> None:
            """Nothing: the journey keeps the text, and nothing is shown before it is whole."""

        settled = await travel(self._journey, self._means.mesh, trip, self._means.telemetry, keep)
        self._name_worker()
        await self._exchange.reply(self._envelope.whole(self._journey.text, settled, self._journey.scores))
        return settled

    async def _streamed(self, trip: Trip) -> Settled:
        settled = await travel(self._journey, self._means.mesh, trip, self._means.telemetry, self._deliver)
        opening = b"" if self._first else await self._open()
        await self._exchange.end_stream(opening + self._stream.last(settled))
        return settled

    async def _deliver(self, chunk: Chunk) -> None:
        if not (chunk.text or chunk.scores):
            return
        opening = b"" if self._first else await self._open()
        await self._exchange.event(opening + self._stream.text(chunk.text, chunk.scores))

    async def _open(self) -> bytes:
        """Begin the stream with the first token; the event that goes before it."""
        self._first = self._means.clock.now()
        self._name_worker()
        await self._exchange.begin_stream()
        return self._stream.first()

    async def _idle(self) -> None:
        """Nothing came for a while: show the tenant, and every proxy between us, that somebody is here."""
        if self._ask.stream and not self._exchange.finished:
            await self._exchange.begin_stream()
            await self._exchange.event(KEEPALIVE)

    # --- what is said and recorded about it ---------------------------------------------------------------------------

    def _announce(self, span: Span) -> None:
        out = self._exchange.out
        out += [(b"x-haif-job", str(self._job).encode()), (b"traceparent", span.traceparent.encode())]
        if self._ask.ignored:
            out.append((b"x-haif-ignored-params", ", ".join(self._ask.ignored).encode()))

    def _name_worker(self) -> None:
        ticket = self._journey.ticket
        if ticket is not None and not self._exchange.streaming:
            self._exchange.out += [
                (b"x-haif-worker", str(ticket.worker).encode()),
                (b"x-haif-model-digest", str(ticket.reservation.payload.model).encode()),
            ]

    def _attributes(self, operation: str) -> dict[str, str | int | float | bool]:
        request = self._ask.request
        return {
            names.JOB: str(self._job), names.TENANT: self._journey.tenant, names.OPERATION: operation,
            names.PROVIDER: "haif", names.REQUEST_MODEL: self._model, names.REQUEST_STREAM: self._ask.stream,
            names.REQUEST_MAX_TOKENS: request.tokens_max, names.REQUEST_TEMPERATURE: request.sampling.temperature,
            names.REQUEST_TOP_P: request.sampling.top_p,
        }  # fmt: skip

    def _record(self, settled: Settled, span: Span) -> None:
        telemetry, signed = self._means.telemetry, settled.receipt
        span.set(names.RESPONSE_ID, self._envelope.id)
        span.set(names.RESPONSE_MODEL, self._model)
        span.set(names.RESPONSE_FINISH_REASON, signed.finish_reason)
        span.set(names.INPUT_TOKENS, signed.prompt_tokens)
        span.set(names.OUTPUT_TOKENS, signed.completion_tokens)
        telemetry.count(names.GATEWAY_TOKENS_IN, signed.prompt_tokens, model=self._model)
        telemetry.count(names.GATEWAY_TOKENS_OUT, signed.completion_tokens, model=self._model)
        if self._first is None:
            return
        waited = self._first - self._begun
        span.set(names.RESPONSE_FIRST_CHUNK, waited)
        telemetry.observe(names.GATEWAY_TIME_TO_FIRST_TOKEN, waited, model=self._model)
        if signed.completion_tokens > 1:
            pace = (self._means.clock.now() - self._first) / (signed.completion_tokens - 1)
            telemetry.observe(names.GATEWAY_TIME_PER_OUTPUT_TOKEN, pace, model=self._model)
