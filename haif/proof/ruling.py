"""What a panel found, as evidence: whoever has it can draw the members again and count the signatures.

It shows that so many validators, drawn by this orchestrator's VRF of these, computed the answer and came to the same.
Which validators to believe is for the reader to say: a ruling of strangers is well-formed too.
"""

from __future__ import annotations

from collections.abc import Sequence

from haif.base import limits
from haif.base.errors import BadProof, Oversize
from haif.base.ids import PeerId
from haif.identity.signing import Domain, Verified, open_sealed
from haif.proof import committee
from haif.proof.committee import Elector, Roster
from haif.proof.panel import agreed
from haif.protocol.audits import Ruling, Verdict, Voter, open_verdict


def voters(pool: Roster) -> list[Voter]:
    """Who may sit, without the names of the owners."""
    owners = {owner: number for number, owner in enumerate(sorted({each.owner for each in pool if each.owner}), 1)}
    return [Voter(each.peer, each.weight, owners.get(each.owner, 0)) for each in pool]


def members(ruling: Ruling, output: bytes) -> tuple[PeerId, ...]:
    """Who sat."""
    pool = [Elector(each.peer, each.weight, str(each.owner) if each.owner else "") for each in ruling.pool]
    return committee.members(output, pool, ruling.seats)


def check_ruling(evidence: bytes, orchestrator: PeerId | None = None) -> tuple[Verified[Ruling], Sequence[PeerId]]:
    """A ruling that holds, and whose verdicts are in it.

    Raises `Malformed`, `Oversize` or `BadSignature`, and `BadProof` where the quorum is none: too few, not drawn, of
    two minds, or about something else.
    """
    checked = open_sealed(Ruling, Domain.RULING, evidence, signer=orchestrator)
    said = checked.payload
    if len({each.peer for each in said.pool}) < len(said.pool) or not all(each.weight > 0 for each in said.pool):
        raise BadProof("the ruling draws of a pool that is none", checked.signer)
    if len(said.pool) > limits.PANEL_ROSTER_MAX:
        raise Oversize(f"panels are drawn of at most {limits.PANEL_ROSTER_MAX} validators", checked.signer)
    sat = members(said, committee.check_draw(checked.signer, said.receipt, said.proof))
    carried = committee.quorum(len(sat)) <= committee.liars(each.weight for each in said.pool)
    if carried or len(sat) < limits.PANEL_SEATS_MIN:
        raise BadProof(f"a panel of {len(sat)} is too small for a pool of {len(said.pool)}", checked.signer)
    verdicts = tuple(open_verdict(each) for each in said.verdicts)
    for each in verdicts:
        _check_about(each, checked)
        if each.signer not in sat:
            raise BadProof(f"the ruling counts peer {each.signer.short}…, which has no seat", checked.signer)
    if len({each.signer for each in verdicts}) < len(verdicts) or len(agreed(verdicts, len(sat))) < len(verdicts):
        raise BadProof("the verdicts of a ruling are each of another member, and say the same", checked.signer)
    if not verdicts or verdicts[0].payload.finding != said.finding:
        raise BadProof("the ruling says another thing than its quorum", checked.signer)
    return checked, tuple(each.signer for each in verdicts)


def _check_about(verdict: Verified[Verdict], ruling: Verified[Ruling]) -> None:
    said, about = verdict.payload, ruling.payload
    if (said.orchestrator, said.job, said.receipt, said.worker, said.model) != (
        ruling.signer, about.job, about.receipt, about.worker, about.model,
    ):  # fmt: skip
        raise BadProof("the ruling counts a verdict about another receipt", ruling.signer)
