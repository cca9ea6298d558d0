"""The mesh as its operator sees it: it starts, survives losses, tells what happened, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest

from haif.telemetry import names
from tests.e2e.conftest import Mesh, haif, start, stop, until
from tests.support.prometheus import missing_series
from tests.support.tiny_model import build_tiny_model

pytestmark = pytest.mark.xdist_group("mesh")
STORY: list[Any] = [{"role": "user", "content": "Tell me a long story about the river."}]
DASHBOARD = Path(__file__).parents[2] / "ops" / "grafana" / "dashboards" / "haif.json"


def one_answer(mesh: Mesh) -> Any:
    """An answer, asked for as clients do: what says when to try again is tried again."""
    with mesh.client(max_retries=3) as client:
        return client.chat.completions.create(model=mesh.first_card["model"], messages=STORY, max_tokens=20)


def test_the_card_says_where_everything_is(mesh: Mesh) -> None:
    card = mesh.first_card
    assert card["gateway"].startswith("http://127.0.0.1:")
    assert not card["gateway"].endswith("/v1")
    assert card["key"].startswith("haif-")
    assert ["orchestrator", "gateway", "worker", "worker"] == [role["role"] for role in card["roles"]]
    assert len({role["pid"] for role in card["roles"]}) == 4
    targets = json.loads((mesh.state / "prometheus.json").read_text())
    asked = {f"http://{target}/metrics" for group in targets for target in group["targets"]}
    assert {role["metrics"] for role in mesh.card["roles"]} == asked


def test_everything_listens_on_loopback_only(mesh: Mesh) -> None:
    for process in [*mesh.processes(), psutil.Process(mesh.process.pid)]:
        for connection in process.net_connections():
            assert connection.laddr.ip.startswith("127."), connection


def test_health_and_readiness_are_told(mesh: Mesh) -> None:
    gateway = mesh.first_card["gateway"]
    assert httpx.get(f"{gateway}/healthz").status_code == 200
    assert httpx.get(f"{gateway}/readyz").status_code == 200


def test_one_trace_runs_through_all_roles(mesh: Mesh) -> None:
    job = one_answer(mesh).model_extra["haif"]["job"]

    def trace() -> list[dict[str, Any]] | None:
        told = haif("audit", "trace", job, "--json", state=mesh.state)
        spans = json.loads(told.stdout) if told.returncode == 0 else []
        names = " ".join(span["name"] for span in spans)
        return spans if "engine.decode" in names and "orchestrator.finalise" in names and "chat" in names else None

    spans = until(trace, "the whole trace is in the span stores")
    assert len({span["trace"] for span in spans}) == 1
    assert {"gateway", "orchestrator", "worker"} <= {span["role"] for span in spans}


def test_every_query_of_the_dashboard_has_its_series(mesh: Mesh) -> None:
    with mesh.client() as client:
        list(client.completions.create(model=mesh.first_card["model"], prompt="The", max_tokens=9, stream=True))
    expositions = [mesh.metrics(kind) for kind in ("orchestrator", "gateway", "worker")]
    missing = missing_series(json.loads(DASHBOARD.read_text()), expositions)
    elsewhere = [each.name for each in names.ALL if set(each.roles) <= {names.RELAY, names.VALIDATOR}]
    assert [each for each in missing if not any(name in each for name in elsewhere)] == []


def test_a_stranger_with_one_address_finds_every_role(mesh: Mesh, tmp_path: Path) -> None:
    bootstrap = ["--bootstrap", mesh.card["roles"][0]["dht"], "--json"]
    found = {row["peer"]: row["role"] for row in json.loads(haif("peers", *bootstrap, state=tmp_path).stdout)}
    for kind in ("worker", "orchestrator", "gateway"):
        assert {found[role["peer"]] for role in mesh.roles(kind)} == {kind}
    for role in mesh.roles("worker"):
        told = json.loads(haif("net", "ping", role["peer"], *bootstrap, state=tmp_path).stdout)
        assert told["wire"] == role["wire"]


def test_a_question_in_the_terminal(mesh: Mesh) -> None:
    told = haif("chat", "Who are you?", "--temperature", "0", "--state", str(mesh.state))
    assert told.returncode == 0, told.stderr
    assert len(told.stdout.split()) >= 3


def test_the_demo_answers_proves_it_and_leaves(tmp_path: Path) -> None:
    told = haif("demo", "--workers", "1", "--state", str(tmp_path))
    assert told.returncode == 0, told.stderr
    assert "windmill" in told.stdout.split("> Tell me")[1]
    assert "worker, orchestrator and gateway all verify" in told.stdout
    assert "yes, exactly the text given" in told.stdout


def test_a_client_that_hangs_up_frees_its_slot(mesh: Mesh) -> None:
    def running() -> float:
        lines = [line for line in mesh.metrics("worker").splitlines() if line.startswith("haif_worker_running{")]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)

    with mesh.client() as client:
        stream = client.chat.completions.create(
            model=mesh.first_card["model"], messages=STORY, max_tokens=800, temperature=2, stream=True
        )
        next(iter(stream))
        stream.close()
    until(lambda: running() == 0, "the abandoned answer's slot is free")


@pytest.fixture(scope="module")
def fragile(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A mesh of its own, for tests that break things."""
    running = start(tmp_path_factory.mktemp("fragile"), "--workers", "2")
    yield running
    stop(running)


