"""What follows from each request, as values: no wire, no disk, no clock."""

from collections import Counter

import pytest
from msgspec import structs

from haif.base import limits
from haif.base.errors import (
    BadSignature,
    Forbidden,
    HaifError,
    InvalidRequest,
    Malformed,
    NoWorker,
    Overloaded,
    Reason,
    Timeout,
    UnknownModel,
    Unsupported,
    WrongState,
)
from haif.base.hashing import digest
from haif.base.ids import Digest, JobId, ModelDigest, Seed
from haif.base.tasks import Task, bits_of
from haif.orchestrator import decide
from haif.orchestrator.events import AttemptFailed, AttemptReserved, JobFailed, JobFinalised, JobSubmitted
from haif.orchestrator.state import JobState
from haif.protocol.jobs import FailJob, Finalised, FinaliseJob, RetryJob
from haif.protocol.reach import Place
from tests.unit.orchestrator.scene import (
    ANNE,
    BOB,
    CLEO,
    FULL,
    GATEWAY,
    MODEL,
    ORCHESTRATOR,
    OTHER_GATEWAY,
    REDUCED,
    REQUEST,
    WORKERS,
    Desk,
    ending,
    offer,
    receipt,
    submission,
    ticket,
)

JOB = submission().job

# --- submit -----------------------------------------------------------------------------------------------------------


def test_a_job_is_placed_with_a_sealed_ticket() -> None:
    desk = Desk().staffed(ANNE)
    placed = desk.submit(submission())
    stated = ticket(placed)
    assert (placed.place, placed.certificate) == (Place((("127.0.0.1", 4000),)), b"a certificate")
    assert (stated.job, stated.attempt, stated.gateway, stated.worker) == (JOB, 1, GATEWAY.peer, ANNE)
    assert (stated.model, stated.request_digest, stated.tokens_max) == (MODEL, REQUEST, 16)
    assert stated.expires - stated.issued == limits.RESERVATION_TTL_MS
    assert stated.deadline - stated.issued == 60_000
    assert [type(event) for event in desk.happened] == [JobSubmitted, AttemptReserved]


def test_a_ticket_never_outlives_its_job() -> None:
    stated = ticket(Desk().staffed().submit(submission(deadline_ms=500)))
    assert stated.expires == stated.deadline == stated.issued + 500


def test_no_job_lives_longer_than_the_limit() -> None:
    stated = ticket(Desk().staffed().submit(submission(deadline_ms=1 << 60)))
    assert stated.deadline - stated.issued == limits.CALL_SECONDS_MAX * 1000


@pytest.mark.parametrize("given", [0, 7, -1, (1 << 63) - 1, -(1 << 63)])
def test_a_tenants_seed_decides_the_seed(given: int) -> None:
    stated = ticket(Desk().staffed().submit(submission(tenant_seed=given)))
    assert stated.seed == Seed(digest("haif v1 seed", (given % (1 << 64)).to_bytes(8, "little")))


def test_without_a_tenants_seed_every_job_has_its_own() -> None:
    desk = Desk().staffed()
    assert ticket(desk.submit(submission(1))).seed != ticket(desk.submit(submission(2))).seed


def test_asking_twice_gives_the_same_ticket() -> None:
    desk = Desk().staffed()
    first = desk.submit(submission())
    desk.pass_time(5)
    assert desk.submit(submission(deadline_ms=55_000)) == first
    assert len(desk.happened) == 2


@pytest.mark.parametrize(("asked", "operator"), [("full", "none"), ("none", "full"), ("full", "full")])
def test_a_demand_for_a_jail_holds_for_every_attempt(asked: str, operator: str) -> None:
    desk = Desk().staffed(ANNE, sandbox=REDUCED).staffed(BOB, CLEO, sandbox=FULL)
    first = ticket(desk.submit(submission(sandbox_min=asked), sandbox_min=operator))
    second = ticket(desk.retry(RetryJob(JOB, 1, "timeout")))
    assert {first.worker, second.worker} == {BOB, CLEO}
    third = ticket(desk.retry(RetryJob(JOB, 2, "timeout")))
    assert third.worker == first.worker  # rather one that failed before than one without such a jail


