"""`haif keys`: the Ed25519 identities of this machine."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from haif import config

if TYPE_CHECKING:
    from haif.identity.service import Keyring


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the verbs."""
    group = commands.add_parser(
        "keys", help="make and show this machine's identities (API keys of tenants: `haif key`)"
    )
    verbs = group.add_subparsers(metavar="VERB", required=True)
    new = verbs.add_parser("new", help="make a key; its file is readable by you alone")
    new.add_argument("name", help="what it is for: worker, gateway, orchestrator, publisher, ...")
    show = verbs.add_parser("show", help="print peer ids (public keys); secrets are never printed")
    show.add_argument("name", nargs="?", help="one key; all of them when left out")
    for verb, handler in ((new, _new), (show, _show)):
        verb.add_argument("--state", metavar="PATH", help="state folder")
        verb.add_argument("--json", action="store_true", help="as JSON")
        verb.set_defaults(handler=handler)


def _new(arguments: argparse.Namespace) -> int:
    from haif.runtime.clock import entropy

    ring = _keyring(arguments)
    identity = ring.create(_name(arguments.name), entropy)
    _print([(arguments.name, str(identity.peer), str(ring.path(arguments.name)))], arguments.json)
    return 0


def _show(arguments: argparse.Namespace) -> int:
    ring = _keyring(arguments)
    names = [_name(arguments.name)] if arguments.name else ring.names()
    _print([(name, str(ring.load(name).peer), str(ring.path(name))) for name in names], arguments.json)
    return 0


def _keyring(arguments: argparse.Namespace) -> Keyring:
    from haif.identity.service import Keyring

    return Keyring(config.load(config.NodeSettings, vars(arguments)).folder / "keys")


def _name(name: str) -> str:
    from haif.artifacts.manifest import check_name

    return check_name(name)


def _print(rows: list[tuple[str, str, str]], as_json: bool) -> None:
    if as_json:
        print(json.dumps([{"name": name, "peer": peer, "file": file} for name, peer, file in rows]))
        return
    for name, peer, file in rows:
        print(f"{name:<16} {peer}  {file}")
