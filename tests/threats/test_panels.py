"""Seven validators in a whole mesh, six that compute and one that accuses whomever it draws."""

import asyncio
import json
from pathlib import Path

import pytest

from haif.cli.main import main
from haif.testing.attacks.mesh import Inventor
from tests.support.audited_mesh import audited_mesh


def holds(page: str, **wanted: int) -> bool:
    """Whether the orchestrator's metrics are these."""
    return all(f"haif_{name} {value}.0" in page.splitlines() for name, value in wanted.items())


async def test_n_3_x_6_a_lying_validator_convicts_nobody_and_a_lying_worker_is_convicted_by_a_panel(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The honest worker works on, the liar is out, and the file proves it by the signatures of four or five."""
    async with audited_mesh(tmp_path, more=6) as mesh:
        await mesh.worker("honest")
        await mesh.workers(1)
        assert 200 == (await mesh.ask()).status_code
        await mesh.until(lambda page: holds(page, validators_refuted=1, workers_aside=0, workers_convicted=0))
        assert 200 == (await mesh.ask()).status_code
        await mesh.liar("liar", engine=Inventor)
        await mesh.workers(2)
        liar = str(mesh.identity("liar").peer)
        while liar != (await mesh.ask()).headers["x-haif-worker"]:
            pass
        await mesh.until(lambda page: holds(page, validators_refuted=1, workers_aside=0, workers_convicted=1))
        honest = str(mesh.identity("honest").peer)
        assert {honest} == {(await mesh.ask()).headers["x-haif-worker"] for _ in range(8)}
        while not (files := ruled(tmp_path)):
            await mesh.metrics("validator")
    capsys.readouterr()
    command = ["verdict", "verify", str(files[0]), "--state", str(tmp_path), "--panel", "--json"]
    assert 0 == await asyncio.to_thread(main, command)
    shown = json.loads(capsys.readouterr().out)
    assert liar == shown["worker"]
    assert 4 <= len(shown["signed by"]) <= 5
    assert str(mesh.identity("validator-6").peer) not in shown["signed by"]
    without = {name: value for name, value in json.loads(files[0].read_text()).items() if name != "ruling"}
    alone = tmp_path / "alone.json"
    alone.write_text(json.dumps(without))
    assert 6 == await asyncio.to_thread(main, ["verdict", "verify", str(alone), "--state", str(tmp_path), "--panel"])


def ruled(folder: Path) -> list[Path]:
    """The files of convictions that a panel's ruling was put to."""
    kept = folder.glob("validator*/convictions/*.json")
    return [path for path in kept if "ruling" in json.loads(path.read_text())]
