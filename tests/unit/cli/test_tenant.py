"""`haif tenant` and `haif key`: keys are shown once, listed without their secret, scoped, rotated and revoked."""

import argparse
import asyncio
import csv
import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from haif.base.errors import Misuse
from haif.cli import admin, key, tenant
from haif.gateway.service import TENANTS_SCHEMA
from haif.gateway.service.treasury import Treasury
from haif.runtime.clock import SystemClock
from haif.storage.service import Database


@pytest.fixture
def haif(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))

    def run(*words: str) -> tuple[int, str, str]:
        tree = argparse.ArgumentParser()
        commands = tree.add_subparsers()
        tenant.add(commands)
        key.add(commands)
        admin.add(commands)
        words = words if words[0] in ("tenant", "key", "admin") else ("tenant", *words)
        arguments = tree.parse_args([*words, "--state", str(tmp_path / "state")])
        code = arguments.handler(arguments)
        told = capsys.readouterr()
        return code, told.out, told.err

    return run


def test_a_key_is_printed_alone_and_the_warning_beside_it(haif: Any) -> None:
    code, out, err = haif("create", "acme")
    assert (code, out.startswith("haif-"), len(out.strip())) == (0, True, 48)
    assert "only time" in err


def test_json_has_what_a_machine_needs(haif: Any) -> None:
    line = ("--service", "batch", "--weight", "3", "--budget", "9")
    made = json.loads(haif("create", "acme", "--rpm", "5", "--burst", "2", "--sandbox-min", "full", *line, "--json")[1])
    (listed,) = json.loads(haif("ls", "--json")[1])
    (listed_key,) = json.loads(haif("key", "ls", "--json")[1])
    assert (listed["name"], listed["rpm"], listed["burst"], listed["sandbox_min"]) == ("acme", 5, 2, "full")
    assert (listed["service"], listed["weight"], listed["budget"], listed["live_keys"]) == ("batch", 3, 9, 1)
    assert made == {name: value for name, value in listed.items() if name != "live_keys"} | listed_key | {
        "key": made["key"]
    }
    assert json.loads(haif("revoke", made["id"], "--json")[1]) == {"revoked": [made["id"]]}
    assert json.loads(haif("key", "ls", "--json")[1])[0]["state"] == "revoked"


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
    for words in (("revoke", "nobody"), ("show", "nobody"), ("set", "nobody", "--rpm", "1"), ("key", "create", "x")):
        with pytest.raises(SystemExit) as caught:
            haif(*words)
        assert caught.value.code == 3


@pytest.mark.parametrize(
    "words", [("create", "a b"), ("create", "acme", "--rpm", "0"), ("create", "acme", "--tpm", "-1")]
)
def test_a_tenant_that_cannot_be_is_a_wrong_use(haif: Any, words: tuple[str, ...]) -> None:
    with pytest.raises(Misuse):
        haif(*words)


def test_a_tenant_is_changed_in_what_is_named_and_stays_as_it_is_in_the_rest(haif: Any) -> None:
    haif("create", "acme", "--rpm", "5", "--model", "tiny")
    with pytest.raises(Misuse, match="haif key create acme"):
        haif("create", "acme")
    changed = json.loads(haif("set", "acme", "--tpm", "1000", "--concurrency", "3", "--json")[1])
    assert (changed["rpm"], changed["tpm"], changed["concurrency"], changed["models"]) == (5, 1000, 3, ["tiny"])
    assert json.loads(haif("set", "acme", "--any-model", "--tpm", "0", "--json")[1])["models"] == []
    with pytest.raises(Misuse, match="contradict"):
        haif("set", "acme", "--any-model", "--model", "tiny")
    told = haif("show", "acme")[1]
    assert "no limit on tokens per minute; 3 requests at a time" in told
    assert json.loads(haif("show", "acme", "--json")[1])["keys"][0]["state"] == "live"


