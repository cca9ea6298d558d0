"""`haif key`: the API keys of tenants: what each is good for, how long, and a new one in place of an old."""

from __future__ import annotations

import argparse
import json
import re
import sys
from typing import TYPE_CHECKING, Any

from haif.base.errors import Misuse
from haif.cli.tenant import day, finish, key_row, key_view, now, revoke_named, show_key, table, with_store

if TYPE_CHECKING:
    from haif.gateway.tenants import Key

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_SECONDS_MAX = 10 * 366 * 86_400


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the verbs."""
    group = commands.add_parser("key", help="make, list, rotate and revoke the API keys of tenants")
    verbs = group.add_subparsers(metavar="VERB", required=True)
    create = verbs.add_parser("create", help="make one more key for a tenant; it is shown once")
    create.add_argument("tenant", metavar="NAME")
    create.add_argument("--expires", metavar="TIME", help="from now, such as 90d, 12h or 30m (default: never)")
    for flag, name, text in (
        ("--model", "models", "a model it is for"), ("--endpoint", "endpoints", "an endpoint it is for"),
        ("--from", "networks", "an address or a network (192.0.2.0/24) it may be used from"),
    ):  # fmt: skip
        create.add_argument(
            flag, action="append", dest=name, metavar="VALUE", default=[], help=f"{text} (none given: all)"
        )
    listing = verbs.add_parser("ls", help="list keys by their ids; keys themselves are not kept")
    listing.add_argument("tenant", metavar="NAME", nargs="?", help="of one tenant; of all when left out")
    rotate = verbs.add_parser("rotate", help="make a key that is good for the same, and end this one")
    rotate.add_argument("id", metavar="KEYID")
    rotate.add_argument("--grace", metavar="TIME", default="0s", help="for how long the old one works (default: 0s)")
    revoke = verbs.add_parser("revoke", help="end a key within 5 seconds")
    revoke.add_argument("tenant", metavar="KEYID")
    for verb, handler in ((create, _create), (listing, _list), (rotate, _rotate), (revoke, _revoke)):
        finish(verb, handler)


def _create(arguments: argparse.Namespace) -> int:
    from haif.gateway.tenants import Scope

    scope = Scope(tuple(arguments.models), tuple(arguments.endpoints), tuple(arguments.networks))
    expires = None if arguments.expires is None else now() + milliseconds("--expires", arguments.expires)
    made = with_store(arguments, lambda store: store.add_key(arguments.tenant, scope, expires))
    return show_key(arguments, *made)


def _list(arguments: argparse.Namespace) -> int:
    keys: list[Key] = with_store(arguments, lambda store: store.keys())
    keys = [key for key in keys if arguments.tenant in (None, key.tenant.name)]
    if arguments.json:
        print(json.dumps([key_view(key) for key in keys]))
    elif keys:
        rows: list[list[Any]] = [[key.tenant.name, *key_row(key), day(key.created)] for key in keys]
        print(table(["TENANT", "KEY", "STATE", "EXPIRES", "FOR", "MADE"], rows))
    else:
        print("no keys; `haif key create TENANT` makes one", file=sys.stderr)
    return 0


def _rotate(arguments: argparse.Namespace) -> int:
    grace = milliseconds("--grace", arguments.grace)
    made = with_store(arguments, lambda store: store.rotate(arguments.id, grace))
    code = show_key(arguments, *made)
    if not arguments.json:
        until = f"works for {arguments.grace} more" if grace else "ends within 5 seconds"
        print(f"{arguments.id} {until}.", file=sys.stderr)
    return code


def _revoke(arguments: argparse.Namespace) -> int:
    if not arguments.tenant.startswith("key-"):
        raise Misuse(f"{arguments.tenant[:80]!r} is no key's id; `haif tenant revoke NAME` ends all keys of a tenant")
    return revoke_named(arguments)


def milliseconds(flag: str, text: str) -> int:
    """A time such as 90d, 12h, 30m or 45s. Raises `Misuse`."""
    found = re.fullmatch(r"([0-9]{1,9})([smhd])", text)
    if found is None or int(found[1]) * _UNITS[found[2]] > _SECONDS_MAX:
        raise Misuse(f"{flag}: wanted a time such as 90d, 12h, 30m or 45s, at most ten years, got {text[:20]!r}")
    return int(found[1]) * _UNITS[found[2]] * 1000
