"""Attacks of validators on panels: some that say what is not so together, some that copy, some that do not look."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from random import Random
from typing import Final

from haif.base import limits
from haif.base.clock import WallTime
from haif.base.hashing import digest
from haif.base.ids import Digest, JobId, ModelDigest
from haif.identity.keys import Identity
from haif.identity.signing import Domain, Verified, seal
from haif.proof import committee
from haif.proof.committee import Elector
from haif.proof.panel import Panel, Phase, agreed, contradicts
from haif.protocol.audits import CONVICTED, HONEST, Verdict, open_verdict
from haif.testing.attacks.arena import Arena
from haif.testing.attacks.contest import Case, Play, Tell
from haif.testing.attacks.court import refused
from haif.testing.attacks.liar import ORCHESTRATOR, WORKER
from haif.testing.attacks.tally import Finding, Outcome, Trial

VALIDATORS: Final = 9
PANELS: Final = 300
_SILENT: Final = 0.1  # the share of the others that is not heard in time
_NOBODY: Final = Identity(b"?" * 32)  # who has no seat
_NOW: Final = WallTime(1_000_000)


# --- 22 ---------------------------------------------------------------------------------------------------------------


def together() -> Iterator[Case]:
    """Up to a third of the validators say the same lie, while some of the others are not heard."""
    for count in range(1, VALIDATORS // 3 + 1):
        for name, truth, lie in (("frame an honest worker", HONEST, CONVICTED), ("acquit a liar", CONVICTED, HONEST)):
            yield Case(f"{count} of {VALIDATORS} {name}", _voting(count, truth, lie), tries=PANELS)


def _voting(count: int, truth: str, lie: str) -> Play:
    async def play(arena: Arena, random: Random, tries: int, tell: Tell) -> None:
        del arena  # what they computed is given
        validators = [Identity(random.randbytes(32)) for _ in range(VALIDATORS)]
        for _ in range(tries):
            receipt = Digest(random.randbytes(32))
            seats = _drawn(validators, receipt)
            liars = set(random.sample([each.peer for each in validators], count))
            alone = _decided([(each, truth) for each in seats], receipt, seats)
            wrong = Outcome.CAUGHT if alone else Outcome.UNDECIDED
            tell(Trial(True, Finding(Outcome.PASSED if alone == truth else wrong, "panel")))
            heard = [each for each in seats if each.peer in liars or random.random() >= _SILENT]
            said = _decided([(each, lie if each.peer in liars else truth) for each in heard], receipt, seats)
            by = "panel: quorum" if said else "panel: no quorum"
            tell(Trial(False, Finding(Outcome.PASSED if said == lie else Outcome.CAUGHT, by)))

    return play


def _drawn(validators: Sequence[Identity], receipt: Digest) -> list[Identity]:
    """Who sits where the first of them accuses."""
    roster = [Elector(each.peer) for each in validators]
    committee.check_roster(roster)
    _, output = committee.draw(ORCHESTRATOR, receipt)
    pool = committee.eligible(roster, {validators[0].peer})
    seats = committee.members(output, pool, committee.seats(roster))
    return [each for seat in seats for each in validators if each.peer == seat]


def _decided(votes: Sequence[tuple[Identity, str]], receipt: Digest, seats: Sequence[Identity]) -> str:
    """What a panel finds whose members say these, and nothing else in their time; nothing without a quorum."""
    panel = Panel(tuple(each.peer for each in seats), _NOW)
    said = [_verdict(member, receipt, finding) for member, finding in votes]
    for each in said:
        panel.commit(each.signer, each.digest, _NOW)
    if panel.phase is Phase.COMMIT:  # for the silent
        panel.tick(WallTime(_NOW + limits.PANEL_COMMIT_MS))
    for each in said:
        panel.show(each, panel.since)
    panel.tick(WallTime(panel.since + limits.PANEL_SHOW_MS))
    return next((each.payload.finding for each in panel.decided()), "")


def _verdict(validator: Identity, receipt: Digest, finding: str, *, work: Digest | None = None) -> Verified[Verdict]:
    """What a validator that computed the answer finds; `work` is what one says of the logits that did not."""
    root = digest("haif v1 root", receipt)
    said = Verdict(
        orchestrator=ORCHESTRATOR.peer, job=JobId(bytes(16)), receipt=receipt, worker=WORKER.peer,
        model=ModelDigest(bytes(32)), finding=finding, cause="tokens" if finding == CONVICTED else "", place=0,
        engine="an engine", transcript=root, work=work or digest("haif v1 audit work", root), epoch=7, judged=_NOW,
    )  # fmt: skip
    return open_verdict(seal(validator, Domain.VERDICT, said))


# --- 23 ---------------------------------------------------------------------------------------------------------------


def copying() -> Iterator[Case]:
    """A member of a panel that did not compute: it says what it saw others say, or what it guesses."""
    for name, attack in (
        ("the commitment of another", _same_commitment), ("what the others showed", _as_the_others),
        ("a second commitment", _again), ("a finding behind the vote", _late), ("a vote without a seat", _stranger),
    ):  # fmt: skip
        yield Case(name, _copied(attack), tries=PANELS)
    for name, truth in (("honest, and the root is the receipt's", HONEST), ("honest, and it is a lie", CONVICTED)):
        yield Case(f"not computed: {name}", _lazy(truth), tries=PANELS)


def _lazy(truth: str) -> Play:
    """One of a panel says honest without having computed anything; the root that the worker signed it can copy."""

    async def play(arena: Arena, random: Random, tries: int, tell: Tell) -> None:
        del arena  # what they computed is given
        for _ in range(tries):
            *honest, idle = (Identity(random.randbytes(32)) for _ in range(limits.PANEL_SEATS_MIN))
            receipt, invented = Digest(random.randbytes(32)), Digest(random.randbytes(32))
            found = [_verdict(each, receipt, truth) for each in honest]
            said = _verdict(idle, receipt, HONEST, work=invented)
            (decided, *_) = agreed((*found, said), limits.PANEL_SEATS_MIN)
            for true, verdict in ((True, found[0]), (False, said)):
                refuted = contradicts(verdict.payload, decided.payload)
                tell(Trial(true, Finding(Outcome.CAUGHT if refuted else Outcome.PASSED, "panel: refuted")))

    return play


Copy = Callable[[Panel, list[Identity], Verified[Verdict]], None]
"""What the last of the members does; the verdict is what it saw."""


def _copied(attack: Copy) -> Play:
    async def play(arena: Arena, random: Random, tries: int, tell: Tell) -> None:
        del arena  # what they computed is given
        for _ in range(tries):
            members = [Identity(random.randbytes(32)) for _ in range(limits.PANEL_SEATS_MIN)]
            receipt = Digest(random.randbytes(32))
            honest = _decided([(each, CONVICTED) for each in members], receipt, members)
            tell(Trial(True, Finding(Outcome.PASSED if honest == CONVICTED else Outcome.CAUGHT, "panel")))
            panel = Panel(tuple(each.peer for each in members), _NOW)
            seen = [_verdict(each, receipt, CONVICTED) for each in members[:-1]]
            for each in seen:
                panel.commit(each.signer, each.digest, _NOW)
            tell(Trial(False, refused(partial(attack, panel, members, seen[0]), "panel")))

    return play


def _same_commitment(panel: Panel, members: list[Identity], seen: Verified[Verdict]) -> None:
    panel.commit(members[-1].peer, seen.digest, _NOW)
    panel.show(_verdict(members[-1], seen.payload.receipt, CONVICTED), _NOW)


def _as_the_others(panel: Panel, members: list[Identity], seen: Verified[Verdict]) -> None:
    panel.commit(members[-1].peer, _verdict(members[-1], seen.payload.receipt, HONEST).digest, _NOW)
    panel.show(seen, _NOW)
    panel.show(_verdict(members[-1], seen.payload.receipt, CONVICTED), _NOW)


def _again(panel: Panel, members: list[Identity], seen: Verified[Verdict]) -> None:
    for finding in (HONEST, CONVICTED):
        panel.commit(members[-1].peer, _verdict(members[-1], seen.payload.receipt, finding).digest, _NOW)


def _late(panel: Panel, members: list[Identity], seen: Verified[Verdict]) -> None:
    panel.tick(WallTime(_NOW + limits.PANEL_COMMIT_MS))
    panel.show(seen, panel.since)
    panel.commit(members[-1].peer, _verdict(members[-1], seen.payload.receipt, CONVICTED).digest, panel.since)


def _stranger(panel: Panel, _: list[Identity], seen: Verified[Verdict]) -> None:
    panel.commit(_NOBODY.peer, _verdict(_NOBODY, seen.payload.receipt, CONVICTED).digest, _NOW)