def test_keys_are_scoped_expire_and_are_replaced(haif: Any) -> None:
    haif("create", "acme")
    made = json.loads(
        haif("key", "create", "acme", "--model", "tiny", "--endpoint", "embeddings", "--from", "192.0.2.0/24",
             "--expires", "90d", "--json")[1]
    )  # fmt: skip
    assert (made["key_models"], made["key_endpoints"], made["key_networks"]) == (
        ["tiny"], ["embeddings"], ["192.0.2.0/24"],
    )  # fmt: skip
    assert made["expires"] - made["created"] == pytest.approx(90 * 86_400_000, abs=60_000)
    code, new, err = haif("key", "rotate", made["id"], "--grace", "24h")
    assert (code, new.startswith("haif-"), "works for 24h more" in err) == (0, True, True)
    listed = json.loads(haif("key", "ls", "acme", "--json")[1])
    assert sum(each["key_models"] == ["tiny"] for each in listed) == 2
    assert new.strip() not in haif("key", "ls")[1]
    assert "tiny, embeddings, from 192.0.2.0/24" in haif("key", "ls")[1]
    assert haif("key", "revoke", made["id"])[1].strip() == made["id"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("create", "acme", "--expires", "tomorrow"), "90d, 12h"),
        (("create", "acme", "--expires", "999999999d"), "ten years"),
        (("create", "acme", "--expires", "0s"), "later than now"),
        (("create", "acme", "--from", "office"), "--from"),
        (("create", "acme", "--endpoint", "admin"), "--endpoint"),
        (("revoke", "acme"), "haif tenant revoke"),
    ],
)
def test_a_key_that_cannot_be_is_a_wrong_use(haif: Any, words: tuple[str, ...], said: str) -> None:
    haif("create", "acme")
    with pytest.raises(Misuse, match=said):
        haif("key", *words)


async def used(folder: Path) -> None:
    async with Database(folder / "gateway" / "tenants.sqlite", TENANTS_SCHEMA) as database:
        treasury = Treasury(database, SystemClock())
        for tokens in (3, 4):
            receipt: Any = SimpleNamespace(prompt_tokens=10, completion_tokens=tokens)
            treasury.note("acme", "tiny", [receipt])
            await treasury.write()
        await treasury.write()


def test_what_was_used_is_told_to_people_and_to_programs(haif: Any, tmp_path: Path) -> None:
    haif("create", "acme")
    asyncio.run(used(tmp_path / "state"))
    (row,) = json.loads(haif("usage", "--json")[1])
    assert (row["tenant"], row["model"], row["answers"]) == ("acme", "tiny", 2)
    assert (row["prompt_tokens"], row["completion_tokens"]) == (20, 7)
    (line,) = csv.DictReader(io.StringIO(haif("usage", "acme", "--csv")[1]))
    assert line == {name: str(value) for name, value in row.items()}
    assert haif("usage")[1].splitlines()[-1].split() == ["all", "2", "20", "7"]
    assert "20 prompt and 7 answer tokens in 2 answers" in haif("show", "acme")[1]
    assert json.loads(haif("usage", "--month", "2020-02", "--json")[1]) == []
    for words in (("usage", "--month", "2026"), ("usage", "--json", "--csv")):
        with pytest.raises(Misuse):
            haif(*words)


def test_operators_get_keys_of_their_own(haif: Any) -> None:
    assert "haif admin create" in haif("admin", "ls")[2]
    code, text, err = haif("admin", "create", "ann", "--read-only")
    assert (code, text.startswith("haif-admin-"), "only time" in err) == (0, True, True)
    made = json.loads(haif("admin", "create", "ben", "--expires", "90d", "--json")[1])
    assert (made["name"], made["read_only"], made["key"].startswith("haif-admin-")) == ("ben", False, True)
    assert [each["name"] for each in json.loads(haif("admin", "ls", "--json")[1])] == ["ann", "ben"]
    assert haif("admin", "revoke", "ann")[1].strip() == "ann"
    assert "revoked" in haif("admin", "ls")[1]
    with pytest.raises(Misuse, match="already"):
        haif("admin", "create", "ben")
    with pytest.raises(SystemExit):
        haif("admin", "revoke", "nobody")
