"""`haif audit trace` prints a job's whole trace as a tree, from every span store of a state folder."""

import argparse
import json
import time
from pathlib import Path

import pytest

from haif.base.errors import EngineDied, Misuse
from haif.cli import audit
from haif.telemetry import names
from haif.telemetry.service import Telemetry

JOB = "0123456789abcdef0123456789abcdef"
MS = 1_000_000


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A gateway and a worker, each with its own folder, that both took part in a job."""
    for role in ("gateway", "worker"):
        (tmp_path / role).mkdir()
    gateway = Telemetry(role=names.GATEWAY, instance="g1", spans=tmp_path / "gateway" / "spans.sqlite")
    worker = Telemetry(role=names.WORKER, instance="w1", spans=tmp_path / "worker" / "spans.sqlite")
    gateway.start()
    worker.start()
    with gateway.span(
        "chat m", attributes={names.JOB: JOB, names.WORKER_PEER: "ab" * 32, names.PROVIDER: "haif"}
    ) as request:
        start = time.time_ns()
        worker.record_span(
            names.SPAN_RUN, parent=request.traceparent, start_ns=start, end_ns=start + 7 * MS,
            attributes={names.OUTPUT_TOKENS: 3},
        )  # fmt: skip
        with pytest.raises(EngineDied), worker.span(names.SPAN_ENGINE_DECODE, parent=request.traceparent):
            raise EngineDied("the engine was killed by signal 9")
    gateway.close()
    worker.close()
    return tmp_path


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    audit.add(parser.add_subparsers())
    parsed = parser.parse_args(["audit", "trace", *arguments])
    code: int = parsed.handler(parsed)
    return code


def test_the_tree_shows_role_name_duration_status_and_facts(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(JOB, "--state", str(state)) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    words = [line.split() for line in lines]
    assert head.startswith(f"job {JOB}: 3 spans of 2 processes, ")
    assert [each[4] for each in words] == ["gateway", "worker", "worker"]
    assert words[0][7:] == ["ok", "worker=abababab"]
    assert words[1][2:] == ["7.0", "ms", "worker", "worker.run", "ok", "tokens_out=3"]
    assert words[2][4:] == ["worker", "engine.decode", "engine_died"]
    assert lines[1].index("worker.run") == lines[0].index("chat m") + 2


def test_a_machine_gets_a_json_list(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(JOB, "--state", str(state), "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [(span["depth"], span["role"], span["reason"]) for span in found] == [
        (0, "gateway", ""), (1, "worker", ""), (1, "worker", "engine_died"),
    ]  # fmt: skip
    assert found[0]["attributes"][names.WORKER_PEER] == "ab" * 32


@pytest.mark.parametrize("text", [f"chatcmpl-{JOB}", f"{JOB}.2", JOB.upper()])
def test_the_id_of_an_answer_and_a_correlation_id_name_the_job_too(
    state: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(text, "--state", str(state)) == 0
    assert JOB in capsys.readouterr().out


def test_a_job_nobody_knows_is_not_found(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("f" * 32, "--state", str(state)) == 3
    out, err = capsys.readouterr()
    assert out == ""
    assert "no span of job ffff" in err
    assert "2 span stores" in err


def test_a_folder_without_stores_is_said_to_be_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(JOB, "--state", str(tmp_path)) == 3
    assert "no span store is below" in capsys.readouterr().err


def test_what_is_no_job_is_a_misuse(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match="32 hex digits"):
        run("yesterday", "--state", str(tmp_path))
