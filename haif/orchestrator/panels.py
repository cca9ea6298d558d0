"""The panels that an orchestrator called: whom it waits for, what they come to, and who is set aside meanwhile.

1. Call     a validator accuses a worker; or its finding, which nobody doubts, is looked at again by lot. Members are
            not told which, nor who it was
2. Vote     `proof.panel`: they commit, then show
3. Again    without a quorum, once: everybody who may sit
4. Rule     a quorum convicts the worker or clears it, and refutes every validator that had said otherwise of this
            receipt, members included. Without one nobody is convicted, and nobody refuted

A worker that is accused gets no work while the panel sits: at most `limits.PANEL_COMMIT_MS` and `PANEL_SHOW_MS` twice.
A validator sets `limits.ALARMS_OPEN_MAX` workers aside at once at most, and a worker on which it was not confirmed it
sets aside no second time. Nothing here is kept: after a restart, accusations without a ruling are called anew.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from haif.base import limits
from haif.base.clock import WallTime
from haif.base.errors import Overloaded, WrongState
from haif.base.ids import Digest, PeerId
from haif.identity.keys import Identity
from haif.identity.signing import Domain, Verified, evidence_digest, seal
from haif.orchestrator.events import PanelRuled
from haif.orchestrator.state import Job
from haif.proof import committee
from haif.proof.committee import Elector
from haif.proof.panel import Panel, Phase, contradicts
from haif.proof.ruling import voters
from haif.protocol.audits import CONVICTED, UNDECIDED, Commit, Ruling, Summons, Verdict, open_verdict


@dataclass(slots=True)
class Sitting:
    """A panel and what it is about. `alarm`: somebody accused; `accuser` is who said what is looked at."""

    job: Job
    accuser: PeerId
    alarm: bool
    aside: bool
    pool: list[Elector]
    output: bytes
    proof: bytes
    panel: Panel

    @property
    def receipt(self) -> Digest:
        """What it is about."""
        return evidence_digest(self.job.receipt)

    @property
    def worker(self) -> PeerId:
        """Whom it is about."""
        return self.job.attempt.worker


@dataclass(slots=True)
class Panels:
    """The panels that are open. `roster`: the validators, each with weight and owner; `owners`: of any other peer."""

    orchestrator: Identity
    roster: tuple[Elector, ...]
    owners: Mapping[PeerId, str] = field(default_factory=dict)
    _open: OrderedDict[Digest, Sitting] = field(default_factory=OrderedDict)
    _fruitless: OrderedDict[tuple[PeerId, PeerId], None] = field(default_factory=OrderedDict)

    # --- call ---------------------------------------------------------------------------------------------------------

    def check_room(self, accuser: PeerId, worker: PeerId) -> None:
        """Return if an accusation can be followed up now. Raises `Overloaded`."""
        if self._about(worker):
            return
        alarms = Counter(each.accuser for each in self._open.values() if each.alarm)
        if alarms[accuser] >= limits.ALARMS_OPEN_MAX or len(self._open) >= limits.PANELS_OPEN_MAX:
            raise Overloaded(
                "panels still sit about whom was accused before; accuse again when they are over", retry_after=1.0
            )

    def call(self, job: Job, accuser: PeerId, believed: Collection[PeerId], now: WallTime, *, alarm: bool) -> bool:
        """Draw a panel. False where there is one about this worker, or too few may sit. Takes about a millisecond."""
        receipt, worker = evidence_digest(job.receipt), job.attempt.worker
        proof, output = committee.draw(self.orchestrator, receipt)
        may_sit = committee.eligible(self.roster, {accuser, worker}, {self.owners.get(worker, "")})
        pool = [each for each in may_sit if each.peer in believed]
        seats = committee.members(output, pool, committee.seats(self.roster))
        if self._about(worker) or len(seats) < committee.seats(self.roster):
            return False
        aside = alarm and (accuser, worker) not in self._fruitless
        self._open[receipt] = Sitting(job, accuser, alarm, aside, pool, output, proof, Panel(seats, now))
        return True

    def looks_at(self, job: Job) -> bool:
        """Whether what was found of a job is looked at again, by a lot that nobody but us knows."""
        if len(self._open) >= limits.PANELS_OPEN_MAX or self._about(job.attempt.worker):
            return False
        _, output = committee.draw(self.orchestrator, evidence_digest(job.receipt))
        return committee.is_looked_at(output, limits.PANEL_LOOK_PER_MILLE)

    # --- vote ---------------------------------------------------------------------------------------------------------

    def summons(self, member: PeerId, now: WallTime) -> list[Summons]:
        """Where a validator is waited for."""
        found: list[Summons] = []
        for each in self._open.values():
            each.panel.tick(now)
            if len(found) < limits.PANELS_LISTED_MAX and _waits_for(each.panel, member):
                job = each.job
                found.append(
                    Summons(
                        job.attempt.reservation, job.receipt, job.countersignature, job.ended,
                        each.panel.phase is Phase.SHOW,
                    )
                )  # fmt: skip
        return found

    def commit(self, request: Commit, member: PeerId, now: WallTime) -> None:
        """Take a commitment. Raises `WrongState` where there is no such panel, and as `Panel.commit` does."""
        self._sitting(request.receipt, member).panel.commit(member, request.commitment, now)

    def show(self, evidence: bytes, member: PeerId, now: WallTime) -> None:
        """Take a finding. Raises `WrongState` where there is no such panel, and as `open_verdict` and `Panel.show`."""
        verdict = open_verdict(evidence, member)
        at = self._sitting(verdict.payload.receipt, member)
        said, job = verdict.payload, at.job
        if (said.orchestrator, said.job, said.worker, said.model) != (
            self.orchestrator.peer, job.id, at.worker, job.model_digest,
        ):  # fmt: skip
            raise WrongState("the verdict is about another receipt than the panel's", member)
        at.panel.show(verdict, now)

    # --- rule ---------------------------------------------------------------------------------------------------------

    def ruled(self, now: WallTime) -> Iterator[tuple[PanelRuled, tuple[PeerId, ...]]]:
        """The panels that are over, and who sat there and said nothing.

        One that came to nothing sits once more, with everybody who may.
        """
        for receipt, each in list(self._open.items()):
            each.panel.tick(now)
            if each.panel.phase is not Phase.OVER:
                continue
            decided = each.panel.decided()
            everybody = committee.members(each.output, each.pool, len(each.pool))
            if not decided and len(everybody) > len(each.panel.seats):
                each.panel = Panel(everybody, now)
                continue
            yield self._ruling(each, decided, now), tuple(p for p in each.panel.seats if p not in each.panel.shown)
            del self._open[receipt]  # not before whoever asked has taken it down
            if not decided and each.alarm:
                self._remember_fruitless(each)

    def aside(self) -> frozenset[PeerId]:
        """Who gets no work until its panel is over."""
        return frozenset(each.worker for each in self._open.values() if each.aside)

    @property
    def count(self) -> int:
        """How many are open."""
        return len(self._open)

    def _ruling(self, at: Sitting, decided: tuple[Verified[Verdict], ...], now: WallTime) -> PanelRuled:
        if not decided:
            return PanelRuled(at.job.id, at.worker, UNDECIDED, b"", (), now)
        said = decided[0].payload
        heard = [open_verdict(each) for each in at.job.verdicts.values()] + list(at.panel.shown.values())
        refuted = tuple(sorted({each.signer for each in heard if contradicts(each.payload, said)}))
        sealed = b""
        if said.finding == CONVICTED:
            ruling = Ruling(
                at.job.id, at.receipt, at.worker, at.job.model_digest, said.finding, voters(at.pool),
                len(at.panel.seats), at.proof, [each.evidence for each in decided], now,
            )  # fmt: skip
            sealed = seal(self.orchestrator, Domain.RULING, ruling)
        return PanelRuled(at.job.id, at.worker, said.finding, sealed, refuted, now)

    def _about(self, worker: PeerId) -> bool:
        return any(each.worker == worker for each in self._open.values())

    def _sitting(self, receipt: Digest, member: PeerId) -> Sitting:
        if receipt not in self._open:
            raise WrongState("no panel sits about this receipt, or not any more", member)
        return self._open[receipt]

    def _remember_fruitless(self, at: Sitting) -> None:
        self._fruitless[at.accuser, at.worker] = None
        if len(self._fruitless) > limits.STANDINGS_MAX:
            self._fruitless.popitem(last=False)


def _waits_for(panel: Panel, member: PeerId) -> bool:
    if panel.phase is Phase.COMMIT:
        return member in panel.seats and member not in panel.commitments
    return panel.phase is Phase.SHOW and member in panel.commitments and member not in panel.shown
