"""What the orchestrator does about a request: which events follow from it, and what is answered once they are durable.

Nothing here changes anything. A decision takes the state as it is, the time and randomness, and returns events and an
answer; a request that changes nothing is refused by raising. A refusal that does change something (a job that ran out
of workers fails for good) is the answer of its decision, so that it is told only when it is durable.

Asking twice is safe: a request that was carried out already gets the same answer again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from haif.base import limits
from haif.base.clock import Instant, WallTime
from haif.base.codec import Message
from haif.base.confinement import LEVELS, stricter, suffices
from haif.base.errors import (
    BadSignature,
    EngineDied,
    Forbidden,
    HaifError,
    InvalidRequest,
    NoWorker,
    Overloaded,
    Reason,
    Timeout,
    UnknownModel,
    Unsupported,
    WrongState,
)
from haif.base.execution import DEMANDS, VERIFIABLE
from haif.base.ids import ModelDigest, PeerId, Seed
from haif.base.tasks import VECTORS
from haif.identity.keys import Identity
from haif.identity.signing import Domain, Verified, evidence_digest, open_sealed, seal
from haif.orchestrator.events import AttemptFailed, AttemptReserved, Event, JobFailed, JobFinalised, JobSubmitted
from haif.orchestrator.placement import Fleet, WorkerView, able, choose
from haif.orchestrator.state import Attempt, Job, JobState, State
from haif.proof import lottery
from haif.protocol.jobs import FailJob, Finalised, FinaliseJob, Placed, Reservation, RetryJob, SubmitJob
from haif.protocol.prefixes import are_tags
from haif.protocol.reach import Place
from haif.protocol.receipts import Countersignature, Receipt, check_parts
from haif.protocol.seeds import drawn_seed, given_seed

Entropy = Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """A model the orchestrator places jobs for. `published` in ms since the epoch.

    `context_tokens` is what the catalogue promises; 0 promises what the smallest live worker offers.
    """

    name: str
    digest: ModelDigest
    published: int
    context_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Moment:
    """Now, on both clocks."""

    instant: Instant
    wall: WallTime


@dataclass(frozen=True, slots=True)
class Decision:
    """The events to make durable, and then the answer to give (or the refusal to raise)."""

    events: tuple[Event, ...]
    answer: Message | HaifError


# --- submit -----------------------------------------------------------------------------------------------------------


def submit(
    state: State, fleet: Fleet, request: SubmitJob, gateway: PeerId, *,
    past: Job | None, catalogue: Mapping[str, CatalogueEntry], identity: Identity, now: Moment, entropy: Entropy,
    sandbox_min: str = "none",
) -> Decision:  # fmt: skip
    """Place a new job. `past` is a job of this id that ended so long ago that the state forgot it.

    `sandbox_min` is what the operator demands of every worker's jail; a job may demand more.

    Raises `InvalidRequest`, `Timeout`, `UnknownModel`, `Unsupported`, `Overloaded`, `NoWorker`, `Forbidden` for a
    tenant that the operator paused, or `WrongState` for an id in use.
    """
    known = state.find(request.job) or past
    if known is not None:
        return _submitted_before(known, fleet, request, gateway, now.wall)
    _check_request(request)
    model = _model(catalogue, request.model)
    if len(state.open) >= limits.JOBS_OPEN_MAX:
        raise Overloaded(f"{limits.JOBS_OPEN_MAX} jobs are open here; try again later", retry_after=1.0)
    fleet.pauses.check(model=model.name, digest=model.digest, tenant=request.tenant)
    demanded = stricter(request.sandbox_min, sandbox_min)
    worker = _first_worker(state, fleet, model.digest, demanded, request, now, entropy)
    seed, proof = _seed(request, identity)
    submitted = JobSubmitted(
        job=request.job, gateway=gateway, tenant=request.tenant, model=model.name, model_digest=model.digest,
        request_digest=request.request_digest, tokens_max=request.tokens_max, tenant_seed=request.tenant_seed,
        seed=seed, seed_proof=proof,
        deadline=now.wall + min(request.deadline_ms, int(limits.CALL_SECONDS_MAX * 1000)), at=now.wall,
        sandbox_min=demanded, execution=request.execution, task=request.task,
    )  # fmt: skip
    reserved = _reserve(submitted, 1, 0, worker, identity, now.wall)
    return Decision((submitted, reserved), _placed(reserved, fleet, model.digest))


def _first_worker(
    state: State, fleet: Fleet, model: ModelDigest, sandbox_min: str, request: SubmitJob, now: Moment, entropy: Entropy
) -> WorkerView:
    """Refuse at once, saying when to come back, whom the queues would keep waiting until nobody wants the answer."""
    patience = request.deadline_ms / 1000
    job_seconds = fleet.brakes.seconds(model)
    live = able(fleet.live(model, state.busy, now.instant), request.task)
    worker = choose(
        live, (), entropy, sandbox_min=sandbox_min, execution=request.execution, prefixes=request.prefixes,
        job_seconds=job_seconds,
    )  # fmt: skip
    wait = worker.wait(job_seconds)
    if wait >= patience:
        raise Overloaded(
            f"a slot for this model is free in about {wait:.0f} s, and the answer is wanted within {patience:.0f} s",
            retry_after=min(wait, limits.WAIT_SECONDS_MAX),
        )
    return worker


def _submitted_before(job: Job, fleet: Fleet, request: SubmitJob, gateway: PeerId, now: WallTime) -> Decision:
    _check_owner(job, gateway)
    stated = (job.tenant, job.model, job.request_digest, job.tokens_max, job.tenant_seed, job.task)
    if stated != (
        request.tenant, request.model, request.request_digest, request.tokens_max, request.tenant_seed, request.task,
    ):  # fmt: skip
        raise WrongState("this job id was used before, for another request: a job has an id of its own", gateway)
    if not job.is_open or job.attempt.failure or job.attempt.expires <= now:
        raise WrongState("this job was placed before and its reservation is no longer valid", gateway)
    return Decision((), _placed(job.attempt, fleet, job.model_digest))


def _check_request(request: SubmitJob) -> None:
    least = 0 if request.task in VECTORS else 1  # vectors are no completion
    if not least <= request.tokens_max <= least * limits.COMPLETION_TOKENS_MAX:
        raise InvalidRequest(f"must be {least} to {least * limits.COMPLETION_TOKENS_MAX}", param="max_tokens")
    if not 1 <= len(request.tenant) <= limits.TENANT_NAME_CHARS_MAX:
        raise InvalidRequest(f"a tenant's id has 1 to {limits.TENANT_NAME_CHARS_MAX} characters", param="tenant")
    if request.tenant_seed is not None and not -(1 << 63) <= request.tenant_seed < 1 << 63:
        raise InvalidRequest("must fit into 64 bits", param="seed")
    if request.sandbox_min not in LEVELS:
        raise InvalidRequest(f"must be one of {', '.join(LEVELS)}", param="haif.sandbox")
    if not are_tags(request.prefixes, limits.PREFIX_TAGS_MAX):
        raise InvalidRequest(f"a request has at most {limits.PREFIX_TAGS_MAX} tags of 8 bytes", param="prefixes")
    if request.execution not in DEMANDS:
        raise InvalidRequest(f"must be one of {', '.join(DEMANDS)}", param="haif.execution")
    if request.deadline_ms <= 0:
        raise Timeout("there is no time left for this job")


def _model(catalogue: Mapping[str, CatalogueEntry], name: str) -> CatalogueEntry:
    entry = catalogue.get(name)
    if entry is None:
        known = ", ".join(sorted(catalogue)) or "none"
        raise UnknownModel(
            f"there is no model {name[: limits.MODEL_NAME_CHARS_MAX]!r}; there is: {known}", param="model"
        )
    return entry


def _seed(request: SubmitJob, identity: Identity) -> tuple[Seed, bytes]:
    if request.tenant_seed is None:
        return drawn_seed(identity, request.job, request.request_digest)
    return given_seed(request.tenant_seed), b""


def _reserve(
    job: JobSubmitted | Job, attempt: int, resumed: int, worker: WorkerView, identity: Identity, now: WallTime
) -> AttemptReserved:
    """The sealed ticket for one attempt. It lives for `limits.RESERVATION_TTL_MS`, or until the job's deadline."""
    expires = min(now + limits.RESERVATION_TTL_MS, job.deadline)
    host, port = next(iter(worker.place.addresses), ("", 0))
    ticket = Reservation(
        job=job.id if isinstance(job, Job) else job.job, attempt=attempt, gateway=job.gateway, worker=worker.worker,
        model=job.model_digest, request_digest=job.request_digest, tokens_max=job.tokens_max, seed=job.seed,
        tenant_seed=job.tenant_seed, seed_proof=job.seed_proof, issued=now, expires=expires, deadline=job.deadline,
        resumed=resumed, drawn_by=job.drawn_by if isinstance(job, Job) else None,
    )  # fmt: skip
    sealed = seal(identity, Domain.RESERVATION, ticket)
    return AttemptReserved(
        job=ticket.job, attempt=attempt, worker=worker.worker, host=host, port=port,
        reservation=sealed, digest=evidence_digest(sealed), expires=expires, resumed=resumed, at=now,
    )  # fmt: skip


