"""`haif tenant`: who may ask this machine's gateway, and how often."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from haif import config
from haif.base import limits
from haif.base.confinement import LEVELS
from haif.base.errors import InvalidRequest, Misuse

if TYPE_CHECKING:
    from haif.gateway.service import TenantStore
    from haif.gateway.tenants import Key

NOT_FOUND = 3


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the verbs."""
    group = commands.add_parser("tenant", help="make, list and revoke the API keys of tenants")
    verbs = group.add_subparsers(metavar="VERB", required=True)
    create = verbs.add_parser("create", help="make a tenant, or one more key for it; the key is shown once")
    create.add_argument("tenant", metavar="NAME")
    for flag, default, text in (
        ("--rpm", limits.TENANT_REQUESTS_PER_MINUTE, "requests per minute"),
        ("--burst", limits.TENANT_BURST_REQUESTS, "requests at once"),
    ):
        create.add_argument(flag, type=int, default=default, help=f"{text} (default: {default})")
    create.add_argument(
        "--sandbox-min", choices=LEVELS, default="none",
        help="level that the jail of every worker must have that answers this tenant (default: none)",
    )  # fmt: skip
    create.add_argument(
        "--service", choices=("interactive", "batch"), default="interactive",
        help="class of its requests: interactive ones go before a batch's, as 8 to 1 while both wait "
        "(default: interactive)",
    )  # fmt: skip
    create.add_argument(
        "--weight", type=int, default=1, help="its share among the tenants of its class while they wait (default: 1)"
    )
    listing = verbs.add_parser("ls", help="list tenants and the ids of their keys; keys themselves are not kept")
    revoke = verbs.add_parser("revoke", help="end a key, or all keys of a tenant, within 5 seconds")
    revoke.add_argument("tenant", metavar="NAME|KEYID")
    for verb, handler in ((create, _create), (listing, _list), (revoke, _revoke)):
        verb.add_argument("--state", metavar="PATH", help="state folder")
        verb.add_argument("--name", metavar="INSTANCE", help="name of the gateway instance (default: gateway)")
        verb.add_argument("--json", action="store_true", help="as JSON")
        verb.set_defaults(handler=handler)


def _create(arguments: argparse.Namespace) -> int:
    from haif.gateway.tenants import Tenant, check_tenant

    try:
        tenant = check_tenant(
            Tenant(
                arguments.tenant, arguments.rpm, arguments.burst, arguments.sandbox_min, arguments.service,
                arguments.weight,
            )
        )  # fmt: skip
    except InvalidRequest as error:
        raise Misuse(error.message) from None
    key, text = _with_store(arguments, lambda store: store.create(tenant))
    if arguments.json:
        print(json.dumps({**_view(key), "key": text}))
    else:
        print(text)
        print(f"This is the only time the key of {tenant.name} ({key.id}) is shown.", file=sys.stderr)
    return 0


def _list(arguments: argparse.Namespace) -> int:
    keys = _with_store(arguments, lambda store: store.keys())
    if arguments.json:
        print(json.dumps([_view(key) for key in keys]))
        return 0
    for key in keys:
        tenant, state = key.tenant, "revoked" if key.revoked else "live"
        rate = f"{tenant.rpm}/min, burst {tenant.burst}"
        terms = f"{rate}, sandbox {tenant.sandbox_min}, {tenant.service}, weight {tenant.weight}"
        print(f"{tenant.name:<24} {key.id}  {state:<7}  {terms}")
    if not keys:
        print("no tenants yet; `haif tenant create NAME` makes one", file=sys.stderr)
    return 0


def _revoke(arguments: argparse.Namespace) -> int:
    try:
        ids = _with_store(arguments, lambda store: store.revoke(arguments.tenant))
    except InvalidRequest as error:
        print(f"haif: {error.message}", file=sys.stderr)
        return NOT_FOUND
    if arguments.json:
        print(json.dumps({"revoked": ids}))
    else:
        print("\n".join(ids) if ids else "nothing left to revoke: it was revoked before")
    return 0


def _with_store(arguments: argparse.Namespace, work: Callable[[TenantStore], Awaitable[Any]]) -> Any:
    from haif.gateway.service import open_store

    settings = config.load(config.GatewaySettings, vars(arguments))

    async def whole() -> Any:
        async with open_store(settings.folder, instance=settings.name or "gateway") as store:
            return await work(store)

    return asyncio.run(whole())


def _view(key: Key) -> dict[str, Any]:
    return {
        "tenant": key.tenant.name, "id": key.id, "rpm": key.tenant.rpm, "burst": key.tenant.burst,
        "sandbox_min": key.tenant.sandbox_min, "service": key.tenant.service, "weight": key.tenant.weight,
        "created": key.created, "revoked": key.revoked,
    }  # fmt: skip
