"""What an orchestrator does with one validator's word: a panel decides, and who lied is not believed any more."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from msgspec import structs

from haif.base import limits
from haif.base.clock import WallTime
from haif.base.errors import BadProof, Expired, Forbidden, Malformed, NoWorker, Overloaded, Oversize, WrongState
from haif.base.hashing import digest
from haif.base.ids import JobId, PeerId
from haif.identity.keys import Identity
from haif.identity.signing import Domain, evidence_digest, open_sealed, seal
from haif.orchestrator import audits, events
from haif.orchestrator.apply import apply, fold
from haif.orchestrator.events import PanelRuled, VerdictGiven
from haif.orchestrator.panels import Panels
from haif.orchestrator.snapshots import parts, take
from haif.orchestrator.standings import PANEL
from haif.orchestrator.state import Job, State
from haif.proof import committee
from haif.proof.committee import Elector
from haif.proof.ruling import check_ruling
from haif.protocol.audits import CONVICTED, HONEST, RECIPE, UNDECIDED, Commit, Ruling, Verdict, open_verdict
from tests.unit.orchestrator.scene import ANNE, BOB, CLEO, ORCHESTRATOR, Desk, submission, ticket
from tests.unit.orchestrator.test_audits import WORK, finish, judge, verdict

VALIDATORS = {each.peer: each for each in (Identity(bytes([n]) * 32) for n in range(20, 29))}
NAMES = tuple(VALIDATORS)
ROSTER = tuple(Elector(peer) for peer in NAMES)
Says = Callable[[PeerId, Job], Verdict | None]


def guilty(_: PeerId, job: Job) -> Verdict:
    return verdict(job, CONVICTED, "tokens")


def honest(_: PeerId, job: Job) -> Verdict:
    return verdict(job)


def all_but(liars: int, truth: Says, lie: Says) -> Says:
    """The first so many validators lie."""
    return lambda peer, job: (lie if peer in NAMES[:liars] else truth)(peer, job)


@dataclass
class Court:
    """An orchestrator's desk, its panels, and nine validators."""

    desk: Desk = field(default_factory=lambda: Desk().staffed())
    panels: Panels = field(default_factory=lambda: Panels(ORCHESTRATOR, ROSTER))
    ruled: list[PanelRuled] = field(default_factory=list)
    absent: tuple[PeerId, ...] = ()

    @property
    def believed(self) -> frozenset[PeerId]:
        return self.desk.state.standings.believed(NAMES, self.desk.wall)

    def accuse(self, job: Job, by: PeerId, *, alarm: bool = True) -> bool:
        judge(self.desk, verdict(job, *((CONVICTED, "tokens") if alarm else (HONEST, ""))), VALIDATORS[by])
        return self.panels.call(job, by, self.believed, self.desk.wall, alarm=alarm)

    def sit(self, says: Says) -> PanelRuled | None:
        """Everybody who has a seat commits and shows, once; what the panel came to, if it is over."""
        found = {peer: (each, self.panels.summons(peer, self.desk.wall)) for peer, each in VALIDATORS.items()}
        sealed: dict[PeerId, bytes] = {}
        for peer, (identity, seats) in found.items():
            for seat in seats:
                job = next(j for j in self.desk.state.ended.values() if j.receipt == seat.receipt)
                if (said := says(peer, job)) is not None:
                    sealed[peer] = seal(identity, Domain.VERDICT, said)
                    commitment = Commit(evidence_digest(seat.receipt), evidence_digest(sealed[peer]))
                    self.panels.commit(commitment, peer, self.desk.wall)
        seated = {peer for peer, (_, seats) in found.items() if seats}
        if seated - {*sealed}:
            self.desk.seconds += limits.PANEL_COMMIT_MS / 1000  # for those who say nothing
        for peer, evidence in sealed.items():
            if any(seat.shows for seat in self.panels.summons(peer, self.desk.wall)):
                self.panels.show(evidence, peer, self.desk.wall)
        return self.rule()

    def rule(self) -> PanelRuled | None:
        before = len(self.ruled)
        for event, absent in self.panels.ruled(self.desk.wall):
            self.absent = absent
            apply(self.desk.state, event)
            self.ruled.append(event)
        return self.ruled[-1] if len(self.ruled) > before else None

    def out(self) -> set[PeerId]:
        return {*self.desk.state.standings.out({PANEL}, self.desk.wall)} | self.panels.aside()


