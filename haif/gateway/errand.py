"""What every request has in common on its way through the mesh, whatever its answer is made of.

1. submit     the job's name, its request's digest, its bounds and what a worker must be able to do; never the request
2. placed     the ticket must be this orchestrator's, for this job, this request and this gateway
3. failed     another worker may try, unless the request itself is to blame
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, Final

from haif.base import limits
from haif.base.clock import WallTime
from haif.base.confinement import suffices
from haif.base.errors import BadSignature, ContextTooLong, Expired, HaifError, InvalidRequest, Unsupported, WrongState
from haif.base.execution import VERIFIABLE, meets, word
from haif.base.ids import Digest, JobId, PeerId
from haif.base.tasks import Task
from haif.gateway.admission import too_large
from haif.gateway.line import Service
from haif.identity.signing import Domain, Verified, open_sealed
from haif.protocol.audits import Payload
from haif.protocol.jobs import Placed, Reservation, SubmitJob
from haif.protocol.reach import Place
from haif.protocol.receipts import Receipt
from haif.protocol.sandbox import check_sandbox

# The request itself is at fault: every other worker would say the same.
TENANTS_OWN: Final = (InvalidRequest, ContextTooLong, Unsupported)


@dataclass(frozen=True, slots=True)
class Ticket:
    """A verified reservation and where its worker is reached. Its signer is the orchestrator that placed the job.

    `certificate` is said to be that of the worker's static key; empty if unknown. `resumed` are the answer's tokens
    that the worker is to go on after.
    """

    reservation: Verified[Reservation]
    place: Place
    certificate: bytes
    resumed: tuple[int, ...] = ()

    @property
    def orchestrator(self) -> PeerId:
        """Who placed the job."""
        return self.reservation.signer

    @property
    def worker(self) -> PeerId:
        """Who runs it."""
        return self.reservation.payload.worker

    @property
    def attempt(self) -> int:
        """Which try of the job this is, from 1."""
        return self.reservation.payload.attempt


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """Whose request it is, for which model, and what a worker must be able to do and may at most generate.

    `sandbox_min`: the level that the worker's jail must have. `prefixes`: tags of what the request begins with.
    `execution`: whether it must be one that can be verified (`base.execution`). `service` and `weight`: its place in
    the line (`gateway.line`).
    """

    job: JobId
    tenant: str
    gateway: PeerId
    model: str
    task: Task
    tokens_max: int
    seed: int | None
    sandbox_min: str = "none"
    prefixes: list[bytes] = field(default_factory=list)
    execution: str = VERIFIABLE
    service: Service = Service.INTERACTIVE
    weight: int = 1


class Errand(ABC):
    """What is known of one request before its answer. Raises `Rejected` for one that is too large to be sent."""

    def __init__(self, order: Order, encoded: bytes, digest: Digest) -> None:
        if len(encoded) > limits.MESSAGE_BYTES_MAX - limits.EVIDENCE_BYTES_MAX:  # the ticket travels with it
            raise too_large()
        self.order = order
        self.job, self.tenant = order.job, order.tenant
        self.encoded = encoded
        self.digest = digest
        self.ticket: Ticket | None = None

    @abstractmethod
    def restart(self) -> None:
        """Forget what an attempt that failed has brought, where nobody can go on after it."""

    @abstractmethod
    def take(self, answer: Any) -> Any:
        """The next message of the worker: a part of the answer, or its end. Raises `Malformed` or `Oversize`."""

    @abstractmethod
    def settled(self, end: Any) -> Verified[Receipt]:
        """The receipt, if it is the worker's and for exactly this answer. Raises what `check_receipt` raises."""

    def submission(self, seconds_left: float) -> SubmitJob:
        """What the orchestrator is told."""
        order = self.order
        return SubmitJob(
            job=order.job, tenant=order.tenant, model=order.model, request_digest=self.digest,
            tokens_max=order.tokens_max, tenant_seed=order.seed, deadline_ms=int(seconds_left * 1000),
            sandbox_min=order.sandbox_min, task=order.task, prefixes=order.prefixes,
            execution=order.execution,
        )  # fmt: skip

    def placed(self, placed: Placed, orchestrators: Collection[PeerId], now: WallTime) -> Ticket:
        """The ticket for the next attempt, by one of our orchestrators.

        Whoever took the job over may hand on what the one before had placed. Raises `BadSignature`, `Malformed`,
        `WrongState` or `Expired`.
        """
        reservation = open_sealed(Reservation, Domain.RESERVATION, placed.reservation)
        stated, order, orchestrator = reservation.payload, self.order, reservation.signer
        if orchestrator not in orchestrators or stated.drawn_by not in {None, *orchestrators}:
            raise BadSignature("the reservation is by an orchestrator that is none of ours", orchestrator)
        if self.ticket is not None and stated.seed != self.ticket.reservation.payload.seed:
            raise WrongState("the reservation goes on with another seed", orchestrator)
        if (stated.job, stated.gateway, stated.request_digest) != (order.job, order.gateway, self.digest):
            raise WrongState("the reservation is for another job, request or gateway", orchestrator)
        if self.ticket is not None and stated.attempt <= self.ticket.attempt:
            raise WrongState("the reservation repeats an attempt that failed", orchestrator)
        if stated.tokens_max > order.tokens_max:
            raise WrongState("the reservation allows more tokens than were asked for", orchestrator)
        if stated.resumed != self.tokens:
            raise WrongState("the reservation is to go on after another number of tokens than there are", orchestrator)
        if stated.expires <= now:
            raise Expired("the reservation had expired when it came; check both clocks", orchestrator)
        self.ticket = Ticket(reservation, placed.place, placed.certificate, self.resumed())
        return self.ticket

    def failed(self, error: HaifError) -> bool:
        """Whether another worker may try: the request is not to blame, and there are tries left."""
        assert self.ticket is not None
        return self.ticket.attempt < limits.ATTEMPTS_MAX and not isinstance(error, TENANTS_OWN)

    def transcript(self) -> dict[str, str]:
        """What goes with the proof, so that the tenant can have the answer computed again, where it asked for that."""
        return {}

    def payload(self, receipt: Verified[Receipt]) -> Payload | None:
        """What a validator that draws this receipt may see; None for vectors, and where its tenant said no."""
        del receipt
        return None

    def resumed(self) -> tuple[int, ...]:
        """The tokens that the next attempt goes on after."""
        return ()

    @property
    def cost(self) -> int:
        """The tokens that computing it may take, prompt and answer."""
        return len(self.encoded) // limits.BYTES_PER_TOKEN + self.order.tokens_max + 1

    @property
    def tokens(self) -> int:
        """How many tokens the answer has so far."""
        return 0

    @property
    def shown(self) -> bool:
        """Whether the tenant may have seen a part of the answer."""
        return False

    def check_jail(self, receipt: Receipt) -> None:
        """Return if the worker signed that its engine was of the demanded kind, in a jail as good as was demanded.

        Raises `Malformed` or `WrongState`.
        """
        check_sandbox(receipt.sandbox, self.worker)
        if not suffices(receipt.sandbox.level, self.order.sandbox_min):
            raise WrongState(
                f"the worker signed that it ran this in a jail of level {receipt.sandbox.level}", self.worker
            )
        if not meets(receipt.verifiable, self.order.execution):
            raise WrongState(f"the worker signed that its execution is {word(receipt.verifiable)}", self.worker)

    @property
    def worker(self) -> PeerId | None:
        """Who is at it now."""
        return self.ticket.worker if self.ticket else None
