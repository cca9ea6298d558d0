"""The worker: one model, offered in the DHT, alive by heartbeats, answering whoever holds a reservation.

1. Offer   an `Offer` record under the model's topic, renewed until the worker leaves (then a tombstone).
2. Pulse   a signed heartbeat with the load to every orchestrator it honours, every `limits.HEARTBEAT_SECONDS`.
3. Answer  `inference.run`: ticket checked, prompt to the engine child, chunks back as they come, then the receipt.
           `inference.embed`: the same, with vectors.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeVar

from haif.base import codec, limits
from haif.base.clock import Clock, WallTime
from haif.base.codec import Message
from haif.base.errors import Dropped, HaifError, Overloaded, PeerFault, Reason, Refusal, WrongState
from haif.base.ids import Digest, ModelDigest, NetId, PeerId
from haif.base.tasks import bits_of
from haif.dht.service import Dht
from haif.engine import embed
from haif.engine.request import Finished, Generate, ModelInfo, Piece
from haif.engine.service import Engine
from haif.identity.keys import Identity
from haif.identity.voice import Voice
from haif.protocol import heartbeats, methods
from haif.protocol.embeddings import EmbedAnswer, Embedded, Vectors
from haif.protocol.heartbeats import Acknowledged, Heartbeat, Load
from haif.protocol.inference import Answer, Chunk, End, OutputHash, Run
from haif.protocol.offers import Offer, whereabouts
from haif.protocol.prefixes import prefix_tags
from haif.protocol.records import RecordKind, offer_topic, presence_topic
from haif.protocol.sandbox import Sandbox
from haif.reach.service import Reach
from haif.telemetry import names
from haif.telemetry.service import Span, Telemetry
from haif.wire.service import Call, Session, Wire
from haif.worker.answer import prefix_scope, seal_receipt, seal_vector_receipt, to_embed
from haif.worker.hot import Hot
from haif.worker.ticket import EmbedTicket, Redeemed, Ticket, check_embed_ticket, check_ticket

T = TypeVar("T", Ticket, EmbedTicket)

_STAGES = (names.SPAN_ENGINE_QUEUE, names.SPAN_ENGINE_PREFILL, names.SPAN_ENGINE_DECODE)
_RETRY_SECONDS = 0.3  # until an orchestrator that cannot be reached is tried again
_CONNECT_SECONDS = 3.0
_INTRODUCTION_SECONDS = 5.0  # entering waits this long for the first orchestrator to hear us
_FAREWELL_SECONDS = 0.5  # saying goodbye may not hold up leaving


@dataclass(frozen=True, kw_only=True)
class WorkerSettings:
    """`orchestrators` are those whose reservations are honoured; `model`, published as `name`, is what is served."""

    orchestrators: frozenset[PeerId]
    model: ModelDigest
    name: str


class Worker:
    """Inside `async with`, the worker is offered, alive and answering. Leaving withdraws the offer, then drains.

    Entering waits until an orchestrator has acknowledged a heartbeat, but not for long: `heard_by` says who did.
    """

    def __init__(
        self,
        *,
        settings: WorkerSettings,
        identity: Identity,
        net: NetId,
        wire: Wire,
        reach: Reach,
        dht: Dht,
        voice: Voice,
        engine: Engine,
        telemetry: Telemetry,
        clock: Clock,
        entropy: Callable[[int], bytes],
    ) -> None:
        self._settings = settings
        self._identity = identity
        self._net = net
        self._wire, self._way = wire, reach
        self._dht = dht
        self._voice = voice
        self._engine = engine
        self._telemetry = telemetry
        self._clock = clock
        self._entropy = entropy
        self._offered: Offer | None = None
        self._redeemed = Redeemed()
        self._hot = Hot()
        self._draining = False
        self._heard_by: dict[PeerId, Session] = {}
        self._heard = asyncio.Event()
        self._scope = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self._wire.serve_stream(methods.RUN.name, self._run, methods.RUN.terms)
        self._wire.serve_stream(methods.EMBED.name, self._embed, methods.EMBED.terms)
        await self._publish()
        group = await self._scope.enter_async_context(asyncio.TaskGroup())
        pulses = [group.create_task(self._pulse(peer)) for peer in self._settings.orchestrators]
        self._scope.callback(lambda: [pulse.cancel() for pulse in pulses])
        try:
            with suppress(TimeoutError):  # without an orchestrator it goes on trying, and says so
                await asyncio.wait_for(self._heard.wait(), _INTRODUCTION_SECONDS)
        except BaseException:  # nobody leaves what was never entered
            await self._scope.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._draining = True
        try:
            async with asyncio.timeout(_FAREWELL_SECONDS):
                await asyncio.gather(*(self._beat(session) for session in self._heard_by.values()))
                await self._dht.withdraw(self._topic)
        except (HaifError, TimeoutError) as failed:
            # Nobody could be told; the offer expires and the silence is noticed within 3 s.
            self._telemetry.dropped(Dropped(getattr(failed, "reason", Reason.TIMEOUT), detail="farewell"))
        await self._scope.aclose()

    @property
    def heard_by(self) -> frozenset[PeerId]:
        """The orchestrators that acknowledged the latest heartbeat."""
        return frozenset(self._heard_by)

    # --- 1. offer -----------------------------------------------------------------------------------------------------

    @property
    def _topic(self) -> Digest:
        return offer_topic(self._net, self._settings.model)

    async def _publish(self) -> None:
        self._offered = self._offer()
        await self._dht.publish(
            RecordKind.OFFER, self._topic, codec.encode(self._offered), ttl_ms=limits.RECORD_TTL_MS_MAX
        )

    def _offer(self) -> Offer:
        about = self._engine.model
        return Offer(
            model=self._settings.model,
            place=self._way.place(),
            context_tokens=about.context_tokens,
            slots=self._engine.statistics().slots,
            sandbox=_sandbox(about),
            engine=about.engine,
            certificate=self._wire.certificate,
            tasks=bits_of(about.tasks),
            dimensions=about.dimensions,
        )

    # --- 2. pulse -----------------------------------------------------------------------------------------------------

    async def _pulse(self, peer: PeerId) -> None:
        """Keep one orchestrator told, whatever happens to it or to the way there."""
        session: Session | None = None
        while True:
            try:
                if self._offered != self._offer():  # we are reached elsewhere, or the certificate was renewed
                    await self._publish()
                session = session or await self._reach(peer)
                await self._beat(session)
                self._heard_by[peer] = session
                self._heard.set()
                pause = limits.HEARTBEAT_SECONDS * (0.9 + 0.2 * self._entropy(1)[0] / 255)
            except HaifError as error:
                session = None
                self._heard_by.pop(peer, None)
                self._telemetry.dropped(Dropped(error.reason, peer, "heartbeat"))
                refused = isinstance(error, Refusal)  # by a person's decision: that does not change in a moment
                pause = limits.HEARTBEAT_SECONDS if refused else _RETRY_SECONDS
            await asyncio.sleep(pause)

    async def _reach(self, peer: PeerId) -> Session:
        """A session with an orchestrator, found in the DHT. Raises `ConnectionLost` while it cannot be found."""
        place, certificate = whereabouts(await self._dht.lookup(presence_topic(self._net, peer)), peer)
        return await self._way.connect(peer, place, timeout=_CONNECT_SECONDS, certificate=certificate)

    async def _beat(self, session: Session) -> None:
        signed, nonce = self._voice.say(session.peer, session.scope, heartbeats.HEARTBEAT, Heartbeat(self._loads()))
        reply = await session.call(methods.HEARTBEAT.name, signed, timeout=_CONNECT_SECONDS)
        if codec.decode(Acknowledged, reply).nonce != nonce:
            raise WrongState("the orchestrator acknowledged another heartbeat than this one", session.peer)

    def _loads(self) -> list[Load]:
        now = self._engine.statistics()
        if self._draining or not now.usable:
            return []  # nothing is placed here then
        sandbox = _sandbox(self._engine.model)
        hot = self._hot.tags(now.deaths)
        return [Load(self._settings.model, now.slots, now.running, now.queued, now.tokens_per_second, sandbox, hot)]

    # --- 3. answer ----------------------------------------------------------------------------------------------------

    def _run(self, call: Call) -> AsyncIterator[bytes]:
        return self._serve(call, self._answer)

    def _embed(self, call: Call) -> AsyncIterator[bytes]:
        return self._serve(call, self._vectors)

    async def _serve(self, call: Call, answer: Callable[[Call, Span], AsyncIterator[Message]]) -> AsyncIterator[bytes]:
        attributes = {names.PEER: str(call.peer), names.METHOD: call.method}
        with self._telemetry.span(
            names.SPAN_RUN, parent=call.metadata.get("traceparent"), attributes=attributes
        ) as span:
            outcome = "cancelled"
            try:
                async for message in answer(call, span):
                    yield codec.encode(message)
                outcome = "ok"
            except HaifError as error:
                outcome = error.reason.value
                if isinstance(error, PeerFault):
                    self._telemetry.dropped(Dropped(error.reason, call.peer, error.message))
                raise
            finally:
                self._telemetry.count(names.WORKER_REQUESTS, outcome=outcome)

    def _admit(self, call: Call, span: Span, check: Callable[..., T]) -> T:
        if self._draining:
            raise Overloaded("this worker is shutting down", retry_after=1.0)
        ticket = check(
            codec.decode(Run, call.argument),
            me=self._identity.peer,
            gateway=call.peer,
            orchestrators=self._settings.orchestrators,
            model=self._settings.model,
            now=self._clock.wall(),
        )
        terms = ticket.reservation.payload
        self._redeemed.redeem(terms, call.peer)
        span.set(names.JOB, str(terms.job))
        span.set(names.ATTEMPT, terms.attempt)
        span.set(names.MODEL_DIGEST, str(terms.model))
        return ticket

    async def _answer(self, call: Call, span: Span) -> AsyncIterator[Answer]:
        ticket = self._admit(call, span, check_ticket)
        started = self._clock.wall()
        output = OutputHash()
        async with self._engine.generate(generate(ticket)) as events:
            async for event in events:
                if isinstance(event, Piece):
                    chunk = Chunk(event.first, event.tokens, event.text, event.scores, event.asides)
                    output.add(chunk)
                    yield Answer(chunk=chunk)
                else:
                    yield Answer(end=self._end(ticket, output, event, started, span))

    async def _vectors(self, call: Call, span: Span) -> AsyncIterator[EmbedAnswer]:
        ticket = self._admit(call, span, check_embed_ticket)
        started = self._clock.wall()
        vectors: list[bytes] = []
        async with self._engine.embed(to_embed(ticket)) as events:
            async for event in events:
                if isinstance(event, embed.Vectors):
                    vectors += event.vectors
                    yield EmbedAnswer(vectors=Vectors(event.first, event.vectors))
                    continue
                about = self._engine.model
                receipt = seal_vector_receipt(
                    self._identity, ticket.reservation, vectors, event,
                    engine=about.engine, sandbox=_sandbox(about), started=started, now=self._clock.wall(),
                )  # fmt: skip
                self._record_vectors(event, span)
                yield EmbedAnswer(end=Embedded(event.prompt_tokens, receipt))

    def _record_vectors(self, done: embed.Embedded, span: Span) -> None:
        span.set(names.INPUT_TOKENS, done.prompt_tokens)
        times = (0, done.queued_ns, done.queued_ns + done.compute_ns)
        self._record_stages(span, done.submitted_ns, times)
        self._telemetry.observe(names.WORKER_QUEUE, done.queued_ns / 1e9, model=self._settings.name)
        self._telemetry.count(names.WORKER_TOKENS_IN, done.prompt_tokens, model=self._settings.name)

    def _record_stages(self, span: Span, submitted_ns: int, times: tuple[int, ...]) -> None:
        for stage, start, end in zip(_STAGES, times, times[1:], strict=False):
            self._telemetry.record_span(
                stage, parent=span.traceparent, start_ns=submitted_ns + start, end_ns=submitted_ns + end
            )

    def _end(self, ticket: Ticket, output: OutputHash, done: Finished, started: WallTime, span: Span) -> End:
        about = self._engine.model
        receipt = seal_receipt(
            self._identity, ticket.reservation, output, done, ticket.resumed,
            engine=about.engine, exact=about.exact, sandbox=_sandbox(about), started=started, now=self._clock.wall(),
        )  # fmt: skip
        self._hot.add(prefix_tags(ticket.request))
        self._record(done, output.tokens - len(ticket.resumed), span)
        return End(
            done.finish_reason, done.prompt_tokens, done.cached_tokens, output.tokens, receipt, done.reasoning_tokens
        )

    def _record(self, done: Finished, tokens: int, span: Span) -> None:
        span.set(names.INPUT_TOKENS, done.prompt_tokens)
        span.set(names.OUTPUT_TOKENS, tokens)
        span.set(names.RESPONSE_FINISH_REASON, done.finish_reason)
        times = (0, done.queued_ns, done.queued_ns + done.prefill_ns, done.queued_ns + done.prefill_ns + done.decode_ns)
        self._record_stages(span, done.submitted_ns, times)
        name = self._settings.name
        self._telemetry.observe(names.WORKER_QUEUE, done.queued_ns / 1e9, model=name)
        self._telemetry.count(names.WORKER_TOKENS_CACHED, done.cached_tokens, model=name)
        self._telemetry.count(names.WORKER_TOKENS_IN, done.prompt_tokens, model=name)
        self._telemetry.count(names.WORKER_TOKENS_OUT, tokens, model=name)


def _sandbox(about: ModelInfo) -> Sandbox:
    """What is said of the jail; where there is none at all, in two words instead of every layer's name."""
    return Sandbox(about.sandbox, list(about.missing) if about.enforced else ["every layer"])


def generate(ticket: Ticket) -> Generate:
    """What the engine is asked for by the holder of this ticket."""
    request, terms = ticket.request, ticket.reservation.payload
    return Generate(
        id=terms.job,
        chat=request.chat,
        text=request.text,
        suffix=request.suffix,
        tokens_max=request.tokens_max,
        sampling=request.sampling,
        stop=request.stop,
        logprobs=request.logprobs,
        json_schema=request.json_schema,
        scope=prefix_scope(terms.gateway, request.scope),
        seed=terms.seed,
        resumed=ticket.resumed,
        fit=request.fit,
        tools=request.tools,
        settings=request.settings,
    )