def test_n_3_one_lying_validator_keeps_nobody_out_and_is_not_believed_again() -> None:
    court = Court()
    job, liar = finish(court.desk), NAMES[0]
    assert court.accuse(job, liar)
    assert {job.attempt.worker} == court.out(), "until the panel has looked"
    ruled = court.sit(all_but(1, honest, guilty))
    assert ruled is not None
    assert (HONEST, (liar,)) == (ruled.finding, ruled.refuted)
    assert set() == court.out()
    assert {*NAMES[1:]} == court.believed
    assert 0 == court.panels.count


@pytest.mark.parametrize("liars", range(4))
def test_x_6_liars_up_to_a_third_neither_acquit_a_cheat_nor_convict_the_honest(liars: int) -> None:
    """Three of nine: what they are too many to hide stays undecided, and is never turned around."""
    for accuser, truth, lie, wrong in ((NAMES[-1], guilty, honest, HONEST), (NAMES[0], honest, guilty, CONVICTED)):
        court = Court()
        court.accuse(finish(court.desk), accuser)
        says = all_but(liars, truth, lie)
        ruled = court.sit(says) or court.sit(says)
        assert ruled is not None
        assert ruled.finding != wrong
        assert liars == 3 or ruled.finding != UNDECIDED
        assert all(peer in NAMES[: max(liars, 1)] for peer in ruled.refuted)


def test_four_of_five_convict_and_the_ruling_is_evidence_for_everybody() -> None:
    court = Court()
    job = finish(court.desk)
    court.accuse(job, NAMES[8])
    ruled = court.sit(all_but(1, guilty, honest))
    assert ruled is not None
    assert CONVICTED == ruled.finding
    ruling, signers = check_ruling(ruled.ruling, ORCHESTRATOR.peer)
    assert (job.id, job.attempt.worker, 5) == (ruling.payload.job, ruling.payload.worker, ruling.payload.seats)
    assert 4 <= len(signers) <= 5
    assert NAMES[8] not in signers
    assert ([ruled.ruling], ruled.at) == audits.rulings(court.desk.state, 0)
    assert ([], ruled.at) == audits.rulings(court.desk.state, ruled.at)
    assert {job.attempt.worker} == court.out()


def altered(alter: Callable[[Ruling], Any]) -> bytes:
    court = Court()
    court.accuse(finish(court.desk), NAMES[8])
    ruled = court.sit(guilty)
    assert ruled is not None
    said = open_sealed(Ruling, Domain.RULING, ruled.ruling).payload
    return seal(ORCHESTRATOR, Domain.RULING, structs.replace(said, **alter(said)))


@pytest.mark.parametrize(
    "alter",
    [
        lambda said: {"verdicts": said.verdicts[:3]}, lambda said: {"verdicts": []},
        lambda said: {"verdicts": [*said.verdicts[:3], said.verdicts[0]]}, lambda said: {"finding": HONEST},
        lambda said: {"worker": BOB if said.worker != BOB else ANNE}, lambda said: {"proof": bytes(80)},
        lambda said: {"receipt": digest("another", b"")}, lambda said: {"pool": said.pool[:6]},
        lambda said: {"pool": [*said.pool, said.pool[0]]}, lambda said: {"seats": 3, "verdicts": said.verdicts[:3]},
        lambda said: {"pool": [structs.replace(each, weight=0) for each in said.pool]},
        lambda said: {"pool": [structs.replace(each, weight=1 + 9 * (n < 3)) for n, each in enumerate(said.pool)]},
    ],
    ids=["three", "none", "one twice", "another finding", "another worker", "no proof", "another receipt",
         "another pool", "one twice in the pool", "a small panel", "no weight", "a pool that a third can carry"],
)  # fmt: skip
def test_n_3_a_ruling_without_a_quorum_of_those_that_were_drawn_is_refused(alter: Callable[[Ruling], Any]) -> None:
    with pytest.raises(BadProof):
        check_ruling(altered(alter))


