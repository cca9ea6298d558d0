"""The control plane's conversation: a gateway has a job placed, reports how it ended, and asks about it later.

    jobs.submit    live-signed SubmitJob (SUBMIT)   -> Placed      place a new job on a worker
    jobs.retry     live-signed RetryJob (RETRY)     -> Placed      an attempt failed; place the next one elsewhere
    jobs.finalise  FinaliseJob                      -> Finalised   here is the receipt, and my signature under it
    jobs.fail      live-signed FailJob (FAIL)       -> Finalised   it is over without an answer
    jobs.show      ShowJob                          -> JobView     what became of it (only to the gateway that sent it)
    models.list    ListModels                       -> Models      what can be asked for now

The orchestrator never sees a prompt or an answer: it knows the request by its digest.
"""

from __future__ import annotations

from typing import Final

from msgspec import field

from haif.base.codec import Message
from haif.base.execution import VERIFIABLE
from haif.base.ids import Digest, JobId, ModelDigest, PeerId, Seed
from haif.base.tasks import Task
from haif.protocol.reach import Place

SUBMIT_METHOD: Final = "jobs.submit"
RETRY_METHOD: Final = "jobs.retry"
FINALISE_METHOD: Final = "jobs.finalise"
FAIL_METHOD: Final = "jobs.fail"
SHOW_METHOD: Final = "jobs.show"
MODELS_METHOD: Final = "models.list"

SUBMIT: Final = 2  # live message types; 1 is the heartbeat
RETRY: Final = 3
FAIL: Final = 4


class SubmitJob(Message, frozen=True):
    """Place this job. `request_digest` names the request body; `deadline_ms` is what is left of the tenant's patience.

    `tenant` is the tenant's id (never its key). `tenant_seed` is the `seed` of the request, where one was given.
    `sandbox_min` is the level (`base.confinement`) that the worker's jail must have at least, `execution`
    (`base.execution`) whether it must be one that can be verified. `prefixes` are tags (`protocol.prefixes`) of the
    request's beginnings, the longest last: a worker that has them is preferred.
    """

    job: JobId
    tenant: str
    model: str
    request_digest: Digest
    tokens_max: int
    tenant_seed: int | None
    deadline_ms: int
    sandbox_min: str = "none"
    prefixes: list[bytes] = field(default_factory=list)
    execution: str = VERIFIABLE
    task: Task = Task.TEXT  # what the worker must be able to do


class RetryJob(Message, frozen=True):
    """Attempt `attempt` failed for `reason` (a `Reason` code): place the next one, on another worker.

    `tokens` of the answer came and hold: the next attempt goes on after them.
    """

    job: JobId
    attempt: int
    reason: str
    tokens: int = 0


class Reservation(Message, frozen=True):
    """The ticket, sealed by the orchestrator: this gateway may run this job once on this worker until `expires`.

    Times in ms since the epoch; `deadline` is when the answer is worth nothing any more. `tenant_seed` and `seed_proof`
    show where the seed comes from (`protocol.seeds`): one of them is given, the other nil or empty. The first `resumed`
    tokens of the answer came from earlier attempts: the worker goes on after them. `drawn_by` is the orchestrator that
    drew the seed, where another one has taken the job over since.
    """

    job: JobId
    attempt: int
    gateway: PeerId
    worker: PeerId
    model: ModelDigest
    request_digest: Digest
    tokens_max: int
    seed: Seed
    tenant_seed: int | None
    seed_proof: bytes
    issued: int
    expires: int
    deadline: int
    resumed: int = 0
    drawn_by: PeerId | None = None


class Placed(Message, frozen=True):
    """Where the job was placed: the sealed `Reservation`, and where the worker is reached.

    `certificate` is that of the worker's static key, as the worker offered it; empty where it is not at hand.
    """

    reservation: bytes
    place: Place
    certificate: bytes


class FinaliseJob(Message, frozen=True):
    """The worker's sealed `Receipt`, and the gateway's sealed `Countersignature` under it, which signs for both."""

    job: JobId
    receipt: bytes
    countersignature: bytes


class FailJob(Message, frozen=True):
    """The job ended without an answer: cancelled by the tenant, out of attempts, out of time."""

    job: JobId
    attempt: int
    reason: str


class Finalised(Message, frozen=True):
    """The end of the job is durable."""

    job: JobId


class ShowJob(Message, frozen=True):
    """What became of this job?"""

    job: JobId


class JobView(Message, frozen=True):
    """A job as the journal knows it. `state` is one of reserved, finalised, failed. Receipt: empty until the end.

    `verdicts`: what validators said of the receipt, sealed (`protocol.audits`).
    """

    job: JobId
    tenant: str
    model: str
    state: str
    attempts: int
    worker: PeerId | None
    reason: str
    receipt: bytes
    countersignature: bytes
    verdicts: list[bytes] = field(default_factory=list)


class ListModels(Message, frozen=True):
    """What can be asked for now?"""


class ModelCard(Message, frozen=True):
    """A model the orchestrator's policy allows, how many live workers offer it, and what it can do there."""

    name: str
    digest: ModelDigest
    context_tokens: int
    workers: int
    published: int  # ms since the epoch
    tasks: list[Task] = field(default_factory=list)  # none known without a live worker
    dimensions: int = 0  # of its vectors
    slots: int = 0  # answers its live workers compute at the same time: the part of them that is the asking gateway's


class Models(Message, frozen=True):
    """The catalogue."""

    models: list[ModelCard]
