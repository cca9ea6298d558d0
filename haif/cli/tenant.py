"""`haif tenant`: who may ask this machine's gateway, how much, and what it used."""

from __future__ import annotations

import argparse
import asyncio
import csv
import json
import re
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, TypeVar

from haif import config
from haif.base import limits
from haif.base.confinement import LEVELS
from haif.base.errors import InvalidRequest, Misuse

if TYPE_CHECKING:
    from haif.gateway.service import TenantStore, Usage
    from haif.gateway.tenants import Key, Tenant

NOT_FOUND = 3
S = TypeVar("S")
_NUMBERS = (
    ("--rpm", limits.TENANT_REQUESTS_PER_MINUTE, "requests per minute"),
    ("--burst", limits.TENANT_BURST_REQUESTS, "requests at once"),
    ("--weight", 1, "its share among the tenants of its class while they wait"),
    ("--tpm", 0, "tokens per minute, prompt and answer; 0: no limit"),
    ("--concurrency", 0, "requests being answered at a time; 0: no limit"),
    ("--budget", 0, "tokens per calendar month (UTC); 0: no limit"),
)


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the verbs."""
    group = commands.add_parser("tenant", help="make, limit and list tenants; say what they used")
    verbs = group.add_subparsers(metavar="VERB", required=True)
    create = verbs.add_parser("create", help="make a tenant and its first key; the key is shown once")
    change = verbs.add_parser("set", help="change limits of a tenant, within 5 seconds; what is not given stays")
    show = verbs.add_parser("show", help="one tenant: its limits, keys, and what it used this month")
    listing = verbs.add_parser("ls", help="list tenants and their limits")
    usage = verbs.add_parser("usage", help="what receipts say that tenants used, by day and model")
    revoke = verbs.add_parser("revoke", help="end all keys of a tenant, or one key, within 5 seconds")
    for verb, default in ((create, True), (change, False)):
        for flag, number, text in _NUMBERS:
            usual = f" (default: {number})" if default else ""
            verb.add_argument(flag, type=int, default=number if default else None, metavar="INT", help=text + usual)
        verb.add_argument(
            "--sandbox-min", choices=LEVELS, default="none" if default else None,
            help="level that the jail of every worker must have that answers this tenant",
        )  # fmt: skip
        verb.add_argument(
            "--service", choices=("interactive", "batch"), default="interactive" if default else None,
            help="class of its requests: interactive ones go before a batch's, as 8 to 1 while both wait",
        )  # fmt: skip
        verb.add_argument(
            "--model", action="append", dest="models", metavar="NAME",
            help="a model it may use; may be given more than once (none given: every model)",
        )  # fmt: skip
    change.add_argument("--any-model", action="store_true", help="let it use every model again")
    for verb in (create, change, show):
        verb.add_argument("tenant", metavar="NAME")
    revoke.add_argument("tenant", metavar="NAME|KEYID")
    usage.add_argument("tenant", metavar="NAME", nargs="?", help="one tenant; all of them when left out")
    usage.add_argument("--month", metavar="YYYY-MM", help="which month, in UTC (default: this one)")
    usage.add_argument("--csv", action="store_true", help="as CSV, with a header line")
    for verb, handler in (
        (create, _create), (change, _change), (show, _show), (listing, _list), (usage, _usage), (revoke, revoke_named),
    ):  # fmt: skip
        finish(verb, handler)


def finish(verb: argparse.ArgumentParser, handler: Callable[[argparse.Namespace], int]) -> None:
    """The flags that all verbs about a gateway's tenants share."""
    verb.add_argument("--state", metavar="PATH", help="state folder")
    verb.add_argument("--name", metavar="INSTANCE", help="name of the gateway instance (default: gateway)")
    verb.add_argument("--json", action="store_true", help="as JSON")
    verb.set_defaults(handler=handler)


def _create(arguments: argparse.Namespace) -> int:
    from haif.gateway.tenants import Tenant

    tenant = Tenant(
        arguments.tenant, arguments.rpm, arguments.burst, arguments.sandbox_min, arguments.service, arguments.weight,
        arguments.tpm, arguments.concurrency, arguments.budget, tuple(arguments.models or ()),
    )  # fmt: skip
    return show_key(arguments, *with_store(arguments, lambda store: store.create(tenant)))