def test_a_ruling_that_no_panel_can_make_is_refused_before_anything_is_counted() -> None:
    with pytest.raises(Oversize):
        check_ruling(altered(lambda said: {
            "pool": [structs.replace(said.pool[0], peer=PeerId(bytes([n]) * 32)) for n in range(65)]
        }))  # fmt: skip
    with pytest.raises(Malformed):
        check_ruling(b"\xd2nothing")


def test_where_the_first_panel_comes_to_nothing_everybody_sits_and_then_it_is_over() -> None:
    court = Court()
    job = finish(court.desk)
    court.accuse(job, NAMES[0])
    assert court.sit(lambda *_: None) is None
    assert 8 == sum(bool(court.panels.summons(peer, court.desk.wall)) for peer in NAMES)
    ruled = court.sit(lambda _, job: verdict(job, UNDECIDED, "payload"))
    assert ruled is not None
    assert (UNDECIDED, b"", ()) == (ruled.finding, ruled.ruling, ruled.refuted)
    assert () == court.absent
    assert set() == court.out(), "nobody is kept out on one word"
    assert {*NAMES} == court.believed
    assert 1000 == court.desk.state.standings.of(job.attempt.worker, court.believed).per_mille(court.desk.wall)


def test_x_6_who_accuses_in_vain_sets_the_same_worker_aside_only_once() -> None:
    court = Court(Desk().staffed(ANNE))
    court.accuse(finish(court.desk, 1), NAMES[0])
    court.sit(lambda *_: None)
    court.sit(lambda *_: None)
    assert {*NAMES[1:]} == {*court.absent}
    assert court.accuse(finish(court.desk.staffed(ANNE), 2), NAMES[0])
    assert set() == court.out()
    court.sit(lambda *_: None)
    court.sit(lambda *_: None)
    assert court.accuse(finish(court.desk.staffed(ANNE), 3), NAMES[1])
    assert {ANNE} == court.out()


def test_x_6_a_validator_sets_no_more_than_two_workers_aside_at_once() -> None:
    court, jobs = Court(), dict[PeerId, Job]()
    for number in range(1, 40):
        job = finish(court.desk, number)
        jobs.setdefault(job.attempt.worker, job)
    for worker in (ANNE, BOB):
        court.panels.check_room(NAMES[0], worker)
        assert court.accuse(jobs[worker], NAMES[0])
    court.panels.check_room(NAMES[0], ANNE)  # nothing new about her
    with pytest.raises(Overloaded, match="accuse again"):
        court.panels.check_room(NAMES[0], CLEO)
    court.panels.check_room(NAMES[1], CLEO)
    assert not court.accuse(finish(court.desk, 50), NAMES[1]) or court.panels.aside() <= {ANNE, BOB, CLEO}


def test_nobody_sits_who_accused_was_refuted_or_belongs_to_the_workers_owner() -> None:
    roster = tuple(Elector(peer, owner="ada" if peer == NAMES[2] else "") for peer in NAMES)
    court = Court(Desk().staffed(ANNE), Panels(ORCHESTRATOR, roster, {ANNE: "ada"}))
    court.desk.state.standings.refuted[NAMES[1]] = court.desk.wall
    court.accuse(finish(court.desk), NAMES[0])
    court.sit(lambda *_: None)
    seated = {peer for peer in NAMES if court.panels.summons(peer, court.desk.wall)}
    assert {*NAMES[3:]} == seated


