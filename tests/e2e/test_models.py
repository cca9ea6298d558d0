"""One worker with two models, and its operator, from the command line."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import Mesh, haif, start, stop, until
from tests.support.tiny_model import build_tiny_model
from tools.random_adapter import random_adapter

TURN = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    folder = tmp_path_factory.mktemp("two")
    build_tiny_model(folder / "second.gguf")
    running = start(folder, "--workers", "1", "--model", "haif-demo", "--model", str(folder / "second.gguf"))
    yield running
    stop(running)


def models(mesh: Mesh, *asked: str) -> dict[str, dict[str, Any]]:
    told = haif("worker", "models", *asked, "--name", "worker-1", "--json", state=mesh.state)
    assert told.returncode == 0, told.stderr
    return {model["name"]: model for model in json.loads(told.stdout.splitlines()[-1])["models"]}


def answer(mesh: Mesh, model: str) -> str:
    with mesh.client() as client:
        made = client.chat.completions.create(model=model, messages=TURN, max_tokens=8, temperature=0)
    assert made.model_extra["haif"]["model_digest"] == models(mesh)[model]["digest"]
    return str(made.choices[0].message.content)


def test_both_models_answer_and_one_that_was_unloaded_is_loaded_when_it_is_asked_for(two: Mesh) -> None:
    until(lambda: {each["state"] for each in models(two).values()} == {"warm"}, "both models are loaded")
    before = answer(two, "haif-demo"), answer(two, "second")
    assert models(two, "unload", "second")["second"]["state"] == "cold"
    metrics = two.metrics("worker")
    assert 'haif_worker_model_state{model="second",state="cold"} 1.0' in metrics
    assert 'haif_worker_model_state{model="haif-demo",state="warm"} 1.0' in metrics
    assert (answer(two, "haif-demo"), answer(two, "second")) == before
    assert models(two)["second"]["state"] == "warm"
    assert models(two, "pin", "second")["second"]["pinned"]


def test_what_an_operator_reads_is_a_table_and_what_is_wrong_is_said(two: Mesh, tmp_path: Path) -> None:
    told = haif("worker", "models", "--name", "worker-1", state=two.state)
    assert told.stdout.startswith("MODEL")
    assert "for models" in told.stdout
    told = haif("worker", "models", "load", "nothing", "--name", "worker-1", state=two.state)
    assert (told.returncode, "it serves: haif-demo, second" in told.stderr) == (3, True)
    told = haif("worker", "models", state=tmp_path)
    assert (told.returncode, "no worker is running" in told.stderr) == (5, True)


def test_the_gateway_lists_both(two: Mesh) -> None:
    headers = {"Authorization": f"Bearer {two.first_card['key']}"}
    listed = httpx.get(f"{two.first_card['gateway']}/v1/models", headers=headers).json()["data"]
    assert {"haif-demo", "second"} <= {model["id"] for model in listed}


def test_a_model_that_kills_its_child_is_quarantined_across_restarts_shown_and_released(tmp_path: Path) -> None:
    """The bytes are what the publisher signed, and a header as it should be; llama.cpp cannot live with them."""
    key, kind = b"tokenizer.ggml.model" + struct.pack("<I", 8), struct.pack("<Q", 5)
    whole = build_tiny_model(tmp_path / "m.gguf").read_bytes()
    (tmp_path / "broken.gguf").write_bytes(whole.replace(key + kind + b"llama", key + kind + b"lxama"))
    assert haif("model", "add", str(tmp_path / "broken.gguf"), state=tmp_path).returncode == 0
    alone = ("worker", "--orchestrator", "ab" * 32, "--model", "broken")
    first = haif(*alone, state=tmp_path)
    assert first.returncode in {1, 5}, first.stderr
    assert "broken is quarantined until" in first.stderr
    again = haif(*alone, state=tmp_path)
    assert (again.returncode, "haif worker models release broken" in again.stderr) == (5, True)
    told = haif("doctor", "--json", state=tmp_path)
    (found,) = [each for each in json.loads(told.stdout) if "quarantined" in each["detail"]]
    assert (found["what"], found["state"]) == ("model broken", "wrong")
    assert haif("worker", "models", "release", "broken", state=tmp_path).stdout == "released\n"
    assert "broken is quarantined until" in haif(*alone, state=tmp_path).stderr  # it was tried, and failed, again


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    folder = tmp_path_factory.mktemp("tuned")
    demo = json.loads(haif("model", "show", "haif-demo", "--json", state=folder).stdout)
    adapter = random_adapter(Path(demo["path"]), folder / "adapter.gguf", strength=4.0)
    added = haif("model", "add", str(adapter), "--base", "haif-demo", "--name", "tuned", "--json", state=folder)
    assert added.returncode == 0, added.stderr
    running = start(folder, "--workers", "1", "--model", "haif-demo", "--model", "tuned")
    yield running
    stop(running)


def test_an_adapter_is_a_model_that_tenants_name_and_whose_receipt_is_replayed(tuned: Mesh, tmp_path: Path) -> None:
    assert {"haif-demo", "tuned"} == models(tuned).keys()
    with tuned.client() as client:
        assert {"haif-demo", "tuned"} <= {each.id for each in client.models.list().data}
        made = {
            model: client.chat.completions.create(
                model=model, messages=TURN, max_tokens=12, temperature=0, extra_body={"haif": {"transcript": True}}
            )
            for model in ("haif-demo", "tuned")
        }
    assert made["haif-demo"].choices[0].message.content != made["tuned"].choices[0].message.content
    shown = json.loads(haif("model", "show", "tuned", "--json", state=tuned.state).stdout)
    for model, answered in made.items():
        file = tmp_path / f"{model}.json"
        file.write_text(json.dumps(answered.model_extra["haif"]))
        told = json.loads(haif("receipt", "verify", str(file), "--json").stdout)
        assert told["model_digest"] == answered.model_extra["haif"]["model_digest"]
        if model == "tuned":
            assert (shown["digest"], shown["base"], shown["adapter"]) == (
                told["model_digest"], told["base"], told["adapter"],
            )  # fmt: skip
        replayed = haif("receipt", "replay", str(file), state=tuned.state)
        assert (replayed.returncode, "12 tokens, computed again" in replayed.stdout) == (0, True), replayed.stderr
