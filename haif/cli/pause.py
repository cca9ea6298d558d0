"""`haif pause` and `haif resume`: the incident switch of this machine's orchestrator."""

from __future__ import annotations

import argparse
import getpass
import json
import secrets
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from haif import config
from haif.base import limits
from haif.base.errors import InvalidRequest, Misuse

if TYPE_CHECKING:
    from haif.orchestrator.events import PauseOrdered
    from haif.orchestrator.service import Desk

_KINDS = ("model", "worker", "tenant", "all")
_LATER = 5


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the verbs."""
    pause = commands.add_parser(
        "pause", help="place no more work of a model, a tenant, on a worker, or any at all, within 5 seconds"
    )
    resume = commands.add_parser("resume", help="end a pause")
    for verb, handler, kinds in ((pause, _pause, (*_KINDS, "ls")), (resume, _resume, _KINDS)):
        verb.add_argument("kind", choices=kinds, help="what" + ("; ls: list what is paused" if "ls" in kinds else ""))
        verb.add_argument(
            "of", metavar="NAME", nargs="?", default="", help="a model's or tenant's name, a worker's peer id"
        )
        verb.add_argument("--reason", default="", help="why; it is kept in the journal")
        verb.add_argument("--state", metavar="PATH", help="state folder")
        verb.add_argument(
            "--name", metavar="INSTANCE", help="name of the orchestrator instance (default: orchestrator)"
        )
        verb.add_argument("--json", action="store_true", help="as JSON")
        verb.set_defaults(handler=handler)


def _pause(arguments: argparse.Namespace) -> int:
    return _list(arguments) if arguments.kind == "ls" else _order(arguments, paused=True)


def _resume(arguments: argparse.Namespace) -> int:
    return _order(arguments, paused=False)


def _desk(arguments: argparse.Namespace) -> Desk:
    from haif.orchestrator.service import Desk

    settings = config.load(config.OrchestratorSettings, vars(arguments))
    return Desk(settings.folder / (settings.name or "orchestrator"))


def _list(arguments: argparse.Namespace) -> int:
    paused = _desk(arguments).shown()
    if arguments.json:
        print(json.dumps([_view(order) for order in paused]))
        return 0
    for order in paused:
        since = datetime.fromtimestamp(order.at / 1000, UTC).isoformat(timespec="seconds")
        print(f"{order.kind:<7} {order.name:<24} since {since}  by {order.by}  {order.reason}")
    if not paused:
        print("nothing is paused", file=sys.stderr)
    return 0


def _order(arguments: argparse.Namespace, *, paused: bool) -> int:
    from haif.orchestrator.events import PauseOrdered

    desk = _desk(arguments)
    order = PauseOrdered(
        arguments.kind, arguments.of, paused, arguments.reason, getpass.getuser(), time.time_ns() // 1_000_000
    )
    try:
        left = desk.leave(order, secrets.token_hex(4))
    except InvalidRequest as error:
        raise Misuse(error.message) from None
    ends = time.monotonic() + limits.PAUSE_SECONDS
    while left.exists():
        if time.monotonic() > ends:
            print("no orchestrator took the order yet: one that is started here will", file=sys.stderr)
            return _LATER
        time.sleep(0.05)
    return _list(arguments)


def _view(order: PauseOrdered) -> dict[str, str | int]:
    return {"kind": order.kind, "name": order.name, "reason": order.reason, "by": order.by, "since": order.at}