def test_a_demand_for_an_execution_holds_for_every_attempt_and_only_ours_go_on_after_tokens() -> None:
    desk = Desk().staffed(ANNE, CLEO).staffed(BOB, verifiable=False)
    assert ticket(desk.submit(submission(2, execution="unverifiable"))).worker == BOB
    first = ticket(desk.submit(submission()))
    second = ticket(desk.retry(RetryJob(JOB, 1, "timeout")))
    assert {first.worker, second.worker} == {ANNE, CLEO}
    desk = Desk().staffed(ANNE, BOB, verifiable=False).staffed(CLEO)
    desk.submit(submission(execution="any"))
    assert ticket(desk.retry(RetryJob(JOB, 1, "timeout", 3))).worker == CLEO
    with pytest.raises(InvalidRequest, match="verifiable, any, unverifiable"):
        desk.submit(submission(3, execution="perhaps"))


def test_a_demand_that_is_no_level_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="none, reduced, full"):
        Desk().staffed().submit(submission(sandbox_min="dungeon"))


@pytest.mark.parametrize(
    "changed",
    [{"tenant": "bea"}, {"request_digest": Digest(bytes(32))}, {"tokens_max": 17}, {"tenant_seed": 1}, {"model": "x"}],
)
def test_a_job_id_is_not_used_twice(changed: dict[str, object]) -> None:
    desk = Desk().staffed()
    desk.submit(submission())
    with pytest.raises(WrongState, match="used before"):
        desk.submit(submission(**changed))


def test_a_ticket_that_expired_is_not_given_again() -> None:
    desk = Desk().staffed()
    desk.submit(submission())
    desk.pass_time(limits.RESERVATION_TTL_MS / 1000)
    with pytest.raises(WrongState, match="no longer valid"):
        desk.submit(submission())


def test_a_job_that_ended_is_not_placed_again_even_when_forgotten() -> None:
    desk = Desk().staffed()
    desk.finalise(ending(desk.submit(submission())))
    with pytest.raises(WrongState, match="no longer valid"):
        desk.submit(submission())
    past = desk.state.ended.pop(JOB)
    with pytest.raises(WrongState, match="no longer valid"):
        decide.submit(
            desk.state, desk.fleet, submission(), GATEWAY.peer, past=past, catalogue={}, identity=ORCHESTRATOR,
            now=desk.now, entropy=desk.entropy,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"tokens_max": 0}, InvalidRequest),
        ({"tokens_max": limits.COMPLETION_TOKENS_MAX + 1}, InvalidRequest),
        ({"tenant": ""}, InvalidRequest),
        ({"tenant": "x" * (limits.TENANT_NAME_CHARS_MAX + 1)}, InvalidRequest),
        ({"tenant_seed": 1 << 63}, InvalidRequest),
        ({"prefixes": [b"8 bytes."] * 9}, InvalidRequest),
        ({"prefixes": [b"7 bytes"]}, InvalidRequest),
        ({"deadline_ms": 0}, Timeout),
        ({"deadline_ms": -5}, Timeout),
        ({"task": Task.EMBED, "tokens_max": 1}, InvalidRequest),
        ({"task": Task.EMBED, "tokens_max": 0}, Unsupported),
    ],
)
def test_what_cannot_be_is_refused(changed: dict[str, object], error: type[HaifError]) -> None:
    desk = Desk().staffed()
    with pytest.raises(error):
        desk.submit(submission(**changed))
    assert desk.happened == []


def test_an_unknown_model_is_refused_with_the_names_that_exist() -> None:
    with pytest.raises(UnknownModel, match="no model 'huge'; there is: tiny") as caught:
        Desk().staffed().submit(submission(model="huge"))
    assert Reason.UNKNOWN_MODEL is caught.value.reason


def test_without_a_live_worker_nothing_is_taken_on() -> None:
    desk = Desk()
    with pytest.raises(NoWorker) as caught:
        desk.submit(submission())
    assert caught.value.retry_after == limits.HEARTBEAT_SECONDS
    assert desk.state.open == {}


def test_the_number_of_open_jobs_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "JOBS_OPEN_MAX", 2)
    desk = Desk().staffed()
    first = desk.submit(submission(1))
    desk.submit(submission(2))
    with pytest.raises(Overloaded):
        desk.submit(submission(3))
    assert desk.submit(submission(1)) == first  # asking again about an open one takes no room
    desk.finalise(ending(first))
    desk.submit(submission(3))


def test_a_burst_between_heartbeats_is_shared_evenly() -> None:
    desk = Desk().staffed(ANNE, BOB)
    taken = Counter(ticket(desk.submit(submission(n))).worker for n in range(60))
    assert taken == {ANNE: 30, BOB: 30}


