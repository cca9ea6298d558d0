"""The orchestrator: hears workers and gateways, journals what follows, and only then lets anyone know of it.

Every request goes the same way:

1. hear     signature, addressee, session, time and replay are checked before a field is read
2. decide   the state and the time yield events and an answer, without a pause in between
3. apply    the events fold into the state at once, so that the next decision sees them
4. record   the events become durable, together with everything decided meanwhile
5. answer

Steps 3 to 5 are `record.Record`'s. If the journal cannot be written, memory is ahead of the disk: the orchestrator
stops, and what is on disk is what was. One that was silent for so long that another took its jobs over goes on without.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

from haif.base import codec, limits
from haif.base.clock import Clock
from haif.base.codec import Message
from haif.base.errors import (
    BadSignature,
    ConnectionLost,
    Dropped,
    EngineDied,
    Forbidden,
    NoWorker,
    Overloaded,
    PeerFault,
    Refusal,
)
from haif.base.ids import Digest, JobId, ModelDigest, NetId, PeerId
from haif.base.tasks import Task
from haif.dht.service import Dht
from haif.identity.keys import Identity
from haif.identity.signing import Live
from haif.identity.voice import Voice
from haif.orchestrator import decide
from haif.orchestrator.decide import CatalogueEntry, Moment
from haif.orchestrator.events import Event
from haif.orchestrator.panels import Panels
from haif.orchestrator.placement import Fleet, part_of
from haif.orchestrator.service.audits import Audits
from haif.orchestrator.service.offers import OfferWatch
from haif.orchestrator.service.pauses import Switch
from haif.orchestrator.service.record import Record
from haif.orchestrator.state import Job
from haif.proof.committee import Elector
from haif.protocol import heartbeats, jobs, methods
from haif.protocol.heartbeats import Acknowledged, Heartbeat
from haif.protocol.jobs import FailJob, FinaliseJob, ListModels, ModelCard, Models, RetryJob, ShowJob, SubmitJob
from haif.storage.service import JOURNAL_SCHEMA, Fenced, Store
from haif.telemetry import names
from haif.telemetry.service import Span, Telemetry
from haif.wire.service import Call, Session, Wire

T = TypeVar("T", bound=Message)

MIGRATIONS: Final = (JOURNAL_SCHEMA,)
"""What the journal's database is opened with."""