def _change(arguments: argparse.Namespace) -> int:
    if arguments.any_model and arguments.models:
        raise Misuse("--any-model and --model contradict each other: leave one out")

    async def work(store: TenantStore) -> Tenant:
        names = ("rpm", "burst", "sandbox_min", "service", "weight", "tpm", "concurrency", "budget")
        given = {name: value for name in names if (value := getattr(arguments, name)) is not None}
        if arguments.models or arguments.any_model:
            given["models"] = tuple(arguments.models or ())
        tenant = replace(await store.tenant(arguments.tenant), **given)
        await store.change(tenant)
        return tenant

    tenant = with_store(arguments, work)
    print(json.dumps(asdict(tenant)) if arguments.json else _told(tenant))
    return 0


def _show(arguments: argparse.Namespace) -> int:
    async def work(store: TenantStore) -> tuple[Tenant, list[Key], int, list[Usage]]:
        tenant, month = await store.tenant(arguments.tenant), _month(None)
        keys = [key for key in await store.keys() if key.tenant.name == tenant.name]
        return tenant, keys, (await store.drawn(month)).get(tenant.name, 0), await store.usage(month, tenant.name)

    tenant, keys, drawn, used = with_store(arguments, work)
    if arguments.json:
        view = asdict(tenant) | {"drawn": drawn, "keys": [key_view(key) for key in keys]}
        print(json.dumps(view | {"usage": [asdict(each) for each in used]}))
        return 0
    print(_told(tenant))
    if tenant.budget:
        print(f"drawn of it this month: {drawn} tokens, what open requests may need and what gateways hold included")
    prompt, answer = sum(each.prompt_tokens for each in used), sum(each.completion_tokens for each in used)
    answers = sum(each.answers for each in used)
    print(f"used this month: {prompt} prompt and {answer} answer tokens in {answers} answers")
    print(table(["KEY", "STATE", "EXPIRES", "FOR"], map(key_row, keys)))
    return 0


def _list(arguments: argparse.Namespace) -> int:
    async def work(store: TenantStore) -> tuple[list[Tenant], list[Key]]:
        return await store.tenants(), await store.keys()

    tenants, keys = with_store(arguments, work)
    live = Counter(key.tenant.name for key in keys if key.state(now()) == "live")
    if arguments.json:
        print(json.dumps([asdict(tenant) | {"live_keys": live[tenant.name]} for tenant in tenants]))
        return 0
    rows = (
        [each.name, live[each.name], each.rpm, each.burst, each.tpm or "-", each.concurrency or "-", each.budget or "-",
         each.service, each.weight, each.sandbox_min, ", ".join(each.models) or "all"]
        for each in tenants
    )  # fmt: skip
    head = ["TENANT", "KEYS", "REQ/MIN", "BURST", "TOKENS/MIN", "AT A TIME", "TOKENS/MONTH", "CLASS", "WEIGHT", "JAIL",
            "MODELS"]  # fmt: skip
    print(table(head, rows) if tenants else "", end="\n" if tenants else "")
    if not tenants:
        print("no tenants yet; `haif tenant create NAME` makes one", file=sys.stderr)
    return 0


def _usage(arguments: argparse.Namespace) -> int:
    month = _month(arguments.month)
    if arguments.json and arguments.csv:
        raise Misuse("--json and --csv contradict each other: leave one out")
    used: list[Usage] = with_store(arguments, lambda store: store.usage(month, arguments.tenant))
    head = ["day", "tenant", "model", "answers", "prompt_tokens", "completion_tokens"]
    if arguments.json:
        print(json.dumps([asdict(each) for each in used]))
    elif arguments.csv:
        writer = csv.DictWriter(sys.stdout, head, lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(each) for each in used)
    else:
        rows = [list(asdict(each).values()) for each in used]
        sums = [sum(column) for column in zip(*(row[3:] for row in rows), strict=True)] or [0, 0, 0]
        print(table([name.upper().replace("_", " ") for name in head], [*rows, ["all", "", "", *sums]]))
    return 0


