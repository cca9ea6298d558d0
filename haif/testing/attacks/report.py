"""What came of a run, for people and for machines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from haif.testing.attacks.matrix import NOT_YET, Played, Result
from haif.testing.attacks.tally import CONFIDENCE, Outcome, Tally, interval, total

_HEAD: Final = ("row", "attack", "caught", f"{CONFIDENCE:.0%} interval", "by", "until caught", "honest accused")


def as_json(results: Sequence[Result], **about: Any) -> dict[str, Any]:
    """All counts, by row and case, with intervals; `about` is what else there is to say of the run."""
    return about | {
        "rows": [
            {"row": each.row.number, "attack": each.row.attack, **each.tally.row(),
             "not_yet": each.row.rest, "cases": [_case(played) for played in each.cases]}
            for each in results
        ],
        "honest": honest(results),
        "not_yet": {str(number): why for number, why in NOT_YET.items()},
        "broken": broken(results),
    }  # fmt: skip


def broken(results: Sequence[Result]) -> list[str]:
    """What must not be: attacks that got through, honest answers that were accused."""
    return [words for each in results for words in each.broken()]


def honest(results: Sequence[Result]) -> dict[str, Any]:
    """All honest controls together, and those of them that are answers, computed again to the last bit."""
    every, computed = _controls(results), _computed(results)
    return {
        "controls": every.controls, "accused": every.accused, "undecided": every.control_undecided,
        "accused_interval": interval(every.accused, every.controls),
        "answers": computed.controls, "answers_accused": computed.accused, "tokens": computed.control_seen,
        "answers_accused_interval": interval(computed.accused, computed.controls),
    }  # fmt: skip


def table(results: Sequence[Result], *, cases: bool = False) -> list[list[str]]:
    """A line for each row, or for each case, with its head."""
    lines = [list(_HEAD)]
    for result in results:
        number = str(result.row.number)
        if not cases:
            lines.append([number, result.row.attack, *_figures(result.tally, _units(result))])
        else:
            lines += [[number, each.case.name, *_figures(each.tally, each.case.unit)] for each in result.cases]
    computed = _computed(results)
    lines.append(["all", "honest controls", "", "", "", "", _accused(_controls(results))])
    if computed.controls:
        words = f"honest answers computed again, {computed.control_seen} tokens"
        lines.append(["all", words, "", "", "", "", _accused(computed)])
    return lines


def notes(results: Sequence[Result]) -> list[str]:
    """What a table does not say: what is open, what was no lie in the end, and which rows are to come."""
    said = [
        f"open: row {each.row.number}, {played.case.name}: {played.tally.tries} tried, "
        f"{played.tally.undecided} undecided, {played.tally.passed} passed; {played.case.open}"
        for each in results for played in each.cases if played.case.open
    ]  # fmt: skip
    said += [
        f"not tried: row {each.row.number}, {played.case.name}: {played.lacking}"
        for each in results for played in each.cases if played.lacking
    ]  # fmt: skip
    same = sum(played.tally.same for each in results for played in each.cases if played.case.must is Outcome.CAUGHT)
    if same:
        said.append(f"not counted: {same} lies that came out as the honest answer does, to the last bit")
    said += [f"not yet: of row {each.row.number}, {each.row.rest}" for each in results if each.row.rest]
    return said + [f"not yet: row {number}, {why}" for number, why in NOT_YET.items()]


def as_text(lines: Sequence[Sequence[str]]) -> str:
    """A table for a terminal."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def as_markdown(lines: Sequence[Sequence[str]]) -> str:
    """The same in Markdown."""
    head, *rest = lines
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, ["---"] * len(head), *rest))


def _controls(results: Sequence[Result]) -> Tally:
    return total(played.tally for each in results for played in each.cases)


def _computed(results: Sequence[Result]) -> Tally:
    """Of the controls, those whose tokens were looked at."""
    every = (played for each in results for played in each.cases if played.case.unit == "tokens")
    return total(played.tally for played in every if played.tally.control_seen)


def _units(result: Result) -> str:
    """What its cases count, where it is one thing."""
    units = {played.case.unit for played in result.cases}
    return units.pop() if len(units) == 1 else ""


def _case(played: Played) -> dict[str, Any]:
    case = played.case
    return {
        "case": case.name,
        "must_be": case.must.value,
        "unit": case.unit,
        "open": case.open,
        "lacking": played.lacking,
        **played.tally.row(),
    }


def _figures(counted: Tally, unit: str) -> list[str]:
    if not counted.tries:
        return ["", "", "", "", _accused(counted)]
    caught = f"{counted.caught} of {counted.tries}"
    caught += f", {counted.undecided} undecided" if counted.undecided else ""
    caught += f", {counted.passed} passed" if counted.passed else ""
    until = counted.row()["until_caught"] if unit else None
    return [
        caught, _percent(interval(counted.caught, counted.tries)), ", ".join(sorted(counted.by)) or "none",
        f"{until['median']:g}, at most {until['most']} {unit}" if until else "", _accused(counted),
    ]  # fmt: skip


def _accused(counted: Tally) -> str:
    if not counted.controls:
        return ""
    most = interval(counted.accused, counted.controls)
    return f"{counted.accused} of {counted.controls} ({_percent(most)})"


def _percent(bounds: Sequence[float] | None) -> str:
    return "" if bounds is None else f"{bounds[0]:.2%} to {bounds[1]:.2%}"