def test_where_too_few_are_left_no_panel_sits_and_nobody_is_kept_out() -> None:
    court = Court()
    for peer in NAMES[5:]:
        court.desk.state.standings.refuted[peer] = court.desk.wall
    assert not court.accuse(finish(court.desk), NAMES[0])
    assert set() == court.out()


# --- who signs without looking ----------------------------------------------------------------------------------------


def invented(_: PeerId, job: Job) -> Verdict:
    return verdict(job, work=digest("whatever", b""))


def test_x_6_a_validator_that_signs_honest_without_looking_is_found_at_the_first_second_look() -> None:
    """The root stands in the receipt, for anybody to copy; the logits under it are known to who computed them."""
    court = Court()
    job, lazy = finish(court.desk), NAMES[0]
    judge(court.desk, invented(lazy, job), VALIDATORS[lazy])
    assert court.panels.call(job, lazy, court.believed, court.desk.wall, alarm=False)
    assert set() == court.out(), "nobody accused the worker"
    ruled = court.sit(honest)
    assert ruled is not None
    assert (HONEST, (lazy,)) == (ruled.finding, ruled.refuted)
    assert 0 == court.desk.state.standings.of(job.attempt.worker, court.believed).known(court.desk.wall)


def test_n_3_a_validator_that_calls_a_lie_honest_is_found_with_the_liar() -> None:
    court = Court()
    job, friend = finish(court.desk), NAMES[0]
    court.accuse(job, friend, alarm=False)
    ruled = court.sit(guilty)
    assert ruled is not None
    assert (CONVICTED, (friend,)) == (ruled.finding, ruled.refuted)
    assert {job.attempt.worker} == court.out()
    with pytest.raises(BadProof, match="a panel found"):
        judge(court.desk, verdict(job), VALIDATORS[NAMES[1]])


def test_x_6_a_member_that_does_not_look_is_found_by_the_others() -> None:
    court = Court()
    court.accuse(finish(court.desk), NAMES[8])
    ruled = court.sit(lambda peer, job: invented(peer, job) if peer in NAMES[:1] else honest(peer, job))
    ruled = ruled or court.sit(lambda peer, job: invented(peer, job) if peer in NAMES[:1] else honest(peer, job))
    assert ruled is not None
    assert {NAMES[8]} <= {*ruled.refuted} <= {NAMES[8], NAMES[0]}


def test_what_nobody_doubts_is_looked_at_as_often_as_the_limit_says(monkeypatch: pytest.MonkeyPatch) -> None:
    court = Court()
    job = finish(court.desk)
    for per_mille, looks in ((0, False), (1000, True)):
        monkeypatch.setattr(limits, "PANEL_LOOK_PER_MILLE", per_mille)
        assert looks is court.panels.looks_at(job)
    monkeypatch.setattr(limits, "PANELS_OPEN_MAX", 0)
    assert not court.panels.looks_at(job)


# --- what members may not do, and what is kept ------------------------------------------------------------------------


def test_a_finding_about_another_job_or_of_no_panel_is_refused() -> None:
    court = Court()
    first, second = finish(court.desk, 1), finish(court.desk, 2)
    court.accuse(first, NAMES[0])
    member = next(peer for peer in NAMES if court.panels.summons(peer, court.desk.wall))
    with pytest.raises(WrongState, match="no panel sits"):
        court.panels.commit(Commit(evidence_digest(second.receipt), WORK), member, court.desk.wall)
    false = seal(VALIDATORS[member], Domain.VERDICT, verdict(first, CONVICTED, "tokens", worker=PeerId(b"?" * 32)))
    with pytest.raises(WrongState, match="another receipt"):
        court.panels.show(false, member, court.desk.wall)


