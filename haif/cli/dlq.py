"""`haif dlq`: requests that failed for good at this machine's gateway, what was tried, and running them again."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from haif import config
from haif.base import limits
from haif.base.errors import Misuse

if TYPE_CHECKING:
    from haif.base.ids import JobId
    from haif.gateway.letters import Letter
    from haif.gateway.service import Letters

NOT_FOUND = 3


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the verbs."""
    group = commands.add_parser("dlq", help="look at requests that failed for good, and run them again")
    verbs = group.add_subparsers(metavar="VERB", required=True)
    listing = verbs.add_parser("ls", help="list the dead letters, newest first")
    show = verbs.add_parser("show", help="what was tried for one of them, and why it failed")
    show.add_argument("job", metavar="JOB", help="a job's id, or its beginning")
    redrive = verbs.add_parser("redrive", help="run letters again; their tenants find the answers under their keys")
    redrive.add_argument(
        "--rate", type=float, default=1.0, metavar="N",
        help=f"at most so many a second (default: 1, at most {limits.REDRIVES_PER_SECOND_MAX})",
    )  # fmt: skip
    redrive.add_argument("--cancel", action="store_true", help="take back what was asked for and has not begun")
    purge = verbs.add_parser("purge", help="forget letters, with what is kept of their requests")
    for verb in (redrive, purge):
        verb.add_argument("jobs", nargs="*", metavar="JOB", help="jobs' ids, or their beginnings")
        verb.add_argument("--all", action="store_true", help="every letter that fits the filters")
        verb.add_argument("--dry-run", action="store_true", help="only say which")
    for verb in (listing, redrive, purge):
        verb.add_argument("--model", metavar="NAME", help="only letters of this model")
        verb.add_argument("--tenant", metavar="NAME", help="only letters of this tenant")
        verb.add_argument("--cause", metavar="WORD", help="only letters that failed for this: poison, timeout, ...")
    for verb, handler in ((listing, _list), (show, _show), (redrive, _redrive), (purge, _purge)):
        verb.add_argument("--state", metavar="PATH", help="state folder")
        verb.add_argument("--name", metavar="INSTANCE", help="name of the gateway instance (default: gateway)")
        verb.add_argument("--json", action="store_true", help="as JSON")
        verb.set_defaults(handler=handler)


def _list(arguments: argparse.Namespace) -> int:
    letters = [letter for letter in _all(arguments) if _fits(arguments, letter)]
    if arguments.json:
        print(json.dumps([_view(letter) for letter in letters]))
        return 0
    for letter in letters:
        again = "redrivable" if letter.redrivable(_now()) else letter.standing.value
        print(f"{letter.job}  {_when(letter.at)}  {letter.tenant:<16} {letter.model:<16} {letter.cause:<16} {again}")
    if not letters:
        print("no dead letters", file=sys.stderr)
    return 0


def _show(arguments: argparse.Namespace) -> int:
    found = [letter for letter in _all(arguments) if str(letter.job).startswith(arguments.job)]
    if len(found) != 1:
        print(f"haif: {len(found)} dead letters begin with {arguments.job}; `haif dlq ls` lists them", file=sys.stderr)
        return NOT_FOUND
    view = _view(found[0])
    if arguments.json:
        print(json.dumps(view))
        return 0
    tries = view.pop("history")
    print("\n".join(f"{name:<12} {value}" for name, value in view.items()))
    for each in tries:
        print(f"attempt {each['attempt']:<4} {each['reason']:<18} after {each['tokens']} tokens, on {each['worker']}")
    return 0


def _redrive(arguments: argparse.Namespace) -> int:
    if not 0 < arguments.rate <= limits.REDRIVES_PER_SECOND_MAX:
        raise Misuse(f"--rate is more than 0 and at most {limits.REDRIVES_PER_SECOND_MAX} letters a second")
    if arguments.cancel:
        return _change(arguments, "cancelled", lambda _: True, lambda letters, jobs: letters.cancel(jobs))
    return _change(
        arguments, "to be run again", lambda letter: letter.redrivable(_now()),
        lambda letters, jobs: letters.ask(jobs, arguments.rate),
    )  # fmt: skip


def _purge(arguments: argparse.Namespace) -> int:
    return _change(arguments, "forgotten", lambda _: True, lambda letters, jobs: letters.purge(jobs))


def _change(
    arguments: argparse.Namespace, done: str, able: Callable[[Letter], bool],
    work: Callable[[Letters, list[JobId]], Awaitable[int]],
) -> int:  # fmt: skip
    if bool(arguments.jobs) == arguments.all:
        raise Misuse("name the jobs, or say --all for every letter that fits the filters")
    chosen = [letter for letter in _all(arguments) if _fits(arguments, letter) and _named(arguments, letter)]
    if not chosen:
        print("haif: there are no such letters; `haif dlq ls` lists them", file=sys.stderr)
        return NOT_FOUND
    jobs = [letter.job for letter in chosen if able(letter)]
    count = len(jobs) if arguments.dry_run else _with_letters(arguments, lambda letters: work(letters, jobs))
    if arguments.json:
        print(json.dumps({"letters": len(chosen), "done": count, "dry_run": arguments.dry_run}))
    else:
        print(f"{count} of {len(chosen)} letters: {done}{' (not done: --dry-run)' if arguments.dry_run else ''}")
        if count < len(chosen):
            print(
                "the others came without an Idempotency-Key, more than a day ago, or are not in a state for it",
                file=sys.stderr,
            )
    return 0


def _fits(arguments: argparse.Namespace, letter: Letter) -> bool:
    wanted = ((arguments.model, letter.model), (arguments.tenant, letter.tenant), (arguments.cause, letter.cause))
    return all(asked is None or asked == value for asked, value in wanted)


def _named(arguments: argparse.Namespace, letter: Letter) -> bool:
    return arguments.all or any(str(letter.job).startswith(job) for job in arguments.jobs)


def _view(letter: Letter) -> dict[str, Any]:
    return {
        "job": str(letter.job), "tenant": letter.tenant, "model": letter.model, "at": _when(letter.at),
        "cause": letter.cause, "standing": letter.standing.value, "redriven": letter.redriven,
        "redrivable": letter.redrivable(_now()),
        "history": [
            {"attempt": each.attempt, "worker": str(each.worker), "reason": each.reason, "tokens": each.tokens}
            for each in letter.history
        ],
    }  # fmt: skip


def _when(at: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at / 1000))


def _now() -> Any:
    from haif.runtime.clock import SystemClock

    return SystemClock().wall()


def _all(arguments: argparse.Namespace) -> list[Letter]:
    found: list[Letter] = _with_letters(arguments, lambda letters: letters.all())
    return found


def _with_letters(arguments: argparse.Namespace, work: Callable[[Letters], Awaitable[Any]]) -> Any:
    from haif.gateway.service import open_letters

    given = {name: value for name in ("state", "name") if (value := getattr(arguments, name))}
    settings = config.load(config.GatewaySettings, given)

    async def whole() -> Any:
        async with open_letters(settings.folder, instance=settings.name or "gateway") as letters:
            return await work(letters)

    return asyncio.run(whole())
