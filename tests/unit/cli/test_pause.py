"""`haif pause` and `haif resume`: an order is left, carried out by whoever runs, and what holds is listed."""

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import msgspec
import pytest

from haif.base import limits
from haif.cli.main import main
from haif.orchestrator.events import PauseOrdered
from haif.orchestrator.pauses import Pauses
from haif.orchestrator.service import Desk


class Running:
    """An orchestrator as far as its operator sees one: it takes orders, and says what holds."""

    def __init__(self, folder: Path) -> None:
        self.desk = Desk(folder)
        self.heard: list[PauseOrdered] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        pauses = Pauses()
        while not self._ended.is_set():
            for path in self.desk.orders():
                self.heard.append(msgspec.json.decode(path.read_bytes(), type=PauseOrdered))
                pauses.take(self.heard)
                self.desk.show(pauses)
                path.unlink()
            time.sleep(0)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    with Running(tmp_path / "orchestrator") as made:
        yield made


def test_what_is_paused_is_listed_until_it_is_resumed(
    tmp_path: Path, running: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    state = ("--state", str(tmp_path))
    assert 0 == main(["pause", "model", "tiny", "--reason", "it leaks", *state, "--json"])
    (held,) = json.loads(capsys.readouterr().out)
    assert ("model", "tiny", "it leaks") == (held["kind"], held["name"], held["reason"])
    assert held["by"]
    assert 0 == main(["pause", "all", *state])
    assert 2 == len(capsys.readouterr().out.splitlines())
    assert 0 == main(["resume", "all", *state])
    assert 0 == main(["resume", "model", "tiny", *state])
    assert 0 == main(["pause", "ls", *state])
    assert "nothing is paused" in capsys.readouterr().err
    assert [True, True, False, False] == [order.paused for order in running.heard]


def test_where_nobody_runs_the_order_stays_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(limits, "PAUSE_SECONDS", 0.0)
    assert 5 == main(["pause", "tenant", "acme", "--state", str(tmp_path)])
    assert "no orchestrator took the order yet" in capsys.readouterr().err
    assert 1 == len(Desk(tmp_path / "orchestrator").orders())


@pytest.mark.parametrize("words", [["model"], ["all", "x"], ["worker", "nobody"], ["region", "x"]])
def test_what_can_be_no_order_is_a_wrong_use(tmp_path: Path, words: list[str]) -> None:
    try:
        code = main(["pause", *words, "--state", str(tmp_path)])
    except SystemExit as left:
        code = int(left.code or 0)
    assert 2 == code
    assert [] == Desk(tmp_path / "orchestrator").orders()