# --- retry ------------------------------------------------------------------------------------------------------------


def retry(
    state: State, fleet: Fleet, request: RetryJob, gateway: PeerId, *,
    past: Job | None, identity: Identity, now: Moment, entropy: Entropy,
) -> Decision:  # fmt: skip
    """Give up the latest attempt and place the next, on a worker not tried, or at least not just now.

    Without one, the job fails for good.

    The answer is then the refusal: `NoWorker`, `Overloaded`, `Timeout`, `EngineDied`, or `Forbidden` where its tenant
    was paused. Raises `WrongState`, `Forbidden` or `InvalidRequest` when there is nothing to retry.
    """
    job = _owned(state, request, gateway, past)
    check_reason(request.reason)
    if not 0 <= request.tokens <= job.tokens_max:
        raise InvalidRequest(f"an answer of this job has 0 to {job.tokens_max} tokens", param="tokens")
    if not job.is_open:
        raise WrongState(f"the job is over: {job.state.value}", gateway)
    if 1 <= request.attempt == job.attempt.number - 1 and job.attempt.expires > now.wall:
        if request.tokens != job.attempt.resumed:
            raise WrongState("this attempt was placed before, to go on after another number of tokens", gateway)
        return Decision((), _placed(job.attempt, fleet, job.model_digest))
    _check_latest(job, request.attempt, gateway)
    failed = AttemptFailed(job=job.id, attempt=request.attempt, reason=request.reason, at=now.wall)
    try:
        _check_poison(job, request.reason)
        fleet.pauses.check(model=job.model, digest=job.model_digest, tenant=job.tenant)
        worker = _next_worker(state, fleet, job, request.tokens, now, entropy)
    except (NoWorker, Overloaded, Timeout, Unsupported, EngineDied, Forbidden) as refusal:
        return Decision((failed, JobFailed(job=job.id, reason=refusal.reason.value, at=now.wall)), refusal)
    reserved = _reserve(job, request.attempt + 1, request.tokens, worker, identity, now.wall)
    return Decision((failed, reserved), _placed(reserved, fleet, job.model_digest))


