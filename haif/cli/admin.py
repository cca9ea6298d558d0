"""`haif admin`: who may use the admin API of this machine's gateway (`haif gateway --admin`)."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from haif.cli.key import milliseconds
from haif.cli.tenant import day, finish, now, table, with_gateways

if TYPE_CHECKING:
    from haif.gateway.service import AdminStore


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the verbs."""
    group = commands.add_parser("admin", help="make, list and revoke the keys of the gateway's admin API")
    verbs = group.add_subparsers(metavar="VERB", required=True)
    create = verbs.add_parser("create", help="make a key for an operator; it is shown once")
    create.add_argument("admin", metavar="NAME")
    create.add_argument("--read-only", action="store_true", help="it may look and change nothing")
    create.add_argument("--expires", metavar="TIME", help="from now, such as 90d, 12h or 30m (default: never)")
    listing = verbs.add_parser("ls", help="list who has a key")
    revoke = verbs.add_parser("revoke", help="end a key at once")
    revoke.add_argument("admin", metavar="NAME")
    for verb, handler in ((create, _create), (listing, _list), (revoke, _revoke)):
        finish(verb, handler)


def _create(arguments: argparse.Namespace) -> int:
    expires = None if arguments.expires is None else now() + milliseconds("--expires", arguments.expires)
    text = _with_admins(
        arguments, lambda admins: admins.create(arguments.admin, read_only=arguments.read_only, expires=expires)
    )
    if arguments.json:
        told = {"name": arguments.admin, "read_only": arguments.read_only, "expires": expires, "key": text}
        print(json.dumps(told))
    else:
        print(text)
        print(f"This is the only time the key of {arguments.admin} is shown.", file=sys.stderr)
    return 0


def _list(arguments: argparse.Namespace) -> int:
    admins = _with_admins(arguments, lambda admins: admins.all())
    if arguments.json:
        print(json.dumps([{"name": each.name, "read_only": each.read_only, "expires": each.expires,
                           "revoked": each.revoked} for each in admins]))  # fmt: skip
    elif admins:
        rows = [
            [each.name, "looks" if each.read_only else "changes", day(each.expires), "revoked" if each.revoked else ""]
            for each in admins
        ]
        print(table(["ADMIN", "MAY", "EXPIRES", ""], rows))
    else:
        print("nobody yet; `haif admin create NAME` makes a key", file=sys.stderr)
    return 0


def _revoke(arguments: argparse.Namespace) -> int:
    _with_admins(arguments, lambda admins: admins.revoke(arguments.admin))
    print(json.dumps({"revoked": arguments.admin}) if arguments.json else arguments.admin)
    return 0


def _with_admins(arguments: argparse.Namespace, work: Callable[[AdminStore], Awaitable[Any]]) -> Any:
    from haif.gateway.service import open_admins

    return with_gateways(open_admins, arguments, work)
