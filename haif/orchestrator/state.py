"""What the orchestrator knows of its jobs: everything here follows from the journal, event by event."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from enum import StrEnum

from haif.base.ids import Digest, JobId, ModelDigest, PeerId, Seed
from haif.base.tasks import Task
from haif.orchestrator.standings import Standings
from haif.protocol.jobs import JobView


class JobState(StrEnum):
    """Where a job stands. The value is what a `JobView` says."""

    RESERVED = "reserved"
    FINALISED = "finalised"
    FAILED = "failed"


@dataclass(slots=True)
class Attempt:
    """One worker's turn, which begins after the answer's first `resumed` tokens.

    Times in ms since the epoch; `failure` is empty while it may still succeed.
    """

    number: int
    worker: PeerId
    host: str
    port: int
    reservation: bytes
    digest: Digest
    expires: int
    resumed: int
    reserved: int
    failure: str = ""


@dataclass(slots=True)
class Job:
    """A job from its submission to its one end at `ended`. `reason` says why it failed.

    `per_mille`: the chance, in 1000, that it is audited; `verdicts`: what each validator said, sealed.
    """

    id: JobId
    gateway: PeerId
    tenant: str
    model: str
    model_digest: ModelDigest
    request_digest: Digest
    tokens_max: int
    tenant_seed: int | None
    seed: Seed
    seed_proof: bytes
    deadline: int
    sandbox_min: str
    execution: str
    task: Task
    state: JobState = JobState.RESERVED
    attempts: list[Attempt] = field(default_factory=list)
    reason: str = ""
    receipt: bytes = b""
    countersignature: bytes = b""
    ended: int = 0
    per_mille: int = 0
    verdicts: dict[PeerId, bytes] = field(default_factory=dict)
    drawn_by: PeerId | None = None  # who drew the seed, if the job was taken over
    ruled: str = ""  # what a panel found, or that it found nothing
    passed: bool = False  # a validator found it honest: what others find then makes its worker no better known

    @property
    def attempt(self) -> Attempt:
        """The latest attempt."""
        return self.attempts[-1]

    @property
    def is_open(self) -> bool:
        """Whether its end is still to come."""
        return self.state is JobState.RESERVED

    def view(self) -> JobView:
        """What its gateway is shown."""
        return JobView(
            job=self.id, tenant=self.tenant, model=self.model, state=self.state.value, attempts=len(self.attempts),
            worker=self.attempts[-1].worker if self.attempts else None, reason=self.reason,
            receipt=self.receipt, countersignature=self.countersignature, verdicts=list(self.verdicts.values()),
        )  # fmt: skip


Post = tuple[PeerId, ModelDigest]
"""A worker in its capacity of running one model."""


@dataclass(slots=True)
class State:
    """All open jobs, the latest ended ones, and which open jobs each post has (with the ms they were reserved at).

    At most `limits.JOBS_OPEN_MAX` are open (decisions see to that) and `ended_max` ended ones remembered; how many
    were forgotten is counted, so that nobody searches the journal for what cannot be there. `revealed`: the latest
    epoch of which each validator showed its draw. `rulings`: the latest that convict, with their time.
    """

    ended_max: int
    open: dict[JobId, Job] = field(default_factory=dict)
    ended: OrderedDict[JobId, Job] = field(default_factory=OrderedDict)
    forgotten: int = 0
    busy: dict[Post, dict[JobId, int]] = field(default_factory=dict)
    standings: Standings = field(default_factory=Standings)
    revealed: dict[PeerId, int] = field(default_factory=dict)
    rulings: OrderedDict[JobId, tuple[int, bytes]] = field(default_factory=OrderedDict)

    def find(self, job: JobId) -> Job | None:
        """The job, if it is open or among the latest that ended."""
        return self.open.get(job) or self.ended.get(job)
