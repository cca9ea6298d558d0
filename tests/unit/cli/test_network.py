"""`haif network`: two machines, an owner and a member, and what a file carries from one to the other."""

import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from haif import config
from haif.base.errors import HaifError
from haif.base.roles import Role
from haif.cli import main
from haif.cli.doctor import _network
from haif.cli.household import admit_household
from haif.cli.visit import visitor
from haif.identity.keys import Identity
from haif.identity.service import Keyring

Machine = Callable[..., Any]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Machine:
    """Run a command as one of several machines; what it printed as JSON, or its error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))

    def run(where: str, *words: str, text: bool = False) -> Any:
        code = main.main([*words, "--state", str(tmp_path / where), *([] if text else ["--json"])])
        said = capsys.readouterr()
        return said.err if code else said.out if text else json.loads(said.out)

    return run


def joined(machine: Machine, *roles: str) -> tuple[str, Path]:
    """A member in these roles: its peer id, and the file it joined with."""
    machine("owner", "network", "create", "acme", "--closed")
    (key,) = machine("member", "keys", "new", "worker")
    flags = [text for role in roles or ("worker",) for text in ("--role", role)]
    file = machine("owner", "network", "admit", key["peer"], *flags, "--owner", "Ada")["file"]
    machine("member", "network", "join", file)
    return key["peer"], Path(file)


def test_a_machine_is_admitted_by_a_file_and_revoked_by_its_name(machine: Machine) -> None:
    peer, file = joined(machine, "worker", "relay")
    shown = machine("member", "network", "show")
    assert (shown["name"], shown["kind"], shown["stale"]) == ("acme", "closed", False)
    assert shown == machine("owner", "network", "show", str(file))
    (member,) = shown["members"]
    assert (member["peer"], member["roles"], member["owner"], member["state"]) == (
        peer, ["relay", "worker"], "Ada", "admitted",
    )  # fmt: skip
    assert machine("owner", "network", "revoke", peer) == {"network": "acme", "revoked": peer}
    states = {each["peer"]: each["state"] for each in machine("owner", "network", "show")["members"]}
    assert states[peer] == "revoked"
    assert "revoked" in machine("owner", "network", "show", text=True)


def test_what_is_written_is_for_its_owner_alone(machine: Machine, tmp_path: Path) -> None:
    _, file = joined(machine)
    for path in (file, *(tmp_path / "owner").rglob("*"), *(tmp_path / "member").rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_the_root_key_leaves_its_keyring_in_no_form(machine: Machine, tmp_path: Path) -> None:
    joined(machine)
    (kept,) = (tmp_path / "owner").rglob("network-acme.key")
    seed = Keyring(kept.parent).load("network-acme").seed()
    others = [path for path in tmp_path.rglob("*") if path.is_file() and path != kept]
    assert len(others) > 5
    for path in others:
        data = path.read_bytes()
        assert seed not in data, path
        assert seed.hex().encode() not in data, path
    for words in (("network", "show"), ("network", "ls"), ("keys", "show")):
        assert seed.hex() not in machine("owner", *words, text=True)


def test_a_second_root_kept_elsewhere_rules_as_well(machine: Machine) -> None:
    (key,) = machine("safe", "keys", "new", "spare")
    machine("owner", "network", "create", "acme", "--closed", "--root", key["peer"])
    file = machine("owner", "network", "admit", key["peer"], "--role", "observer")["file"]
    machine("safe", "network", "join", file)
    peer = str(Identity(b"w" * 32).peer)
    file = machine("safe", "network", "admit", peer, "--role", "worker", "--as", "spare")["file"]
    (member,) = machine("member", "network", "join", file) and machine("member", "network", "show")["members"]
    assert (member["issuer"], member["state"]) == (key["peer"], "admitted")


def test_networks_are_listed_with_where_their_root_is(machine: Machine) -> None:
    assert "haif network create" in machine("owner", "network", "ls", text=True)
    joined(machine)
    machine("owner", "network", "create", "public")
    rows = {row["name"]: row for row in machine("owner", "network", "ls")}
    assert [(rows[name]["kind"], rows[name]["root_here"]) for name in ("acme", "public")] == [
        ("closed", True), ("open", True),
    ]  # fmt: skip
    assert "elsewhere" in machine("member", "network", "ls", text=True)


def test_a_delegate_admits_in_its_roles_and_in_no_others(machine: Machine) -> None:
    machine("owner", "network", "create", "acme", "--closed")
    (key,) = machine("deputy", "keys", "new", "deputy")
    file = machine("owner", "network", "delegate", key["peer"], "--role", "worker")["file"]
    machine("deputy", "network", "join", file)
    peer = str(Identity(b"w" * 32).peer)
    file = machine("deputy", "network", "admit", peer, "--role", "worker", "--as", "deputy")["file"]
    machine("member", "network", "join", file)
    (member,) = machine("member", "network", "show")["members"]
    assert (member["issuer"], member["state"]) == (key["peer"], "admitted")
    assert "may not give" in machine("deputy", "network", "admit", peer, "--role", "gateway", "--as", "deputy")
    machine("deputy", "network", "revoke", peer, "--as", "deputy")
    states = {each["peer"]: each["state"] for each in machine("deputy", "network", "show")["members"]}
    assert states[peer] == "revoked"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["create", "acme"], "already"),
        (["create", "../acme"], "cannot name a network"),
        (["create", "many", *(word for n in range(4) for word in ("--root", f"{n:064x}"))], "at most 4 roots"),
        (["admit", "worker", "--role", "worker"], "haif keys show"),
        (["admit", "ab" * 32, "--role", "worker", "--owner", "\x1b[2J"], "owner"),
        (["admit", "ab" * 32, "--role", "worker", "--network", "other"], "it knows: acme"),
        (["admit", "ab" * 32, "--role", "worker", "--as", "nobody"], "no key"),
        (["revoke", "ab" * 32, "--as", "observer"], "may not sign"),
        (["join", "nothing.network"], "nothing.network"),
        (["show", "other"], "it knows: acme"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(machine: Machine, words: list[str], said: str) -> None:
    machine("owner", "network", "create", "acme", "--closed")
    assert said in machine("owner", "network", *words)


def test_who_has_no_root_key_is_told_where_to_go(machine: Machine) -> None:
    joined(machine)
    assert "not on this machine" in machine("member", "network", "admit", "ab" * 32, "--role", "worker")


def test_the_setting_takes_the_file_itself(machine: Machine, tmp_path: Path) -> None:
    peer, file = joined(machine)
    settings = config.NodeSettings(state=tmp_path / "fresh", network=str(file))
    assert "observer is not admitted" in _refusal(settings)
    assert machine("fresh", "network", "show")["members"][0]["peer"] == peer


def _refusal(settings: config.Common) -> str:
    with pytest.raises(HaifError) as caught:
        visitor(settings)
    return caught.value.message


def test_the_owners_machine_may_look_at_once_and_knows_who_was_revoked(machine: Machine, tmp_path: Path) -> None:
    peer, _ = joined(machine)
    machine("owner", "network", "revoke", peer)
    identity, book = visitor(config.NodeSettings(state=tmp_path / "owner", network="acme"))
    assert identity.peer == Keyring(tmp_path / "owner" / "keys").load("observer").peer
    assert {str(each) for each in book.revoked()} == {peer}


def test_up_makes_a_closed_network_once_and_admits_its_roles(tmp_path: Path, machine: Machine) -> None:
    settings = config.NodeSettings(state=tmp_path / "owner")
    members = [("gateway", Role.GATEWAY), ("worker-1", Role.WORKER)]
    for _ in range(2):
        assert admit_household(settings, members, closed=True) == "local"
    roles = [each["roles"] for each in machine("owner", "network", "show")["members"]]
    assert sorted(roles) == [["gateway"], ["observer"], ["worker"]]
    number = machine("owner", "network", "show")["lists"][0]["number"]
    machine("owner", "network", "revoke", "worker-1")
    assert admit_household(settings, members, closed=False) == "local"  # what was revoked stays so
    assert machine("owner", "network", "show")["lists"][0]["number"] > number
    states = {str(each["roles"]): each["state"] for each in machine("owner", "network", "show")["members"]}
    assert states["['worker']"] == "revoked"


def test_an_open_network_does_not_become_closed_by_a_flag(tmp_path: Path, machine: Machine) -> None:
    machine("owner", "network", "create", "acme")
    with pytest.raises(HaifError, match="open network"):
        admit_household(config.NodeSettings(state=tmp_path / "owner", network="acme"), [], closed=True)


def test_the_doctor_says_which_network_and_who_is_admitted(tmp_path: Path, machine: Machine) -> None:
    def findings(where: str, network: str) -> dict[str, tuple[str, str]]:
        settings = config.WorkerSettings(state=tmp_path / where, network=network)
        return {found.what: (found.state, found.detail) for found in _network(settings)}

    peer, _ = joined(machine)
    assert findings("member", "else")["network"][1].startswith("else, open")
    assert findings("member", "acme")["network"][1].startswith("acme, closed")
    assert findings("member", "acme")["admitted worker"] == ("ok", "worker; 29 more days")
    assert findings("member", "./nothing")["network"][0] == "wrong"
    machine("owner", "network", "revoke", peer)
    file = machine("owner", "network", "admit", str(Identity(b"o" * 32).peer), "--role", "observer")["file"]
    machine("member", "network", "join", file)
    assert findings("member", "acme")["admitted worker"][0] == "wrong"
    for path in (tmp_path / "member" / "networks" / "acme").glob("*.revocations"):
        path.unlink()
    assert findings("member", "acme")["revocations"][0] == "note"


@pytest.mark.parametrize("days", ["-1", "0", "401"])
@pytest.mark.parametrize("verb", ["admit", "delegate"])
def test_nobody_is_admitted_for_no_time_or_for_years(machine: Machine, verb: str, days: str) -> None:
    machine("owner", "network", "create", "acme", "--closed")
    said = machine("owner", "network", verb, "ab" * 32, "--role", "worker", "--days", days)
    assert "--days is a number from 1 to 400" in said


def test_a_folder_is_no_file_to_join_with(machine: Machine, tmp_path: Path) -> None:
    assert "is a folder; a network's owner gives a file" in machine("member", "network", "join", str(tmp_path))
