"""What an orchestrator tells validators, and which of their words it takes."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from msgspec import structs

from haif.base import limits
from haif.base.clock import WallTime
from haif.base.errors import BadProof, BadSignature, Equivocated, Expired, Forbidden, Malformed, NoWorker, WrongState
from haif.base.hashing import digest
from haif.base.ids import Digest, JobId, PeerId
from haif.identity.keys import Identity
from haif.identity.signing import Domain, evidence_digest, seal
from haif.orchestrator import audits, decide, events
from haif.orchestrator.apply import apply, fold
from haif.orchestrator.events import VerdictGiven
from haif.orchestrator.snapshots import parts, take
from haif.orchestrator.standings import Standings
from haif.orchestrator.state import Job, State
from haif.proof import lottery
from haif.protocol.audits import CONVICTED, HONEST, UNDECIDED, Judge, Reveal, Taken, Verdict
from haif.protocol.jobs import FinaliseJob
from haif.protocol.receipts import Countersignature
from tests.unit.orchestrator.scene import ANNE, BOB, GATEWAY, ORCHESTRATOR, Desk, receipt, submission, ticket

VALIDATOR, OTHER = Identity(b"v" * 32), Identity(b"w" * 32)
TRUSTED = frozenset({VALIDATOR.peer})
ROOT, WORK = Digest(b"r" * 32), Digest(b"l" * 32)


def finish(
    desk: Desk, job: int = 1, *, auditable: bool = True, root: Digest | None = ROOT, trusted: Any = TRUSTED
) -> Job:
    """A job that ended, and may be audited unless said otherwise."""
    placed = desk.submit(submission(job))
    evidence = receipt(placed, transcript=root)
    hand = Countersignature(ticket(placed).job, evidence_digest(evidence), auditable)
    request = FinaliseJob(ticket(placed).job, evidence, seal(GATEWAY, Domain.COUNTERSIGNATURE, hand))
    desk.carry_out(decide.finalise(desk.state, request, GATEWAY.peer, past=None, now=desk.wall, validators=trusted))
    ended = desk.state.find(ticket(placed).job)
    assert ended is not None
    return ended


def verdict(job: Job, finding: str = HONEST, cause: str = "", **changed: Any) -> Verdict:
    computed = finding != UNDECIDED
    fields: dict[str, Any] = {
        "orchestrator": ORCHESTRATOR.peer, "job": job.id, "receipt": evidence_digest(job.receipt),
        "worker": job.attempt.worker, "model": job.model_digest, "finding": finding, "cause": cause, "place": 0,
        "engine": "an engine" if computed else "", "transcript": ROOT if computed else None,
        "work": WORK if computed else None,
        "epoch": lottery.epoch_of(job.ended), "judged": job.ended,
    }  # fmt: skip
    return Verdict(**(fields | changed))


def judge(desk: Desk, said: Verdict, by: Identity = VALIDATOR) -> object:
    request = Judge(seal(by, Domain.VERDICT, said))
    return desk.carry_out(audits.judge(desk.state, request, by.peer, orchestrator=ORCHESTRATOR.peer, now=desk.wall))


def test_ended_jobs_are_listed_with_their_evidence_from_where_the_validator_stands() -> None:
    desk = Desk().staffed()
    jobs = [finish(desk, number) for number in (1, 2, 3)]
    told = audits.ended(desk.state, 1, VALIDATOR.peer)
    assert [job.receipt for job in jobs[1:]] == [each.receipt for each in told.jobs]
    assert 3 == told.next
    assert (jobs[1].attempt.reservation, jobs[1].countersignature, jobs[1].ended, 1000) == (
        told.jobs[0].reservation, told.jobs[0].countersignature, told.jobs[0].at, told.jobs[0].per_mille,
    )  # fmt: skip
    assert ([], 3) == ((last := audits.ended(desk.state, 3, VALIDATOR.peer)).jobs, last.next)
    assert 3 == audits.ended(desk.state, 1 << 40, VALIDATOR.peer).next


def test_a_long_list_comes_in_parts_and_jobs_that_were_forgotten_do_not_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "AUDITS_LISTED_MAX", 2)
    desk = Desk(state=State(ended_max=3)).staffed()
    jobs = [finish(desk, number) for number in range(1, 6)]
    first = audits.ended(desk.state, 0, VALIDATOR.peer)
    assert [job.receipt for job in jobs[2:4]] == [each.receipt for each in first.jobs]
    second = audits.ended(desk.state, first.next, VALIDATOR.peer)
    assert ([jobs[4].receipt], 5) == ([each.receipt for each in second.jobs], second.next)


@pytest.mark.parametrize("how", [{"auditable": False}, {"root": None}, {"trusted": frozenset()}])
def test_what_the_gateway_keeps_to_itself_or_nobody_could_compare_is_not_listed(how: dict[str, Any]) -> None:
    desk = Desk().staffed()
    job = finish(desk, **how)
    assert [] == audits.ended(desk.state, 0, VALIDATOR.peer).jobs
    with pytest.raises(WrongState, match="no job here that could be audited"):
        judge(desk, verdict(job))


def test_a_verdict_counts_once_and_the_same_again_is_answered_again() -> None:
    desk = Desk().staffed()
    job = finish(desk)
    for _ in range(2):
        assert Taken() == judge(desk, verdict(job))
    assert Taken() == judge(desk, verdict(job, judged=job.ended + 1))
    assert 1 == len(desk.state.ended[job.id].verdicts)
    assert [] == audits.ended(desk.state, 0, VALIDATOR.peer).jobs, "what was judged is not told again"
    assert 1 == len(audits.ended(desk.state, 0, OTHER.peer).jobs)
    assert 1 == desk.state.standings.of(job.attempt.worker, TRUSTED).known(desk.wall)


def test_x_6_a_validator_that_says_two_things_of_one_receipt_is_refused() -> None:
    desk = Desk().staffed()
    job = finish(desk)
    judge(desk, verdict(job))
    with pytest.raises(Equivocated):
        judge(desk, verdict(job, CONVICTED, "tokens"))
    assert not desk.state.standings.of(job.attempt.worker, TRUSTED).is_out(desk.wall)


@pytest.mark.parametrize(
    "changed",
    [
        {"orchestrator": OTHER.peer}, {"receipt": Digest(bytes(32))}, {"worker": OTHER.peer},
        {"model": digest("another", b"")}, {"epoch": 1},
    ],
    ids=lambda changed: next(iter(changed)),
)  # fmt: skip
def test_x_6_a_verdict_about_another_receipt_is_refused(changed: dict[str, Any]) -> None:
    desk = Desk().staffed()
    job = finish(desk)
    with pytest.raises(BadSignature, match="another receipt"):
        judge(desk, verdict(job, CONVICTED, "tokens", **changed))


def test_x_6_a_verdict_that_another_signed_or_about_ones_own_work_is_refused() -> None:
    desk = Desk().staffed()
    job = finish(desk)
    request = Judge(seal(OTHER, Domain.VERDICT, verdict(job)))
    with pytest.raises(BadSignature, match="signed by"):
        audits.judge(desk.state, request, VALIDATOR.peer, orchestrator=ORCHESTRATOR.peer, now=desk.wall)
    with pytest.raises(BadSignature, match="its own work"):
        judge(desk, verdict(job, worker=VALIDATOR.peer))
    with pytest.raises(Forbidden, match="not a validator"):
        audits.check_validator(OTHER.peer, TRUSTED)


@pytest.mark.parametrize(
    ("finding", "cause", "changed"),
    [
        ("guilty", "", {}), (HONEST, "tokens", {}), (CONVICTED, "", {}), (CONVICTED, "payload", {}),
        (UNDECIDED, "tokens", {}), (UNDECIDED, "payload", {"transcript": ROOT}), (HONEST, "", {"transcript": None}),
        (UNDECIDED, "payload", {"work": WORK}), (HONEST, "", {"work": None}),
        (HONEST, "", {"engine": ""}), (CONVICTED, "tokens", {"place": -1}),
    ],
)  # fmt: skip
def test_a_verdict_that_no_validator_can_mean_is_refused(finding: str, cause: str, changed: dict[str, Any]) -> None:
    desk = Desk().staffed()
    job = finish(desk)
    with pytest.raises(Malformed):
        judge(desk, verdict(job, finding, cause, **changed))


def test_a_verdict_from_before_its_job_or_from_the_future_is_refused() -> None:
    desk = Desk().staffed()
    job = finish(desk)
    for judged in (job.ended - limits.CLOCK_SKEW_MS - 1, job.ended + limits.CLOCK_SKEW_MS + 1):
        with pytest.raises(Expired):
            judge(desk, verdict(job, judged=judged))


def test_a_verdict_about_a_job_that_nobody_knows_or_that_is_not_over_is_refused() -> None:
    desk = Desk().staffed()
    placed = desk.submit(submission(1))
    known = desk.state.find(ticket(placed).job)
    assert known is not None
    for job in (replace(known, id=JobId(b"?" * 16)), known):
        with pytest.raises(WrongState):
            judge(desk, verdict(job))


def test_a_convicted_worker_is_out_of_placement_and_after_a_restart_too() -> None:
    desk = Desk().staffed(ANNE)
    judge(desk, verdict(finish(desk), CONVICTED, "tokens"))
    again = fold(State(ended_max=100), map(events.encode, desk.happened))
    for state in (desk.state, again):
        assert [ANNE] == list(state.standings.out(TRUSTED, desk.wall))
        desk.fleet.out = frozenset(state.standings.out(TRUSTED, desk.wall))
        with pytest.raises(NoWorker):
            desk.submit(submission(2))


def test_a_snapshot_keeps_what_was_said_and_revealed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SNAPSHOT_PART_JOBS", 2)
    desk = Desk().staffed()
    for number in range(1, 6):
        judge(desk, verdict(finish(desk, number), *((HONEST, "") if number % 2 else (CONVICTED, "text"))))
    job = finish(desk, 6)
    for name in range(9):  # more workers than jobs
        desk.state.standings.learn(given(PeerId(bytes([name]) * 32), HONEST))
    desk.state.revealed[VALIDATOR.peer] = 7
    made = State(ended_max=100)
    for part in parts(desk.state):
        take(made, part)
    assert desk.state == made
    assert job.per_mille == made.ended[job.id].per_mille > 0


def test_x_6_what_a_validator_said_counts_for_nothing_once_it_is_not_trusted_any_more() -> None:
    desk = Desk().staffed()
    job = finish(desk)
    judge(desk, verdict(job, CONVICTED, "tokens"))
    assert [] == list(desk.state.standings.out({OTHER.peer}, desk.wall))
    assert 1000 == desk.state.standings.of(job.attempt.worker, {OTHER.peer}).per_mille(desk.wall)


def test_what_was_left_undecided_moves_nothing() -> None:
    desk = Desk().staffed()
    job = finish(desk)
    judge(desk, verdict(job, UNDECIDED, "recipe"))
    assert 0 == desk.state.standings.of(job.attempt.worker, TRUSTED).known(desk.wall)


def test_a_worker_that_passed_many_audits_is_audited_more_rarely() -> None:
    desk = Desk().staffed(ANNE)
    for number in range(1, 101):
        judge(desk, verdict(finish(desk, number)))
    assert 250 == finish(desk, 101).per_mille


def given(worker: PeerId, finding: str, at: int = 1) -> VerdictGiven:
    return VerdictGiven(JobId(bytes(16)), VALIDATOR.peer, worker, finding, "", b"", at)


def test_a_crowd_of_newcomers_washes_no_conviction_away() -> None:
    standings = Standings(most=3)
    for worker, finding in (
        (BOB, CONVICTED), (ANNE, HONEST), *((PeerId(bytes([n]) * 32), HONEST) for n in range(10, 30)),
    ):  # fmt: skip
        standings.learn(given(worker, finding))
    assert [BOB] == list(standings.out(TRUSTED, 2))
    assert 0 == standings.of(ANNE, TRUSTED).known(1)


# --- what a validator reveals -----------------------------------------------------------------------------------------


def later(desk: Desk) -> WallTime:
    """When the draw of this epoch may be shown."""
    return WallTime((lottery.epoch_of(desk.wall) + 2) * limits.AUDIT_EPOCH_MS)


def revealed(desk: Desk, alter: Callable[[Reveal], Reveal] = lambda said: said) -> Any:
    epoch = lottery.epoch_of(desk.wall)
    proof, _ = lottery.draw(VALIDATOR, ORCHESTRATOR.peer, epoch)
    return audits.reveal(
        desk.state, alter(Reveal(epoch, proof)), VALIDATOR.peer, orchestrator=ORCHESTRATOR.peer, now=later(desk)
    )


def test_a_draw_that_is_shown_tells_what_was_left_out() -> None:
    """Everything of a newcomer had to be audited: one was, two were not; what its gateway kept was nobody's duty."""
    desk = Desk().staffed()
    for number in (1, 2, 3):
        job = finish(desk, number)
    finish(desk, 4, auditable=False)
    judge(desk, verdict(job))
    event, reckoning = revealed(desk)
    assert audits.Reckoning(drawn=3, missed=2, undrawn=0) == reckoning
    apply(desk.state, event)
    assert revealed(desk) is None
    assert lottery.epoch_of(desk.wall) == fold(State(1), [events.encode(event)]).revealed[VALIDATOR.peer]