def _check_poison(job: Job, reason: str) -> None:
    """Return if engines may still be risked on this job. Raises `EngineDied`."""
    deaths = [*(attempt.failure for attempt in job.attempts), reason].count(Reason.ENGINE_DIED.value)
    if deaths >= limits.POISON_DEATHS:
        raise EngineDied(f"{deaths} engines died while they computed this answer; no other is risked on it")


def _next_worker(state: State, fleet: Fleet, job: Job, tokens: int, now: Moment, entropy: Entropy) -> WorkerView:
    """Who goes on after so many tokens: only an engine of ours can."""
    if now.wall >= job.deadline:
        raise Timeout("the job's deadline has passed")
    if len(job.attempts) >= limits.ATTEMPTS_MAX:
        raise NoWorker(f"{limits.ATTEMPTS_MAX} attempts were made and failed", retry_after=limits.HEARTBEAT_SECONDS)
    if not fleet.brakes.may_retry(job.gateway, now.instant):
        raise Overloaded("so much fails now that retries would only add to it", retry_after=limits.HEARTBEAT_SECONDS)
    live = able(fleet.live(job.model_digest, state.busy, now.instant), job.task)
    tried = {attempt.worker for attempt in job.attempts}
    if all(
        view.worker in tried for view in live if suffices(view.sandbox, job.sandbox_min)
    ):  # who failed before may be well again; not who failed just now
        tried = {job.attempt.worker}
    execution = VERIFIABLE if tokens else job.execution
    seconds = fleet.brakes.seconds(job.model_digest)
    return choose(live, tried, entropy, sandbox_min=job.sandbox_min, execution=execution, job_seconds=seconds)


# --- the end ----------------------------------------------------------------------------------------------------------


def finalise(
    state: State, request: FinaliseJob, gateway: PeerId, *, past: Job | None, now: WallTime,
    validators: Collection[PeerId] = (),
) -> Decision:  # fmt: skip
    """Record the receipt of the reserved worker, countersigned by the job's gateway.

    What the `validators` said of the worker decides how likely they are, together, to audit it.

    Raises `BadSignature`, `Malformed` or `Oversize` for evidence that does not hold, `WrongState` for a job that ended
    otherwise, and `Forbidden`.
    """
    job = _owned(state, request, gateway, past)
    if job.state is JobState.FINALISED and (job.receipt, job.countersignature) == (
        request.receipt, request.countersignature,
    ):  # fmt: skip
        return Decision((), Finalised(job.id))
    if not job.is_open:
        raise WrongState(f"the job is over: {job.state.value}", gateway)
    receipt = _check_receipt(job, request.receipt)
    hand = _check_countersignature(job, receipt, request.countersignature)
    auditable = hand.auditable and receipt.payload.transcript is not None and bool(validators)
    chance = lottery.each(state.standings.of(receipt.signer, validators).per_mille(now), len(validators))
    event = JobFinalised(
        job=job.id, attempt=receipt.payload.attempt, tokens=receipt.payload.completion_tokens, receipt=request.receipt,
        countersignature=request.countersignature, at=now,
        per_mille=chance if auditable else 0,
    )  # fmt: skip
    return Decision((event,), Finalised(job.id))