def test_a_killed_worker_never_hangs_its_client(fragile: Mesh) -> None:
    before = fragile.roles("worker")
    with fragile.client(timeout=30) as client:
        streams = [
            client.chat.completions.create(
                model=fragile.first_card["model"], messages=STORY, max_tokens=900, temperature=2, seed=n, stream=True
            )
            for n in range(4)
        ]
        firsts = [next(iter(stream)) for stream in streams]
        assert len(firsts) == 4
        for role in before:
            fragile.kill(role)
        outcomes = [_drain(stream) for stream in streams]
    assert set(outcomes) <= {"finished", "error"}
    for role in before:
        fragile.until_back(role["name"], role["pid"])
    assert one_answer(fragile).choices


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A mesh whose gateway waits for a token only so long: long enough for a busy machine, short for a test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HAIF_GATEWAY_TOKEN_MS", "4000")
        running = start(tmp_path_factory.mktemp("hasty"), "--workers", "2")
    yield running
    stop(running)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM])
def test_a_stream_whose_worker_dies_stops_or_leaves_is_the_stream_that_would_have_come(
    hasty: Mesh, number: signal.Signals, tmp_path: Path
) -> None:
    attempts = (_interrupted(hasty, number, seed) for seed in range(7, 17))
    text, proof = next(each for each in attempts if each is not None)
    (tmp_path / "receipt.json").write_text(json.dumps(proof))
    (tmp_path / "answer.txt").write_text(text)
    told = haif("receipt", "verify", str(tmp_path / "receipt.json"), "--text", str(tmp_path / "answer.txt"))
    assert told.returncode == 0
    assert "came from a worker that failed and signed nothing" in told.stdout


def _interrupted(mesh: Mesh, number: signal.Signals, seed: int) -> tuple[str, dict[str, Any]] | None:
    """An answer, and its proof, whose worker was sent a signal meanwhile. None: it had finished before it heard of it.

    Whenever that was, the text is the same as without it.
    """
    asked = {"model": mesh.first_card["model"], "messages": STORY, "max_tokens": 800, "temperature": 1.6, "seed": seed}
    with mesh.client(timeout=60) as client:
        whole = client.chat.completions.create(**asked).choices[0].message.content
        stream = client.chat.completions.create(**asked, stream=True)
        chunks = [next(iter(stream)) for _ in range(5)]
        peer = str(stream.response.headers["x-haif-worker"])
        (at_work,) = [role for role in mesh.roles("worker") if role["peer"] == peer]
        os.kill(at_work["pid"], number)
        chunks += stream
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    proof = chunks[-1].model_extra["haif"]
    if number is signal.SIGSTOP:
        os.kill(at_work["pid"], signal.SIGKILL)  # the supervisor starts it again
    mesh.until_back(at_work["name"], at_work["pid"])
    assert text == whole
    return (text, proof) if proof["worker"] != peer else None


def _drain(stream: Any) -> str:
    """Read to the end: "finished" if the answer is whole, "error" if the client was told."""
    finished = False
    try:
        for chunk in stream:
            finished = finished or any(choice.finish_reason for choice in chunk.choices)
    except openai.APIError as error:
        assert error.message
        return "error"
    return "finished" if finished else "cut short in silence"


