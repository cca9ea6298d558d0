"""`haif network`: make networks, open or closed, and say who may take part in them.

A machine that wants in shows its key (`haif keys show`), its owner's file is brought to it, and it joins.
"""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from haif import config
from haif.base import limits
from haif.base.errors import HaifError, Misuse
from haif.base.roles import Role
from haif.cli.household import HOUSE_DAYS, OBSERVER
from haif.cli.visit import show, table

if TYPE_CHECKING:
    from haif.base.clock import WallTime
    from haif.base.ids import PeerId
    from haif.identity.admission import Book, Network
    from haif.identity.networks import Charter
    from haif.identity.service import Keyring, Networks, Owner

_DAYS = 30
_DAYS_MAX = limits.ADMISSION_TTL_MS_MAX // (24 * 3600 * 1000)


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the verbs."""
    group = commands.add_parser("network", help="make networks, and say who may take part in them")
    verbs = group.add_subparsers(metavar="VERB", required=True)
    create = verbs.add_parser("create", help="make a network; its root key is made on this machine and stays there")
    create.add_argument("name", metavar="NAME")
    create.add_argument("--closed", action="store_true", help="take only peers that were admitted")
    create.add_argument(
        "--root",
        action="append",
        default=[],
        metavar="PEER",
        help="another root key, kept elsewhere; may be given again",
    )
    shown = verbs.add_parser("show", help="print what is known of a network and who is in it")
    shown.add_argument("name", nargs="?", metavar="NAME|FILE", help="a network kept here, or a file of one")
    admit = verbs.add_parser("admit", help="sign a certificate for a peer, and write the file that it joins with")
    delegate = verbs.add_parser("delegate", help="let a peer admit others, in some roles")
    for verb in (admit, delegate):
        verb.add_argument("peer", metavar="PEER", help="a peer id (`haif keys show` there), or a key of this machine")
        verb.add_argument(
            "--role",
            action="append",
            required=True,
            choices=[role.value for role in Role],
            help="what it may be; may be given again",
        )
        verb.add_argument(
            "--days", type=int, default=_DAYS, help=f"for how long, at most {_DAYS_MAX} (default: {_DAYS})"
        )
        verb.add_argument("--out", metavar="FILE", help="where to write the file (default: NAME-PEER.network)")
    admit.add_argument("--owner", default="", help="whose machine it is, for people")
    revoke = verbs.add_parser("revoke", help="end a peer's membership everywhere, within seconds")
    revoke.add_argument("peer", metavar="PEER")
    for verb in (admit, revoke):
        verb.add_argument("--as", dest="key", metavar="KEY", help="sign as a delegate, with this key of this machine")
    join = verbs.add_parser("join", help="take in the file that a network's owner gave you")
    join.add_argument("file", metavar="FILE")
    listing = verbs.add_parser("ls", help="list the networks of this machine")
    for verb, handler in (
        (create, _create), (shown, _show), (admit, _admit), (delegate, _delegate), (revoke, _revoke), (join, _join),
        (listing, _list),
    ):  # fmt: skip
        if verb not in (create, shown, join, listing):
            verb.add_argument("--network", metavar="NAME", help="which network (default: the only one there is)")
        verb.add_argument("--state", metavar="PATH", help="state folder")
        verb.add_argument("--json", action="store_true", help="as JSON")
        verb.set_defaults(handler=handler)


# --- the verbs --------------------------------------------------------------------------------------------------------


def _create(arguments: argparse.Namespace) -> int:
    from haif.runtime.clock import entropy

    desk = _Desk(arguments)
    charter = desk.owner().found(
        arguments.name, desk.now, entropy, closed=arguments.closed, others=[desk.peer(text) for text in arguments.root]
    )
    network = charter.network
    if network.closed:  # so that `haif peers` and the like work here at once
        observer = desk.ring.load_or_create(OBSERVER, entropy).peer
        desk.owner().admit(network, observer, [Role.OBSERVER], desk.now, days=HOUSE_DAYS, owner="this machine")
    kind = "closed" if network.closed else "open"
    show(
        arguments,
        {**_view(network), "root_key": str(desk.owner().root_file(network))},
        lambda: (
            f"the {kind} network {network.name} is made; its id is {network.net}\n"
            f"its root key is {desk.owner().root_file(network)}: keep a copy where nobody else can read it\n"
            f"admit a peer:  haif network admit PEER --role worker --network {network.name}"
        ),
    )
    return 0


def _show(arguments: argparse.Namespace) -> int:
    from haif.identity.admission import Book
    from haif.identity.networks import is_file, read_invitation
    from haif.runtime import disk

    desk = _Desk(arguments)
    if arguments.name and is_file(arguments.name):
        invitation = read_invitation(disk.read_private(Path(arguments.name)))
        network, evidence = invitation.charter.network, invitation.admissions
        book = Book(network)
        for each in invitation.revocations:
            book.learn(each, desk.now)
    else:
        network = desk.charter(arguments.name).network
        book = desk.networks.book(network, desk.now)
        evidence = tuple(held.evidence for held in desk.networks.admissions(network, desk.now))
    members = [_member(book, each, desk.now) for each in evidence]
    value = {**_view(network), "revoked": sorted(map(str, book.revoked())), "members": members,
             "lists": [{"issuer": str(found.signer), "number": found.payload.sequence,
                        "issued": _date(found.payload.issued)} for found in book.lists()],
             "stale": book.stale(desk.now)}  # fmt: skip
    show(arguments, value, lambda: _described(value))
    return 0


def _admit(arguments: argparse.Namespace) -> int:
    _check_days(arguments)
    desk = _Desk(arguments)
    charter, peer = desk.charter(), desk.peer(arguments.peer)
    network, roles = charter.network, [Role(role) for role in arguments.role]
    desk.owner(arguments.key).admit(network, peer, roles, desk.now, days=arguments.days, owner=arguments.owner)
    return _hand_over(arguments, desk, charter, peer, "admitted to")


def _delegate(arguments: argparse.Namespace) -> int:
    _check_days(arguments)
    desk = _Desk(arguments)
    charter, peer = desk.charter(), desk.peer(arguments.peer)
    roles = [Role(role) for role in arguments.role]
    desk.owner().delegate(charter.network, peer, roles, desk.now, days=arguments.days)
    return _hand_over(arguments, desk, charter, peer, "a delegate of")


def _revoke(arguments: argparse.Namespace) -> int:
    desk = _Desk(arguments)
    network, peer = desk.charter().network, desk.peer(arguments.peer)
    desk.owner(arguments.key).revoke(network, [peer], desk.now)
    show(
        arguments,
        {"network": network.name, "revoked": str(peer)},
        lambda: (
            f"{peer.short}… is revoked in {network.name}: its sessions end, and it gets no others, wherever the list "
            f"arrives.\nNodes of this machine read it within a second and pass it on to everybody they talk to."
        ),
    )
    return 0


def _join(arguments: argparse.Namespace) -> int:
    desk = _Desk(arguments)
    network = desk.networks.join(arguments.file, desk.now).network
    show(
        arguments,
        _view(network),
        lambda: (
            f"joined the {'closed' if network.closed else 'open'} network {network.name}; use it with "
            f"--network {network.name}"
        ),
    )
    return 0


def _list(arguments: argparse.Namespace) -> int:
    desk = _Desk(arguments)
    rows: list[dict[str, Any]] = []
    for name in desk.networks.names():
        network = desk.networks.find(name, desk.now).network
        members = len(desk.networks.admissions(network, desk.now))
        rows.append({**_view(network), "certificates": members, "root_here": desk.owner().rules(network)})
    show(arguments, rows, lambda: _networks_text(rows))
    return 0


def _networks_text(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return "this machine knows no network by its root; make one with: haif network create NAME --closed"
    return table(
        ("NAME", "KIND", "ID", "CERTIFICATES", "ROOT KEY"),
        [
            (row["name"], row["kind"], row["id"][:16], row["certificates"], "here" if row["root_here"] else "elsewhere")
            for row in rows
        ],
    )


def _check_days(arguments: argparse.Namespace) -> None:
    if not 1 <= arguments.days <= _DAYS_MAX:
        raise Misuse(f"--days is a number from 1 to {_DAYS_MAX}")


# --- below ------------------------------------------------------------------------------------------------------------


class _Desk:
    """What the verbs work with: keyring, networks, and the time."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        from haif.identity.service import Keyring, Networks
        from haif.runtime.clock import SystemClock

        flags = {"state": arguments.state, "network": getattr(arguments, "network", None)}
        self._settings = config.load(config.NodeSettings, flags)
        self._named = flags["network"] is not None
        self.ring: Keyring = Keyring(self._settings.folder / "keys")
        self.networks: Networks = Networks(self._settings.folder / "networks")
        self.now: WallTime = SystemClock().wall()

    def owner(self, key: str | None = None) -> Owner:
        from haif.identity.service import Owner

        return Owner(self.ring, self.networks, key)

    def charter(self, name: str | None = None) -> Charter:
        """The network that is meant. Raises `Misuse` for one that is not kept here."""
        known = self.networks.names()
        name = name or (known[0] if not self._named and len(known) == 1 else self._settings.network)
        if name not in known:
            have = f"it knows: {', '.join(known)}" if known else "make one with: haif network create NAME --closed"
            raise Misuse(f"this machine knows no root of a network {name}; {have}")
        return self.networks.find(name, self.now)

    def peer(self, text: str) -> PeerId:
        """A peer id, or that of a key of this machine."""
        from haif.base.ids import PeerId

        if text in self.ring.names():
            return self.ring.load(text).peer
        try:
            return PeerId.parse(text)
        except ValueError as error:
            raise Misuse(f"{error}, or the name of a key of this machine (haif keys show)") from None

    def is_ours(self, peer: PeerId) -> bool:
        """Whether the peer's key is on this machine, so that it needs no file."""
        return any(self.ring.load(name).peer == peer for name in self.ring.names())


