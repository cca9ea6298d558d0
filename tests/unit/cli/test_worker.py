"""What the settings of a worker name: which models, how much memory, whose server."""

import dataclasses
from pathlib import Path

import pytest

from haif import config
from haif.artifacts.service import DEMO_NAME
from haif.base.errors import Misuse, UnknownModel
from haif.base.execution import word
from haif.cli.main import main
from haif.node.settings import memory_bytes
from haif.node.worker import _models
from haif.runtime.clock import SystemClock
from haif.worker.service import Served
from tests.support.tiny_model import build_tiny_model

HUGE = 1 << 50


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the demo and two more."""
    folder = tmp_path_factory.mktemp("state")
    for seed, name in enumerate(("first", "second")):
        file = build_tiny_model(folder / f"{name}.gguf", seed=seed)
        assert main(["model", "add", str(file), "--state", str(folder)]) == 0
    return folder


def chosen(state: Path, memory: int = HUGE, **settings: object) -> list[Served]:
    return _models(config.WorkerSettings(state=state, **settings), memory, SystemClock())  # type: ignore[arg-type]


def test_models_are_served_in_the_order_they_are_named_and_each_once(state: Path) -> None:
    assert [DEMO_NAME] == [each.name for each in chosen(state)]
    twice = chosen(state, models=("second", "first", "second"), pins=("first",))
    assert [("second", False), ("first", True)] == [(each.name, each.pinned) for each in twice]
    assert all(each.needs.cache and each.verifiable for each in twice)
    with pytest.raises(UnknownModel):
        chosen(state, models=("third",))
    with pytest.raises(Misuse, match="--pin second"):
        chosen(state, models=("first",), pins=("second",))


def test_all_is_every_model_of_the_store_that_fits(state: Path) -> None:
    everything = chosen(state, models=("all",))
    assert {DEMO_NAME, "first", "second"} == {each.name for each in everything}
    sizes = sorted(each.needs.total for each in everything)
    few = chosen(state, memory=sizes[-1] - 1, models=("all",))
    assert sizes[:-1] == sorted(each.needs.total for each in few)
    with pytest.raises(Misuse, match="give it alone"):
        chosen(state, models=("all", "first"))


def test_a_server_that_is_there_is_named_for_each_model_by_name_or_digest(state: Path) -> None:
    digest = "ab" * 32
    behind = chosen(state, upstream="http://127.0.0.1:9/v1", models=("first", digest), upstream_models=("x", "y"))
    assert [("first", "unverifiable", 0), ("y", "unverifiable", 0)] == [
        (each.name, word(each.verifiable), each.needs.total) for each in behind
    ]
    assert digest == str(behind[1].model)
    for wrong, words in (
        ({"models": ()}, "one by one"),
        ({"models": ("all",)}, "one by one"),
        ({"models": ("first",), "upstream_models": ("x", "y")}, "as many"),
    ):
        with pytest.raises(Misuse, match=words):
            chosen(state, upstream="http://127.0.0.1:9/v1", **wrong)


def test_memory_is_as_told_or_a_share_of_the_machines(state: Path) -> None:
    assert 12 << 30 == memory_bytes(config.WorkerSettings(state=state, memory="12G"))
    assert 0 < memory_bytes(config.WorkerSettings(state=state)) < HUGE
    with pytest.raises(Misuse, match="no amount of memory"):
        memory_bytes(config.WorkerSettings(state=state, memory="lots"))


def test_the_key_of_a_server_comes_from_a_file_or_the_environment_and_is_no_flag(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("from the file\n")
    named = config.WorkerSettings(upstream_key_file=file)
    assert "from the file" == config.upstream_key(named, {"HAIF_UPSTREAM_KEY": "from there"})
    assert "from there" == config.upstream_key(config.WorkerSettings(), {"HAIF_UPSTREAM_KEY": "from there"})
    assert "" == config.upstream_key(config.WorkerSettings(), {})
    assert "upstream_key" not in {field.name for field in dataclasses.fields(config.WorkerSettings)}