def test_more_slots_take_more_of_a_burst() -> None:
    desk = Desk().staffed(ANNE, BOB)
    desk.beat(BOB, slots=12)
    taken = Counter(ticket(desk.submit(submission(n))).worker for n in range(64))
    assert taken == {ANNE: 16, BOB: 48}


def test_the_end_of_a_job_makes_room_at_its_worker() -> None:
    desk = Desk().staffed(ANNE, BOB)
    placed = [desk.submit(submission(n)) for n in range(8)]
    for each in placed:
        if ticket(each).worker == ANNE:
            desk.finalise(ending(each))
    assert {ticket(desk.submit(submission(n))).worker for n in range(100, 104)} == {ANNE}


# --- retry ------------------------------------------------------------------------------------------------------------


def test_the_next_attempt_is_elsewhere_with_the_same_seed_and_deadline() -> None:
    desk = Desk().staffed()
    first = ticket(desk.submit(submission()))
    second = ticket(desk.retry(RetryJob(JOB, 1, "connection_lost")))
    third = ticket(desk.retry(RetryJob(JOB, 2, "engine_died")))
    assert {first.worker, second.worker, third.worker} == set(WORKERS)
    assert [first.attempt, second.attempt, third.attempt] == [1, 2, 3]
    assert len({(each.seed, each.deadline, each.request_digest) for each in (first, second, third)}) == 1
    assert [a.failure for a in desk.state.open[JOB].attempts] == ["connection_lost", "engine_died", ""]


def test_after_the_last_attempt_the_job_fails_for_good() -> None:
    desk = Desk().staffed()
    desk.submit(submission())
    for attempt in range(1, limits.ATTEMPTS_MAX):
        desk.retry(RetryJob(JOB, attempt, "timeout"))
    with pytest.raises(NoWorker, match=f"{limits.ATTEMPTS_MAX} attempts were made"):
        desk.retry(RetryJob(JOB, limits.ATTEMPTS_MAX, "timeout"))
    assert desk.happened[-1] == JobFailed(JOB, "no_worker", desk.wall)
    assert desk.state.ended[JOB].state is JobState.FAILED
    assert desk.state.busy == {}


def test_who_failed_before_may_try_again_where_all_were_tried_but_not_who_failed_just_now() -> None:
    desk = Desk().staffed(ANNE, BOB)
    tickets = [ticket(desk.submit(submission()))]
    tickets += [ticket(desk.retry(RetryJob(JOB, attempt, "timeout", attempt))) for attempt in (1, 2, 3)]
    assert len({tickets[0].worker, tickets[1].worker}) == 2
    assert [each.worker for each in tickets[2:]] == [tickets[0].worker, tickets[1].worker]
    assert [each.resumed for each in tickets] == [0, 1, 2, 3]


def test_an_attempt_goes_on_after_so_many_tokens_and_its_receipt_says_so() -> None:
    desk = Desk().staffed()
    desk.submit(submission())
    second = desk.retry(RetryJob(JOB, 1, "connection_lost", 5))
    assert desk.retry(RetryJob(JOB, 1, "connection_lost", 5)) == second
    with pytest.raises(WrongState, match="another number of tokens"):
        desk.retry(RetryJob(JOB, 1, "connection_lost", 4))
    with pytest.raises(BadSignature):
        desk.finalise(ending(second, receipt(second, resumed=0)))
    with pytest.raises(BadSignature, match="counts tokens"):
        desk.finalise(ending(second, receipt(second, completion_tokens=4)))
    desk.finalise(ending(second))
    assert desk.state.ended[JOB].attempt.resumed == 5


@pytest.mark.parametrize("tokens", [-1, 17])
def test_nobody_holds_more_tokens_than_were_asked_for(tokens: int) -> None:
    desk = Desk().staffed()
    desk.submit(submission())
    with pytest.raises(InvalidRequest):
        desk.retry(RetryJob(JOB, 1, "timeout", tokens))


def test_without_another_worker_the_job_fails_for_good() -> None:
    desk = Desk().staffed(ANNE)
    desk.submit(submission())
    with pytest.raises(NoWorker, match="no other live worker"):
        desk.retry(RetryJob(JOB, 1, "timeout"))
    assert [type(event) for event in desk.happened[2:]] == [AttemptFailed, JobFailed]