def _hand_over(arguments: argparse.Namespace, desk: _Desk, charter: Charter, peer: PeerId, what: str) -> int:
    """Write the file that the peer joins with, unless it is at home here."""
    from haif.runtime import disk

    network, file = charter.network, None
    if arguments.out or not desk.is_ours(peer):
        file = Path(arguments.out or f"{network.name}-{peer.short}.network")
        disk.write_private(file, desk.owner().invitation(charter, peer))
    value = {
        "network": network.name, "peer": str(peer), "roles": sorted(set(arguments.role)), "days": arguments.days,
        "file": str(file) if file else None,
    }  # fmt: skip
    said = f"{peer.short}… is {what} {network.name} as {', '.join(value['roles'])} for {arguments.days} days"
    there = f"\ngive it this file, as you would a key:  {file}\nand there:  haif network join {file and file.name}"
    show(arguments, value, lambda: said + (there if file else ""))
    return 0


def _view(network: Network) -> dict[str, Any]:
    kind = "closed" if network.closed else "open"
    return {"name": network.name, "kind": kind, "id": str(network.net), "roots": [str(root) for root in network.roots]}


def _member(book: Book, evidence: bytes, now: WallTime) -> dict[str, Any]:
    from haif.identity.admission import read

    try:
        admitted = read(evidence, network=book.network, now=now).admission
    except HaifError as error:
        return {"peer": "?", "roles": [], "owner": "", "until": "", "issuer": "", "state": error.message}
    statement, state = admitted.payload, "admitted"
    try:
        book.judge(statement.peer, evidence, now)
    except HaifError as error:
        state = error.reason.value if not isinstance(error, Misuse) else error.message
    return {
        "peer": str(statement.peer), "roles": [role.value for role in statement.roles], "owner": statement.owner,
        "until": _date(statement.not_after), "issuer": str(admitted.signer),
        "state": "revoked" if state == "forbidden" else state,
    }  # fmt: skip


def _described(value: dict[str, Any]) -> str:
    head = f"{value['name']}: {value['kind']} network {value['id']}\n" + "".join(
        f"root  {root}\n" for root in value["roots"]
    )
    lists = "".join(
        f"list of revocations number {found['number']} of {found['issuer'][:16]}, of {found['issued']}\n"
        for found in value["lists"]
    )
    shown = {member["peer"] for member in value["members"]}
    lists += "".join(f"revoked  {peer}\n" for peer in value["revoked"] if peer not in shown)
    old = "no list of the last 30 days: a newer one may have been kept from this machine\n" if value["stale"] else ""
    if not value["members"]:
        return f"{head}{lists}{old}no certificates are kept here"
    rows = [(m["peer"][:16], ",".join(m["roles"]), m["owner"] or "-", m["until"], m["state"]) for m in value["members"]]
    return f"{head}{lists}{old}\n{table(('PEER', 'ROLES', 'OWNER', 'UNTIL', 'STATE'), rows)}"


def _date(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")
