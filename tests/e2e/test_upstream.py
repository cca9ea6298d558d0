"""A worker whose answers another HAIF gateway computes: our own dialect on both sides of a real HTTP connection."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import HAIF, Mesh, haif, until

QUESTION = [{"role": "user", "content": "Who is the baker?"}]


@pytest.fixture(scope="module")
def behind(mesh: Mesh) -> Iterator[dict[str, Any]]:
    """Beside the workers of the mesh, one whose upstream is the gateway of the same mesh: verifiable ones answer."""
    (orchestrator,) = mesh.roles("orchestrator")
    flags = ["--name", "foreign", "--state", str(mesh.state), "--orchestrator", orchestrator["peer"]]
    flags += ["--bootstrap", orchestrator["dht"], "--model", "haif-demo", "--json", "--until-eof"]
    flags += ["--upstream", f"{mesh.first_card['gateway']}/v1"]
    environment = dict(os.environ, HAIF_UPSTREAM_KEY=mesh.first_card["key"])
    with subprocess.Popen(
        [*HAIF, "worker", *flags], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())
        process.communicate()  # its standard input ends


def asked(mesh: Mesh, execution: str | None, **options: Any) -> httpx.Response:
    body = {"model": "haif-demo", "messages": QUESTION, "temperature": 0, "max_tokens": 40} | options
    if execution is not None:
        body["haif"] = {"execution": execution}
    headers = {"Authorization": f"Bearer {mesh.first_card['key']}"}
    return httpx.post(f"{mesh.first_card['gateway']}/v1/chat/completions", json=body, headers=headers, timeout=60)


def until_placed(mesh: Mesh) -> dict[str, Any]:
    """The first answer by the worker behind, once the orchestrator has heard of it."""
    found: httpx.Response = until(
        lambda: (reply := asked(mesh, "unverifiable")).status_code == 200 and reply, "the foreign worker is placed on"
    )
    return dict(found.json())


def test_an_answer_from_an_upstream_is_the_same_text_and_says_that_nobody_can_verify_it(
    mesh: Mesh, behind: dict[str, Any], tmp_path: Path
) -> None:
    foreign, ours = until_placed(mesh), asked(mesh, None).json()
    assert foreign["choices"][0]["message"]["content"] == ours["choices"][0]["message"]["content"]
    assert foreign["usage"]["completion_tokens"] == ours["usage"]["completion_tokens"]
    assert (foreign["haif"]["execution"], ours["haif"]["execution"]) == ("unverifiable", "verifiable")
    assert foreign["haif"]["worker"] == behind["peer"] != ours["haif"]["worker"]
    (tmp_path / "receipt.json").write_text(json.dumps(foreign["haif"]))
    told = haif("receipt", "verify", str(tmp_path / "receipt.json"))
    assert told.returncode == 0
    assert "unverifiable" in told.stdout
    assert "nobody will be able to" in told.stdout


def test_a_stream_from_an_upstream_is_the_same_text_and_ends_well(mesh: Mesh, behind: dict[str, Any]) -> None:
    until_placed(mesh)
    whole = asked(mesh, "unverifiable").json()["choices"][0]["message"]["content"]
    text = asked(mesh, "unverifiable", stream=True).text
    chunks = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
    pieces = [choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"]]
    assert "".join(pieces) == whole
    assert text.rstrip().endswith("data: [DONE]")


def test_what_an_upstream_cannot_promise_is_refused_by_name(mesh: Mesh, behind: dict[str, Any]) -> None:
    until_placed(mesh)
    refused = asked(mesh, "unverifiable", top_k=3)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "top_k")


def test_a_worker_does_not_send_prompts_elsewhere_by_accident(tmp_path: Path) -> None:
    alone = ("worker", "--orchestrator", "ab" * 32, "--model", "haif-demo")
    for flags, words in (
        (("--upstream", "http://192.0.2.1/v1"), "--upstream-host 192.0.2.1"),
        (("--upstream", "http://127.0.0.1:9/v1"), "nobody answers"),
        (("--upstream-model", "x"), "go with --upstream"),
        (("--upstream", "http://127.0.0.1:9/v1", "--upstream-key-file", str(tmp_path / "none")), "cannot be read"),
        (("--upstream", "http://127.0.0.1:9/v1", "--pin", "haif-demo"), "pins none"),
    ):
        told = haif(*alone, *flags, state=tmp_path)
        assert (told.returncode in {2, 5}, words in told.stderr) == (True, True), told.stderr
