"""The people and papers these tests are about: two gateways, three workers, an orchestrator, and what they sign."""

from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from haif.base.clock import Instant, WallTime
from haif.base.hashing import digest
from haif.base.ids import Digest, JobId, ModelDigest
from haif.identity.keys import Identity
from haif.identity.signing import Domain, evidence_digest, open_sealed, seal
from haif.orchestrator import decide
from haif.orchestrator.apply import apply
from haif.orchestrator.decide import CatalogueEntry, Decision, Moment
from haif.orchestrator.events import Event
from haif.orchestrator.placement import Fleet
from haif.orchestrator.state import State
from haif.protocol.heartbeats import Heartbeat, Load
from haif.protocol.jobs import FailJob, FinaliseJob, Placed, Reservation, RetryJob, SubmitJob
from haif.protocol.offers import Offer
from haif.protocol.reach import Place
from haif.protocol.receipts import Countersignature, Receipt
from haif.protocol.sandbox import Sandbox

ORCHESTRATOR = Identity(b"o" * 32)
HEIR = Identity(b"i" * 32)  # another orchestrator of the same store
GATEWAY = Identity(b"g" * 32)
OTHER_GATEWAY = Identity(b"h" * 32)
WORKERS = {identity.peer: identity for identity in (Identity(bytes([n]) * 32) for n in (1, 2, 3))}
ANNE, BOB, CLEO = WORKERS
MODEL = ModelDigest(b"m" * 32)
CATALOGUE = {"tiny": CatalogueEntry("tiny", MODEL, 1_700_000_000_000, 1024)}
REDUCED = Sandbox("reduced", ["cgroups"])
FULL = Sandbox("full", [])
REQUEST = digest("haif v1 request", b"hello")


def counting() -> Callable[[int], bytes]:
    """Entropy that is different each time and the same in every run."""
    drawn = 0

    def entropy(count: int) -> bytes:
        nonlocal drawn
        drawn += 1
        return digest("test entropy", drawn.to_bytes(8, "big"))[:count]

    return entropy


def submission(job: int = 1, **changed: object) -> SubmitJob:
    fields: dict[str, object] = {
        "job": JobId(job.to_bytes(16, "big")), "tenant": "ada", "model": "tiny", "request_digest": REQUEST,
        "tokens_max": 16, "tenant_seed": None, "deadline_ms": 60_000,
    }  # fmt: skip
    return SubmitJob(**(fields | changed))  # type: ignore[arg-type]


def load(
    running: int = 0, queued: int = 0, *, slots: int = 4, model: ModelDigest = MODEL, sandbox: Sandbox = REDUCED,
    ready_seconds: float = 0.0,
) -> Load:  # fmt: skip
    return Load(model, slots, running, queued, 0.0, sandbox, ready_seconds=ready_seconds)


def offer(port: int = 4000, model: ModelDigest = MODEL, sandbox: Sandbox = REDUCED) -> Offer:
    return Offer(model, Place((("127.0.0.1", port),)), 1024, 4, sandbox, "test engine", b"a certificate")


def ticket(placed: Placed) -> Reservation:
    opened = open_sealed(Reservation, Domain.RESERVATION, placed.reservation)
    assert opened.signer in {ORCHESTRATOR.peer, HEIR.peer}
    return opened.payload


def receipt(placed: Placed, *, by: Identity | None = None, **changed: object) -> bytes:
    stated = ticket(placed)
    fields: dict[str, object] = {
        "job": stated.job, "attempt": stated.attempt, "gateway": stated.gateway,
        "reservation": evidence_digest(placed.reservation), "request": stated.request_digest, "model": stated.model,
        "prompt_tokens": 3, "completion_tokens": 5, "finish_reason": "stop", "output_tokens": Digest(b"t" * 32),
        "output_text": Digest(b"x" * 32), "engine": "test engine", "sandbox": REDUCED, "started": 1, "finished": 2,
        "resumed": stated.resumed, "earlier": Digest(b"e" * 32) if stated.resumed else None,
    }  # fmt: skip
    return seal(by or WORKERS[stated.worker], Domain.RECEIPT, Receipt(**(fields | changed)))  # type: ignore[arg-type]


