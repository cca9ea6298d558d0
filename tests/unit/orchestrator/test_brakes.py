"""A worker that fails gets no work for a while, whole pools are never put out, and retries do not multiply."""

import pytest

from haif.base import limits
from haif.base.errors import EngineDied, NoWorker, Overloaded, Timeout
from haif.base.ids import ModelDigest
from haif.orchestrator.events import JobFailed
from haif.protocol.jobs import FailJob, RetryJob
from tests.unit.orchestrator.scene import ANNE, BOB, CLEO, MODEL, WORKERS, Desk, ending, submission, ticket


def worker_of(desk: Desk, job: int) -> bytes:
    return ticket(desk.submit(submission(job))).worker


def make_fail(desk: Desk, worker: bytes, times: int, reason: str = "engine_died") -> None:
    """Jobs that fail on `worker`, until it has failed so often; those that fall to others go well."""
    job = len(desk.happened) + 1000
    while times:
        job += 1
        placed = desk.submit(submission(job))
        if ticket(placed).worker == worker:
            desk.fail(FailJob(submission(job).job, 1, reason))
            times -= 1
        else:
            desk.finalise(ending(placed))


def keep_alive(desk: Desk, *workers: bytes) -> None:
    for worker in workers or WORKERS:
        desk.beat(worker)


def test_h_d2_a_worker_that_fails_is_passed_over_then_probed_then_used_again() -> None:
    desk = Desk().staffed()
    make_fail(desk, ANNE, limits.BREAKER_FAILURES_IN_A_ROW)
    assert ANNE not in {worker_of(desk, job) for job in range(30)}
    desk.seconds += limits.BREAKER_OPEN_SECONDS
    keep_alive(desk)
    for job in list(desk.state.open):
        desk.fail(FailJob(job, 1, "cancelled"))
    probes = [
        placed for placed in (desk.submit(submission(job)) for job in range(100, 112)) if ticket(placed).worker == ANNE
    ]
    assert len(probes) == 1
    desk.finalise(ending(probes[0]))
    assert ANNE in {worker_of(desk, job) for job in range(200, 212)}


@pytest.mark.parametrize("reason", ["cancelled", "invalid_request", "context_too_long", "overloaded", "timeout"])
def test_what_is_not_the_workers_fault_opens_nothing(reason: str) -> None:
    desk = Desk().staffed()
    make_fail(desk, ANNE, 2 * limits.BREAKER_FAILURES_IN_A_ROW, reason)
    assert desk.fleet.brakes.open_count(desk.now.instant) == 0


def test_a_tenant_that_gives_no_time_opens_nothing() -> None:
    desk = Desk().staffed()
    for job in range(40):
        desk.submit(submission(job, deadline_ms=1))
        desk.seconds += 0.01
        with pytest.raises(Timeout):
            desk.retry(RetryJob(submission(job).job, 1, "timeout"))
    assert desk.fleet.brakes.open_count(desk.now.instant) == 0


def test_h_d2_whatever_is_said_half_of_the_workers_go_on_working() -> None:
    desk = Desk().staffed()
    for worker in WORKERS:
        make_fail(desk, worker, limits.BREAKER_FAILURES_IN_A_ROW)
    ejected = desk.fleet.brakes.ejected([(worker, MODEL) for worker in WORKERS], desk.now.instant)
    assert len(ejected) == 1
    assert desk.fleet.brakes.ejected([(ANNE, MODEL)], desk.now.instant) == frozenset()
    desk.submit(submission(1))


def test_a_breaker_is_of_one_model() -> None:
    desk = Desk().staffed()
    make_fail(desk, ANNE, limits.BREAKER_FAILURES_IN_A_ROW)
    other = ModelDigest(b"q" * 32)
    assert desk.fleet.brakes.ejected([(w, other) for w in WORKERS], desk.now.instant) == frozenset()  # type: ignore[misc]


