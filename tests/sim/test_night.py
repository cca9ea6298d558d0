"""The night run itself, with eight nodes and half an hour: it ends well, replays its beginning, prints its table."""

import pytest

from benchmarks.night import HEAD, Night, main


def test_a_short_night_ends_well_and_says_what_it_took(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(Night(nodes=8, hours=0.6, life_hours=2.0, seed=2), write=False) == 0
    said = capsys.readouterr()
    assert HEAD in said.out
    assert "| 8 | 0.6 | 2 |" in said.out
    assert said.err == "", "no bar where nobody looks"


def test_a_goal_that_is_missed_ends_with_1(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.night.FOUND_MIN", 1.1)
    monkeypatch.setattr("benchmarks.night.rehearsed", lambda _night: "another trace")
    assert main(Night(nodes=8, hours=0.6, life_hours=2.0, seed=2), write=False) == 1
    said = capsys.readouterr().out
    assert "the goal is 110.00%" in said
    assert "had another trace" in said
