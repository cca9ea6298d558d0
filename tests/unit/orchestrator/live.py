"""An orchestrator on real sockets and a real database, with a scripted gateway and scripted workers around it."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from haif.base import codec, limits
from haif.base.clock import Instant, WallTime
from haif.base.codec import Message
from haif.base.errors import Dropped
from haif.base.ids import JobId, NetId, PeerId
from haif.dht.service import Dht
from haif.identity.keys import Identity, NoiseKey
from haif.identity.voice import Voice
from haif.orchestrator.service import MIGRATIONS, Orchestrator, OrchestratorSettings
from haif.proof.committee import Elector
from haif.protocol import heartbeats, jobs
from haif.protocol.heartbeats import Acknowledged, Heartbeat, Load, Repute
from haif.protocol.jobs import JobView, ListModels, Models, Placed, ShowJob, SubmitJob
from haif.protocol.records import RecordKind, offer_topic
from haif.runtime.clock import SystemClock, entropy
from haif.storage.service import Database, Journal
from haif.telemetry.service import Telemetry
from haif.wire.service import Session, Wire
from tests.unit.orchestrator.scene import CATALOGUE, GATEWAY, MODEL, ORCHESTRATOR, load, offer

NET = NetId(b"n" * 32)


@dataclass
class Clock:
    """The machine's clock, which a test may set forward."""

    ahead: float = 0.0
    real: SystemClock = field(default_factory=SystemClock)

    def now(self) -> Instant:
        return Instant(self.real.now() + self.ahead)

    def wall(self) -> WallTime:
        return WallTime(self.real.wall() + int(self.ahead * 1000))


@dataclass
class House:
    """A running orchestrator and what it stands on."""

    orchestrator: Orchestrator
    wire: Wire
    dht: Dht
    telemetry: Telemetry
    journal: Journal
    clock: Clock

    def metric(self, line: str) -> float:
        """The value of a sample in the exposition."""
        for found in self.telemetry.exposition().decode().splitlines():
            if found.startswith(line + " "):
                return float(found.rsplit(" ", 1)[1])
        raise LookupError(line)


def dropped(_: Dropped) -> None:
    """Nobody listens."""


def wire_of(identity: Identity, clock: Clock, port: int | None = None, on_dropped: Callable = dropped) -> Wire:
    return Wire(
        identity=identity, noise_key=NoiseKey(entropy(32)), net=NET, clock=clock, entropy=entropy,
        on_dropped=on_dropped, port=port,
    )  # fmt: skip


@asynccontextmanager
async def house(
    folder: Path,
    *,
    gateways: set[PeerId] | None = None,
    workers: frozenset[PeerId] | None = None,
    validators: frozenset[PeerId] = frozenset(),
    roster: tuple[Elector, ...] = (),
) -> AsyncIterator[House]:
    clock = Clock()
    settings = OrchestratorSettings(
        frozenset(gateways or {GATEWAY.peer}),
        workers,
        tuple(CATALOGUE.values()),
        validators=validators,
        roster=roster,
    )
    async with AsyncExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(limits, "HEARTBEAT_SILENCE_SECONDS", 15.0)  # a busy machine takes its time between two steps
        telemetry = await stack.enter_async_context(
            Telemetry(role="orchestrator", instance="test", spans=folder / "spans")
        )
        database = await stack.enter_async_context(Database(folder / "journal", MIGRATIONS, exclusive=True))
        dht = await stack.enter_async_context(
            Dht(
                identity=ORCHESTRATOR, net=NET, clock=clock, entropy=entropy, bootstrap=(),
                on_dropped=telemetry.dropped,
            )
        )  # fmt: skip
        wire = await stack.enter_async_context(wire_of(ORCHESTRATOR, clock, 0, telemetry.dropped))
        journal = Journal(database)
        orchestrator = Orchestrator(
            settings=settings, identity=ORCHESTRATOR, net=NET, wire=wire, dht=dht,
            voice=Voice(ORCHESTRATOR, NET, clock, entropy), journal=journal,
            folder=folder / "orchestrator", telemetry=telemetry, clock=clock,
            entropy=entropy,
        )  # fmt: skip
        await stack.enter_async_context(orchestrator)
        yield House(orchestrator, wire, dht, telemetry, journal, clock)


@dataclass
class Peer:
    """Someone with a session to the orchestrator."""

    identity: Identity
    session: Session
    voice: Voice
    dht: Dht | None = None

    def signed(self, kind: int, body: Message) -> bytes:
        return self.voice.say(self.session.peer, self.session.scope, kind, body)[0]

    async def call(self, method: str, argument: bytes) -> bytes:
        return await self.session.call(method, argument, timeout=10)

    # as a worker

    async def beat(self, *loads: Load) -> Repute:
        """What the orchestrator thinks of it."""
        signed, nonce = self.voice.say(
            self.session.peer, self.session.scope, heartbeats.HEARTBEAT, Heartbeat(list(loads))
        )
        heard = codec.decode(Acknowledged, await self.call(heartbeats.METHOD, signed))
        assert nonce == heard.nonce
        return heard.repute

    async def announce(self, port: int = 4000) -> None:
        assert self.dht is not None
        await self.dht.publish(RecordKind.OFFER, offer_topic(NET, MODEL), codec.encode(offer(port)), ttl_ms=60_000)

    # as a gateway

    async def submit(self, request: SubmitJob) -> Placed:
        return codec.decode(Placed, await self.call(jobs.SUBMIT_METHOD, self.signed(jobs.SUBMIT, request)))

    async def retry(self, request: jobs.RetryJob) -> Placed:
        return codec.decode(Placed, await self.call(jobs.RETRY_METHOD, self.signed(jobs.RETRY, request)))

    async def finalise(self, request: jobs.FinaliseJob) -> None:
        await self.call(jobs.FINALISE_METHOD, codec.encode(request))

    async def fail(self, request: jobs.FailJob) -> None:
        await self.call(jobs.FAIL_METHOD, self.signed(jobs.FAIL, request))

    async def show(self, job: JobId) -> JobView:
        return codec.decode(JobView, await self.call(jobs.SHOW_METHOD, codec.encode(ShowJob(job))))

    async def live_workers(self) -> int:
        models = codec.decode(Models, await self.call(jobs.MODELS_METHOD, codec.encode(ListModels())))
        return models.models[0].workers

    async def wait_for_workers(self, count: int) -> None:
        while await self.live_workers() != count:
            pass


@asynccontextmanager
async def peer(home: House, identity: Identity, *, with_dht: bool = False) -> AsyncIterator[Peer]:
    clock = Clock()
    async with AsyncExitStack() as stack:
        wire = await stack.enter_async_context(wire_of(identity, clock))
        session = await wire.connect(home.wire.address, ORCHESTRATOR.peer, timeout=5)
        dht = None
        if with_dht:
            dht = await stack.enter_async_context(
                Dht(
                    identity=identity, net=NET, clock=clock, entropy=entropy, bootstrap=[home.dht.address],
                    on_dropped=dropped,
                )
            )  # fmt: skip
        yield Peer(identity, session, Voice(identity, NET, clock, entropy), dht)


@asynccontextmanager
async def working(home: House, *identities: Identity) -> AsyncIterator[tuple[Peer, ...]]:
    """A gateway and these workers, announced, alive and known."""
    async with AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(peer(home, GATEWAY))
        workers = [await stack.enter_async_context(peer(home, each, with_dht=True)) for each in identities]
        for number, worker in enumerate(workers):
            await worker.announce(4000 + number)
            await worker.beat(load())
        await gateway.wait_for_workers(len(workers))
        yield (gateway, *workers)
