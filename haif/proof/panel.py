"""One panel at work: its members commit to what they found before any of them says it, and a quorum decides.

1. Commit   each member sends the digest of its sealed verdict. Nobody else can make that signature, so nobody can try
            findings against the digest, and who would copy has nothing to copy yet
2. Show     when all have committed, or as many as decide and the others had their time: the verdicts themselves, each
            the one that was committed to
3. Decide   `committee.quorum` of the seats with one finding, the same to the last bit: what differs, where, by which
            engine, and the root they came to. Undecided ones are nobody's votes

Who is silent has no vote, and makes the quorum no smaller.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum

from haif.base import limits
from haif.base.clock import WallTime
from haif.base.errors import Equivocated, Forbidden, WrongState
from haif.base.ids import Digest, PeerId
from haif.identity.signing import Verified
from haif.proof.committee import quorum
from haif.protocol.audits import UNDECIDED, Verdict, gist


class Phase(StrEnum):
    """What a panel waits for."""

    COMMIT = "commit"
    SHOW = "show"
    OVER = "over"


@dataclass(slots=True)
class Panel:
    """The votes of one panel. Times in ms since the epoch; `since` is when the phase began."""

    seats: tuple[PeerId, ...]
    since: WallTime
    phase: Phase = Phase.COMMIT
    commitments: dict[PeerId, Digest] = field(default_factory=dict)
    shown: dict[PeerId, Verified[Verdict]] = field(default_factory=dict)
    decisive: WallTime | None = None  # when as many had committed as decide

    def commit(self, member: PeerId, commitment: Digest, now: WallTime) -> None:
        """A member is bound to a verdict from here on. Raises `Forbidden`, `WrongState` or `Equivocated`."""
        self._check_seat(member)
        if self.commitments.get(member, commitment) != commitment:
            raise Equivocated("a member of a panel commits to one finding, and then to another", member)
        if member not in self.commitments and self.phase is not Phase.COMMIT:
            raise WrongState("the panel takes no commitments any more", member)
        self.commitments[member] = commitment
        if self.decisive is None and len(self.commitments) >= quorum(len(self.seats)):
            self.decisive = now
        self.tick(now)

    def show(self, verdict: Verified[Verdict], now: WallTime) -> None:
        """What a member had committed to. Raises `Forbidden`, `WrongState` or `Equivocated`."""
        member = verdict.signer
        self._check_seat(member)
        if self.phase is Phase.COMMIT:
            raise WrongState("the panel's members still commit: nobody shows its finding before all have", member)
        if self.commitments.get(member) != verdict.digest:
            raise Equivocated("a member of a panel shows another finding than it committed to, or none", member)
        if self.phase is Phase.OVER and member not in self.shown:
            raise WrongState("the panel is over", member)
        self.shown[member] = verdict
        self.tick(now)

    def tick(self, now: WallTime) -> None:
        """What time, or the last that was awaited, brings about."""
        if self.phase is Phase.COMMIT and self._is_committed(now):
            self.phase, self.since = Phase.SHOW, now
        if self.phase is Phase.SHOW and (
            len(self.shown) == len(self.commitments) or now >= self.since + limits.PANEL_SHOW_MS
        ):
            self.phase, self.since = Phase.OVER, now

    def decided(self) -> tuple[Verified[Verdict], ...]:
        """The verdicts of the quorum, in the order of their seats; none where there is no quorum."""
        if self.phase is not Phase.OVER:
            return ()
        return agreed(tuple(self.shown[member] for member in self.seats if member in self.shown), len(self.seats))

    def _is_committed(self, now: WallTime) -> bool:
        if len(self.commitments) == len(self.seats) or now >= self.since + limits.PANEL_COMMIT_MS:
            return True
        return self.decisive is not None and now >= self.decisive + limits.PANEL_GRACE_MS

    def _check_seat(self, member: PeerId) -> None:
        if member not in self.seats:
            raise Forbidden(f"peer {member.short}… has no seat in this panel")


def agreed(verdicts: tuple[Verified[Verdict], ...], seats: int) -> tuple[Verified[Verdict], ...]:
    """Those of them that say the same and are a quorum of so many seats; none where none are."""
    votes = Counter(gist(each.payload) for each in verdicts if each.payload.finding != UNDECIDED)
    said, count = votes.most_common(1)[0] if votes else ((), 0)
    if count < quorum(seats):
        return ()
    return tuple(each for each in verdicts if gist(each.payload) == said)


def contradicts(said: Verdict, decided: Verdict) -> bool:
    """Whether a validator said what a quorum found to be otherwise. What it left undecided contradicts nothing."""
    return said.finding != UNDECIDED and gist(said) != gist(decided)
