"""Panels of validators by simulation: who can carry them, who can foresee or try for them, and whether lying pays.

`python -m benchmarks.panels`. The panel, the draw and the lottery are the program's own (`haif.proof`); members,
network and time are simulated: each member takes a few seconds to compute, each of its calls is lost with a chance of
one in ten and made again a second later, and one in twenty never answers. Everything follows from the seed.

It fails if a third of the validators or fewer ever convicted the honest or acquitted a liar, if lying pays, or if who
signs without looking is not found within three looks.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from random import Random

from benchmarks.mesh import machine
from haif.base import limits
from haif.base.clock import WallTime
from haif.base.hashing import digest
from haif.base.ids import Digest, JobId, ModelDigest, PeerId
from haif.identity.keys import Identity
from haif.identity.signing import Verified
from haif.proof import committee, lottery
from haif.proof.committee import Elector
from haif.proof.evidence import upper
from haif.proof.panel import Panel, Phase
from haif.proof.standing import Standing
from haif.protocol.audits import CONVICTED, HONEST, UNDECIDED, Verdict

ORCHESTRATOR = Identity(b"o" * 32)
WORKER = PeerId(b"w" * 32)
LOSS, ABSENT, COMPUTE_MS, POLL_MS = 0.1, 0.05, 5000, 1000
STAKE = 50  # what is assumed that a conviction takes from a worker: the pay of so many answers
ROSTERS = (6, 9, 12, 30, 64)


class Lie(StrEnum):
    """What the validators that collude do."""

    FRAME = "convict the honest"  # one of them accuses, the others agree
    ACQUIT = "acquit a liar"
    SILENCE = "keep a liar's panel from deciding"  # they commit, and show nothing


@dataclass(frozen=True, slots=True)
class Member:
    """A validator with a seat: what it will say (None: it shows nothing), and when it is ready (ms)."""

    verdict: Verified[Verdict]
    shows: bool
    ready: int


def statement(peer: PeerId, receipt: Digest, finding: str, work: bytes = b"") -> Verified[Verdict]:
    """A verdict of a simulated validator. Nobody forges signatures here, so that none is made."""
    said = Verdict(
        orchestrator=ORCHESTRATOR.peer, job=JobId(bytes(16)), receipt=receipt, worker=WORKER,
        model=ModelDigest(bytes(32)), finding=finding, cause="tokens" if finding == CONVICTED else "", place=0,
        engine="an engine", transcript=digest("benchmark root", finding.encode()),
        work=digest("benchmark work", finding.encode(), work), epoch=0, judged=0,
    )  # fmt: skip
    return Verified(said, peer, finding.encode() + peer)


def sit(rng: Random, members: Iterable[Member]) -> tuple[str, int]:
    """What one panel comes to, and after how many ms."""
    at = {each.verdict.signer: each for each in members}
    panel = Panel(tuple(at), WallTime(0))
    absent = {peer for peer in at if rng.random() < ABSENT}
    now = WallTime(0)
    while panel.phase is not Phase.OVER:
        now = WallTime(now + POLL_MS)
        panel.tick(now)
        for peer, member in at.items():
            if peer in absent or rng.random() < LOSS:
                continue
            if panel.phase is Phase.COMMIT and now >= member.ready and peer not in panel.commitments:
                panel.commit(peer, member.verdict.digest, now)
            elif panel.phase is Phase.SHOW and member.shows and peer in panel.commitments and peer not in panel.shown:
                panel.show(member.verdict, now)
    decided = panel.decided()
    return decided[0].payload.finding if decided else UNDECIDED, now


def trial(rng: Random, validators: int, liars: int, lie: Lie) -> tuple[str, int]:
    """One alarm, one panel, and where that comes to nothing everybody who may sit: the outcome, and after how long."""
    roster = [Elector(PeerId(rng.randbytes(32))) for _ in range(validators)]
    crooked = {each.peer for each in roster[:liars]}
    accuser = roster[0 if lie is Lie.FRAME else -1].peer
    receipt = Digest(rng.randbytes(32))
    _, output = committee.draw(ORCHESTRATOR, receipt)
    pool = committee.eligible(roster, {accuser})
    truth = HONEST if lie is Lie.FRAME else CONVICTED
    false = CONVICTED if lie is Lie.FRAME else HONEST

    def member(peer: PeerId) -> Member:
        ready = 0 if peer in crooked else int(rng.expovariate(1 / COMPUTE_MS))
        verdict = statement(peer, receipt, false if peer in crooked else truth)
        return Member(verdict, lie is not Lie.SILENCE or peer not in crooked, ready)

    found, spent = UNDECIDED, 0
    for seats in (committee.seats(roster), len(pool)):
        found, took = sit(rng, map(member, committee.members(output, pool, seats)))
        spent += took
        if found != UNDECIDED or seats == len(pool):
            break
    return found, spent


@dataclass(frozen=True, slots=True)
class Outcome:
    """What so many trials came to."""

    validators: int
    liars: int
    lie: Lie
    found: Counter[str]
    seconds: float

    @property
    def wrong(self) -> int:
        """How often the liars had their way."""
        return self.found[CONVICTED if self.lie is Lie.FRAME else HONEST]


def outcome(validators: int, liars: int, lie: Lie, trials: int) -> Outcome:
    """So many alarms."""
    rng = Random(f"{validators} {liars} {lie}")
    results = [trial(rng, validators, liars, lie) for _ in range(trials)]
    seconds = sum(spent for _, spent in results) / trials / 1000
    return Outcome(validators, liars, lie, Counter(found for found, _ in results), seconds)


def collusion(trials: int) -> list[Outcome]:
    """In each size of roster: a third of the validators, and fewer than a third of those that may sit.

    And the control, two thirds of nine.
    """
    cases = [(each, liars, lie) for each in ROSTERS for liars in ((each - 2) // 3, each // 3) for lie in Lie]
    cases += [(9, 6, lie) for lie in Lie]
    return [outcome(*case, trials) for case in cases]


def convicted(found: Iterable[Outcome], trials: int) -> float:
    """The lowest share of alarms about lies that convicted, with fewer than a third of those that may sit lying."""
    few = [each for each in found if 3 * each.liars < each.validators - 1 and each.lie is not Lie.FRAME]
    return min(each.found[CONVICTED] for each in few) / trials


# --- who could foresee, or try ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Attempt:
    """How often something came out, and how often it would by chance, in standard deviations."""

    what: str
    tries: int
    seen: float
    expected: float
    sigmas: float


def _attempt(what: str, tries: int, seen: int, chance: float, variance: float | None = None) -> Attempt:
    spread = (tries * (chance * (1 - chance) if variance is None else variance)) ** 0.5
    return Attempt(what, tries, seen / tries, chance, (seen - tries * chance) / spread)


def predicting(tries: int) -> Attempt:
    """A worker lies only where the draw of the epoch before, which it was shown, would not have drawn it."""
    validator = Identity(b"v" * 32)
    _, known = lottery.draw(validator, ORCHESTRATOR.peer, 6)
    _, secret = lottery.draw(validator, ORCHESTRATOR.peer, 7)
    lies = (digest("benchmark lie", n.to_bytes(4, "big")) for n in range(2 * tries))
    safe = [receipt for receipt in lies if not lottery.is_drawn(known, receipt, 50)][:tries]
    caught = sum(lottery.is_drawn(secret, receipt, 50) for receipt in safe)
    return _attempt("a worker foresees its audit", len(safe), caught, 0.05)


def grinding(tries: int) -> Attempt:
    """A worker varies what it signs (times, order, the tree's bits): each try is as likely to be drawn."""
    _, secret = lottery.draw(Identity(b"v" * 32), ORCHESTRATOR.peer, 7)
    drawn = sum(lottery.is_drawn(secret, digest("benchmark root", n.to_bytes(4, "big")), 50) for n in range(tries))
    return _attempt("a worker tries receipts", tries, drawn, 0.05)


def choosing(tries: int) -> Attempt:
    """A validator looks over its epochs for one whose draw spares a friend's receipt: it has one output for each."""
    friend, validator = digest("benchmark friend", b""), Identity(b"v" * 32)
    drawn = sum(lottery.is_drawn(lottery.draw(validator, ORCHESTRATOR.peer, n)[1], friend, 50) for n in range(tries))
    return _attempt("a validator tries epochs", tries, drawn, 0.05)


def packing(tries: int) -> Attempt:
    """Worker and accuser try receipts until their friends, three of nine validators, have seats."""
    roster = [Elector(PeerId(bytes([n]) * 32)) for n in range(9)]
    friends = {each.peer for each in roster[:3]}
    seated = 0
    for number in range(tries):
        _, output = committee.draw(ORCHESTRATOR, digest("benchmark panel", number.to_bytes(4, "big")))
        seated += len(friends.intersection(committee.members(output, roster, 5)))
    variance = 5 * (3 / 9) * (6 / 9) * (4 / 8)  # hypergeometric
    return replace(_attempt("friends get into a panel (seats of 5)", tries, seated, 5 / 3, variance))


ATTEMPTS: tuple[Callable[[int], Attempt], ...] = (predicting, grinding, choosing, packing)


# --- who signs without looking ----------------------------------------------------------------------------------------


class Laziness(StrEnum):
    """What a validator does that says "honest" and computed nothing."""

    INVENT = "names logits that it invented"
    FRIEND = "calls the lies of a friend honest, with the friend's logits"


def looks(rng: Random, validators: int, liars: int, how: Laziness) -> int:
    """How often a panel looks at what such a validator says, until it is refuted. The liars among the others agree."""
    for number in range(1, 1000):
        peers = [PeerId(rng.randbytes(32)) for _ in range(validators)]
        receipt = Digest(rng.randbytes(32))
        _, output = committee.draw(ORCHESTRATOR, receipt)
        pool = [Elector(peer) for peer in peers[1:]]
        truth = HONEST if how is Laziness.INVENT else CONVICTED

        def member(peer: PeerId, *, of: list[PeerId] = peers, about: Digest = receipt, truth: str = truth) -> Member:
            false = peer in of[1 : 1 + liars]
            verdict = statement(peer, about, HONEST if false else truth, work=b"invented" if false else b"")
            return Member(verdict, shows=True, ready=0 if false else int(rng.expovariate(1 / COMPUTE_MS)))

        seats = committee.seats([Elector(peer) for peer in peers])
        for count in (seats, len(pool)):
            found, _ = sit(rng, map(member, committee.members(output, pool, count)))
            if found == truth:
                return number
    return number


# --- whether lying pays -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Living:
    """What workers gained that lie in so large a share of their answers, in the pay of one answer; and how many."""

    share: float
    known: bool
    lies: float
    mean: float
    best: float


def living(share: float, workers: int, *, known: bool, convicts: float, stake: float = STAKE) -> Living:
    """Workers who lie now and then until they are convicted, which an alarm leads to with the chance `convicts`.

    After one that comes to nothing all of their answers are audited, as the program does it. A lie saves all of an
    answer's cost, at most its pay. A newcomer's answers are all audited; a known worker passed 1,600 audits, so that
    5 % of its are.
    """
    rng = Random(f"{share} {known}")
    gains = []
    for _ in range(workers):
        standing, lies, output = Standing(1600.0 if known else 0.0), 0, rng.randbytes(64)
        while True:
            lied = rng.random() < share
            lies += lied
            if not lottery.is_drawn(output, Digest(rng.randbytes(32)), standing.per_mille(1)):
                continue
            if lied and rng.random() < convicts:
                break
            standing = standing.guilty(1) if lied else standing.honest(1)
        gains.append(lies - stake)
    return Living(share, known, sum(gains) / workers + stake, sum(gains) / workers, max(gains))


def main() -> int:
    """Simulate and print; 1 if something that must not be was."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--tries", type=int, default=100_000)
    parser.add_argument("--write", action="store_true", help="keep the tables in benchmarks/results/panels.md")
    options = parser.parse_args()
    found = collusion(options.trials)
    attempts = [each(options.tries) for each in ATTEMPTS]
    convicts = convicted(found, options.trials)
    lives = [
        living(share, options.trials, known=known, convicts=convicts)
        for known in (True, False) for share in (1.0, 0.2, 0.05, 0.01)
    ]  # fmt: skip
    lazy = [(how, liars, laziness(how, liars, options.trials)) for how in Laziness for liars in (0, 2)]
    text = tables(found, attempts, lives, options.trials, convicts) + lazy_table(lazy, options.trials)
    print(text)
    if options.write:
        head = f"# panels\n\n`python -m benchmarks.panels` on {machine()}.\n\n"
        (Path(__file__).parent / "results" / "panels.md").write_text(head + text)
    wrong = [each for each in found if each.wrong and not _over(each)]
    foreseen = [each for each in attempts if abs(each.sigmas) >= 3]
    late = [each for _, liars, each in lazy if not liars and each[3] < 0.999 * options.trials]
    return int(bool(wrong or foreseen or late or any(each.mean >= 0 for each in lives)))


def laziness(how: Laziness, liars: int, trials: int) -> dict[int, int]:
    """Of so many lazy validators among nine, how many were found after one, two and three looks."""
    rng = Random(f"{how} {liars}")
    found = [looks(rng, 9, liars, how) for _ in range(trials)]
    return {most: sum(number <= most for number in found) for most in (1, 2, 3)}


_LOOKS = """\
Of what a validator says, {looks:.0%} is looked at again; of nine validators each audits {share:.1%} of a known worker's
answers: one look in {known:,.0f} answers of known workers, or in {new:.0f} of newcomers."""


def lazy_table(lazy: list[tuple[Laziness, int, dict[int, int]]], trials: int) -> str:
    """The same as Markdown."""
    share = lottery.each(limits.AUDIT_PER_MILLE_MIN, 9)
    lines = [
        "",
        _LOOKS.format(
            looks=limits.PANEL_LOOK_PER_MILLE / 1000, share=share / 1000,
            known=1e6 / (share * limits.PANEL_LOOK_PER_MILLE), new=1000 / limits.PANEL_LOOK_PER_MILLE,
        ),
        "",
        f"| a validator of nine that | others that lie | found at the 1st look | by the 2nd | 3rd, of {trials} |",
        "|---|---:|---:|---:|---:|",
    ]  # fmt: skip
    lines += [f"| {how} | {liars} | {seen[1]} | {seen[2]} | {seen[3]} |" for how, liars, seen in lazy]
    return "\n".join(lines) + "\n"


_ASSUMED = """\
Assumed: a conviction takes {stake} answers' pay, and a lie saves all that an answer costs. An alarm about a lie
convicts in {convicts:.1%}, the lowest of the rows with fewer than a third of those that may sit lying; where it comes
to nothing, all answers of the worker are audited from there on. {trials} workers a row, in answers' pay."""


def tables(found: list[Outcome], attempts: list[Attempt], lives: list[Living], trials: int, convicts: float) -> str:
    """All of it as Markdown."""
    lines = [
        f"Calls lost: {LOSS:.0%}, members absent: {ABSENT:.0%}, {trials} alarms a row. «Wrong» is what the liars want.",
        "",
        "| validators | lying | they want to | seats | convicted | honest | undecided | wrong (95 %) | seconds |",
        "|---:|---:|---|---:|---:|---:|---:|---:|---:|",
    ]
    for each in found:
        seats = committee.seats([Elector(PeerId(bytes([n]) * 32)) for n in range(each.validators)])
        lines.append(
            f"| {each.validators} | {each.liars}{', the control' if _over(each) else ''} | {each.lie} | {seats} | "
            f"{each.found[CONVICTED]} | {each.found[HONEST]} | {each.found[UNDECIDED]} | "
            f"≤ {upper(each.wrong, trials, 0.95):.2%} | {each.seconds:.0f} |"
        )
    lines += ["", "| who tries what | tries | seen | by chance | standard deviations |", "|---|---:|---:|---:|---:|"]
    lines += [f"| {a.what} | {a.tries} | {a.seen:.4f} | {a.expected:.4f} | {a.sigmas:+.2f} |" for a in attempts]
    lines += [
        "",
        _ASSUMED.format(stake=STAKE, convicts=convicts, trials=trials),
        "",
        "| worker | lies in | lies until convicted | gain, mean | gain of the luckiest |",
        "|---|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {'known' if each.known else 'newcomer'} | {each.share:.0%} | {each.lies:.1f} | {each.mean:+.1f} | "
        f"{each.best:+.0f} |"
        for each in lives
    ]
    return "\n".join(lines) + "\n"


def _over(each: Outcome) -> bool:
    """Whether more lie than a third."""
    return 3 * each.liars > each.validators


if __name__ == "__main__":
    sys.exit(main())
