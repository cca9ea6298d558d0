"""A panel at work: commitments first, then what was committed to, then what a quorum says alike."""

from typing import Any

import pytest

from haif.base import limits
from haif.base.clock import WallTime
from haif.base.errors import Equivocated, Forbidden, WrongState
from haif.base.hashing import digest
from haif.base.ids import JobId, ModelDigest, PeerId
from haif.identity.keys import Identity
from haif.identity.signing import Domain, Verified, seal
from haif.proof.panel import Panel, Phase, agreed, contradicts
from haif.protocol.audits import CONVICTED, HONEST, UNDECIDED, Verdict, open_verdict

MEMBERS = [Identity(bytes([n]) * 32) for n in range(1, 6)]
STRANGER = Identity(b"?" * 32)
NOW = WallTime(1_000_000)


def said(finding: str = CONVICTED, cause: str = "tokens", **changed: Any) -> Verdict:
    computed = finding != UNDECIDED
    fields: dict[str, Any] = {
        "orchestrator": PeerId(b"o" * 32), "job": JobId(b"j" * 16), "receipt": digest("receipt", b""),
        "worker": PeerId(b"w" * 32), "model": ModelDigest(b"m" * 32), "finding": finding, "cause": cause, "place": 3,
        "engine": "an engine" if computed else "", "transcript": digest("root", b"") if computed else None,
        "work": digest("work", b"") if computed else None,
        "epoch": 7, "judged": NOW,
    }  # fmt: skip
    return Verdict(**(fields | changed))


def signed(by: Identity, verdict: Verdict) -> Verified[Verdict]:
    return open_verdict(seal(by, Domain.VERDICT, verdict))


def panel() -> Panel:
    return Panel(tuple(each.peer for each in MEMBERS), NOW)


def voted(*verdicts: Verdict) -> Panel:
    """A panel whose members said these, and the rest nothing."""
    at, given = panel(), [signed(member, each) for member, each in zip(MEMBERS, verdicts, strict=False)]
    for each in given:
        at.commit(each.signer, each.digest, NOW)
    if at.phase is Phase.COMMIT:
        at.tick(WallTime(NOW + limits.PANEL_COMMIT_MS))
    for each in given:
        at.show(each, at.since)
    return at


def test_four_of_five_convict_and_the_fifth_does_not_matter() -> None:
    for last in (said(), said(HONEST, ""), said(UNDECIDED, "payload")):
        at = voted(*[said()] * 4, last)
        assert Phase.OVER is at.phase
        assert {CONVICTED} == {each.payload.finding for each in at.decided()}
        assert len(at.decided()) == 4 + (last == said())


@pytest.mark.parametrize(
    "votes",
    [
        [said()] * 3 + [said(HONEST, "")] * 2, [said()] * 3, [said()] * 3 + [said(place=4)] * 2,
        [said()] * 3 + [said(UNDECIDED, "payload")] * 2, [said(UNDECIDED, "payload")] * 5, [],
    ],
    ids=["three against two", "two silent", "two of another place", "two undecided", "nobody knows", "nobody is there"],
)  # fmt: skip
def test_n_3_m_minus_one_do_not_suffice(votes: list[Verdict]) -> None:
    assert () == voted(*votes).decided()


def test_nobody_shows_a_finding_before_all_have_committed() -> None:
    at, mine = panel(), signed(MEMBERS[0], said())
    at.commit(mine.signer, mine.digest, NOW)
    with pytest.raises(WrongState, match="still commit"):
        at.show(mine, NOW)
    assert {} == at.shown


def test_who_saw_what_the_others_found_is_bound_to_its_own() -> None:
    at = panel()
    for member in MEMBERS:
        at.commit(member.peer, signed(member, said(HONEST, "")).digest, NOW)
    assert Phase.SHOW is at.phase
    with pytest.raises(Equivocated, match="another finding"):
        at.show(signed(MEMBERS[0], said()), NOW)
    with pytest.raises(Equivocated, match="and then to another"):
        at.commit(MEMBERS[0].peer, signed(MEMBERS[0], said()).digest, NOW)
    at.commit(MEMBERS[0].peer, signed(MEMBERS[0], said(HONEST, "")).digest, NOW)  # the same again is nothing new


def test_a_commitment_that_was_copied_is_of_no_use() -> None:
    at = panel()
    for member in MEMBERS:
        at.commit(member.peer, signed(MEMBERS[0], said()).digest, NOW)
    with pytest.raises(Equivocated):
        at.show(signed(MEMBERS[1], said()), NOW)


def test_n_3_whoever_has_no_seat_has_no_vote_and_nobody_has_two() -> None:
    at = panel()
    with pytest.raises(Forbidden, match="no seat"):
        at.commit(STRANGER.peer, signed(STRANGER, said()).digest, NOW)
    with pytest.raises(Forbidden, match="no seat"):
        at.show(signed(STRANGER, said()), NOW)
    done = voted(*[said()] * 3)
    again = signed(MEMBERS[0], said())
    for _ in range(3):
        done.show(again, NOW)
    assert () == done.decided()


def test_who_comes_too_late_has_no_vote_and_is_not_waited_for() -> None:
    at, late = panel(), signed(MEMBERS[4], said())
    for member in MEMBERS[:4]:
        at.commit(member.peer, signed(member, said()).digest, NOW)
    at.tick(WallTime(NOW + limits.PANEL_GRACE_MS - 1))
    assert Phase.COMMIT is at.phase
    shown = WallTime(NOW + limits.PANEL_GRACE_MS)
    at.tick(shown)
    assert Phase.SHOW is at.phase
    with pytest.raises(WrongState, match="no commitments any more"):
        at.commit(late.signer, late.digest, shown)
    for member in MEMBERS[:3]:
        at.show(signed(member, said()), shown)
    at.tick(WallTime(shown + limits.PANEL_SHOW_MS))
    assert (Phase.OVER, ()) == (at.phase, at.decided())
    with pytest.raises(WrongState, match="over"):
        at.show(signed(MEMBERS[3], said()), WallTime(shown + limits.PANEL_SHOW_MS))


def test_a_panel_of_which_nobody_is_heard_ends() -> None:
    at = panel()
    at.tick(WallTime(NOW + limits.PANEL_COMMIT_MS - 1))
    assert Phase.COMMIT is at.phase
    at.tick(WallTime(NOW + limits.PANEL_COMMIT_MS))
    assert (Phase.OVER, ()) == (at.phase, at.decided())


def test_what_was_left_undecided_contradicts_nothing() -> None:
    (decided, *_) = agreed(tuple(signed(member, said()) for member in MEMBERS), 5)
    assert not contradicts(said(), decided.payload)
    assert not contradicts(said(UNDECIDED, "engine"), decided.payload)
    assert contradicts(said(HONEST, ""), decided.payload)
    assert contradicts(said(place=4), decided.payload)