def revoke_named(arguments: argparse.Namespace) -> int:
    """End a key, or all of a tenant."""
    ids = with_store(arguments, lambda store: store.revoke(arguments.tenant))
    if arguments.json:
        print(json.dumps({"revoked": ids}))
    else:
        print("\n".join(ids) if ids else "nothing left to revoke: it was revoked before")
    return 0


def with_store(arguments: argparse.Namespace, work: Callable[[TenantStore], Awaitable[Any]]) -> Any:
    """What `work` makes of the tenants of the gateway that was named. Leaves and raises as `with_gateways`."""
    from haif.gateway.service import open_store

    return with_gateways(open_store, arguments, work)


def with_gateways(
    opening: Callable[..., AbstractAsyncContextManager[S]],
    arguments: argparse.Namespace,
    work: Callable[[S], Awaitable[Any]],
) -> Any:
    """What `work` makes of a store of the gateway that was named. Leaves with 3 for who is not there.

    Raises `Misuse` for what cannot be.
    """
    from haif.gateway.tenants import Absent

    given = {name: value for name in ("state", "name") if (value := getattr(arguments, name))}
    settings = config.load(config.GatewaySettings, given)

    async def whole() -> Any:
        async with opening(settings.folder, instance=settings.name or "gateway") as store:
            return await work(store)

    try:
        return asyncio.run(whole())
    except Absent as error:
        print(f"haif: {error.message}", file=sys.stderr)
        raise SystemExit(NOT_FOUND) from None
    except InvalidRequest as error:
        raise Misuse(error.message) from None


def show_key(arguments: argparse.Namespace, key: Key, text: str) -> int:
    """Print a new key: the only time."""
    if arguments.json:
        print(json.dumps({**asdict(key.tenant), **key_view(key), "key": text}))
    else:
        print(text)
        print(f"This is the only time the key of {key.tenant.name} ({key.id}) is shown.", file=sys.stderr)
    return 0


def key_view(key: Key) -> dict[str, Any]:
    """A key for machines: everything but what nobody knows any more."""
    return {
        "tenant": key.tenant.name, "id": key.id, "state": key.state(now()), "created": key.created,
        "expires": key.expires, **{f"key_{name}": value for name, value in asdict(key.scope).items()},
    }  # fmt: skip


def key_row(key: Key) -> list[str]:
    """The same for people, without the tenant."""
    scope = key.scope
    good_for = [*scope.models, *scope.endpoints, *(f"from {each}" for each in scope.networks)]
    return [key.id, key.state(now()), day(key.expires), ", ".join(good_for) or "everything"]


def table(head: list[str], rows: Iterable[Iterable[Any]]) -> str:
    """Columns as wide as they must be, numbers to the right."""
    lines = [head, *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]

    def cell(text: str, width: int) -> str:
        return text.rjust(width) if re.fullmatch(r"[0-9]+|-", text) else text.ljust(width)

    return "\n".join("  ".join(map(cell, line, widths)).rstrip() for line in lines)


def day(at: int | None) -> str:
    """A time as people read it, in UTC."""
    import time

    return "never" if at is None else time.strftime("%Y-%m-%d %H:%M", time.gmtime(at / 1000))


def now() -> Any:
    """The time of day."""
    from haif.runtime.clock import SystemClock

    return SystemClock().wall()


def _month(given: str | None) -> str:
    from haif.gateway.allowance import day_of

    month = day_of(now())[:7] if given is None else given
    if not re.fullmatch(r"[0-9]{4}-(0[1-9]|1[0-2])", month):
        raise Misuse(f"--month: wanted YYYY-MM, such as 2026-11, got {month[:20]!r}")
    return month


def _told(tenant: Tenant) -> str:
    def limit(number: int, what: str) -> str:
        return f"{number} {what}" if number else f"no limit on {what}"

    numbers = (
        limit(tenant.tpm, "tokens per minute"), limit(tenant.concurrency, "requests at a time"),
        limit(tenant.budget, "tokens per month"),
    )  # fmt: skip
    return f"""{tenant.name}: {tenant.rpm} requests per minute, {tenant.burst} at once
  {"; ".join(numbers)}
  models: {", ".join(tenant.models) or "all"}; jail of workers: {tenant.sandbox_min} or better
  in line: {tenant.service}, weight {tenant.weight}"""
