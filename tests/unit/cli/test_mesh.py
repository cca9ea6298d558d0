"""The supervisor of `haif up`: what it does when a role ends, with processes that are not roles."""

import asyncio
import json
import sys
from pathlib import Path

import pytest

from haif import config
from haif.base.errors import Misuse, Unavailable
from haif.cli import mesh
from haif.cli.mesh import Mesh, Role, read_card

READY = {"peer": "p", "http": "http://127.0.0.1:8123", "metrics": "http://127.0.0.1:9/metrics"}
SPEAKS = f"import sys; print('last words', file=sys.stderr); print({json.dumps(json.dumps(READY))})"


@pytest.fixture
def reports() -> list[str]:
    return []


@pytest.fixture
def supervisor(tmp_path: Path, reports: list[str], monkeypatch: pytest.MonkeyPatch) -> Mesh:
    monkeypatch.setattr(mesh, "RESTART_SECONDS", 0.0)
    settings = config.NodeSettings(state=tmp_path)
    return Mesh(settings, model="tiny", workers=1, http_port=0, threads=1, report=reports.append)


async def test_a_role_is_started_again_until_that_succeeds(
    supervisor: Mesh, reports: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    role = supervisor.roles[0]
    failures: list[Exception] = [OSError(28, "No space left on device"), ValueError("no JSON")]
    back = asyncio.Event()

    async def start(role: Role) -> None:
        if failures:
            raise failures.pop()
        role.process = await asyncio.create_subprocess_exec("sleep", "60")
        back.set()

    monkeypatch.setattr(supervisor, "_start", start)
    monkeypatch.setattr(supervisor, "_write_cards", lambda: None)
    role.process = await asyncio.create_subprocess_exec("true")
    keeping = asyncio.create_task(supervisor._keep(role))
    async with asyncio.timeout(10):
        await back.wait()
    keeping.cancel()
    role.process.kill()
    await role.process.wait()
    assert any("No space left on device" in text for text in reports)


async def test_a_role_that_goes_on_ending_is_started_ever_less_often(
    supervisor: Mesh, reports: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mesh, "RESTART_SECONDS", 0.01)
    monkeypatch.setattr(mesh, "RESTART_SECONDS_MAX", 0.04)
    role = supervisor.roles[0]
    enough = asyncio.Event()

    async def start(role: Role) -> None:
        role.process = await asyncio.create_subprocess_exec("false")
        if len(reports) > 6:
            enough.set()

    monkeypatch.setattr(supervisor, "_start", start)
    monkeypatch.setattr(supervisor, "_write_cards", lambda: None)
    await start(role)
    keeping = asyncio.create_task(supervisor._keep(role))
    async with asyncio.timeout(10):
        await enough.wait()
    keeping.cancel()
    assert role.process is not None
    await role.process.wait()
    assert [text for text in reports if "ended" in text][:4] == [
        f"orchestrator ended (exit code 1); starting it again in {pause} s"
        for pause in ("0.01", "0.02", "0.04", "0.04")
    ]


async def test_the_log_keeps_why_a_role_ended(
    supervisor: Mesh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", _program(tmp_path, SPEAKS))
    role = supervisor.roles[0]
    for _ in range(2):
        await supervisor._start(role)
        assert role.process is not None
        await role.process.wait()
    assert (tmp_path / "logs" / "orchestrator.log").read_text() == "last words\n" * 2


async def test_a_role_that_is_silent_is_ended(
    supervisor: Mesh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", _program(tmp_path, "import time; time.sleep(60)"))
    monkeypatch.setattr(mesh, "READY_SECONDS", 0.05)
    role = supervisor.roles[0]
    with pytest.raises(mesh.Unavailable, match="it said nothing"):
        await supervisor._start(role)
    assert role.process is not None
    async with asyncio.timeout(10):
        assert await role.process.wait() < 0


def _program(folder: Path, code: str) -> str:
    """An executable that ignores its arguments and runs this."""
    file = folder / "program"
    file.write_text(f"#!{sys.executable}\n{code}\n")
    file.chmod(0o700)
    return str(file)


@pytest.mark.parametrize("text", ["[]", "{}", '{"gateway": 1, "key": "k"}'])
def test_a_damaged_card_is_said_to_be_one(tmp_path: Path, text: str) -> None:
    card = tmp_path / mesh.CARD
    card.write_text(text)
    card.chmod(0o600)
    with pytest.raises(Misuse, match="damaged"):
        read_card(tmp_path)


async def test_a_mesh_that_finds_no_worker_in_time_says_so(supervisor: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mesh, "READY_SECONDS", 0.0)
    supervisor.roles[1].ready = dict(READY)
    with pytest.raises(Unavailable, match="has found no worker"):
        await supervisor._until_ready()
