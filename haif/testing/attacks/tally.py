"""What was counted: how often an attack was caught and an honest control accused, and what that says of the chances."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from statistics import fmean, median
from typing import Any, Final

from haif.proof.evidence import lower, upper

CONFIDENCE: Final = 0.95  # of both bounds of an interval together


class Outcome(StrEnum):
    """What became of one answer."""

    CAUGHT = "caught"  # refused as evidence, or its worker convicted
    PASSED = "passed"  # all checks hold
    UNDECIDED = "undecided"  # nothing can be said of it here, for or against
    SAME = "same"  # a lie that came out as the honest answer did, to the last bit: nobody is harmed, nothing is counted


@dataclass(frozen=True, slots=True)
class Finding:
    """What the checks say: what found it, and how much had to be looked at until then (tokens, unless it is said)."""

    outcome: Outcome
    by: str = ""
    seen: int = 0


@dataclass(frozen=True, slots=True)
class Trial:
    """One answer that was judged: an attack, or the honest control beside it."""

    honest: bool
    finding: Finding


@dataclass(slots=True)
class Tally:
    """The trials of one case."""

    caught: int = 0
    passed: int = 0
    undecided: int = 0
    same: int = 0
    by: Counter[str] = field(default_factory=Counter)
    seen: list[int] = field(default_factory=list)
    controls: int = 0
    accused: int = 0
    control_undecided: int = 0
    control_seen: int = 0

    def add(self, trial: Trial) -> None:
        """Count it."""
        found = trial.finding
        if trial.honest:
            self.controls += 1
            self.accused += found.outcome is Outcome.CAUGHT
            self.control_undecided += found.outcome is Outcome.UNDECIDED
            self.control_seen += found.seen
            return
        name = found.outcome.value
        setattr(self, name, getattr(self, name) + 1)
        if found.outcome is not Outcome.SAME:
            self.by[found.by] += 1
        if found.outcome is Outcome.CAUGHT and found.seen:
            self.seen.append(found.seen)

    @property
    def tries(self) -> int:
        """The attacks that could have been caught."""
        return self.caught + self.passed + self.undecided

    def __add__(self, other: Tally) -> Tally:
        numbers = ("caught", "passed", "undecided", "same", "controls", "accused", "control_undecided", "control_seen")
        both = {name: getattr(self, name) + getattr(other, name) for name in numbers}
        return Tally(**both, by=self.by + other.by, seen=self.seen + other.seen)

    def row(self) -> dict[str, Any]:
        """All of it as plain values; intervals are Clopper and Pearson's, two-sided."""
        return {
            "tries": self.tries, "caught": self.caught, "passed": self.passed, "undecided": self.undecided,
            "same": self.same,
            "caught_interval": interval(self.caught, self.tries), "by": dict(sorted(self.by.items())),
            "until_caught": _spread(self.seen),
            "controls": self.controls, "accused": self.accused, "controls_undecided": self.control_undecided,
            "accused_interval": interval(self.accused, self.controls), "control_seen": self.control_seen,
        }  # fmt: skip


def _spread(seen: list[int]) -> dict[str, float] | None:
    """How much was looked at until an attack was caught; the 99th percentile is the nearest rank's."""
    if not seen:
        return None
    p99 = sorted(seen)[math.ceil(0.99 * len(seen)) - 1]
    return {"mean": round(fmean(seen), 2), "median": median(seen), "p99": p99, "most": max(seen)}


def interval(count: int, tries: int) -> list[float] | None:
    """Within which the chance lies, by Clopper and Pearson (1934), at `CONFIDENCE`; None of no tries."""
    if not tries:
        return None
    each = (1 + CONFIDENCE) / 2
    return [round(lower(count, tries, each), 6), round(upper(count, tries, each), 6)]


def total(tallies: Iterable[Tally]) -> Tally:
    """All of them together."""
    return sum(tallies, Tally())
