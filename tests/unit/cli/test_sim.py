"""`haif sim`: a table people can read, a seed to replay, an exit code for machines."""

import io
import json
from pathlib import Path

import pytest

from haif.base.clock import Instant
from haif.cli.main import main
from haif.cli.sim import _writer
from haif.dht.messages import Kind, write
from haif.testing import scenarios
from haif.testing.scenarios import SCENARIOS, Scenario
from haif.testing.stage import Stage


def test_the_list_names_every_scenario_and_what_it_is_about(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sim", "list"]) == 0
    text = capsys.readouterr().out
    assert all(name in text and scenario.about in text for name, scenario in SCENARIOS.items())
    assert main(["sim", "list", "--json"]) == 0
    assert [each["name"] for each in json.loads(capsys.readouterr().out)] == list(SCENARIOS)


def test_a_run_prints_its_figures_its_verdict_and_how_to_replay_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    assert main(["sim", "calm", "--nodes", "6", "--seed", "9", "--trace", str(trace)]) == 0
    said = capsys.readouterr()
    assert "ok" in said.out
    assert "Replay: haif sim calm --seed 9 --nodes 6" in said.out
    assert said.err == "", "no progress where nobody looks"
    lines = trace.read_text().splitlines()
    at, source, destination, kind, size, tid = lines[0].split()
    assert float(at) > 0
    assert source != destination
    assert kind == "query"
    assert int(size) > 10
    assert len(tid) == 16
    assert {line.split()[3] for line in lines} >= {"query", "reply"}


def test_every_kind_of_datagram_has_its_name_in_a_trace_and_only_garbage_is_noise() -> None:
    file = io.StringIO()
    tap = _writer(file)
    for data in [*(write(kind, b"12345678", b"rest") for kind in Kind), b"", b"\xa1", b"\xa1\xff", b"\xa0\x00noise"]:
        tap(Instant(1.0), ("20.0.0.1", 4000), ("21.0.0.1", 4000), data)
    kinds = [line.split()[3] for line in file.getvalue().splitlines()]
    assert kinds == ["query", "reply", "retry", "error", "dialback", "notice"] + ["noise"] * 4


def test_a_run_without_a_seed_draws_one_and_says_which(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sim", "--nodes", "5", "--json"]) == 0
    first = json.loads(capsys.readouterr().out)
    assert main(["sim", "--nodes", "5", "--json", "--seed", str(first["seed"])]) == 0
    assert json.loads(capsys.readouterr().out)["trace"] == first["trace"]


def test_a_complaint_of_a_checker_is_printed_and_ends_with_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def story(stage: Stage) -> None:
        stage.read_records(2)

    broken = Scenario(name="broken", about="asks for more than there is", story=story, found_min=1.1)
    monkeypatch.setattr(scenarios, "SCENARIOS", {"broken": broken})
    assert main(["sim", "broken", "--nodes", "5", "--seed", "1"]) == 1
    assert "the goal is 110.00%" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["storm"], ["--nodes", "1"], ["calm", "--trace", "/nowhere/file"]])
def test_what_cannot_be_played_is_refused_with_a_hint(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sim", *arguments]) == 2
    assert capsys.readouterr().err.startswith("haif: ")