def test_what_panels_found_survives_a_restart_and_a_snapshot(monkeypatch: pytest.MonkeyPatch) -> None:
    court = Court()
    job = finish(court.desk)
    court.accuse(job, NAMES[0], alarm=False)
    ruled = court.sit(guilty)
    assert ruled is not None
    again = fold(State(ended_max=100), map(events.encode, [*court.desk.happened, ruled]))
    made = State(ended_max=100)
    for part in parts(court.desk.state):
        take(made, part)
    for state in (again, made):
        assert [job.attempt.worker] == list(state.standings.out({PANEL}, court.desk.wall))
        assert {*NAMES[1:]} == state.standings.believed(NAMES, court.desk.wall)
        assert CONVICTED == state.ended[job.id].ruled
    monkeypatch.setattr(limits, "RULINGS_KEPT_MAX", 0)
    apply(court.desk.state, ruled)
    assert ([], 0) == audits.rulings(court.desk.state, 0)


def test_what_a_panel_refuted_counts_again_after_as_long_as_a_conviction() -> None:
    court = Court()
    court.desk.state.standings.refuted[NAMES[0]] = court.desk.wall
    later = WallTime(court.desk.wall + limits.CONVICTION_DAYS * 86_400_000)
    assert NAMES[0] not in court.desk.state.standings.believed(NAMES, WallTime(later - 1))
    assert NAMES[0] in court.desk.state.standings.believed(NAMES, later)


def test_the_same_panel_is_drawn_whatever_the_accuser_says() -> None:
    court = Court()
    job = finish(court.desk)
    receipt = evidence_digest(job.receipt)
    _, output = committee.draw(ORCHESTRATOR, receipt)
    pool = committee.eligible(ROSTER, {NAMES[0]})
    court.accuse(job, NAMES[0])
    seated = {peer for peer in NAMES if court.panels.summons(peer, court.desk.wall)}
    assert {*committee.members(output, pool, 5)} == seated


# --- who cannot be compared -------------------------------------------------------------------------------------------


def unlike(desk: Desk, worker: PeerId, *by: PeerId, times: int = limits.RECIPE_UNDECIDED_MAX) -> None:
    """These validators could not compare so many answers of this worker."""
    for peer in by:
        for _ in range(times):
            desk.state.standings.learn(VerdictGiven(JobId(bytes(16)), peer, worker, UNDECIDED, RECIPE, b"", desk.wall))


def test_a_worker_whose_recipe_nobody_has_gets_only_what_need_not_be_checked() -> None:
    """Until then it stayed a newcomer for ever, whose answers were all drawn and never judged."""
    desk = Desk().staffed(ANNE)
    unlike(desk, ANNE, *NAMES[:3])
    assert set() == desk.state.standings.incomparable(NAMES, 3, desk.wall), "three of nine may lie"
    unlike(desk, ANNE, NAMES[3], times=limits.RECIPE_UNDECIDED_MAX - 1)
    assert set() == desk.state.standings.incomparable(NAMES, 3, desk.wall)
    unlike(desk, ANNE, NAMES[3], times=1)
    desk.fleet.strange = desk.state.standings.incomparable(NAMES, 3, desk.wall)
    assert {ANNE} == desk.fleet.strange
    with pytest.raises(NoWorker, match="by a recipe that no validator here has"):
        desk.submit(submission(1))
    with pytest.raises(NoWorker, match="in a program that is not ours"):
        desk.submit(submission(1, execution="unverifiable"))
    assert ANNE == ticket(desk.submit(submission(1, execution="any"))).worker


def test_it_is_tried_again_after_an_hour_or_once_somebody_could_compare() -> None:
    desk = Desk().staffed()
    unlike(desk, ANNE, NAMES[0])
    unlike(desk, BOB, NAMES[0])
    assert {ANNE, BOB} == desk.state.standings.incomparable(NAMES, 0, desk.wall)
    desk.state.standings.learn(VerdictGiven(JobId(bytes(16)), NAMES[1], BOB, HONEST, "", b"", desk.wall))
    assert {ANNE} == desk.state.standings.incomparable(NAMES, 0, desk.wall)
    desk.seconds += limits.RECIPE_AGAIN_SECONDS
    assert set() == desk.state.standings.incomparable(NAMES, 0, desk.wall)
    unlike(desk, ANNE, NAMES[0], times=1)
    assert set() == desk.state.standings.incomparable(NAMES, 0, desk.wall), "it begins anew"