@dataclass(frozen=True)
class OrchestratorSettings:
    """Whose jobs are placed, on whose machines, and which models.

    `gateways` None: any that a closed network admits. `workers` None: any worker whose offer verifies.
    `sandbox_min` is the level that the jail of every worker's engine must have. `validators` are believed what they
    say of workers; together where there is a `roster` to draw panels of (`proof.committee.check_roster`), else each
    alone. `owners` says whose workers are, as far as it is known.
    """

    gateways: frozenset[PeerId] | None
    workers: frozenset[PeerId] | None
    catalogue: tuple[CatalogueEntry, ...]
    sandbox_min: str = "none"
    validators: frozenset[PeerId] = frozenset()
    roster: tuple[Elector, ...] = ()
    owners: Mapping[PeerId, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OrchestratorStatistics:
    """Jobs open, workers live, breakers not closed; entries since the start; ended jobs that only the journal has."""

    jobs_open: int
    workers_live: int
    breakers_open: int
    entries: int
    forgotten: int


class Orchestrator:
    """Places jobs while the block is entered, over a wire, DHT, database and telemetry that others opened.

    Entering reads the journal from its newest snapshot on (raising `JournalBroken` if it does not hold) and returns
    once gateways and workers are answered. What stands before the snapshot is looked at meanwhile; if it does not hold,
    the block ends with `JournalBroken`. Leaving lets running requests become durable, and stops.
    """

    def __init__(
        self, *, settings: OrchestratorSettings, identity: Identity, net: NetId, wire: Wire, dht: Dht, voice: Voice,
        journal: Store, folder: Path, telemetry: Telemetry, clock: Clock, entropy: Callable[[int], bytes],
    ) -> None:  # fmt: skip
        """`folder` is its own: its operator leaves orders there."""
        self._settings = settings
        self._catalogue = {entry.name: entry for entry in settings.catalogue}
        self._identity = identity
        self._net = net
        self._wire = wire
        self._dht = dht
        self._voice = voice
        self._record = Record(journal, telemetry, clock, self._learn)
        self._telemetry = telemetry
        self._clock = clock
        self._entropy = entropy
        self._fleet = Fleet()
        self._switch = Switch(journal, folder, telemetry, clock, self._fleet.pause)
        self._audits = Audits(
            settings.validators, me=identity.peer, record=self._record, fleet=self._fleet, telemetry=telemetry,
            panels=Panels(identity, settings.roster, settings.owners) if settings.roster else None, clock=clock,
        )  # fmt: skip
        self._offers = {entry.digest: self._watch(entry.digest) for entry in settings.catalogue}
        self._serving = False
        self._watched: dict[PeerId, tuple[Digest, asyncio.Task[None]]] = {}  # the session of each worker's heartbeats

    async def __aenter__(self) -> Self:
        await self._record.remember()
        await self._switch.refresh()
        self._audits.resume()
        async with AsyncExitStack() as stack:
            tasks = await stack.enter_async_context(asyncio.TaskGroup())
            self._running = [
                tasks.create_task(self._record.stop_when_broken(), name="journal watch"),
                tasks.create_task(self._record.check_past(), name="journal's past"),
                tasks.create_task(self._record.keep_snapshots(), name="snapshots"),
                tasks.create_task(self._record.inherit(self._identity.peer), name="inheritance"),
                tasks.create_task(self._keep_time(), name="timer"),
                *(
                    tasks.create_task(watch.run(), name=f"offers {model.short}")
                    for model, watch in self._offers.items()
                ),
            ]
            self._tasks = tasks
            stack.push_async_callback(self._retire)
            self._serve()
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return await self._stack.__aexit__(kind, error, trace)

    def statistics(self) -> OrchestratorStatistics:
        """How things stand."""
        return OrchestratorStatistics(
            len(self._record.state.open),
            self._fleet.live_count(self._clock.now()),
            self._fleet.brakes.open_count(self._clock.now()),
            self._record.entries,
            self._record.state.forgotten,
        )

    @property
    def refused_snapshots(self) -> tuple[str, ...]:
        """Why snapshots were not believed when this orchestrator started, each in a sentence."""
        return self._record.refused

    # --- start and stop -----------------------------------------------------------------------------------------------

    def _serve(self) -> None:
        self._serving = True
        for method, handler in (
            (methods.HEARTBEAT, self._heartbeat),
            (methods.SUBMIT, self._submit),
            (methods.RETRY, self._retry),
            (methods.FINALISE, self._finalise),
            (methods.FAIL, self._fail),
            (methods.SHOW, self._show),
            (methods.MODELS, self._models),
            (methods.AUDITS_ENDED, self._audits.ended),
            (methods.AUDITS_JUDGE, self._audits.judge),
            (methods.AUDITS_REVEAL, self._audits.reveal),
            (methods.AUDITS_PANELS, self._audits.panels),
            (methods.AUDITS_COMMIT, self._audits.commit),
            (methods.AUDITS_SHOW, self._audits.show),
            (methods.AUDITS_SHARE, self._audits.share),
        ):
            self._wire.serve(method.name, self._answering(handler), method.terms)

    async def _retire(self) -> None:
        """Take nothing new, let what was decided become durable, stop the tasks."""
        self._serving = False
        try:
            if not self._record.is_broken:
                await self._record.settled()
        finally:
            for task in [*self._running, *(task for _, task in self._watched.values())]:
                task.cancel()

    def _answering(self, handler: Callable[[Call], Awaitable[Message]]) -> Callable[[Call], Awaitable[bytes]]:
        async def answer(call: Call) -> bytes:
            if not self._serving:
                raise ConnectionLost("this orchestrator is stopping; ask another", retry_after=1.0)
            try:
                return codec.encode(await handler(call))
            except (PeerFault, Refusal) as error:
                self._telemetry.dropped(Dropped(error.reason, call.peer, call.method))
                raise

        return answer

    # --- 1. hear ------------------------------------------------------------------------------------------------------

    def _hear(self, kind: type[T], number: int, call: Call) -> Live[T]:
        """What the peer of this session, and nobody else, says in it, for the first time."""
        live = self._voice.hear(kind, number, call.argument, call.scope)
        if live.header.sender != call.peer:
            raise BadSignature("the message was signed by another peer than it came from", call.peer)
        return live

    def _hear_gateway(self, kind: type[T], number: int, call: Call) -> T:
        self._check_gateway(call.peer)
        return self._hear(kind, number, call).body

    def _check_gateway(self, peer: PeerId) -> None:
        if self._settings.gateways is not None and peer not in self._settings.gateways:
            raise Forbidden(f"peer {peer.short}… is not a gateway of this orchestrator: add it to its `gateways`")

    # --- 2. decide ----------------------------------------------------------------------------------------------------

    async def _submit(self, call: Call) -> Message:
        request = self._hear_gateway(SubmitJob, jobs.SUBMIT, call)
        with self._span(names.SPAN_SUBMIT, call, request.job) as span:
            past = await self._record.recall(request.job)
            with self._counting_failures():
                decision = decide.submit(
                    self._record.state, self._fleet, request, call.peer, past=past, catalogue=self._catalogue,
                    identity=self._identity, now=self._moment(), entropy=self._entropy,
                    sandbox_min=self._settings.sandbox_min,
                )  # fmt: skip
            return await self._record.carry_out(request.job, decision, span)

    async def _retry(self, call: Call) -> Message:
        request = self._hear_gateway(RetryJob, jobs.RETRY, call)
        with self._span(names.SPAN_RETRY, call, request.job) as span:
            past = await self._record.recall(request.job)
            decision = decide.retry(
                self._record.state, self._fleet, request, call.peer, past=past,
                identity=self._identity, now=self._moment(), entropy=self._entropy,
            )  # fmt: skip
            with self._counting_failures():
                return await self._record.carry_out(request.job, decision, span)

    async def _finalise(self, call: Call) -> Message:
        self._check_gateway(call.peer)
        request = codec.decode(FinaliseJob, call.argument)  # what it says is signed by the gateway, and so is enough
        with self._span(names.SPAN_JOB_FINAL, call, request.job) as span:
            past = await self._record.recall(request.job)
            decision = decide.finalise(
                self._record.state, request, call.peer, past=past, now=self._clock.wall(),
                validators=self._audits.believed,
            )  # fmt: skip
            return await self._record.carry_out(request.job, decision, span)

    async def _fail(self, call: Call) -> Message:
        request = self._hear_gateway(FailJob, jobs.FAIL, call)
        with self._span(names.SPAN_JOB_FAIL, call, request.job) as span:
            past = await self._record.recall(request.job)
            decision = decide.fail(self._record.state, request, call.peer, past=past, now=self._clock.wall())
            return await self._record.carry_out(request.job, decision, span)

    # --- what changes nothing in the journal --------------------------------------------------------------------------

    async def _heartbeat(self, call: Call) -> Message:
        if self._settings.workers is not None and call.peer not in self._settings.workers:
            raise Forbidden(f"peer {call.peer.short}… is not a worker of this orchestrator: add it to its `workers`")
        live = self._hear(Heartbeat, heartbeats.HEARTBEAT, call)
        now = self._moment()
        self._fleet.hear(call.peer, live.body, self._record.state.busy, now.instant, now.wall)
        restarted = self._fleet.met(call.peer, live.header.boot)
        self._watch_session(call)
        self._telemetry.count(names.HEARTBEATS)
        for load in live.body.loads:
            if load.model in self._offers:
                self._offers[load.model].heard(call.peer, restarted=restarted)
        return Acknowledged(live.header.nonce, self._audits.repute(call.peer))

    def _watch_session(self, call: Call) -> None:
        """A worker that is killed says nothing, but its session ends: that is told at once."""
        known, session = self._watched.get(call.peer), self._wire.session(call.scope)
        if session is None or (known is not None and known[0] == call.scope):
            return
        if known is not None:
            known[1].cancel()
        self._watched[call.peer] = (call.scope, self._tasks.create_task(self._notice_end(session)))

    async def _notice_end(self, session: Session) -> None:
        await session.wait_over()
        del self._watched[session.peer]
        if self._wire.session_with(session.peer) is None:
            self._fleet.lost(session.peer)

    def _learn(self, event: Event, job: Job) -> None:
        self._audits.learn(event, job)
        self._fleet.brakes.learn(event, job, self._clock.now())

    async def _show(self, call: Call) -> Message:
        self._check_gateway(call.peer)
        job = codec.decode(ShowJob, call.argument).job
        past = await self._record.recall(job)
        shown = decide.owned(self._record.state.find(job) or past, call.peer).view()
        await self._record.settled()  # nothing is shown that is not durable
        return shown

    async def _models(self, call: Call) -> Message:
        codec.decode(ListModels, call.argument)
        return Models([self._card(entry, call.peer) for entry in self._settings.catalogue])

    def _card(self, entry: CatalogueEntry, asking: PeerId) -> ModelCard:
        live = self._fleet.live(entry.digest, self._record.state.busy, self._clock.now())
        context = entry.context_tokens or min((view.context_tokens for view in live), default=0)
        tasks = frozenset[Task]().union(*(view.tasks for view in live))
        dimensions = max((view.dimensions for view in live), default=0)
        return ModelCard(
            entry.name, entry.digest, context, len(live), entry.published, [task for task in Task if task in tasks],
            dimensions, part_of(live, entry.digest, self._record.state.open.values(), asking),
        )  # fmt: skip

    # --- tasks --------------------------------------------------------------------------------------------------------

    async def _keep_time(self) -> None:
        """End the jobs that ran out of time, forget silent workers, keep the gauges."""
        while True:
            with suppress(Overloaded, Fenced):  # then the next round comes back to the rest, if it is still ours
                for failed in decide.decide(self._record.state, self._clock.wall()):
                    self._record.apply(failed.job, [failed])
            with suppress(Overloaded, Fenced):
                await self._switch.refresh()
            self._fleet.forget_silent(self._clock.now())
            self._audits.refresh()
            now = self.statistics()
            self._telemetry.gauge(names.JOBS_OPEN, now.jobs_open)
            self._telemetry.gauge(names.WORKERS_LIVE, now.workers_live)
            self._telemetry.gauge(names.BREAKERS_OPEN, now.breakers_open)
            await asyncio.sleep(limits.ORCHESTRATOR_TICK_SECONDS)

    def _watch(self, model: ModelDigest) -> OfferWatch:
        return OfferWatch(
            model, self._fleet, admitted=self._settings.workers,
            net=self._net, dht=self._dht, telemetry=self._telemetry,
        )  # fmt: skip

    # --- shared -------------------------------------------------------------------------------------------------------

    def _moment(self) -> Moment:
        return Moment(self._clock.now(), self._clock.wall())

    def _span(self, name: str, call: Call, job: JobId) -> AbstractContextManager[Span]:
        attributes = {names.JOB: str(job), names.PEER: str(call.peer), names.METHOD: call.method}
        return self._telemetry.span(name, parent=call.metadata.get("traceparent"), attributes=attributes)

    @contextmanager
    def _counting_failures(self) -> Iterator[None]:
        try:
            yield
        except (NoWorker, Overloaded, EngineDied) as error:
            self._telemetry.count(names.PLACEMENT_FAILURES, reason=error.reason.value)
            raise
