"""How events fold into the state: in place, in constant time, and the same way live and from the journal."""

from __future__ import annotations

from collections.abc import Iterable

from haif.base import limits
from haif.base.ids import JobId
from haif.orchestrator.events import (
    AttemptFailed,
    AttemptReserved,
    Entry,
    JobArrived,
    JobFailed,
    JobFinalised,
    JobLeft,
    JobSubmitted,
    LotteryRevealed,
    PanelRuled,
    PauseOrdered,
    StateKept,
    VerdictGiven,
    decode,
)
from haif.orchestrator.keeping import put, restored
from haif.orchestrator.state import Attempt, Job, JobState, State
from haif.protocol.audits import HONEST


def apply(state: State, event: Entry) -> None:
    """Take in what happened. The event must fit the state, as those that decisions return do."""
    match event:
        case JobSubmitted():
            _submitted(state, event)
        case AttemptReserved():
            _reserved(state, event)
        case AttemptFailed():
            _attempt_failed(state, event)
        case JobFinalised():
            job = _end(state, event, JobState.FINALISED)
            job.receipt, job.countersignature = event.receipt, event.countersignature
            job.per_mille = event.per_mille
        case JobFailed():
            _end(state, event, JobState.FAILED).reason = event.reason
        case VerdictGiven():
            _judged(state, event)
        case LotteryRevealed():
            state.revealed[event.validator] = max(event.epoch, state.revealed.get(event.validator, 0))
        case PanelRuled():
            _ruled(state, event)
        case JobLeft():
            _release(state, state.open.pop(event.job))
        case JobArrived():
            assert state.find(event.job) is None, "a job is in one journal at a time"
            job = restored(event.kept)
            job.drawn_by = job.drawn_by or event.left
            put(state, job)
        case StateKept() | PauseOrdered():
            pass  # of no job


def withdraw(state: State, job: JobId) -> None:
    """Forget a job that was submitted here and is another's: nothing of it was ever told."""
    _release(state, (state.open if job in state.open else state.ended).pop(job))


def fold(state: State, entries: Iterable[bytes]) -> State:
    """The same state, after the events of these journal entries. Raises `Malformed` for one that is none."""
    for entry in entries:
        apply(state, decode(entry))
    return state


def _submitted(state: State, event: JobSubmitted) -> None:
    assert state.find(event.job) is None, "a job is submitted once"
    state.open[event.job] = Job(
        id=event.job, gateway=event.gateway, tenant=event.tenant, model=event.model, model_digest=event.model_digest,
        request_digest=event.request_digest, tokens_max=event.tokens_max, tenant_seed=event.tenant_seed,
        seed=event.seed, seed_proof=event.seed_proof, deadline=event.deadline, sandbox_min=event.sandbox_min,
        execution=event.execution, task=event.task,
    )  # fmt: skip


def _reserved(state: State, event: AttemptReserved) -> None:
    job = state.open[event.job]
    assert event.attempt == len(job.attempts) + 1, "attempts are numbered from 1, without gaps"
    attempt = Attempt(
        number=event.attempt, worker=event.worker, host=event.host, port=event.port,
        reservation=event.reservation, digest=event.digest, expires=event.expires,
        resumed=event.resumed, reserved=event.at,
    )  # fmt: skip
    job.attempts.append(attempt)
    state.busy.setdefault((event.worker, job.model_digest), {})[job.id] = event.at


def _attempt_failed(state: State, event: AttemptFailed) -> None:
    job = state.open[event.job]
    assert event.attempt == job.attempt.number, "only the latest attempt can fail"
    job.attempt.failure = event.reason
    _release(state, job)


def _end(state: State, event: JobFinalised | JobFailed, how: JobState) -> Job:
    job = state.open.pop(event.job)
    _release(state, job)
    job.state, job.ended = how, event.at
    state.ended[job.id] = job
    while len(state.ended) > state.ended_max:
        state.ended.popitem(last=False)
        state.forgotten += 1
    return job


def _judged(state: State, event: VerdictGiven) -> None:
    job = state.find(event.job)
    if event.finding != HONEST or job is None or not job.passed:
        state.standings.learn(event)
    if job is not None:  # else it was forgotten since, and is read back from the journal
        job.verdicts[event.validator] = event.verdict
        job.passed = job.passed or event.finding == HONEST


def _ruled(state: State, event: PanelRuled) -> None:
    state.standings.rule(event)
    job = state.find(event.job)
    if job is not None:
        job.ruled = event.finding
    if event.ruling:
        state.rulings[event.job] = event.at, event.ruling
        if len(state.rulings) > limits.RULINGS_KEPT_MAX:
            state.rulings.popitem(last=False)


def _release(state: State, job: Job) -> None:
    """The job's worker is no longer busy with it."""
    if not job.attempts:
        return
    post = (job.attempt.worker, job.model_digest)
    jobs = state.busy.get(post, {})
    jobs.pop(job.id, None)
    if not jobs:
        state.busy.pop(post, None)