def test_a_worker_that_takes_four_times_the_usual_time_is_as_bad_as_one_that_fails() -> None:
    desk = Desk().staffed()
    receipt_tokens = 16
    for job in range(200):
        placed = desk.submit(submission(job))
        slow = ticket(placed).worker == ANNE and job > 60
        desk.seconds += 10.0 if slow else 1.0
        keep_alive(desk)
        desk.finalise(ending(placed, tokens=receipt_tokens))
        if desk.fleet.brakes.open_count(desk.now.instant):
            break
    assert desk.fleet.brakes.ejected([(w, MODEL) for w in WORKERS], desk.now.instant) == {(ANNE, MODEL)}  # type: ignore[misc]


def test_a_lost_attempt_is_a_hint_until_the_worker_is_heard() -> None:
    desk = Desk().staffed()
    lost = ticket(desk.submit(submission(1))).worker
    desk.retry(RetryJob(submission(1).job, 1, "connection_lost"))
    assert lost not in {worker_of(desk, job) for job in range(10, 40)}
    for job in list(desk.state.open):
        desk.fail(FailJob(job, desk.state.open[job].attempt.number, "cancelled"))
    desk.beat(lost)
    assert lost in {worker_of(desk, job) for job in range(50, 80)}


def test_a_worker_whose_session_ended_gets_no_work_until_it_is_heard() -> None:
    desk = Desk().staffed(ANNE)
    desk.fleet.lost(ANNE)
    with pytest.raises(NoWorker):
        desk.submit(submission(1))
    desk.beat(ANNE)
    desk.submit(submission(1))


def test_h_d3_an_outage_is_not_multiplied_by_retries() -> None:
    desk = Desk().staffed()
    retries = 0
    for job in range(2000):
        desk.submit(submission(job))
        try:
            desk.retry(RetryJob(submission(job).job, 1, "engine_died"))
            retries += 1
            desk.fail(FailJob(submission(job).job, 2, "cancelled"))
        except Overloaded:
            pass
    assert retries <= limits.RETRIES_AT_ONCE_MAX + limits.RETRY_SHARE * 2000
    desk.seconds += 1.0
    keep_alive(desk)
    desk.submit(submission(5000))
    desk.retry(RetryJob(submission(5000).job, 1, "engine_died"))


def test_h_d3_a_job_that_kills_engines_gets_no_more_of_them() -> None:
    desk = Desk().staffed()
    desk.submit(submission(1))
    for attempt in range(1, limits.POISON_DEATHS):
        desk.retry(RetryJob(submission(1).job, attempt, "engine_died"))
    with pytest.raises(EngineDied, match="engines died"):
        desk.retry(RetryJob(submission(1).job, limits.POISON_DEATHS, "engine_died"))
    assert desk.happened[-1] == JobFailed(submission(1).job, "engine_died", desk.wall)


def test_whoever_would_wait_too_long_is_told_at_once_when_to_come_back() -> None:
    desk = Desk().staffed(ANNE, slots=1)
    for job in range(3):
        placed = desk.submit(submission(job))
        desk.seconds += 2.0
        desk.finalise(ending(placed))
        desk.beat(ANNE, slots=1)
    desk.submit(submission(10))
    desk.submit(submission(11))
    with pytest.raises(Overloaded, match="about 4 s") as caught:
        desk.submit(submission(12, deadline_ms=3000))
    assert caught.value.retry_after == pytest.approx(4.0)
    desk.submit(submission(12, deadline_ms=5000))


def test_the_memories_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BREAKERS_MAX", 2)
    monkeypatch.setattr(limits, "RETRY_BUDGETS_MAX", 1)
    desk = Desk().staffed()
    for worker in (ANNE, BOB, CLEO):
        make_fail(desk, worker, 1)
    assert len(desk.fleet.brakes._breakers) == 2
    assert len(desk.fleet.brakes._budgets) == 1
