"""The gateway as a client of the mesh: orchestrators place and record its jobs, workers answer them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from math import inf
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar

from haif.base import codec, limits
from haif.base.clock import Clock, Deadline, Instant
from haif.base.codec import Message
from haif.base.errors import (
    ConnectionLost,
    Dropped,
    Elsewhere,
    HaifError,
    Misuse,
    NoWorker,
    PeerFault,
    Reason,
    Refusal,
    Timeout,
    Unavailable,
    UnknownModel,
)
from haif.base.ids import JobId, NetId, PeerId
from haif.dht.service import Dht
from haif.gateway.errand import Errand, Ticket
from haif.gateway.payloads import size_of
from haif.gateway.service.audits import Audits
from haif.gateway.service.turns import in_turn, patiently
from haif.identity.keys import Identity
from haif.identity.signing import Domain, Verified, seal
from haif.identity.voice import Voice
from haif.protocol import methods
from haif.protocol.audits import Payload
from haif.protocol.embeddings import EmbedAnswer
from haif.protocol.inference import Answer, Run, run_correlation
from haif.protocol.jobs import (
    FailJob,
    FinaliseJob,
    JobView,
    ListModels,
    ModelCard,
    Models,
    RetryJob,
    ShowJob,
)
from haif.protocol.methods import A, Method, R
from haif.protocol.offers import whereabouts
from haif.protocol.reach import Place
from haif.protocol.receipts import Countersignature, Receipt
from haif.protocol.records import presence_topic
from haif.reach.service import Reach
from haif.telemetry.service import Telemetry
from haif.wire.service import Session, Stream, Taking

T = TypeVar("T", bound=Message)
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Trip:
    """How long a journey may take, the trace it belongs to, and for how long a worker may be silent, in seconds."""

    deadline: Deadline
    traceparent: str
    first_token_seconds: float = limits.FIRST_TOKEN_SECONDS
    token_seconds: float = limits.TOKEN_SECONDS


class Answers(Protocol[T_co]):
    """What a worker says, as it says it."""

    async def pour(self, take: Callable[[T_co], Taking | None]) -> None:
        """Give every answer to `take` until the worker has ended; what takes its time is awaited before the next."""


class Mesh(Protocol):
    """What the HTTP side needs of the mesh. Every method raises leaves of `base.errors`."""

    @property
    def models(self) -> tuple[ModelCard, ...]:
        """What can be asked for, as last heard."""

    async def submit(self, journey: Errand, trip: Trip) -> Ticket:
        """Have the job placed."""

    async def retry(self, journey: Errand, reason: Reason, trip: Trip) -> Ticket:
        """Have the job placed again, elsewhere, to go on after the tokens the journey has."""

    def run(self, ticket: Ticket, request: bytes, trip: Trip) -> AbstractAsyncContextManager[Answers[Answer]]:
        """Redeem the ticket. Leaving early cancels the worker's work."""

    def embed(self, ticket: Ticket, request: bytes, trip: Trip) -> AbstractAsyncContextManager[Answers[EmbedAnswer]]:
        """The same for vectors."""

    async def finalise(
        self, ticket: Ticket, receipt: Verified[Receipt], trip: Trip, payload: Payload | None = None
    ) -> bytes:
        """Countersign, and have the end of the job recorded. It is durable when this returns the countersignature.

        With its `payload`, if that may be shown to a validator.
        """

    def report_failure(self, ticket: Ticket, reason: str) -> None:
        """Have it recorded, soon, that the job ended without an answer. Returns at once."""

    async def show(self, job: JobId) -> JobView | None:
        """What became of a job of this gateway; None if nobody knows it."""


