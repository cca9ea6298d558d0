"""Networks on disk: what is kept, what a file brings in, and what never replaces what."""

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haif.base import codec
from haif.base.errors import Misuse
from haif.base.ids import NetKey
from haif.base.roles import Role
from haif.identity.admission import Network, admit, open_network
from haif.identity.networks import Charter, Invitation, is_file, read_invitation
from haif.identity.service import Networks
from tests.unit.identity.test_admission import (
    DELEGATE,
    NETWORK,
    NOW,
    OFFICE,
    OPEN,
    STRANGER,
    WORKER,
    admitted,
    deputy,
    later,
    revoking,
)

KEY = NetKey(b"k" * 32)
CHARTER = Charter(NETWORK, KEY)


def invitation(folder: Path, charter: Charter = CHARTER, **lists: tuple[bytes, ...]) -> str:
    """A file as a member is given it."""
    fields = {"admissions": (admitted(),), "delegations": (), "revocations": (revoking(),)} | lists
    path = folder / "acme.network"
    path.touch(mode=0o600)
    path.write_bytes(codec.encode_evidence(Invitation(charter, **fields)))
    return str(path)


def test_an_invitation_has_these_bytes() -> None:
    data = codec.encode_evidence(Invitation(Charter(Network("a", True, (WORKER.peer,)), KEY), (b"A",), (), (b"R",)))
    golden = bytes.fromhex("a4 01 82 83 61 61 f5 81 5820") + WORKER.peer + bytes.fromhex("5820") + KEY
    assert data == golden + bytes.fromhex("02 81 41 41 03 80 04 81 41 52")
    assert read_invitation(data).charter.key == KEY


@given(st.binary(max_size=300))
def test_whatever_else_the_file_is_a_person_is_told(data: bytes) -> None:
    with pytest.raises(Misuse, match="ask its owner"):
        read_invitation(data)


@pytest.mark.parametrize(
    "charter",
    [
        Charter(NETWORK, None),
        Charter(OPEN, KEY),
        Charter(Network("../acme", True, NETWORK.roots), KEY),
        Charter(Network("acme", True, ()), KEY),
    ],
    ids=["closed without a key", "open with one", "a name that leaves the folder", "no root"],
)
def test_a_file_of_what_cannot_be_a_network_is_refused(tmp_path: Path, charter: Charter) -> None:
    networks = Networks(tmp_path / "networks")
    with pytest.raises(Misuse):
        networks.join(invitation(tmp_path, charter), NOW)
    assert networks.names() == []


def test_the_key_of_the_datagrams_is_never_shown() -> None:
    shown = f"{KEY} {KEY!r} {CHARTER} {CHARTER!r} {Invitation(CHARTER, (), (), ())!r}"
    assert KEY.hex() not in shown
    assert repr(bytes(KEY)) not in shown


def test_who_joins_has_the_network_its_certificate_and_the_lists(tmp_path: Path) -> None:
    networks = Networks(tmp_path / "networks")
    assert networks.find(invitation(tmp_path), NOW) == CHARTER
    assert networks.names() == ["acme"]
    assert networks.find("acme", NOW) == CHARTER
    assert networks.admission(NETWORK, WORKER.peer) == admitted()
    assert networks.admission(NETWORK, STRANGER.peer) == b""
    assert networks.lists(NETWORK) == [revoking()]
    for path in (tmp_path / "networks").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_a_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = invitation(tmp_path)
    Path(path).chmod(0o644)
    with pytest.raises(Misuse, match="chmod 600"):
        Networks(tmp_path / "networks").join(path, NOW)


def test_a_name_that_nobody_joined_is_the_open_network_of_that_name(tmp_path: Path) -> None:
    assert Networks(tmp_path).find("acme", NOW) == Charter(open_network("acme"), None)
    assert [is_file(text) for text in ("acme", "acme.network", "./acme")] == [False, True, True]


def test_another_network_of_the_same_name_does_not_take_its_place(tmp_path: Path) -> None:
    networks = Networks(tmp_path / "networks")
    networks.found(CHARTER)
    with pytest.raises(Misuse, match="already"):
        networks.found(CHARTER)
    impostor = Charter(Network("acme", True, (STRANGER.peer,)), KEY)
    with pytest.raises(Misuse, match="other root keys"):
        networks.join(invitation(tmp_path, impostor, admissions=(), revocations=()), NOW)
    assert networks.find("acme", NOW) == CHARTER


def test_what_does_not_hold_is_not_taken_in(tmp_path: Path) -> None:
    networks = Networks(tmp_path / "networks")
    foreign = admit(OFFICE, OPEN, WORKER.peer, [Role.WORKER], NOW, days=3)
    for lists in ({"admissions": (foreign,)}, {"delegations": (admitted(),)}, {"revocations": (b"x",)}):
        with pytest.raises(Misuse):
            networks.join(invitation(tmp_path, **lists), NOW)


def test_an_older_certificate_or_list_never_replaces_a_younger_one(tmp_path: Path) -> None:
    networks = Networks(tmp_path / "networks")
    younger = admit(OFFICE, NETWORK, WORKER.peer, [Role.RELAY], later(1), days=3)
    newer = revoking(WORKER.peer, now=later(1))
    for evidence in (admitted(), younger, admitted()):
        networks.keep_admission(NETWORK, evidence, later(1))
    for evidence in (revoking(), newer, revoking()):
        networks.keep_list(NETWORK, evidence, later(1))
    assert networks.admission(NETWORK, WORKER.peer) == younger
    assert networks.lists(NETWORK) == [newer]


def test_what_changed_on_disk_is_seen(tmp_path: Path) -> None:
    networks = Networks(tmp_path / "networks")
    assert networks.stamp(NETWORK) == 0
    networks.keep_admission(NETWORK, admitted(), NOW)
    before = networks.stamp(NETWORK)
    networks.keep_list(NETWORK, revoking(), NOW)
    assert networks.stamp(NETWORK) != before


def test_a_delegates_office_is_kept(tmp_path: Path) -> None:
    networks = Networks(tmp_path / "networks")
    networks.join(invitation(tmp_path, delegations=(deputy().delegation,)), NOW)
    assert networks.delegation(NETWORK, DELEGATE.peer) == deputy().delegation
    assert [held.payload.peer for held in networks.admissions(NETWORK, NOW)] == [WORKER.peer]
    assert networks.admissions(NETWORK, later(31)) == []


def test_a_damaged_charter_says_what_to_do(tmp_path: Path) -> None:
    networks = Networks(tmp_path)
    networks.found(CHARTER)
    (tmp_path / "acme" / "charter").write_bytes(b"no")
    with pytest.raises(Misuse, match="join the network again"):
        networks.find("acme", NOW)


@pytest.mark.parametrize("text", ["", "a b", "..", "x" * 65, "no/such.network"])
def test_what_names_no_network_is_the_fault_of_whoever_set_it(tmp_path: Path, text: str) -> None:
    with pytest.raises(Misuse, match="network"):
        Networks(tmp_path).find(text, NOW)
