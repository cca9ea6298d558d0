"""What the orchestrator tells validators, and which of their words it takes.

It lists the jobs whose gateway signed that they may be audited and whose worker committed to its logits, with the
chance that each is drawn with. A verdict counts if it is a known validator's, about a receipt that was listed, and its
first about it. Whether it is true the orchestrator cannot see, for it has no request: it believes a panel of them
(`orchestrator.panels`), or, if its operator says so, each. When a validator reveals its draw, what it should have
audited and did not is counted.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from itertools import islice

from haif.base import limits
from haif.base.clock import WallTime
from haif.base.errors import BadProof, BadSignature, Equivocated, Expired, Forbidden, WrongState
from haif.base.ids import PeerId
from haif.identity.signing import Verified, evidence_digest
from haif.orchestrator.decide import Decision
from haif.orchestrator.events import LotteryRevealed, PanelRuled, VerdictGiven
from haif.orchestrator.standings import PANEL
from haif.orchestrator.state import Job, JobState, State
from haif.proof.committee import Roster, liars
from haif.proof.lottery import check_draw, epoch_of, is_drawn, may_reveal
from haif.proof.ruling import check_ruling
from haif.proof.standing import DAY_MS
from haif.protocol.audits import (
    CONVICTED,
    HONEST,
    UNDECIDED,
    Ended,
    EndedJob,
    Judge,
    Reveal,
    Taken,
    Verdict,
    gist,
    open_verdict,
)


def ended(state: State, after: int, validator: PeerId) -> Ended:
    """The ended jobs from number `after` on that may be drawn, but for those that this validator has judged.

    Jobs that the state forgot are not told any more.
    """
    start = max(0, after - state.forgotten)
    listed: list[EndedJob] = []
    for number, job in enumerate(islice(state.ended.values(), start, None), state.forgotten + start):
        if len(listed) == limits.AUDITS_LISTED_MAX:
            return Ended(listed, number)
        if job.per_mille and validator not in job.verdicts:
            listed.append(
                EndedJob(job.attempt.reservation, job.receipt, job.countersignature, job.ended, job.per_mille)
            )
    return Ended(listed, state.forgotten + len(state.ended))


def judge(state: State, request: Judge, validator: PeerId, *, orchestrator: PeerId, now: WallTime) -> Decision:
    """Take a verdict down. One that says the same again is answered again, and the first stands.

    Raises `Malformed`, `Oversize` or `BadSignature` for one that does not hold, `WrongState` for one about a job that
    was not listed, `Expired` for one of another time, `BadProof` for one that a panel refuted, and `Equivocated` for a
    second one about the same receipt.
    """
    verdict = open_verdict(request.verdict, validator)
    said = verdict.payload
    job = state.find(said.job)
    if job is None or job.state is not JobState.FINALISED or not job.per_mille:
        raise WrongState("there is no job here that could be audited by this name, or not any more", validator)
    known = job.verdicts.get(validator)
    _check_subject(job, verdict, orchestrator)
    if known is not None:
        if gist(open_verdict(known).payload) == gist(said):
            return Decision((), Taken())
        raise Equivocated("a validator says one thing about a receipt, and then another", validator)
    if not job.ended - limits.CLOCK_SKEW_MS <= said.judged <= now + limits.CLOCK_SKEW_MS:
        raise Expired("the verdict is older than the end of its job, or from the future; check both clocks", validator)
    if job.ruled in {HONEST, CONVICTED} - {said.finding} and said.finding != UNDECIDED:
        raise BadProof(f"a panel found this worker {job.ruled}", validator)
    event = VerdictGiven(
        job=job.id, validator=validator, worker=job.attempt.worker, finding=said.finding, cause=said.cause,
        verdict=request.verdict, at=now,
    )  # fmt: skip
    return Decision((event,), Taken())


def rulings(state: State, since: int) -> tuple[list[bytes], int]:
    """Some rulings that convict, which came after that moment (ms), oldest first; and when the last of them came."""
    found = [(at, sealed) for at, sealed in state.rulings.values() if at > since][: limits.PANELS_LISTED_MAX]
    return [sealed for _, sealed in found], found[-1][0] if found else since


def share(
    state: State, evidence: bytes, carrier: PeerId, *, believed: Collection[PeerId], roster: Roster, now: WallTime
) -> PanelRuled | None:
    """What follows from another orchestrator's ruling; None where nothing does, for it is known.

    It is believed if more of our own validators signed it than we think may lie: one of them then does not, and it
    computed the answer. Whose panel it was, and who carries it, does not matter. Raises `Forbidden` where too few of
    ours did, `Expired` for one that is too old or from the future, and as `check_ruling` does.
    """
    ruling, signers = check_ruling(evidence)
    said = ruling.payload
    if said.finding != CONVICTED:
        raise WrongState("only convictions are told on", carrier)
    if not now - limits.CONVICTION_DAYS * DAY_MS <= said.at <= now + limits.CLOCK_SKEW_MS:
        raise Expired("the ruling is too old, or from the future; check both clocks", carrier)
    ours, most = len({*signers} & {*believed}), liars(each.weight for each in roster)
    if ours <= most:
        raise Forbidden(f"{ours} of the validators that signed the ruling are ours, and {most + 1} would have to be")
    if said.job in state.rulings or state.standings.of(said.worker, {PANEL}).is_out(now):
        return None
    return PanelRuled(said.job, said.worker, CONVICTED, evidence, (), now)


def _check_subject(job: Job, verdict: Verified[Verdict], orchestrator: PeerId) -> None:
    said = verdict.payload
    if (said.orchestrator, said.receipt, said.worker, said.model, said.epoch) != (
        orchestrator, evidence_digest(job.receipt), job.attempt.worker, job.model_digest, epoch_of(job.ended),
    ):  # fmt: skip
        raise BadSignature("the verdict is about another receipt than this job's", verdict.signer)


@dataclass(frozen=True, slots=True)
class Reckoning:
    """Of the receipts of an epoch that are remembered: how many had to be audited, were not, or were for no reason."""

    drawn: int
    missed: int
    undrawn: int


def reveal(
    state: State, request: Reveal, validator: PeerId, *, orchestrator: PeerId, now: WallTime
) -> tuple[LotteryRevealed, Reckoning] | None:
    """Take a validator's draw of an epoch, and hold its verdicts against it; None for one that is known.

    Raises `WrongState` while the epoch is not long over, and `BadProof`.
    """
    if not request.epoch >= 0 or not may_reveal(request.epoch, now):
        raise WrongState("the draw of an epoch is a secret until the next one is over", validator)
    if request.epoch <= state.revealed.get(validator, -1):
        return None
    output = check_draw(validator, orchestrator, request.epoch, request.proof)
    event = LotteryRevealed(validator=validator, epoch=request.epoch, proof=request.proof, at=now)
    return event, _reckon(state, validator, request.epoch, output)


def withheld(state: State, validators: Collection[PeerId], since: WallTime, now: WallTime) -> list[PeerId]:
    """The validators that show no draws: none of the latest `limits.DRAWS_WITHHELD_MAX` that they could have.

    Not counted is what was before we were here, since `since`, to be shown it.
    """
    latest = epoch_of(now) - limits.DRAWS_WITHHELD_MAX - 2
    if epoch_of(since) > latest:
        return []
    return [each for each in validators if state.revealed.get(each, -1) <= latest]


def _reckon(state: State, validator: PeerId, epoch: int, output: bytes) -> Reckoning:
    jobs = [job for job in state.ended.values() if job.per_mille and epoch_of(job.ended) == epoch]
    jobs = [job for job in jobs if validator in job.verdicts or not _is_settled(state, job, validator)]
    due = {job.id for job in jobs if is_drawn(output, evidence_digest(job.receipt), job.per_mille)}
    judged = {job.id for job in jobs if validator in job.verdicts}
    return Reckoning(len(due), len(due - judged), len(judged - due))


def _is_settled(state: State, job: Job, validator: PeerId) -> bool:
    """Whether the validator had convicted the worker by then or soon after, so that nothing more was to be said."""
    return state.standings.of(job.attempt.worker, {validator}).is_out(job.ended)


def check_validator(validator: PeerId, trusted: Collection[PeerId]) -> None:
    """Return if this orchestrator takes verdicts of this peer. Raises `Forbidden`."""
    if validator not in trusted:
        raise Forbidden(f"peer {validator.short}… is not a validator of this orchestrator: add it to its `validators`")
