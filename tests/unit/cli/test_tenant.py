"""`haif tenant`: keys are shown once, listed without their secret, and revoked by name or id."""

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from haif.base.errors import Misuse
from haif.cli import tenant


@pytest.fixture
def haif(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))

    def run(*words: str) -> tuple[int, str, str]:
        tree = argparse.ArgumentParser()
        tenant.add(tree.add_subparsers())
        arguments = tree.parse_args(["tenant", *words, "--state", str(tmp_path / "state")])
        code = arguments.handler(arguments)
        told = capsys.readouterr()
        return code, told.out, told.err

    return run


def test_a_key_is_printed_alone_and_the_warning_beside_it(haif: Any) -> None:
    code, out, err = haif("create", "acme")
    assert (code, out.startswith("haif-"), len(out.strip())) == (0, True, 48)
    assert "only time" in err


def test_json_has_what_a_machine_needs(haif: Any) -> None:
    line = ("--service", "batch", "--weight", "3")
    made = json.loads(haif("create", "acme", "--rpm", "5", "--burst", "2", "--sandbox-min", "full", *line, "--json")[1])
    (listed,) = json.loads(haif("ls", "--json")[1])
    assert (made["tenant"], made["rpm"], made["burst"], made["sandbox_min"]) == ("acme", 5, 2, "full")
    assert (made["service"], made["weight"]) == ("batch", 3)
    assert listed == {name: value for name, value in made.items() if name != "key"}
    assert json.loads(haif("revoke", made["id"], "--json")[1]) == {"revoked": [made["id"]]}
    assert json.loads(haif("ls", "--json")[1])[0]["revoked"] is True


def test_the_list_shows_no_key(haif: Any) -> None:
    assert "haif tenant create" in haif("ls")[2]
    key = haif("create", "acme")[1].strip()
    out = haif("ls")[1]
    assert "acme" in out
    assert key not in out


def test_revoking_says_what_was_revoked_and_what_is_not_there(haif: Any) -> None:
    haif("create", "acme")
    assert haif("revoke", "acme")[1].startswith("key-")
    assert "revoked before" in haif("revoke", "acme")[1]
    code, _, err = haif("revoke", "nobody")
    assert (code, "tenant ls" in err) == (3, True)


@pytest.mark.parametrize("words", [("create", "a b"), ("create", "acme", "--rpm", "0")])
def test_a_tenant_that_cannot_be_is_a_wrong_use(haif: Any, words: tuple[str, ...]) -> None:
    with pytest.raises(Misuse):
        haif(*words)
