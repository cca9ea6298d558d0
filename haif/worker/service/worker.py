"""The worker: its models offered in the DHT, alive by heartbeats, answering whoever holds a reservation.

1. Offer   an `Offer` record under each model's topic, renewed until the worker leaves (then a tombstone).
2. Pulse   a signed heartbeat with every model's load to every orchestrator it honours, every
           `limits.HEARTBEAT_SECONDS`, and at once when a model was loaded or left.
3. Answer  `inference.run`: ticket checked, the model leased from the pool, prompt to its engine child, chunks back as
           they come, then the receipt.
           `inference.embed`: the same, with vectors.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeVar

from haif.base import codec, limits
from haif.base.adapters import Adapted
from haif.base.clock import Clock, WallTime
from haif.base.codec import Message
from haif.base.errors import Dropped, HaifError, Overloaded, PeerFault, Reason, Refusal, WrongState
from haif.base.ids import Digest, ModelDigest, NetId, PeerId
from haif.dht.service import Dht
from haif.engine import embed
from haif.engine.request import Finished, Generate, ModelInfo, Piece
from haif.engine.service import Backend
from haif.identity.keys import Identity
from haif.identity.voice import Voice
from haif.protocol import heartbeats, methods
from haif.protocol.embeddings import EmbedAnswer, Embedded, Vectors
from haif.protocol.heartbeats import Acknowledged, Heartbeat, Load, Repute
from haif.protocol.inference import Answer, Chunk, End, OutputHash, Run
from haif.protocol.offers import Offer, whereabouts
from haif.protocol.prefixes import prefix_tags
from haif.protocol.records import RecordKind, offer_topic, presence_topic
from haif.reach.service import Reach
from haif.telemetry import names
from haif.telemetry.service import Span, Telemetry
from haif.wire.service import Call, Session, Wire
from haif.worker.answer import prefix_scope, seal_receipt, seal_vector_receipt, to_embed
from haif.worker.hot import Hot
from haif.worker.offer import load_of, offer_of, sandbox_of
from haif.worker.service.pool import Pool
from haif.worker.ticket import EmbedTicket, Redeemed, Ticket, check_embed_ticket, check_ticket

T = TypeVar("T", Ticket, EmbedTicket)

_STAGES = (names.SPAN_ENGINE_QUEUE, names.SPAN_ENGINE_PREFILL, names.SPAN_ENGINE_DECODE)
_RETRY_SECONDS = 0.3  # until an orchestrator that cannot be reached is tried again
_CONNECT_SECONDS = 3.0
_INTRODUCTION_SECONDS = 5.0  # entering waits this long for the first orchestrator to hear us
_FAREWELL_SECONDS = 0.5  # saying goodbye may not hold up leaving


@dataclass(frozen=True, kw_only=True)
class WorkerSettings:
    """`orchestrators` are those whose reservations are honoured."""

    orchestrators: frozenset[PeerId]


class Worker:
    """Inside `async with`, the worker is offered, alive and answering. Leaving withdraws the offer, then drains.

    Entering waits until an orchestrator has acknowledged a heartbeat, but not for long: `heard_by` says who did.
    `on_repute` hears what an orchestrator thinks of this worker, whenever that changes.
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
        pool: Pool,
        telemetry: Telemetry,
        clock: Clock,
        entropy: Callable[[int], bytes],
        on_repute: Callable[[PeerId, Repute], None] = lambda *_: None,
    ) -> None:
        self._settings = settings
        self._identity = identity
        self._net = net
        self._wire, self._way = wire, reach
        self._dht = dht
        self._voice = voice
        self._pool = pool
        pool.on_change = self._news_came
        self._telemetry = telemetry
        self._clock = clock
        self._entropy = entropy
        self._on_repute = on_repute
        self._reputes: dict[PeerId, Repute] = {}
        self._offered: dict[ModelDigest, Offer] = {}
        self._news = asyncio.Event()
        self._redeemed = Redeemed()
        self._hot = {model: Hot() for model in pool.models}
        self._draining = False
        self._heard_by: dict[PeerId, Session] = {}
        self._heard = asyncio.Event()
        self._scope = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self._wire.serve_stream(methods.RUN.name, self._run, methods.RUN.terms)
        self._wire.serve_stream(methods.EMBED.name, self._embed, methods.EMBED.terms)
        await self._keep_up()
        group = await self._scope.enter_async_context(asyncio.TaskGroup())
        tasks = [group.create_task(self._pulse(peer)) for peer in self._settings.orchestrators]
        tasks.append(group.create_task(self._keep_announced()))
        self._scope.callback(lambda: [task.cancel() for task in tasks])
        try:
            with suppress(TimeoutError):  # without an orchestrator it goes on trying, and says so
                await asyncio.wait_for(self._heard.wait(), _INTRODUCTION_SECONDS)
        except BaseException:  # nobody leaves what was never entered
            await self._farewell()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._farewell()

    async def _farewell(self) -> None:
        """Say goodbye, take back what the directory says of us, stop the tasks."""
        self._draining = True
        try:
            async with asyncio.timeout(_FAREWELL_SECONDS):
                await asyncio.gather(*(self._beat(session) for session in self._heard_by.values()))
                await asyncio.gather(*(self._dht.withdraw(self._topic(model)) for model in self._offered))
        except (HaifError, TimeoutError) as failed:
            # Nobody could be told; the offer expires and the silence is noticed within 3 s.
            self._telemetry.dropped(Dropped(getattr(failed, "reason", Reason.TIMEOUT), detail="farewell"))
        await self._scope.aclose()

    @property
    def heard_by(self) -> frozenset[PeerId]:
        """The orchestrators that acknowledged the latest heartbeat."""
        return frozenset(self._heard_by)

    # --- 1. offer -----------------------------------------------------------------------------------------------------

    def _topic(self, model: ModelDigest) -> Digest:
        return offer_topic(self._net, model)

    async def _announce(self) -> None:
        """Bring the directory up to what can be offered now."""
        offers = {
            each.model: offer_of(each, self._way.place(), self._wire.certificate)
            for each in self._pool.standings()
            if each.is_offered
        }
        for model in self._offered.keys() - offers.keys():
            await self._dht.withdraw(self._topic(model))
            del self._offered[model]
        for model, offer in offers.items():
            if self._offered.get(model) != offer:
                self._offered[model] = offer
                await self._dht.publish(
                    RecordKind.OFFER, self._topic(model), codec.encode(offer), ttl_ms=limits.RECORD_TTL_MS_MAX
                )

    async def _keep_announced(self) -> None:
        """Models come and go, we are reached elsewhere, the certificate was renewed: whatever an offer says."""
        while True:
            await self._pause(limits.HEARTBEAT_SECONDS)
            await self._keep_up()

    async def _keep_up(self) -> None:
        try:
            await self._announce()
        except HaifError as error:  # the directory goes on with what it has, and we with trying
            self._telemetry.dropped(Dropped(error.reason, detail="offer"))

    # --- 2. pulse -----------------------------------------------------------------------------------------------------

    async def _pulse(self, peer: PeerId) -> None:
        """Keep one orchestrator told, whatever happens to it or to the way there."""
        session: Session | None = None
        while True:
            try:
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
            await self._pause(pause)

    async def _pause(self, seconds: float) -> None:
        """Until `seconds` have passed, or a model stands elsewhere."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._news.wait(), seconds)

    def _news_came(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    async def _reach(self, peer: PeerId) -> Session:
        """A session with an orchestrator, found in the DHT. Raises `ConnectionLost` while it cannot be found."""
        place, certificate = whereabouts(await self._dht.lookup(presence_topic(self._net, peer)), peer)
        return await self._way.connect(peer, place, timeout=_CONNECT_SECONDS, certificate=certificate)

    async def _beat(self, session: Session) -> None:
        signed, nonce = self._voice.say(session.peer, session.scope, heartbeats.HEARTBEAT, Heartbeat(self._loads()))
        reply = await session.call(methods.HEARTBEAT.name, signed, timeout=_CONNECT_SECONDS)
        heard = codec.decode(Acknowledged, reply)
        if heard.nonce != nonce:
            raise WrongState("the orchestrator acknowledged another heartbeat than this one", session.peer)
        if heard.repute != self._reputes.get(session.peer, Repute.FINE):
            self._on_repute(session.peer, heard.repute)
        self._reputes[session.peer] = heard.repute

    def _loads(self) -> list[Load]:
        if self._draining:
            return []
        loads = [(each, self._hot[each.model].tags(each.life)) for each in self._pool.standings()]
        return [load for each, hot in loads if (load := load_of(each, hot))]

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
            models=self._pool.models,
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
        async with self._leased(ticket) as engine:
            started = self._clock.wall()
            output = OutputHash()
            adapted = self._pool.adapted(ticket.reservation.payload.model)
            async with engine.generate(generate(ticket, adapted)) as events:
                async for event in events:
                    if isinstance(event, Piece):
                        chunk = Chunk(event.first, event.tokens, event.text, event.scores, event.asides)
                        output.add(chunk)
                        yield Answer(chunk=chunk)
                    else:
                        yield Answer(end=self._end(ticket, output, event, engine.model, started, span))

    def _leased(self, ticket: Ticket | EmbedTicket) -> AbstractAsyncContextManager[Backend]:
        """The engine of a ticket's model, in memory when this is entered; loaded if there is time for it."""
        terms = ticket.reservation.payload
        seconds = min(limits.MODEL_WAIT_SECONDS, (terms.deadline - self._clock.wall()) / 1000)
        return self._pool.lease(terms.model, seconds=seconds)

    async def _vectors(self, call: Call, span: Span) -> AsyncIterator[EmbedAnswer]:
        ticket = self._admit(call, span, check_embed_ticket)
        async with self._leased(ticket) as engine:
            started = self._clock.wall()
            vectors: list[bytes] = []
            async with engine.embed(to_embed(ticket)) as events:
                async for event in events:
                    if isinstance(event, embed.Vectors):
                        vectors += event.vectors
                        yield EmbedAnswer(vectors=Vectors(event.first, event.vectors))
                        continue
                    about = engine.model
                    receipt = seal_vector_receipt(
                        self._identity, ticket.reservation, vectors, event,
                        engine=about.engine, sandbox=sandbox_of(about), started=started, now=self._clock.wall(),
                    )  # fmt: skip
                    self._record_vectors(ticket, event, span)
                    yield EmbedAnswer(end=Embedded(event.prompt_tokens, receipt))

    def _record_vectors(self, ticket: EmbedTicket, done: embed.Embedded, span: Span) -> None:
        span.set(names.INPUT_TOKENS, done.prompt_tokens)
        times = (0, done.queued_ns, done.queued_ns + done.compute_ns)
        self._record_stages(span, done.submitted_ns, times)
        name = self._pool.name(ticket.reservation.payload.model)
        self._telemetry.observe(names.WORKER_QUEUE, done.queued_ns / 1e9, model=name)
        self._telemetry.count(names.WORKER_TOKENS_IN, done.prompt_tokens, model=name)

    def _record_stages(self, span: Span, submitted_ns: int, times: tuple[int, ...]) -> None:
        for stage, start, end in zip(_STAGES, times, times[1:], strict=False):
            self._telemetry.record_span(
                stage, parent=span.traceparent, start_ns=submitted_ns + start, end_ns=submitted_ns + end
            )

    def _end(
        self, ticket: Ticket, output: OutputHash, done: Finished, about: ModelInfo, started: WallTime, span: Span
    ) -> End:
        receipt = seal_receipt(
            self._identity, ticket.reservation, output, done, ticket.resumed,
            engine=about.engine, exact=about.exact, sandbox=sandbox_of(about), verifiable=about.verifiable,
            adapted=self._pool.adapted(ticket.reservation.payload.model), started=started, now=self._clock.wall(),
        )  # fmt: skip
        self._hot[ticket.reservation.payload.model].add(prefix_tags(ticket.request))
        self._record(ticket, done, output.tokens - len(ticket.resumed), span)
        return End(
            done.finish_reason, done.prompt_tokens, done.cached_tokens, output.tokens, receipt, done.reasoning_tokens,
            done.stopped_by,
        )  # fmt: skip

    def _record(self, ticket: Ticket, done: Finished, tokens: int, span: Span) -> None:
        span.set(names.INPUT_TOKENS, done.prompt_tokens)
        span.set(names.OUTPUT_TOKENS, tokens)
        span.set(names.RESPONSE_FINISH_REASON, done.finish_reason)
        times = (0, done.queued_ns, done.queued_ns + done.prefill_ns, done.queued_ns + done.prefill_ns + done.decode_ns)
        self._record_stages(span, done.submitted_ns, times)
        name = self._pool.name(ticket.reservation.payload.model)
        self._telemetry.observe(names.WORKER_QUEUE, done.queued_ns / 1e9, model=name)
        self._telemetry.count(names.WORKER_TOKENS_CACHED, done.cached_tokens, model=name)
        self._telemetry.count(names.WORKER_TOKENS_IN, done.prompt_tokens, model=name)
        self._telemetry.count(names.WORKER_TOKENS_OUT, tokens, model=name)


def generate(ticket: Ticket, adapted: Adapted | None = None) -> Generate:
    """What the engine is asked for by the holder of this ticket, whose model is `adapted`, where it has an adapter."""
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
        adapter=adapted.adapter if adapted else None,
    )