def test_a_retry_after_the_deadline_fails_for_good() -> None:
    desk = Desk().staffed()
    desk.submit(submission(deadline_ms=1000))
    desk.seconds += 1
    with pytest.raises(Timeout):
        desk.retry(RetryJob(JOB, 1, "timeout"))
    assert desk.state.ended[JOB].reason == "timeout"


def test_asking_twice_for_a_retry_gives_the_same_ticket() -> None:
    desk = Desk().staffed()
    desk.submit(submission())
    second = desk.retry(RetryJob(JOB, 1, "timeout"))
    assert desk.retry(RetryJob(JOB, 1, "timeout")) == second
    assert len(desk.state.open[JOB].attempts) == 2


@pytest.mark.parametrize("attempt", [-1, 0, 2, 3])
def test_only_the_latest_attempt_can_be_retried_or_failed(attempt: int) -> None:
    desk = Desk().staffed()
    desk.submit(submission())
    for request in (RetryJob(JOB, attempt, "timeout"), FailJob(JOB, attempt, "timeout")):
        with pytest.raises(WrongState) as caught:
            (desk.retry if isinstance(request, RetryJob) else desk.fail)(request)  # type: ignore[operator]
        assert Reason.WRONG_STATE is caught.value.reason
    assert len(desk.happened) == 2


@pytest.mark.parametrize("reason", ["", "Hello world", "x" * 41, "tell me a story", "naïve"])
def test_a_reason_is_a_word_and_never_a_text(reason: str) -> None:
    desk = Desk().staffed()
    desk.submit(submission())
    with pytest.raises(InvalidRequest):
        desk.retry(RetryJob(JOB, 1, reason))
    with pytest.raises(InvalidRequest):
        desk.fail(FailJob(JOB, 1, reason))


# --- the end ----------------------------------------------------------------------------------------------------------


def test_a_receipt_with_its_countersignature_ends_the_job() -> None:
    desk = Desk().staffed(ANNE)
    message = ending(desk.submit(submission()))
    assert desk.finalise(message) == Finalised(JOB)
    view = desk.state.ended[JOB].view()
    assert (view.state, view.worker, view.attempts) == ("finalised", ANNE, 1)
    assert (view.receipt, view.countersignature) == (message.receipt, message.countersignature)
    assert desk.state.open == desk.state.busy == {}


def test_the_same_end_twice_is_one_end() -> None:
    desk = Desk().staffed()
    message = ending(desk.submit(submission()))
    desk.finalise(message)
    assert desk.finalise(message) == Finalised(JOB)
    assert sum(isinstance(event, JobFinalised) for event in desk.happened) == 1


def test_another_receipt_after_the_end_is_refused() -> None:
    desk = Desk().staffed()
    placed = desk.submit(submission())
    desk.finalise(ending(placed))
    with pytest.raises(WrongState, match="over"):
        desk.finalise(ending(placed, receipt(placed, completion_tokens=6)))


@pytest.mark.parametrize(
    "changed",
    [
        {"job": JobId(bytes(16))}, {"attempt": 2}, {"gateway": OTHER_GATEWAY.peer}, {"reservation": Digest(bytes(32))},
        {"request": Digest(bytes(32))}, {"model": ModelDigest(bytes(32))}, {"completion_tokens": 17},
        {"completion_tokens": -1}, {"prompt_tokens": -1},
    ],
)  # fmt: skip
def test_a_receipt_for_anything_else_is_refused(changed: dict[str, object]) -> None:
    desk = Desk().staffed()
    placed = desk.submit(submission())
    with pytest.raises(BadSignature):
        desk.finalise(ending(placed, receipt(placed, **changed)))
    assert JOB in desk.state.open


def test_a_receipt_of_a_worker_that_was_not_reserved_is_refused() -> None:
    desk = Desk().staffed(ANNE)
    placed = desk.submit(submission())
    with pytest.raises(BadSignature):
        desk.finalise(ending(placed, receipt(placed, by=WORKERS[BOB])))


def test_a_countersignature_must_be_the_gateways_own_and_under_this_receipt() -> None:
    desk = Desk().staffed()
    placed = desk.submit(submission())
    with pytest.raises(BadSignature):
        desk.finalise(ending(placed, by=OTHER_GATEWAY))
    other = ending(placed, receipt(placed, completion_tokens=4))
    with pytest.raises(BadSignature, match="another receipt"):
        desk.finalise(FinaliseJob(JOB, receipt(placed), other.countersignature))
    with pytest.raises(Malformed):
        desk.finalise(FinaliseJob(JOB, b"", other.countersignature))