def test_verdicts_about_what_was_not_drawn_are_counted() -> None:
    desk = Desk().staffed()
    job = finish(desk)
    judge(desk, verdict(job))
    job.per_mille = 1  # as if it had been drawn that rarely
    _, reckoning = revealed(desk)
    assert audits.Reckoning(drawn=0, missed=0, undrawn=1) == reckoning


def test_a_validator_that_withholds_its_draws_is_counted_and_not_for_the_time_before_us() -> None:
    desk = Desk()
    start, epoch = desk.wall, lottery.epoch_of(desk.wall)
    late = WallTime((epoch + limits.DRAWS_WITHHELD_MAX + 2) * limits.AUDIT_EPOCH_MS)
    assert [] == audits.withheld(desk.state, TRUSTED, start, WallTime(late - 1))
    assert [] == audits.withheld(desk.state, TRUSTED, late, late)
    assert [*TRUSTED] == audits.withheld(desk.state, TRUSTED, start, late)
    desk.state.revealed[VALIDATOR.peer] = epoch + 1
    assert [] == audits.withheld(desk.state, TRUSTED, start, late)


def test_of_a_worker_that_was_convicted_nothing_more_needs_to_be_said() -> None:
    desk = Desk().staffed(ANNE)
    first, _ = finish(desk, 1), finish(desk, 2)
    judge(desk, verdict(first, CONVICTED, "tokens"))
    _, reckoning = revealed(desk)
    assert audits.Reckoning(drawn=1, missed=0, undrawn=0) == reckoning


def test_a_draw_that_is_false_or_too_early_is_refused() -> None:
    desk = Desk().staffed()
    with pytest.raises(BadProof):
        revealed(desk, lambda said: structs.replace(said, proof=bytes(80)))
    with pytest.raises(WrongState, match="a secret"):
        revealed(desk, lambda said: structs.replace(said, epoch=said.epoch + 1))
    with pytest.raises(WrongState, match="a secret"):
        revealed(desk, lambda said: structs.replace(said, epoch=-1))