def _check_receipt(job: Job, evidence: bytes) -> Verified[Receipt]:
    attempt = job.attempt
    if attempt.failure:
        raise WrongState("the job's latest attempt was reported as failed", job.gateway)
    checked = open_sealed(Receipt, Domain.RECEIPT, evidence, signer=attempt.worker)
    receipt = checked.payload
    if (
        receipt.job, receipt.attempt, receipt.gateway, receipt.reservation, receipt.request, receipt.model,
        receipt.resumed,
    ) != (
        job.id, attempt.number, job.gateway, attempt.digest, job.request_digest, job.model_digest, attempt.resumed,
    ):  # fmt: skip
        raise BadSignature("the receipt is not for this attempt of this job", attempt.worker)
    if not attempt.resumed <= receipt.completion_tokens <= job.tokens_max or receipt.prompt_tokens < 0:
        raise BadSignature("the receipt counts tokens that cannot be", attempt.worker)
    check_parts(checked)
    return checked


def _check_countersignature(job: Job, receipt: Verified[Receipt], evidence: bytes) -> Countersignature:
    hand = open_sealed(Countersignature, Domain.COUNTERSIGNATURE, evidence, signer=job.gateway).payload
    if (hand.job, hand.receipt) != (job.id, receipt.digest):
        raise BadSignature("the countersignature is under another receipt", job.gateway)
    return hand


def fail(state: State, request: FailJob, gateway: PeerId, *, past: Job | None, now: WallTime) -> Decision:
    """Record that the job ended without an answer. Raises `WrongState`, `Forbidden` or `InvalidRequest`."""
    job = _owned(state, request, gateway, past)
    check_reason(request.reason)
    if job.state is JobState.FAILED:
        return Decision((), Finalised(job.id))
    if not job.is_open:
        raise WrongState("the job is over: it has an answer", gateway)
    _check_latest(job, request.attempt, gateway)
    return Decision((JobFailed(job=job.id, reason=request.reason, at=now),), Finalised(job.id))


def decide(state: State, now: WallTime) -> tuple[JobFailed, ...]:
    """What time itself brings about: the end of the jobs whose deadline passed without any."""
    late = [job for job in state.open.values() if now >= job.deadline + limits.FINALISE_GRACE_MS]
    return tuple(JobFailed(job=job.id, reason=Timeout.reason.value, at=now) for job in late)


# --- shared -----------------------------------------------------------------------------------------------------------


def owned(job: Job | None, gateway: PeerId) -> Job:
    """The job, if it exists and is this gateway's. Raises `WrongState` or `Forbidden`."""
    if job is None:
        raise WrongState("there is no such job here", gateway)
    _check_owner(job, gateway)
    return job


def check_reason(reason: str) -> None:
    """Return if this can be a reason: a short word, never text of a tenant or a model. Raises `InvalidRequest`."""
    word = reason.replace("_", "")
    if not (len(reason) <= limits.REASON_CHARS_MAX and word.isascii() and word.isalpha() and word.islower()):
        raise InvalidRequest("a reason is one word such as `timeout` or `cancelled`", param="reason")


def _owned(state: State, request: RetryJob | FinaliseJob | FailJob, gateway: PeerId, past: Job | None) -> Job:
    return owned(state.find(request.job) or past, gateway)


def _check_owner(job: Job, gateway: PeerId) -> None:
    if job.gateway != gateway:
        raise Forbidden("this job is another gateway's")


def _check_latest(job: Job, attempt: int, gateway: PeerId) -> None:
    if attempt != job.attempt.number:
        raise WrongState(f"attempt {attempt} is not the latest one: that is {job.attempt.number}", gateway)


def _placed(reserved: AttemptReserved | Attempt, fleet: Fleet, model: ModelDigest) -> Placed:
    """Where the attempt's worker is reached, as it says now; if its offer is gone, as it was when it was chosen."""
    offer = fleet.offer(reserved.worker, model)
    if offer is not None:
        return Placed(reserved.reservation, offer.place, offer.certificate)
    return Placed(reserved.reservation, Place(((reserved.host, reserved.port),) if reserved.host else ()), b"")
