"""A real mesh for the tests: `haif up` with separate processes, real sockets, real keys, the real demo model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest

HAIF = (sys.executable, "-m", "haif.cli.main")
PATIENCE_SECONDS = 60.0  # until a condition that must come true has come true; never a measure of speed


def until(condition: Callable[[], Any], what: str) -> Any:
    """Poll until `condition()` is true; return its value, or fail saying what did not happen."""
    end = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.05)
    raise AssertionError(f"it did not happen that {what}")


def haif(*arguments: str, state: Path | None = None, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run one `haif` command to its end."""
    environment = dict(os.environ, HAIF_STATE=str(state)) if state else dict(os.environ)
    return subprocess.run(
        [*HAIF, *arguments], capture_output=True, text=True, timeout=120, check=False, env=environment, **options
    )


@dataclass
class Mesh:
    """A running `haif up`."""

    process: subprocess.Popen[str]
    state: Path
    first_card: dict[str, Any]

    @property
    def card(self) -> dict[str, Any]:
        """The latest card; roles that were started again have new addresses in it."""
        return json.loads((self.state / "up.json").read_text())

    def roles(self, kind: str) -> list[dict[str, Any]]:
        return [role for role in self.card["roles"] if role["role"] == kind]

    def client(self, key: str | None = None, **options: Any) -> openai.OpenAI:
        gateway = self.first_card["gateway"]
        return openai.OpenAI(
            base_url=f"{gateway}/v1", api_key=key or self.first_card["key"], **({"max_retries": 0} | options)
        )

    def metrics(self, kind: str) -> str:
        """The exposition of all roles of a kind, one after the other."""
        return "\n".join(httpx.get(role["metrics"]).text for role in self.roles(kind))

    def dropped(self, kind: str, reason: str) -> float:
        """How often roles of a kind refused something for a reason."""
        wanted = f'haif_dropped_total{{reason="{reason}"}} '
        return sum(
            float(line.removeprefix(wanted)) for line in self.metrics(kind).splitlines() if line.startswith(wanted)
        )

    def kill(self, role: dict[str, Any]) -> None:
        """kill -9 one role and wait until it was started again and the mesh is ready."""
        os.kill(role["pid"], signal.SIGKILL)

    def until_back(self, name: str, old_pid: int) -> None:
        until(
            lambda: any(role["name"] == name and role["pid"] != old_pid for role in self.card["roles"]),
            f"{name} is started again",
        )
        self.until_ready()

    def until_ready(self) -> None:
        until(lambda: httpx.get(f"{self.first_card['gateway']}/readyz").status_code == 200, "the mesh is ready")

    def processes(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)


def start(state: Path, *flags: str) -> Mesh:
    """Start `haif up --json` and wait for its line."""
    with (state / "up.log").open("w") as log:
        process = subprocess.Popen(
            [*HAIF, "up", "--json", "--state", str(state), *flags],
            stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True,
        )  # fmt: skip
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, (state / "up.log").read_text()
    return Mesh(process, state, json.loads(line))


def stop(mesh: Mesh) -> None:
    """Interrupt it and wait until it is gone."""
    mesh.process.send_signal(signal.SIGINT)
    assert mesh.process.wait(30) == 0, (mesh.state / "up.log").read_text()
    assert mesh.process.stdout is not None
    mesh.process.stdout.close()


@pytest.fixture
def begin() -> Iterator[Callable[..., Mesh]]:
    """`start`, for a test that stops its meshes itself; what it leaves behind, because it failed, is stopped here."""
    running: list[Mesh] = []

    def started(state: Path, *flags: str) -> Mesh:
        running.append(start(state, *flags))
        return running[-1]

    yield started
    for each in running:
        if each.process.poll() is None:
            stop(each)


@pytest.fixture(scope="session")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    """One mesh with two workers, shared by the tests that leave it as they found it."""
    running = start(tmp_path_factory.mktemp("mesh"), "--workers", "2")
    yield running
    stop(running)


@pytest.fixture
def client(mesh: Mesh) -> Iterator[openai.OpenAI]:
    with mesh.client() as made:
        yield made


@pytest.fixture
def model(mesh: Mesh) -> str:
    return str(mesh.first_card["model"])