def test_a_killed_engine_child_is_an_error_and_comes_back(fragile: Mesh) -> None:
    worker = fragile.roles("worker")[0]
    (child,) = psutil.Process(worker["pid"]).children()
    child.kill()
    until(
        lambda: [each for each in psutil.Process(worker["pid"]).children() if each.pid != child.pid],
        "the engine child is started again",
    )
    assert one_answer(fragile).choices
    assert "haif_engine_deaths_total 1.0" in httpx.get(worker["metrics"]).text


def test_a_restarted_orchestrator_forgets_no_finished_job(fragile: Mesh) -> None:
    answers = [one_answer(fragile) for _ in range(3)]
    (old,) = fragile.roles("orchestrator")
    fragile.kill(old)
    fragile.until_back("orchestrator", old["pid"])
    headers = {"Authorization": f"Bearer {fragile.first_card['key']}"}
    for answer in answers:
        bundle = answer.model_extra["haif"]
        shown = httpx.get(f"{fragile.first_card['gateway']}/haif/v1/jobs/{bundle['job']}", headers=headers).json()
        assert (shown["state"], shown["receipt"]) == ("finalised", bundle["receipt"])
    assert one_answer(fragile).choices


def test_a_restarted_gateway_is_where_its_tenants_know_it(fragile: Mesh) -> None:
    (old,) = fragile.roles("gateway")
    before = keyed_answer(fragile)
    fragile.kill(old)
    fragile.until_back("gateway", old["pid"])
    assert fragile.card["gateway"] == fragile.first_card["gateway"]
    assert one_answer(fragile).choices
    assert keyed_answer(fragile) == before  # nothing runs twice for one Idempotency-Key


def keyed_answer(mesh: Mesh) -> str:
    with mesh.client(max_retries=3) as client:
        return client.chat.completions.create(
            model=mesh.first_card["model"], messages=STORY, max_tokens=20, extra_headers={"Idempotency-Key": "one"}
        ).model_dump_json()


def test_an_interrupt_stops_everything(tmp_path: Path, begin: Callable[..., Mesh]) -> None:
    mesh = begin(tmp_path, "--workers", "1")
    processes = mesh.processes()
    thread = threading.Thread(target=_try_to_read, args=(mesh,))
    thread.start()
    stop(mesh)  # how long it takes is benchmarks/mesh.py's to tell
    psutil.wait_procs(processes, timeout=5)
    assert [each for each in processes if each.is_running()] == []
    thread.join(10)
    assert not (tmp_path / "up.json").exists()
    again = begin(tmp_path, "--workers", "1")  # no stale lock; the same key still works
    assert mesh.first_card["key"] == again.first_card["key"]
    assert one_answer(again).choices
    stop(again)


def _try_to_read(mesh: Mesh) -> None:
    with contextlib.suppress(openai.APIError):  # it is interrupted, as it should
        one_answer(mesh)


def test_no_role_outlives_a_killed_supervisor(tmp_path: Path, begin: Callable[..., Mesh]) -> None:
    mesh = begin(tmp_path, "--workers", "1")
    processes = mesh.processes()
    os.kill(mesh.process.pid, signal.SIGKILL)
    mesh.process.wait()
    assert mesh.process.stdout is not None
    mesh.process.stdout.close()
    _, alive = psutil.wait_procs(processes, timeout=20)
    assert alive == []


def test_a_second_mesh_in_the_same_folder_is_refused(mesh: Mesh) -> None:
    told = haif("up", "--state", str(mesh.state))
    assert told.returncode == 2
    assert "already running" in told.stderr


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "picture.gguf"
    path.write_bytes(b"GIF89a")
    told = haif("up", "--model", str(path), "--state", str(tmp_path / "state"))
    assert told.returncode == 2
    assert "not a GGUF" in told.stderr


def test_a_damaged_model_says_so_and_leaves_nothing_running(tmp_path: Path) -> None:
    path = tmp_path / "broken.gguf"
    raw = build_tiny_model(tmp_path / "whole.gguf", layers=1).read_bytes()
    path.write_bytes(raw.replace(b"blk.0.attn_q", b"blk.0.attn_x"))  # its form holds, and llama.cpp misses a tensor
    began = time.time()
    told = haif("up", "--model", str(path), "--workers", "1", "--state", str(tmp_path / "state"))
    assert told.returncode == 5
    assert "worker-1 did not start" in told.stderr
    mine = [
        each for each in psutil.process_iter(["cmdline", "create_time"])
        if each.info["create_time"] > began and str(tmp_path) in " ".join(each.info["cmdline"] or [])
    ]  # fmt: skip
    assert mine == []
