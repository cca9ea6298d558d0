"""A whole job as bytes hold it, in snapshots and where it moves from one journal to another."""

from __future__ import annotations

from haif.base.errors import Malformed
from haif.orchestrator.events import AttemptKept, JobKept, VerdictKept
from haif.orchestrator.state import Attempt, Job, JobState, State


def kept(job: Job) -> JobKept:
    """A job as bytes hold it."""
    return JobKept(
        job=job.id, gateway=job.gateway, tenant=job.tenant, model=job.model, model_digest=job.model_digest,
        request_digest=job.request_digest, tokens_max=job.tokens_max, tenant_seed=job.tenant_seed, seed=job.seed,
        seed_proof=job.seed_proof, deadline=job.deadline, sandbox_min=job.sandbox_min, execution=job.execution,
        task=job.task, state=job.state.value, reason=job.reason, receipt=job.receipt,
        countersignature=job.countersignature, ended=job.ended, per_mille=job.per_mille,
        verdicts=[VerdictKept(validator, verdict) for validator, verdict in job.verdicts.items()],
        drawn_by=job.drawn_by, ruled=job.ruled, passed=job.passed,
        attempts=[
            AttemptKept(
                each.number, each.worker, each.host, each.port, each.reservation, each.digest, each.expires,
                each.resumed, each.reserved, each.failure,
            )
            for each in job.attempts
        ],
    )  # fmt: skip


def restored(each: JobKept) -> Job:
    """A job as the state holds it. Raises `Malformed` for a state that no job has."""
    try:
        state = JobState(each.state)
    except ValueError as error:
        raise Malformed(f"not a job as it is kept: {error}") from None
    return Job(
        id=each.job, gateway=each.gateway, tenant=each.tenant, model=each.model, model_digest=each.model_digest,
        request_digest=each.request_digest, tokens_max=each.tokens_max, tenant_seed=each.tenant_seed, seed=each.seed,
        seed_proof=each.seed_proof, deadline=each.deadline, sandbox_min=each.sandbox_min, execution=each.execution,
        task=each.task, state=state, reason=each.reason, receipt=each.receipt,
        countersignature=each.countersignature, ended=each.ended, per_mille=each.per_mille,
        verdicts={given.validator: given.verdict for given in each.verdicts}, drawn_by=each.drawn_by,
        ruled=each.ruled, passed=each.passed,
        attempts=[
            Attempt(
                attempt.number, attempt.worker, attempt.host, attempt.port, attempt.reservation, attempt.digest,
                attempt.expires, attempt.resumed, attempt.reserved, attempt.failure,
            )
            for attempt in each.attempts
        ],
    )  # fmt: skip


def put(state: State, job: Job) -> None:
    """Have the state know a job that it did not know."""
    if not job.is_open:
        state.ended[job.id] = job
        return
    state.open[job.id] = job
    if job.attempts and not job.attempt.failure:
        state.busy.setdefault((job.attempt.worker, job.model_digest), {})[job.id] = job.attempt.reserved