# --- what other orchestrators make of it ------------------------------------------------------------------------------


def convicted() -> PanelRuled:
    court = Court()
    court.accuse(finish(court.desk), NAMES[8])
    ruled = court.sit(guilty)
    assert ruled is not None
    return ruled


def shared(desk: Desk, evidence: bytes, ours: int = 9) -> PanelRuled | None:
    """What an orchestrator makes of it that knows the last so many of the validators."""
    roster = ROSTER[9 - ours :]
    return audits.share(
        desk.state, evidence, NAMES[8], believed={each.peer for each in roster}, roster=roster, now=desk.wall
    )


def test_a_conviction_holds_with_every_orchestrator_that_knows_enough_of_who_signed() -> None:
    ruled, desk = convicted(), Desk()
    event = shared(desk, ruled.ruling)
    assert event is not None
    assert (CONVICTED, ruled.worker, ruled.ruling) == (event.finding, event.worker, event.ruling)
    apply(desk.state, event)
    assert [ruled.worker] == list(desk.state.standings.out({PANEL}, desk.wall))
    assert ([ruled.ruling], desk.wall) == audits.rulings(desk.state, 0), "it tells it on"
    assert shared(desk, ruled.ruling) is None


def test_x_6_a_ruling_that_too_few_of_ours_signed_is_not_believed() -> None:
    """One of those that signed must be one who does not lie, by what we think of ours; strangers count for nothing."""
    ruling, signers = check_ruling(convicted().ruling)
    ours = [Elector(peer) for peer in (*signers[:1], *(PeerId(bytes([n]) * 32) for n in range(60, 65)))]
    for roster, believed in ((ours, {each.peer for each in ours}), (ROSTER, {*signers[:3]}), ((), set[PeerId]())):
        with pytest.raises(Forbidden, match="would have to be"):
            audits.share(
                State(1), ruling.evidence, NAMES[8], believed=believed, roster=roster, now=WallTime(ruling.payload.at)
            )
    alone = audits.share(
        State(1), ruling.evidence, NAMES[8], believed={signers[0]}, roster=(), now=WallTime(ruling.payload.at)
    )
    assert alone is not None, "where each convicts alone, one is enough"


def test_a_ruling_of_another_time_or_that_clears_somebody_is_not_told_on() -> None:
    ruled, desk = convicted(), Desk()
    for seconds in (-limits.CLOCK_SKEW_MS / 1000 - 1, limits.CONVICTION_DAYS * 86_400 + 1):
        desk.seconds = seconds
        with pytest.raises(Expired):
            shared(desk, ruled.ruling)
    said = open_sealed(Ruling, Domain.RULING, ruled.ruling).payload
    verdicts = [open_verdict(each) for each in said.verdicts]
    cleared = [
        seal(VALIDATORS[each.signer], Domain.VERDICT, structs.replace(each.payload, finding=HONEST, cause=""))
        for each in verdicts
    ]  # fmt: skip
    honest = seal(ORCHESTRATOR, Domain.RULING, structs.replace(said, finding=HONEST, verdicts=cleared))
    with pytest.raises(WrongState, match="only convictions"):
        shared(Desk(), honest)


def test_an_answer_that_two_validators_find_honest_makes_its_worker_known_by_one() -> None:
    desk = Desk().staffed()
    job = finish(desk)
    for peer in NAMES[:3]:
        judge(desk, verdict(job), VALIDATORS[peer])
    assert 1 == desk.state.standings.of(job.attempt.worker, NAMES).known(desk.wall)
    judge(desk, verdict(job, CONVICTED, "tokens"), VALIDATORS[NAMES[3]])
    assert desk.state.standings.of(job.attempt.worker, NAMES).is_out(desk.wall)
