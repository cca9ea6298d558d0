"""The attack suite itself: it counts rightly, has every row, and would notice a check that does not check."""

import json
from pathlib import Path

import pytest

from haif.artifacts.service import DEMO_FOLDER
from haif.base.errors import Unsupported
from haif.cli.main import main
from haif.engine.llama.quantise import quantise
from haif.node import replay
from haif.proof.compare import Cause, Difference
from haif.testing.attacks import matrix, report
from haif.testing.attacks.arena import digest_of
from haif.testing.attacks.contest import Case
from haif.testing.attacks.matrix import NOT_YET, ROWS, Played, Result, Row
from haif.testing.attacks.siblings import LADDER, Siblings
from haif.testing.attacks.tally import Finding, Outcome, Tally, Trial, interval, total

DEMO = next(DEMO_FOLDER.glob("*.gguf"))


def counted(*outcomes: Outcome, honest: bool = False) -> Tally:
    tally = Tally()
    for outcome in outcomes:
        tally.add(Trial(honest, Finding(outcome, "a check", 7)))
    return tally


def result(tally: Tally, must: Outcome = Outcome.CAUGHT, *, open_: str = "") -> Result:
    case = Case("a case", None, must, open=open_)  # type: ignore[arg-type]
    return Result(Row(1, "an attack", lambda: [case]), (Played(case, tally),))


def test_every_row_of_the_matrix_is_played_or_said_to_come() -> None:
    assert list(range(1, 27)) == sorted([*(row.number for row in ROWS), *NOT_YET])
    for row in ROWS:
        assert [case for case in row.cases() if case.quick], f"row {row.number} is in the short run too"


def test_the_interval_is_clopper_and_pearsons() -> None:
    """Of 368 attackers all caught: over 99 % are. 3 of 20: the textbook's 3.2 % to 37.9 %."""
    assert [0.990026, 1.0] == interval(368, 368)
    assert [0.032071, 0.378927] == interval(3, 20)
    assert interval(0, 0) is None


def test_lies_that_come_out_as_the_truth_are_counted_apart() -> None:
    tally = counted(Outcome.CAUGHT, Outcome.SAME, Outcome.SAME)
    assert (1, 1, 2) == (tally.caught, tally.tries, tally.same)


def test_an_attack_that_gets_through_and_an_honest_answer_that_is_accused_are_broken() -> None:
    for tally, must, words in (
        (counted(Outcome.PASSED), Outcome.CAUGHT, "1 of 1 got through"),
        (counted(Outcome.UNDECIDED), Outcome.CAUGHT, "undecided"),
        (counted(Outcome.CAUGHT), Outcome.UNDECIDED, "accused of what is no lie"),
        (counted(Outcome.CAUGHT, honest=True), Outcome.CAUGHT, "1 of 1 honest answers were accused"),
        (counted(Outcome.UNDECIDED, honest=True), Outcome.CAUGHT, "could not be judged"),
    ):
        assert words in " ".join(result(tally, must).broken())
    assert result(total([counted(Outcome.CAUGHT), counted(Outcome.PASSED, honest=True)])).broken() == []


def test_what_cannot_be_tried_with_a_model_is_said_and_is_nothing_broken() -> None:
    lacking = Result(Row(1, "an attack", tuple), (Played(Case("a case", None), lacking="no room"),))  # type: ignore[arg-type]
    assert "not tried: row 1, a case: no room" in report.notes([lacking])
    assert [] == report.broken([lacking])


def test_how_long_it_took_is_told_by_mean_median_99th_percentile_and_most() -> None:
    tally = Tally()
    for seen in range(1, 201):
        tally.add(Trial(False, Finding(Outcome.CAUGHT, "a check", seen)))
    assert {"mean": 100.5, "median": 100.5, "p99": 198, "most": 200} == tally.row()["until_caught"]


def test_what_is_open_and_what_is_to_come_is_said_beside_the_table() -> None:
    said = "\n".join(report.notes([result(counted(Outcome.UNDECIDED), Outcome.UNDECIDED, open_="so it is")]))
    assert "open: row 1, a case: 1 tried, 1 undecided, 0 passed; so it is" in said
    assert all(f"row {number}" in said for number in NOT_YET)


def test_a_row_that_is_none_is_refused_with_the_reason() -> None:
    for number, why in (*NOT_YET.items(), (99, "no row 99")):
        with pytest.raises(ValueError, match=why[:20]):
            matrix.chosen([number], quick=True)


def test_siblings_are_other_files_each_made_once(tmp_path: Path) -> None:
    siblings = Siblings(DEMO, tmp_path)
    files = [*map(siblings.quantised, LADDER), siblings.shorn(-1), siblings.shorn(1), siblings.adapter(1)]
    assert len(files) == len({digest_of(path) for path in files})
    assert siblings.layers - 1 == Siblings(siblings.shorn(-1), tmp_path).layers
    before = siblings.shorn(-1).stat().st_mtime_ns
    assert before == siblings.shorn(-1).stat().st_mtime_ns


def test_what_llama_cpp_cannot_make_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="no quantisation"):
        quantise(str(DEMO), str(tmp_path / "none"), "Q7")
    (tmp_path / "text").write_text("no model")
    with pytest.raises(Unsupported, match="could not make Q8_0"):
        quantise(str(tmp_path / "text"), str(tmp_path / "none"), "Q8_0")


def test_a_row_prints_its_counts_and_ends_well(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["attack", "--row", "16", "--row", "21", "--quick"]) == 0
    said = capsys.readouterr()
    assert "tree forged" in said.out
    assert "1400 of 1400" in said.out
    assert said.err == "", "no progress where nobody looks"
    assert main(["attack", "--row", "16", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [16] == [row["row"] for row in told["rows"]]
    assert told["rows"][0]["tries"] == told["rows"][0]["caught"] > 4000
    assert 0 == told["honest"]["accused"]
    assert [] == told["broken"]


@pytest.mark.parametrize(
    "flags",
    [["--row", "25"], ["--row", "0"], ["--tries", "0"], ["--model", "/nowhere/model.gguf"], ["--quick", "demo"]],
    ids=" ".join,
)
def test_what_cannot_be_played_is_refused(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["attack", *flags]) == 2
    assert flags[0] in capsys.readouterr().err


@pytest.mark.parametrize(
    ("finds", "words"),
    [(None, "got through"), (Difference(Cause.TEXT, 0, "whatever"), "honest answers were accused")],
    ids=["a blind check", "a check that accuses all"],
)
def test_a_check_that_does_not_check_is_noticed(
    finds: Difference | None, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(replay, "difference", lambda *_: finds)
    assert main(["attack", "--row", "8", "--quick"]) == 6
    assert words in capsys.readouterr().err
