"""The attack matrix by its numbers: each row, its cases, and what came of playing them; and the rows to come."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from random import Random
from typing import Final

from haif.base.errors import Misuse, Refusal
from haif.testing.attacks import colluding, drawn, forged, honest, served, written
from haif.testing.attacks.arena import Arena
from haif.testing.attacks.contest import Case
from haif.testing.attacks.tally import Outcome, Tally, total

TRIES: Final = 400  # answers of a row: of 368 attackers all must be caught before "99 %" is said
TRIES_QUICK: Final = 2  # of a case


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the matrix: its number, the attack in words, its cases, and what of it nothing can answer yet.

    In a long run it has so many `times` the tries of the others.
    """

    number: int
    attack: str
    cases: Callable[[], Iterable[Case]]
    rest: str = ""
    times: int = 1


ROWS: Final = (
    Row(1, "another model", served.another_model),
    Row(2, "fewer bits", served.fewer_bits),
    Row(3, "KV cache in fewer bits, undeclared", served.kv_undeclared),
    Row(4, "another recipe, undeclared", served.recipes_undeclared),
    Row(5, "adapter swapped, dropped or weakened", served.adapters),
    Row(6, "prompt cut", served.prompts_cut),
    Row(7, "prompt injected", served.prompts_injected),
    Row(8, "layers skipped", served.layers_left_out),
    Row(9, "other sampling or seed", served.sampling),
    Row(10, "a small model's tokens, prefilled", forged.prefilled),
    Row(11, "the other token within a tolerance", forged.within_tolerance),
    Row(12, "an answer from a cache", forged.cached),
    Row(13, "evidence used again", written.used_again, "a worker's receipts are no chain, so there is no fork to find"),
    Row(14, "model or recipe forged", forged.labels),
    Row(15, "signature or encoding forged", written.rewritten),
    Row(16, "tree forged", written.trees),
    Row(
        17,
        "text, end or count forged",
        forged.bills,
        "when an answer was computed, and in which jail, is the worker's word",
    ),
    Row(18, "lies in a part", lambda: chain(forged.in_part(), drawn.now_and_then())),
    Row(19, "lies where no audit is foreseen", drawn.foreseen),
    Row(20, "receipts tried until one is lucky", drawn.ground),
    Row(21, "a validator's draw forged", drawn.draws_forged),
    Row(22, "validators in league", colluding.together),
    Row(
        23,
        "validators that copy or do not look",
        colluding.copying,
        "one to whom another gives the digest of an answer's logits need not compute them",
    ),
    Row(24, "too much for a validator", forged.oversized),
    Row(26, "none: honest answers of every kind", honest.kinds, times=10),
)

NOT_YET: Final = {
    25: "forged sketches: receipts carry exact digests and no sketches of hidden states",
}
"""Rows that today's checks have no answer to try, and why."""


@dataclass(slots=True)
class Played:
    """A case and what was counted of it; or why this model cannot be attacked so."""

    case: Case
    tally: Tally = field(default_factory=Tally)
    lacking: str = ""

    def broken(self) -> Iterator[str]:
        """What must not be, in words."""
        name, counted = self.case.name, self.tally
        if counted.passed and self.case.must is not Outcome.PASSED:
            yield f"{name}: {counted.passed} of {counted.tries} got through"
        if self.case.must is Outcome.CAUGHT and counted.undecided:
            yield f"{name}: {counted.undecided} of {counted.tries} were left undecided ({', '.join(counted.by)})"
        if self.case.must is not Outcome.CAUGHT and counted.caught:
            yield f"{name}: {counted.caught} were accused of what is no lie, or is not to be seen yet"
        if counted.accused:
            yield f"{name}: {counted.accused} of {counted.controls} honest answers were accused"
        if counted.control_undecided:
            yield f"{name}: {counted.control_undecided} of {counted.controls} honest answers could not be judged"


@dataclass(frozen=True, slots=True)
class Result:
    """A row that was played."""

    row: Row
    cases: tuple[Played, ...]

    @property
    def tally(self) -> Tally:
        """All its cases that must be caught, with every control."""
        return total(each.tally for each in self.cases if each.case.must is Outcome.CAUGHT)

    def broken(self) -> list[str]:
        """What must not be, in words."""
        return [f"row {self.row.number}, {words}" for each in self.cases for words in each.broken()]


def chosen(numbers: Collection[int], *, quick: bool) -> list[tuple[Row, list[Case]]]:
    """These rows with their cases; all of them where none is named. Raises `ValueError` for a number that is none."""
    known = {row.number for row in ROWS}
    for number in numbers:
        if number not in known:
            raise ValueError(NOT_YET.get(number, f"there is no row {number}"))
    rows = [row for row in ROWS if not numbers or row.number in numbers]
    return [(row, [case for case in row.cases() if case.quick or not quick]) for row in rows]


async def play(
    arena: Arena, rows: Iterable[tuple[Row, list[Case]]], *, tries: int, quick: bool, seed: int,
    tell: Callable[[Row, Case], None],
) -> list[Result]:  # fmt: skip
    """Play the rows: `tries` answers of each, shared among its cases; `TRIES_QUICK` of each case if it is to be quick.

    The same seed plays the same orders. `tell` is told what begins.
    """
    results = []
    for row, cases in rows:
        sharing = sum(not case.tries for case in cases)
        played = tuple(Played(case) for case in cases)
        for each in played:
            tell(row, each.case)
            share = TRIES_QUICK if quick else -(-tries * row.times // max(1, sharing))
            random = Random(f"{seed} {row.number} {each.case.name}")  # noqa: S311 -- to be replayed
            try:
                await each.case.play(arena, random, each.case.tries or share, each.tally.add)
            except (Misuse, Refusal) as error:  # an engine does not take the model, or the request
                each.lacking = error.message
        results.append(Result(row, played))
    return results
