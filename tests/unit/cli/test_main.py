"""The command line helps, refuses what it does not know, and says so with an exit code."""

import argparse
import asyncio
import json
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from haif.base.errors import LEAVES, Misuse, Unavailable
from haif.cli.main import EXIT_CODES, main, parser
from haif.node.settings import relay_at
from tests.support.tiny_model import build_tiny_model

README = (Path(__file__).parents[3] / "README.md").read_text()


def verbs(tree: argparse.ArgumentParser, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], bool]]:
    """Every command as its words, and whether it does something itself."""
    groups = [action for action in tree._actions if isinstance(action, argparse._SubParsersAction)]
    yield path, not groups
    for group in groups:
        for name, child in group.choices.items():
            yield from verbs(child, (*path, name))


ALL = list(verbs(parser()))
LEAF_VERBS = [path for path, does in ALL if does]


@pytest.mark.parametrize("path", [path for path, _ in ALL], ids=" ".join)
def test_every_command_has_help(path: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*path, "--help"])
    assert ended.value.code == 0
    assert "usage: haif" in capsys.readouterr().out


def test_help_keeps_names_as_they_are_written(capsys: pytest.CaptureFixture[str]) -> None:
    for role, name in (("gateway", "OpenAI"), ("node", "DHT")):
        with pytest.raises(SystemExit):
            main([role, "--help"])
        assert name in capsys.readouterr().out.partition("options:")[0]


def test_an_address_or_a_port_that_cannot_be_had_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["node", "--host", "203.0.113.9", "--state", str(tmp_path)]) == 1
    assert "look at --host" in capsys.readouterr().err
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert main(["node", "--metrics-port", str(taken.getsockname()[1]), "--state", str(tmp_path)]) == 1
    assert "a port to listen on is taken" in capsys.readouterr().err


@pytest.mark.parametrize("count", ["0", "-1", "1001"])
def test_ping_counts_round_trips_within_bounds(count: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["net", "ping", "ab" * 32, "--count", count]) == 2
    assert "--count is a number from 1 to 1000" in capsys.readouterr().err


@pytest.mark.parametrize("relay", ["", "there:1", "ab" * 32])
def test_a_relay_that_names_no_peer_or_no_address_is_refused(relay: str) -> None:
    with pytest.raises(Misuse, match="is not PEER@HOST:PORT"):
        asyncio.run(relay_at(relay))


@pytest.mark.parametrize("path", LEAF_VERBS, ids=" ".join)
def test_every_command_refuses_unknown_options(path: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*path, "--no-such-option"])
    assert ended.value.code == 2
    assert "Try: haif" in capsys.readouterr().err


def test_the_readme_names_every_group_of_commands() -> None:
    groups = {path[0] for path, _ in ALL if path} - {"completion", "version"}
    assert not [name for name in groups if f"haif {name}" not in README and f"|{name}" not in README]


@pytest.mark.parametrize(("typed", "meant"), [("upp", "up"), ("reciept", "receipt"), ("gatway", "gateway")])
def test_a_slip_of_the_finger_is_met_with_a_suggestion(
    typed: str, meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([typed])
    assert ended.value.code == 2
    assert f"Did you mean {meant!r}?" in capsys.readouterr().err


def test_the_beginning_of_a_flag_is_no_flag(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["worker", "--profil", "fast"])
    assert ended.value.code == 2
    assert "'--profil' means nothing here. Did you mean --profile?" in capsys.readouterr().err


def test_a_flag_that_does_not_exist_is_refused_by_the_verb_it_was_given_to(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["relay", "--circits", "3"])
    assert ended.value.code == 2
    assert "haif relay: '--circits' means nothing here. Did you mean --circuits?" in capsys.readouterr().err


def test_errors_have_documented_exit_codes() -> None:
    for leaf in LEAVES:
        codes = [code for kind, code in EXIT_CODES if issubclass(leaf, kind)]
        assert all(2 <= code <= 6 for code in codes)
    assert [code for kind, code in EXIT_CODES if issubclass(Misuse, kind)] == [2]


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_completion_scripts_are_printed(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert "orchestrator" in script
    if shell == "bash":
        assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0


def test_versions_are_told_to_machines(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version", "--json"]) == 0
    assert {"haif", "python", "llama-cpp-python"} <= set(json.loads(capsys.readouterr().out))


def test_keys_are_made_once_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = ["--state", str(tmp_path)]
    assert main(["keys", "new", "mine", "--json", *state]) == 0
    (made,) = json.loads(capsys.readouterr().out)
    assert main(["keys", "show", "mine", *state]) == 0
    shown = capsys.readouterr().out
    assert made["peer"] in shown
    assert Path(made["file"]).read_text().strip() not in shown
    assert main(["keys", "new", "mine", *state]) == 2
    assert "never overwrites" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        (["worker"], 2, "--orchestrator"),
        (["gateway"], 2, "--orchestrator"),
        (["worker", "--orchestrator", "xyz"], 2, "hex digits"),
        (["worker", "--orchestrator", "ab" * 32, "--model", "nothing"], 3, "haif model add"),
        (["worker", "--slots", "many"], 2, "whole number"),
        (["node", "--bootstrap", "nowhere"], 2, "HOST:PORT"),
        (["relay", "--circuits", "0"], 2, "1 to 1000 circuits"),
        (["relay", "--bytes-per-second", "0"], 2, "nothing may pass"),
        (["model", "show", "nothing"], 3, "no model"),
        (["chat", "hello"], 2, "haif up"),
        (["up", "--workers", "0"], 2, "--workers"),
        (["receipt", "verify", "/no/such/file"], 2, "cannot be read"),
    ],
)
def test_what_is_missing_is_named_with_the_way_out(
    command: list[str], code: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("HAIF_STATE", str(tmp_path))
    assert main(command) == code
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("command", [["up"], ["node"], ["tenant", "ls"], ["keys", "new", "mine"]], ids=" ".join)
def test_a_state_folder_that_cannot_be_is_said_in_a_sentence(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.touch()
    assert main([*command, "--state", str(file / "below")]) == 1
    assert capsys.readouterr().err.startswith(f"haif: {file}")


def test_a_host_that_does_not_exist_is_said_in_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["node", "--host", "no.such.host.invalid", "--state", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("haif: ")


@pytest.mark.parametrize("command", [["up"], ["gateway", "--orchestrator", "ab" * 32]], ids=["up", "gateway"])
def test_a_port_that_cannot_be_is_refused(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, "--http-port", "65536", "--state", str(tmp_path)]) == 2
    assert "65535" in capsys.readouterr().err


def test_a_model_is_named_after_its_file_in_plain_letters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "Big Model (Q4_K).gguf"
    build_tiny_model(file, layers=1, width=64, feed_forward=64)
    assert main(["model", "add", str(file), "--state", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "big-model-q4_k"


def test_a_bootstrap_address_that_does_not_answer_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["node", "--bootstrap", "127.0.0.1:9", "--state", str(tmp_path)]) == 5
    assert "127.0.0.1:9" in capsys.readouterr().err


def test_what_ends_the_tasks_of_a_role_is_told_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def end(error: Exception) -> None:
        def handler(_: object) -> int:
            raise ExceptionGroup("tasks", [ExceptionGroup("inner", [error])])

        monkeypatch.setattr("haif.cli.main._version", handler)

    end(Unavailable("another orchestrator took this one's lease"))
    assert main(["version"]) == 5
    assert capsys.readouterr().err == "haif: another orchestrator took this one's lease\n"
    end(ValueError("a fault of ours"))
    with pytest.raises(ExceptionGroup):
        main(["version"])
