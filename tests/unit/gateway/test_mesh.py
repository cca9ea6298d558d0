"""The gateway's side of the mesh, over real Noise sessions, against an orchestrator and a worker that are scripted."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import pytest
from msgspec.structs import replace

from haif.base import codec, limits
from haif.base.clock import Deadline, Instant
from haif.base.conversation import Turn
from haif.base.errors import (
    BadSignature,
    ConnectionLost,
    ContextTooLong,
    EngineDied,
    Expired,
    HaifError,
    Misuse,
    NoWorker,
    Overloaded,
    Reason,
    Timeout,
    UnknownModel,
    WrongState,
)
from haif.base.ids import JobId, NetId, Nonce, PeerId
from haif.base.machine import Address
from haif.base.sampling import Sampling
from haif.gateway.ask import Ask
from haif.gateway.service.mesh import PeerMesh, Trip
from haif.gateway.service.travel import travel
from haif.gateway.session import Journey
from haif.identity.certificate import certify
from haif.identity.keys import Identity, NoiseKey
from haif.identity.signing import Domain, Verified, open_sealed, seal
from haif.identity.voice import Voice
from haif.protocol import inference, jobs, methods
from haif.protocol.inference import Answer, Chunk, End, OutputHash, Request, Run
from haif.protocol.jobs import (
    FailJob,
    FinaliseJob,
    JobView,
    Models,
    Placed,
    Reservation,
    RetryJob,
    ShowJob,
    SubmitJob,
)
from haif.protocol.offers import Presence
from haif.protocol.prefixes import prefix_tags
from haif.protocol.reach import Place
from haif.protocol.receipts import Countersignature, Receipt, check_bundle
from haif.protocol.records import Record, RecordKind
from haif.protocol.sandbox import Sandbox
from haif.protocol.seeds import given_seed
from haif.runtime.clock import SystemClock, entropy
from haif.telemetry.service import Telemetry
from haif.wire.service import Call, Wire
from tests.support.reach_peers import reach_of
from tests.support.scripted_mesh import CARD, GATEWAY, MODEL, ORCHESTRATOR, STRANGER, WORKER

NET = NetId(b"t" * 32)
CLOCK = SystemClock()
TRACE = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"


def make_wire(identity: Identity, port: int | None = 0) -> Wire:
    return Wire(
        identity=identity, noise_key=NoiseKey(entropy(32)), net=NET, clock=CLOCK, entropy=entropy,
        on_dropped=lambda _: None, host="127.0.0.1", port=port,
    )  # fmt: skip


@dataclass
class Directory:
    """Stands where the DHT stands: who announced which address."""

    presences: dict[PeerId, Address] = field(default_factory=dict)
    lookups: int = 0

    async def lookup(self, topic: bytes) -> tuple[Verified[Record], ...]:
        self.lookups += 1
        await asyncio.sleep(0)
        bodies = {
            peer: codec.encode(Presence("orchestrator", Place((at,)), b"")) for peer, at in self.presences.items()
        }
        return tuple(
            Verified(Record(RecordKind.PRESENCE, topic, peer, 1, 2, False, body), peer, b"")
            for peer, body in bodies.items()
        )


@dataclass
class Peers:
    """The orchestrator and the worker: what they were told, and what they answer."""

    worker_address: Address = ("127.0.0.1", 0)
    worker_certificate: bytes = b""
    heard: list[object] = field(default_factory=list)
    metadata: list[dict[str, str]] = field(default_factory=list)
    failed: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    running: asyncio.Event = field(default_factory=asyncio.Event)
    refusals: list[HaifError] = field(default_factory=list)
    cuts: int = 0  # sessions that end when something has been heard on them
    engine_deaths: int = 0
    hangs: bool = False
    alter: Callable[[Reservation], Reservation] = lambda terms: terms
    signer: Identity = ORCHESTRATOR
    voice: Voice = field(default_factory=lambda: Voice(ORCHESTRATOR, NET, CLOCK, entropy))

    def serve(self, orchestrator: Wire, worker: Wire) -> None:
        for method, kind, live_type, answer in (
            (jobs.SUBMIT_METHOD, SubmitJob, jobs.SUBMIT, self._place),
            (jobs.RETRY_METHOD, RetryJob, jobs.RETRY, self._replace),
            (jobs.FINALISE_METHOD, FinaliseJob, None, self._end),
            (jobs.FAIL_METHOD, FailJob, jobs.FAIL, self._end),
        ):
            orchestrator.serve(method, self._hearing(orchestrator, kind, live_type, answer))
        orchestrator.serve(jobs.MODELS_METHOD, self._models)
        orchestrator.serve(jobs.SHOW_METHOD, self._show)
        worker.serve_stream(inference.METHOD, self._run)

    def _hearing(self, wire, kind, live_type, answer):
        async def hear(call: Call) -> bytes:
            if self.cuts:
                self.cuts -= 1
                wire.session(call.scope).close()
            if live_type is None:
                body = codec.decode(kind, call.argument)
            else:
                body = self.voice.hear(kind, live_type, call.argument, call.scope).body
            self.heard.append(body)
            self.metadata.append(dict(call.metadata))
            if self.refusals:
                raise self.refusals.pop(0)
            return codec.encode(answer(body))

        return hear

    def _place(self, body: SubmitJob) -> Placed:
        self.submitted = body
        return self._ticket(1)

    def _replace(self, body: RetryJob) -> Placed:
        return self._ticket(body.attempt + 1)

    def _ticket(self, attempt: int) -> Placed:
        body, now = self.submitted, CLOCK.wall()
        terms = Reservation(
            body.job, attempt, GATEWAY.peer, WORKER.peer, MODEL, body.request_digest, body.tokens_max, given_seed(0),
            0, b"", now, now + 30_000, now + 60_000,
        )  # fmt: skip
        return Placed(
            seal(self.signer, Domain.RESERVATION, self.alter(terms)), Place((self.worker_address,)),
            self.worker_certificate,
        )  # fmt: skip

    def _end(self, body: FinaliseJob | FailJob) -> jobs.Finalised:
        if isinstance(body, FailJob):
            self.failed.set()
        return jobs.Finalised(body.job)

    async def _models(self, call: Call) -> bytes:
        return codec.encode(Models([CARD]))

    async def _show(self, call: Call) -> bytes:
        job = codec.decode(ShowJob, call.argument).job
        if job != JobId(b"k" * 16):
            raise WrongState("there is no such job here")
        return codec.encode(JobView(job, "acme", "tiny", "finalised", 1, WORKER.peer, "", b"r", b"c"))

    async def _run(self, call: Call) -> AsyncIterator[bytes]:
        self.metadata.append(dict(call.metadata))
        run = codec.decode(Run, call.argument)
        ticket = open_sealed(Reservation, Domain.RESERVATION, run.reservation)
        assert inference.request_digest(run.request) == ticket.payload.request_digest
        if self.engine_deaths:
            self.engine_deaths -= 1
            raise EngineDied("the engine was killed")
        output = OutputHash()
        for text in ("Hello", " world"):
            chunk = Chunk(output.tokens, [output.tokens], text)
            output.add(chunk)
            yield codec.encode(Answer(chunk=chunk))
        if self.hangs:
            self.running.set()
            try:
                await asyncio.Event().wait()
            finally:
                self.cancelled.set()
        terms = ticket.payload
        receipt = Receipt(
            terms.job, terms.attempt, terms.gateway, ticket.digest, terms.request_digest, terms.model, 5, 2, "stop",
            output.tokens_digest(), output.text_digest(), "engine", Sandbox("none", ["seccomp"]), 1, 2,
        )  # fmt: skip
        yield codec.encode(Answer(end=End("stop", 5, 0, 2, seal(WORKER, Domain.RECEIPT, receipt))))


@dataclass
class Net:
    mesh: PeerMesh
    peers: Peers
    directory: Directory
    telemetry: Telemetry
    journey: Journey
    worker: Wire

    async def travel(self, deliver=None) -> tuple[str, dict[str, str]]:
        async def keep(_: Chunk) -> None:
            pass

        settled = await travel(self.journey, self.mesh, trip(), self.telemetry, deliver or keep, entropy)
        return self.journey.said.text, settled.proof

    def heard(self, kind: type) -> list:
        return [body for body in self.peers.heard if isinstance(body, kind)]


def trip() -> Trip:
    return Trip(Deadline.after(10.0, CLOCK.now()), TRACE)


def ask(stream: bool = False) -> Ask:
    request = Request(Nonce(b"n" * 16), None, "Once", 16, Sampling(0.0), [])
    return Ask(dialect="text", model="tiny", request=request, seed=7, stream=stream, include_usage=False, ignored=())


@asynccontextmanager
async def open_net(*, orchestrators: tuple[PeerId, ...] = (ORCHESTRATOR.peer,), stream: bool = False):
    async with AsyncExitStack() as stack:
        orchestrator, worker, own = [
            await stack.enter_async_context(make_wire(identity, port))
            for identity, port in ((ORCHESTRATOR, 0), (WORKER, 0), (GATEWAY, None))
        ]
        peers = Peers(worker_address=worker.address)
        peers.serve(orchestrator, worker)
        directory = Directory({ORCHESTRATOR.peer: orchestrator.address})
        telemetry = Telemetry(role="gateway", instance="test", spans=None, otlp=None)
        mesh = PeerMesh(
            orchestrators=orchestrators, identity=GATEWAY, net=NET, reach=reach_of(GATEWAY, own, NET), dht=directory,
            voice=Voice(GATEWAY, NET, CLOCK, entropy), telemetry=telemetry, clock=CLOCK,
        )  # fmt: skip
        journey = Journey(ask(stream), job=JobId(b"j" * 16), tenant="acme", gateway=GATEWAY.peer)
        yield Net(mesh, peers, directory, telemetry, journey, worker)
        await asyncio.gather(*mesh._reports)


async def test_a_job_is_placed_run_checked_countersigned_and_recorded() -> None:
    async with open_net() as net:
        text, proof = await net.travel()
        checked = check_bundle(proof, text)
        assert (text, checked.countersignature.signer) == ("Hello world", GATEWAY.peer)
        (submitted,), (final,) = net.heard(SubmitJob), net.heard(FinaliseJob)
        assert (submitted.tenant, submitted.model, submitted.tenant_seed) == ("acme", "tiny", 7)
        assert submitted.request_digest == net.journey.digest
        hand = open_sealed(Countersignature, Domain.COUNTERSIGNATURE, final.countersignature, GATEWAY.peer)
        assert hand.payload.receipt == checked.receipt.digest
        assert net.heard(FailJob) == []


def test_a_submission_names_the_beginnings_of_its_request_by_tags_only() -> None:
    asked = ask(stream=False)
    request = replace(asked.request, scope=b"a tenant's", text=None, chat=[Turn("user", "secret " * 50)])
    journey = Journey(
        dataclasses.replace(asked, request=request), job=JobId(b"j" * 16), tenant="acme", gateway=GATEWAY.peer
    )
    submitted = journey.submission(1.0)
    assert [8] == [len(tag) for tag in submitted.prefixes]
    assert prefix_tags(request) == submitted.prefixes
    assert b"secret" not in codec.encode(submitted)


async def test_a_worker_is_met_in_one_round_trip_with_the_certificate_it_offered() -> None:
    for certified in (True, False):
        async with open_net() as net:
            worker = net.worker
            net.peers.worker_certificate = worker.certificate if certified else b""
            await net.travel()
            assert len(worker._machines.times) == certified  # Noise IK, or XX without it


async def test_a_placement_with_somebody_elses_certificate_is_refused() -> None:
    async with open_net() as net:
        key = NoiseKey(entropy(32)).public
        net.peers.worker_certificate = certify(ORCHESTRATOR, NET, key, CLOCK.wall())
        with pytest.raises(BadSignature):
            await net.travel()


async def test_trace_and_correlation_travel_to_orchestrator_and_worker() -> None:
    async with open_net() as net:
        await net.travel()
        assert all(metadata["traceparent"][:36] == TRACE[:36] for metadata in net.peers.metadata)
        assert f"{net.journey.job}.1" in [metadata.get("correlation") for metadata in net.peers.metadata]


async def test_the_orchestrator_never_sees_the_request() -> None:
    async with open_net() as net:
        await net.travel()
        assert all(b"Once" not in codec.encode(body) for body in net.peers.heard)


async def test_a_dead_engine_is_reported_and_the_job_placed_again() -> None:
    async with open_net() as net:
        net.peers.engine_deaths = 1
        text, proof = await net.travel()
        assert [(retry.attempt, retry.reason) for retry in net.heard(RetryJob)] == [(1, Reason.ENGINE_DIED)]
        assert check_bundle(proof, text).receipt.payload.attempt == 2


async def test_a_journey_cancelled_cancels_the_worker_and_reports_it() -> None:
    async with open_net(stream=True) as net:
        net.peers.hangs = True
        journey = asyncio.create_task(net.travel())
        await net.peers.running.wait()
        journey.cancel()
        async with asyncio.timeout(5):
            await net.peers.cancelled.wait()
            await net.peers.failed.wait()
        assert [(fail.attempt, fail.reason) for fail in net.heard(FailJob)] == [(1, "cancelled")]


@pytest.mark.parametrize(
    ("alter", "error"),
    [
        (lambda terms: replace(terms, job=JobId(b"x" * 16)), WrongState),
        (lambda terms: replace(terms, gateway=STRANGER.peer), WrongState),
        (lambda terms: replace(terms, request_digest=type(terms.request_digest)(b"x" * 32)), WrongState),
        (lambda terms: replace(terms, tokens_max=10_000), WrongState),
        (lambda terms: replace(terms, expires=1), Expired),
    ],
)
async def test_a_reservation_for_something_else_is_refused(alter, error: type[HaifError]) -> None:
    async with open_net() as net:
        net.peers.alter = alter
        with pytest.raises(error):
            await net.travel()


async def test_a_reservation_signed_by_another_is_refused() -> None:
    async with open_net() as net:
        net.peers.signer = STRANGER
        with pytest.raises(BadSignature) as caught:
            await net.travel()
        assert caught.value.reason is Reason.BAD_SIGNATURE


async def test_a_reservation_for_the_same_attempt_twice_is_refused() -> None:
    async with open_net() as net:
        net.peers.engine_deaths = 1
        net.peers.alter = lambda terms: replace(terms, attempt=1)
        with pytest.raises(WrongState):
            await net.travel()


async def test_what_the_orchestrator_refuses_reaches_the_tenant() -> None:
    async with open_net() as net:
        net.peers.refusals = [UnknownModel("no such model"), NoWorker("none", retry_after=2.0)]
        with pytest.raises(UnknownModel):
            await net.travel()
        with pytest.raises(NoWorker) as caught:
            await net.travel()
        assert caught.value.retry_after == 2.0


async def test_another_orchestrator_is_asked_when_the_first_cannot_be_found() -> None:
    async with open_net(orchestrators=(STRANGER.peer, ORCHESTRATOR.peer)) as net:
        assert (await net.travel())[0] == "Hello world"


async def test_no_orchestrator_at_all_is_a_mesh_without_workers() -> None:
    async with open_net() as net:
        net.directory.presences.clear()
        with pytest.raises(NoWorker, match="no orchestrator can be reached"):
            await net.travel()


@asynccontextmanager
async def open_after_a_death(monkeypatch: pytest.MonkeyPatch):
    """A gateway that heard two orchestrators, of which the first was killed just now; nobody announces it any more."""
    monkeypatch.setattr(limits, "TAKEOVER_AGAIN_SECONDS", 0.0)
    async with open_net(orchestrators=(STRANGER.peer, ORCHESTRATOR.peer)) as net:
        async with make_wire(STRANGER) as first:
            first.serve(jobs.MODELS_METHOD, net.peers._models)
            net.directory.presences[STRANGER.peer] = first.address
            await asyncio.gather(*(net.mesh._hear_from(peer) for peer in (STRANGER.peer, ORCHESTRATOR.peer)))
        del net.directory.presences[STRANGER.peer]
        yield net


async def test_while_one_takes_the_place_of_another_that_was_just_killed_requests_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with open_after_a_death(monkeypatch) as net:
        net.peers.refusals = [NoWorker("no live worker offers this model"), Timeout("busy"), NoWorker("none")]
        assert (await net.travel())[0] == "Hello world"
        assert len(net.heard(SubmitJob)) == 4


async def test_nobody_waits_for_the_place_of_one_that_is_gone_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_after_a_death(monkeypatch) as net:
        clock = _Running()
        monkeypatch.setattr(net.mesh, "_clock", clock)
        clock.ahead = limits.TAKEOVER_PATIENCE_SECONDS
        net.peers.refusals = [NoWorker("no live worker offers this model"), NoWorker("never asked for")]
        with pytest.raises(NoWorker, match="no live worker"):
            await net.mesh.submit(net.journey, Trip(Deadline.after(10.0, clock.now()), TRACE))


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (Overloaded("the queues are full"), Overloaded),
        (ContextTooLong("too long"), ContextTooLong),
        (UnknownModel("no such model"), NoWorker),  # the other one may know it
    ],
)
async def test_what_an_orchestrator_says_counts_before_that_another_is_gone(said, told) -> None:
    async with open_net(orchestrators=(STRANGER.peer, ORCHESTRATOR.peer)) as net:
        net.peers.refusals = [said]
        with pytest.raises(told):
            await net.travel()


async def test_all_who_look_for_an_orchestrator_look_into_the_directory_together() -> None:
    async with open_net() as net:
        net.directory.presences.clear()
        outcomes = await asyncio.gather(
            *(net.mesh.submit(net.journey, trip()) for _ in range(50)), return_exceptions=True
        )
        assert {NoWorker} == {type(outcome) for outcome in outcomes}
        assert 1 == net.directory.lookups


async def test_an_orchestrator_that_moved_is_found_again() -> None:
    async with open_net() as net:
        net.mesh._places[ORCHESTRATOR.peer] = Place((("127.0.0.1", 1),))
        assert (await net.travel())[0] == "Hello world"
        assert net.directory.lookups == 1


async def test_a_call_whose_session_is_lost_is_made_once_more_in_a_new_one() -> None:
    async with open_net() as net:
        net.peers.cuts = 1
        assert (await net.travel())[0] == "Hello world"
        assert [len(net.heard(kind)) for kind in (SubmitJob, FinaliseJob)] == [2, 1]


async def test_a_call_is_made_twice_at_most_and_only_where_that_is_declared_safe(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with open_net() as net:
        for cuts, method in ((2, methods.SUBMIT), (1, dataclasses.replace(methods.SUBMIT, retriable=False))):
            net.peers.cuts = cuts
            monkeypatch.setattr(methods, "SUBMIT", method)
            with pytest.raises(NoWorker):
                await net.travel()
            assert net.peers.cuts == 0


async def test_all_who_wait_for_an_orchestrator_that_moved_find_it_again() -> None:
    async with open_net() as net:
        net.mesh._places[ORCHESTRATOR.peer] = Place((("127.0.0.1", 1),))
        views = await asyncio.gather(*(net.mesh.show(JobId(b"k" * 16)) for _ in range(8)))
        assert [view.state for view in views if view] == ["finalised"] * 8


async def test_models_are_heard_while_the_mesh_is_entered() -> None:
    async with open_net() as net:
        assert net.mesh.models == ()
        async with net.mesh:
            while not net.mesh.models:
                await asyncio.sleep(0)
        assert net.mesh.models == (CARD,)


async def test_a_job_nobody_knows_is_none_and_a_lost_mesh_is_unavailable() -> None:
    async with open_net() as net:
        known = await net.mesh.show(JobId(b"k" * 16))
        assert known is not None
        assert known.tenant == "acme"
        assert await net.mesh.show(JobId(b"z" * 16)) is None
        net.mesh._places.clear()
        net.directory.presences.clear()
        with pytest.raises(NoWorker):
            await net.mesh.show(JobId(b"k" * 16))


def test_a_gateway_without_orchestrators_is_a_wrong_setting() -> None:
    with pytest.raises(Misuse, match="orchestrator"):
        PeerMesh(
            orchestrators=(), identity=GATEWAY, net=NET, reach=None, dht=None, voice=None, telemetry=None, clock=CLOCK,
        )  # fmt: skip


def test_a_lost_connection_has_its_name() -> None:
    assert ConnectionLost("x").reason is Reason.CONNECTION_LOST


class _Running(SystemClock):
    """A clock that a test sets forward."""

    ahead = 0.0

    def now(self) -> Instant:
        return Instant(super().now() + self.ahead)


async def test_the_time_that_dialling_took_is_gone_from_what_the_call_may_take(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_net() as net:
        clock, connect = _Running(), net.mesh._way.connect
        monkeypatch.setattr(net.mesh, "_clock", clock)

        async def slowly(*arguments, **options):
            session = await connect(*arguments, **options)
            clock.ahead = 60.0
            return session

        monkeypatch.setattr(net.mesh._way, "connect", slowly)
        with pytest.raises(Timeout, match="no time was left"):
            await net.mesh.submit(net.journey, trip())
        assert net.heard(SubmitJob) == []