class PeerMesh:
    """The real mesh, over Reach and DHT. Inside `async with` it keeps hearing what can be asked for."""

    def __init__(
        self,
        *,
        orchestrators: tuple[PeerId, ...],
        identity: Identity,
        net: NetId,
        reach: Reach,
        dht: Dht,
        voice: Voice,
        telemetry: Telemetry,
        clock: Clock,
        validators: tuple[PeerId, ...] = (),
    ) -> None:
        if not orchestrators:
            raise Misuse("a gateway needs at least one orchestrator: give its peer id with --orchestrator")
        self._orchestrators = orchestrators
        self._identity = identity
        self._net = net
        self._way = reach
        self._dht = dht
        self._voice = voice
        self._telemetry = telemetry
        self._clock = clock
        # of orchestrators only: bounded by the settings
        self._places: dict[PeerId, Place] = {}
        self._looks: dict[PeerId, asyncio.Task[tuple[Place, bytes]]] = {}
        self._catalogues: dict[PeerId, tuple[ModelCard, ...]] = {}
        self._models: tuple[ModelCard, ...] = ()
        self._heard_at: dict[PeerId, Instant] = {}
        self._reports: set[asyncio.Task[None]] = set()
        self._audits = Audits(validators, net=net, reach=reach, dht=dht, telemetry=telemetry, clock=clock)
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._tasks = [
            asyncio.create_task(self._hear_models(peer), name="gateway: models") for peer in self._orchestrators
        ]
        if self._audits.possible:
            self._tasks.append(asyncio.create_task(self._audits.run(), name="gateway: audits"))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        _, late = await asyncio.wait([*self._tasks, *self._reports], timeout=limits.GATEWAY_DRAIN_SECONDS)
        for task in late:
            task.cancel()
        looks = [*self._looks.values()]
        for look in looks:
            look.cancel()
        await asyncio.gather(*self._tasks, *late, *looks, return_exceptions=True)

    # --- what can be asked for ----------------------------------------------------------------------------------------

    @property
    def models(self) -> tuple[ModelCard, ...]:
        """One card per name; where orchestrators differ, the one with more workers."""
        return self._models

    async def _hear_models(self, peer: PeerId) -> None:
        """Each by itself: nobody is heard later because another cannot be found."""
        while True:
            await self._hear_from(peer)
            await asyncio.sleep(limits.MODELS_REFRESH_SECONDS if self._catalogues else 0.1)

    async def _hear_from(self, peer: PeerId) -> None:
        try:
            session = await self._reach(peer, None)
            reply = await session.call(
                methods.MODELS.name, codec.encode(ListModels()), timeout=limits.CONTROL_CALL_SECONDS
            )
            self._catalogues[peer] = tuple(codec.decode(Models, reply).models)
            self._heard_at[peer] = self._clock.now()
        except HaifError as error:
            self._catalogues.pop(peer, None)
            self._telemetry.dropped(Dropped(error.reason, peer, "models.list"))
        self._models = _best(card for cards in self._catalogues.values() for card in cards)

    # --- jobs ---------------------------------------------------------------------------------------------------------

    async def submit(self, journey: Errand, trip: Trip) -> Ticket:
        """Ask the orchestrators in order, those we hear first.

        When all refuse, what one says that we reached counts before that another is gone, and both before that a model
        is unknown. One that died may have taken the job on: then the others say so, and it is theirs in a moment. Where
        one was heard until a moment ago, and there is nobody else who has workers, they are asked again: another may be
        about to take its place.
        """
        lost_lately = False

        async def ask_all() -> Ticket:
            nonlocal lost_lately
            lost_lately = False
            refusals: list[HaifError] = []
            for peer in sorted(self._orchestrators, key=lambda each: each not in self._catalogues):
                message = journey.submission(trip.deadline.remaining(self._clock.now()))
                try:
                    placed = await self._say(peer, methods.SUBMIT, message, trip)
                    return journey.placed(placed, self._orchestrators, self._clock.wall())
                except (Unavailable, Refusal) as error:
                    refusals.append(error)
                    lost_lately = lost_lately or (isinstance(error, ConnectionLost | Timeout) and self._heard(peer))
            raise _as_seen_by_tenant(max(refusals, key=_weight))

        def again(error: HaifError) -> bool:
            return isinstance(error, Elsewhere) or (lost_lately and isinstance(error, NoWorker | Timeout))

        return await patiently(ask_all, again, lambda: trip.deadline.remaining(self._clock.now()))

    def _heard(self, peer: PeerId) -> bool:
        """Whether an orchestrator was there so lately that another one may yet take its place."""
        heard = self._heard_at.get(peer)
        return heard is not None and self._clock.now() - heard < limits.TAKEOVER_PATIENCE_SECONDS

    async def retry(self, journey: Errand, reason: Reason, trip: Trip) -> Ticket:
        """Ask the orchestrator that placed the failed attempt, or who took the job over from it."""
        failed = journey.ticket
        assert failed is not None, "only a placed job is retried"
        message = RetryJob(job=journey.job, attempt=failed.attempt, reason=reason.value, tokens=journey.tokens)
        placed = await self._tell(failed.orchestrator, methods.RETRY, message, trip)
        return journey.placed(placed, self._orchestrators, self._clock.wall())

    def run(self, ticket: Ticket, request: bytes, trip: Trip) -> AbstractAsyncContextManager[Answers[Answer]]:
        """Open a stream straight to the worker, with the reservation as its ticket."""
        return self._redeem(methods.RUN, ticket, request, trip)

    def embed(self, ticket: Ticket, request: bytes, trip: Trip) -> AbstractAsyncContextManager[Answers[EmbedAnswer]]:
        """The same for vectors."""
        return self._redeem(methods.EMBED, ticket, request, trip)

    @asynccontextmanager
    async def _redeem(
        self, method: Method[Run, R], ticket: Ticket, request: bytes, trip: Trip
    ) -> AsyncIterator[Answers[R]]:
        terms = ticket.reservation.payload
        session = await self._way.connect(
            ticket.worker, ticket.place, timeout=self._control_seconds(trip), certificate=ticket.certificate
        )
        seconds = trip.deadline.remaining(self._clock.now())
        argument = codec.encode(Run(ticket.reservation.evidence, request, list(ticket.resumed)))
        metadata = {"traceparent": trip.traceparent, "correlation": run_correlation(terms.job, terms.attempt)}
        async with session.stream(method.name, argument, timeout=seconds, metadata=metadata) as messages:
            yield _Decoded(method.reply, messages)

    async def finalise(
        self, ticket: Ticket, receipt: Verified[Receipt], trip: Trip, payload: Payload | None = None
    ) -> bytes:
        """Report the receipt with our signature under it."""
        auditable = self._keep(receipt, payload)
        statement = Countersignature(job=receipt.payload.job, receipt=receipt.digest, auditable=auditable)
        signed = seal(self._identity, Domain.COUNTERSIGNATURE, statement)
        message = FinaliseJob(job=receipt.payload.job, receipt=receipt.evidence, countersignature=signed)
        await self._tell(ticket.orchestrator, methods.FINALISE, message, trip)
        return signed

    def _keep(self, receipt: Verified[Receipt], payload: Payload | None) -> bool:
        """Whether the answer can be audited; then what that takes is kept before anybody can ask for it."""
        if payload is None or not self._audits.possible or receipt.payload.transcript is None:
            return False
        if size_of(payload) > limits.MESSAGE_BYTES_MAX:
            return False
        self._audits.keep(payload)
        return True

    def report_failure(self, ticket: Ticket, reason: str) -> None:
        """Told in the background: the tenant's answer does not wait for it."""
        if len(self._reports) >= limits.FAILURE_REPORTS_MAX:
            self._telemetry.dropped(Dropped(Reason.OVERLOADED, ticket.orchestrator, "jobs.fail"))
            return
        task = asyncio.create_task(self._report(ticket, reason), name="gateway: jobs.fail")
        self._reports.add(task)
        task.add_done_callback(self._reports.discard)

    async def _report(self, ticket: Ticket, reason: str) -> None:
        message = FailJob(job=ticket.reservation.payload.job, attempt=ticket.attempt, reason=reason)
        try:
            await self._tell(ticket.orchestrator, methods.FAIL, message, None)
        except HaifError as error:
            # The orchestrator ends the job by itself at its deadline.
            self._telemetry.dropped(Dropped(error.reason, ticket.orchestrator, "jobs.fail"))

    async def show(self, job: JobId) -> JobView | None:
        """Ask every orchestrator; a refusal means it does not know the job."""
        lost: Unavailable | None = None
        for peer in self._orchestrators:
            try:
                session = await self._reach(peer, None)
                reply = await session.call(
                    methods.SHOW.name, codec.encode(ShowJob(job)), timeout=limits.CONTROL_CALL_SECONDS
                )
                return codec.decode(JobView, reply)
            except Unavailable as error:
                lost = error
            except (Refusal, PeerFault):
                continue
        if lost is not None:
            raise NoWorker(f"the job cannot be looked up now: {lost.message}", retry_after=1.0)
        return None

    # --- calls --------------------------------------------------------------------------------------------------------

    async def _tell(self, owner: PeerId, method: Method[A, R], body: A, trip: Trip | None) -> R:
        """A call about a job to who has it: `owner`, or whoever took it over."""
        others = sorted(
            (peer for peer in self._orchestrators if peer != owner), key=lambda each: each not in self._catalogues
        )
        started = self._clock.now()

        def remaining() -> float:
            if trip is None:
                return limits.TAKEOVER_PATIENCE_SECONDS - (self._clock.now() - started)
            return trip.deadline.remaining(self._clock.now())

        return await in_turn((owner, *others), lambda peer: self._say(peer, method, body, trip), remaining)

    async def _say(self, peer: PeerId, method: Method[A, R], body: A, trip: Trip | None) -> R:
        """One call, live-signed where its method is: dialled, said and answered within the trip's deadline.

        Once more over a new session, where the first is lost and the method is declared to bear that.
        """
        session = await self._reach(peer, trip)
        try:
            return await self._say_in(session, method, body, trip)
        except ConnectionLost:
            if session.usable or not method.retriable:
                raise
        return await self._say_in(await self._reach(peer, trip), method, body, trip)

    async def _say_in(self, session: Session, method: Method[A, R], body: A, trip: Trip | None) -> R:
        metadata: Mapping[str, str] = {} if trip is None else {"traceparent": trip.traceparent}
        if method.live is None:
            said = codec.encode(body)
        else:
            said, _ = self._voice.say(session.peer, session.scope, method.live, body)
        timeout = self._control_seconds(trip)
        return codec.decode(method.reply, await session.call(method.name, said, timeout=timeout, metadata=metadata))

    def _control_seconds(self, trip: Trip | None) -> float:
        """What the next step of a call may take: whatever came before it has used up of the trip's deadline."""
        left = inf if trip is None else trip.deadline.remaining(self._clock.now())
        return min(left, limits.CONTROL_CALL_SECONDS)

    async def _reach(self, peer: PeerId, trip: Trip | None) -> Session:
        """A session with an orchestrator, where it last announced itself."""
        known = self._places.get(peer)
        if known is not None:
            try:
                return await self._way.connect(peer, known, timeout=self._control_seconds(trip))
            except HaifError:
                if self._places.get(peer) == known:  # else others, who waited with us, have looked again already
                    del self._places[peer]
        place, certificate = await asyncio.shield(self._look(peer))
        self._places[peer] = place
        return await self._way.connect(peer, place, timeout=self._control_seconds(trip), certificate=certificate)

    def _look(self, peer: PeerId) -> asyncio.Task[tuple[Place, bytes]]:
        """A look into the directory that all share who want this orchestrator now.

        Each for itself would use up what nodes answer a subnet (`limits.DHT_SIGNATURES_PER_SECOND`) just when a
        successor is to be found.
        """

        async def look() -> tuple[Place, bytes]:
            return whereabouts(await self._dht.lookup(presence_topic(self._net, peer)), peer)

        def looked(done: asyncio.Task[tuple[Place, bytes]]) -> None:
            del self._looks[peer]
            if not done.cancelled():
                done.exception()  # those who waited have it; if all of them left, nobody minds

        if peer not in self._looks:
            self._looks[peer] = asyncio.create_task(look(), name="gateway: look")
            self._looks[peer].add_done_callback(looked)
        return self._looks[peer]


class _Decoded(Generic[R]):
    def __init__(self, kind: type[R], messages: Stream) -> None:
        self._kind, self._messages = kind, messages

    async def pour(self, take: Callable[[R], Taking | None]) -> None:
        decode = codec.reader(self._kind)
        await self._messages.pour(lambda message: take(decode(message)))


def _best(cards: Iterable[ModelCard]) -> tuple[ModelCard, ...]:
    best: dict[str, ModelCard] = {}
    for card in cards:
        if card.name not in best or card.workers > best[card.name].workers:
            best[card.name] = card
    return tuple(best.values())


def _weight(refusal: HaifError) -> int:
    """Which of several refusals is told."""
    if isinstance(refusal, Elsewhere):
        return 3
    if isinstance(refusal, UnknownModel):
        return 0
    return 1 if isinstance(refusal, ConnectionLost | Timeout) else 2


def _as_seen_by_tenant(error: HaifError) -> HaifError:
    """An orchestrator that cannot be reached is, to a tenant, a mesh without workers for now."""
    if isinstance(error, ConnectionLost):
        return NoWorker(f"no orchestrator can be reached: {error.message}", retry_after=1.0)
    return error