def test_a_receipt_of_an_attempt_that_was_given_up_is_refused() -> None:
    desk = Desk().staffed()
    first = desk.submit(submission())
    desk.retry(RetryJob(JOB, 1, "timeout"))
    with pytest.raises(BadSignature):
        desk.finalise(ending(first))


def test_a_failed_job_stays_failed() -> None:
    desk = Desk().staffed()
    placed = desk.submit(submission())
    assert desk.fail(FailJob(JOB, 1, "cancelled")) == Finalised(JOB)
    assert desk.fail(FailJob(JOB, 1, "cancelled")) == Finalised(JOB)
    assert desk.state.ended[JOB].view().reason == "cancelled"
    with pytest.raises(WrongState):
        desk.finalise(ending(placed))
    with pytest.raises(WrongState):
        desk.retry(RetryJob(JOB, 1, "timeout"))
    assert sum(isinstance(event, JobFailed) for event in desk.happened) == 1


def test_a_finalised_job_cannot_fail() -> None:
    desk = Desk().staffed()
    desk.finalise(ending(desk.submit(submission())))
    with pytest.raises(WrongState, match="has an answer"):
        desk.fail(FailJob(JOB, 1, "cancelled"))


def test_another_gateways_job_is_out_of_reach() -> None:
    desk = Desk().staffed()
    placed = desk.submit(submission())
    attempts = [
        lambda: desk.submit(submission(), OTHER_GATEWAY),
        lambda: desk.retry(RetryJob(JOB, 1, "timeout"), OTHER_GATEWAY),
        lambda: desk.finalise(ending(placed), OTHER_GATEWAY),
        lambda: desk.fail(FailJob(JOB, 1, "timeout"), OTHER_GATEWAY),
    ]
    for attempt in attempts:
        with pytest.raises(Forbidden) as caught:
            attempt()
        assert Reason.FORBIDDEN is caught.value.reason
    assert len(desk.happened) == 2


def test_there_is_nothing_to_do_about_a_job_that_does_not_exist() -> None:
    desk = Desk().staffed()
    placed = Desk().staffed(CLEO).submit(submission())
    for attempt in (
        lambda: desk.retry(RetryJob(JOB, 1, "timeout")),
        lambda: desk.finalise(ending(placed)),
        lambda: desk.fail(FailJob(JOB, 1, "timeout")),
    ):
        with pytest.raises(WrongState, match="no such job"):
            attempt()


# --- time -------------------------------------------------------------------------------------------------------------


def test_a_job_without_an_end_fails_after_its_deadline_and_a_grace() -> None:
    desk = Desk().staffed()
    desk.submit(submission(1, deadline_ms=10_000))
    desk.submit(submission(2, deadline_ms=90_000))
    desk.pass_time(10 + limits.FINALISE_GRACE_MS / 1000 - 0.001)
    assert len(desk.state.open) == 2
    desk.pass_time(0.001)
    assert desk.state.ended[JOB].reason == "timeout"
    assert len(desk.state.open) == 1


def test_an_answer_that_came_just_in_time_may_be_reported_within_the_grace() -> None:
    desk = Desk().staffed()
    placed = desk.submit(submission(deadline_ms=1000))
    desk.pass_time(1.5)
    assert desk.finalise(ending(placed)) == Finalised(JOB)


def test_the_ended_jobs_kept_in_memory_are_bounded() -> None:
    desk = Desk().staffed()
    desk.state.ended_max = 3
    for n in range(5):
        desk.finalise(ending(desk.submit(submission(n))))
    assert list(desk.state.ended) == [submission(n).job for n in (2, 3, 4)]
    assert desk.state.forgotten == 2


def test_a_job_for_vectors_goes_only_to_workers_that_make_them_at_every_attempt() -> None:
    desk = Desk().staffed(ANNE, BOB, CLEO)
    for worker in (BOB, CLEO):
        desk.fleet.offered(worker, structs.replace(offer(), tasks=bits_of({Task.EMBED})))
    first = ticket(desk.submit(submission(task=Task.EMBED, tokens_max=0)))
    second = ticket(desk.retry(RetryJob(JOB, 1, "timeout")))
    assert {first.worker, second.worker} == {BOB, CLEO}
    assert (first.tokens_max, desk.state.open[JOB].task) == (0, Task.EMBED)
    assert ticket(desk.retry(RetryJob(JOB, 2, "timeout"))).worker == first.worker