def ending(placed: Placed, evidence: bytes | None = None, *, by: Identity = GATEWAY, tokens: int = 5) -> FinaliseJob:
    evidence = evidence or receipt(placed, completion_tokens=tokens)
    job = ticket(placed).job
    hand = seal(by, Domain.COUNTERSIGNATURE, Countersignature(job, evidence_digest(evidence)))
    return FinaliseJob(job, evidence, hand)


@dataclass
class Desk:
    """An orchestrator without a wire: it decides and applies, and remembers what happened."""

    state: State = field(default_factory=lambda: State(ended_max=100))
    fleet: Fleet = field(default_factory=Fleet)
    happened: list[Event] = field(default_factory=list)
    entropy: Callable[[int], bytes] = field(default_factory=counting)
    seconds: float = 0.0

    @property
    def now(self) -> Moment:
        return Moment(Instant(self.seconds), self.wall)

    @property
    def wall(self) -> WallTime:
        return WallTime(1_700_000_000_000 + int(self.seconds * 1000))

    def staffed(self, *workers: bytes, slots: int = 4, sandbox: Sandbox = REDUCED, verifiable: bool = True) -> "Desk":
        for worker in workers or WORKERS:
            made = msgspec.structs.replace(offer(sandbox=sandbox), verifiable=verifiable)
            self.fleet.offered(worker, made)  # type: ignore[arg-type]
            self.beat(worker, slots=slots, sandbox=sandbox)
        return self

    def beat(
        self, worker: bytes, running: int = 0, queued: int = 0, *, slots: int = 4, sandbox: Sandbox = REDUCED
    ) -> None:
        heartbeat = Heartbeat([load(running, queued, slots=slots, sandbox=sandbox)])
        self.fleet.hear(worker, heartbeat, self.state.busy, self.now.instant, self.wall)  # type: ignore[arg-type]

    def happen(self, event: Event) -> None:
        apply(self.state, event)
        self.happened.append(event)
        job = self.state.find(event.job)
        assert job is not None
        self.fleet.brakes.learn(event, job, self.now.instant)

    def carry_out(self, decision: Decision) -> object:
        for event in decision.events:
            self.happen(event)
        if isinstance(decision.answer, Exception):
            raise decision.answer
        return decision.answer

    def submit(self, request: SubmitJob, gateway: Identity = GATEWAY, *, sandbox_min: str = "none") -> Placed:
        decision = decide.submit(
            self.state, self.fleet, request, gateway.peer, past=None, catalogue=CATALOGUE,
            identity=ORCHESTRATOR, now=self.now, entropy=self.entropy, sandbox_min=sandbox_min,
        )  # fmt: skip
        placed = self.carry_out(decision)
        assert isinstance(placed, Placed)
        return placed

    def retry(self, request: RetryJob, gateway: Identity = GATEWAY) -> Placed:
        decision = decide.retry(
            self.state, self.fleet, request, gateway.peer, past=None,
            identity=ORCHESTRATOR, now=self.now, entropy=self.entropy,
        )  # fmt: skip
        placed = self.carry_out(decision)
        assert isinstance(placed, Placed)
        return placed

    def finalise(self, request: FinaliseJob, gateway: Identity = GATEWAY) -> object:
        return self.carry_out(decide.finalise(self.state, request, gateway.peer, past=None, now=self.wall))

    def fail(self, request: FailJob, gateway: Identity = GATEWAY) -> object:
        return self.carry_out(decide.fail(self.state, request, gateway.peer, past=None, now=self.wall))

    def pass_time(self, seconds: float) -> None:
        self.seconds += seconds
        for failed in decide.decide(self.state, self.wall):
            self.happen(failed)
