"""The admin API over HTTP, on a listener of its own: tenants, keys and usage, for operators with keys of their own.

A plain ASGI application over the gateway's own `Exchange`: the same bounds, and nothing that tenants can reach.
"""

from __future__ import annotations

import logging
import re
import urllib.parse
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any, Final

import msgspec

from haif.base.clock import Clock, WallTime
from haif.base.errors import Conflict, Dropped, Forbidden, HaifError, InvalidRequest
from haif.gateway.admin import (
    PROBLEM,
    Admin,
    Change,
    NewKey,
    NewTenant,
    Rotation,
    admin_bearer,
    changed,
    etag,
    key_view,
    page,
    problem_json,
    read,
    scope_of,
    status_of,
    tenant_of,
)
from haif.gateway.allowance import day_of
from haif.gateway.errors import INTERNAL, Problem, Rejected, problem_of
from haif.gateway.service.admins import AdminStore
from haif.gateway.service.exchange import Disconnected, Exchange, Message, Receive, Send
from haif.gateway.service.tenants import TenantStore
from haif.gateway.tenants import Absent
from haif.telemetry.service import Telemetry

_log = logging.getLogger(__name__)
_PAGE: Final = "100"
Answer = tuple[int, Any, str | None]  # status, body, and the version of what was shown
Handler = Callable[["_Call"], Awaitable[Answer]]


class _Call:
    """One request, taken apart."""

    def __init__(self, exchange: Exchange, query: str, name: str) -> None:
        self.exchange = exchange
        self.name = name
        self._query = dict(urllib.parse.parse_qsl(query, keep_blank_values=True))

    def asked(self, **known: str) -> list[str]:
        """The values of these parameters, or what they are when left out. Raises `InvalidRequest` for any other."""
        for each in self._query:
            if each not in known:
                raise InvalidRequest(f"the parameter {each[:40]!r} means nothing here", param=each[:40])
        return [self._query.get(name, usual) for name, usual in known.items()]


class AdminApp:
    """An ASGI application."""

    def __init__(
        self, *, store: TenantStore, admins: AdminStore, telemetry: Telemetry, clock: Clock,
        entropy: Callable[[int], bytes],
    ) -> None:  # fmt: skip
        self._store = store
        self._admins = admins
        self._telemetry = telemetry
        self._clock = clock
        self._entropy = entropy
        self._routes: list[tuple[str, re.Pattern[str], Handler]] = [
            (method, re.compile(f"/admin/v1/{path}"), handler)
            for method, path, handler in (
                ("GET", "tenants", self._tenants), ("POST", "tenants", self._create),
                ("GET", "tenants/([^/]+)", self._tenant), ("PATCH", "tenants/([^/]+)", self._change),
                ("GET", "keys", self._keys), ("POST", "keys", self._new_key),
                ("POST", "keys/([^/]+)/rotate", self._rotate), ("DELETE", "keys/([^/]+)", self._revoke),
                ("GET", "usage", self._usage),
            )
        ]  # fmt: skip

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request, whatever happens."""
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close"})
            return
        exchange = Exchange(scope, receive, send, f"adm_{self._entropy(12).hex()}")
        try:
            await self._answer(exchange, scope.get("query_string", b"").decode("latin-1"))
        except HaifError as error:
            self._telemetry.dropped(Dropped(error.reason, detail=exchange.path))
            await self._refuse(exchange, status_of(error, _problem(error)))
        except Disconnected:
            pass
        except Exception:  # noqa: BLE001 -- the top of a request's task: it reports, and the operator is answered
            _log.exception("admin request %s failed", exchange.request_id)
            await self._refuse(exchange, INTERNAL)

    async def _answer(self, exchange: Exchange, query: str) -> None:
        admin = await self._admins.whose(admin_bearer(exchange.headers.get(b"authorization", b"").decode("latin-1")))
        handler, name = self._route(exchange)
        if exchange.method != "GET":
            _check_write(exchange, admin)
            _log.info("admin %s: %s %s", admin.name, exchange.method, exchange.path)
        status, body, version = await handler(_Call(exchange, query, name))
        exchange.out.append((b"cache-control", b"no-store"))
        if version is not None:
            exchange.out.append((b"etag", version.encode()))
        await exchange.reply(msgspec.json.encode(body), status=status)

    def _route(self, exchange: Exchange) -> tuple[Handler, str]:
        found = [(method, match, handler) for method, path, handler in self._routes
                 if (match := path.fullmatch(exchange.path))]  # fmt: skip
        if not found:
            raise Absent(f"there is nothing at {exchange.path[:200]}")
        for method, match, handler in found:
            if method == exchange.method:
                return handler, match[1] if match.groups() else ""
        exchange.out.append((b"allow", ", ".join(method for method, _, _ in found).encode()))
        raise Rejected(f"{exchange.method} is not allowed here", code="method_not_allowed", status=405)

    async def _refuse(self, exchange: Exchange, problem: Problem) -> None:
        exchange.out += problem.headers()
        await exchange.reply(problem_json(problem, exchange.request_id), status=problem.status, kind=PROBLEM)

    # --- tenants ------------------------------------------------------------------------------------------------------

    async def _tenants(self, call: _Call) -> Answer:
        after, wanted = call.asked(after="", limit=_PAGE)
        shown, following = page(await self._store.tenants(), lambda tenant: str(tenant.name), after, wanted)
        return 200, {"data": [asdict(tenant) for tenant in shown], "next": following}, None

    async def _create(self, call: _Call) -> Answer:
        tenant = tenant_of(read(await call.exchange.body(), NewTenant))
        key, text = await self._store.create(tenant)
        return 201, asdict(tenant) | {"key": key_view(key, self._now(), text)}, etag(tenant)

    async def _tenant(self, call: _Call) -> Answer:
        call.asked()
        tenant = await self._store.tenant(call.name)
        drawn = (await self._store.drawn(day_of(self._now())[:7])).get(tenant.name, 0)
        return 200, asdict(tenant) | {"drawn": drawn}, etag(tenant)

    async def _change(self, call: _Call) -> Answer:
        change = read(await call.exchange.body(), Change)
        before = await self._store.tenant(call.name)
        version = call.exchange.headers.get(b"if-match")
        if version is None:
            raise Rejected("say in If-Match which version is to be changed: its ETag", code="version_required",
                           status=428)  # fmt: skip
        if version.decode("latin-1") != etag(before):
            raise _moved(call.name)
        tenant = changed(before, change)
        try:
            await self._store.change(tenant, before)
        except Conflict:
            raise _moved(call.name) from None
        return 200, asdict(tenant), etag(tenant)

    # --- keys and what was used ---------------------------------------------------------------------------------------

    async def _keys(self, call: _Call) -> Answer:
        tenant, after, wanted = call.asked(tenant="", after="", limit=_PAGE)
        keys = [key for key in await self._store.keys() if tenant in ("", key.tenant.name)]
        shown, following = page(keys, lambda key: str(key.id), after, wanted)
        return 200, {"data": [key_view(key, self._now()) for key in shown], "next": following}, None

    async def _new_key(self, call: _Call) -> Answer:
        wanted = read(await call.exchange.body(), NewKey)
        expires = None if wanted.expires_in_ms is None else WallTime(self._now() + wanted.expires_in_ms)
        key, text = await self._store.add_key(wanted.tenant, scope_of(wanted), expires)
        return 201, key_view(key, self._now(), text), None

    async def _rotate(self, call: _Call) -> Answer:
        body = await call.exchange.body()
        key, text = await self._store.rotate(call.name, read(body or b"{}", Rotation).grace_ms)
        return 201, key_view(key, self._now(), text), None

    async def _revoke(self, call: _Call) -> Answer:
        if not call.name.startswith("key-"):
            raise Absent(f"there is no key {call.name[:80]!r}")
        return 200, {"revoked": await self._store.revoke(call.name)}, None

    async def _usage(self, call: _Call) -> Answer:
        month, tenant = call.asked(month=day_of(self._now())[:7], tenant="")
        if not re.fullmatch(r"[0-9]{4}-[0-9]{2}", month):
            raise InvalidRequest("month is YYYY-MM, such as 2026-11", param="month")
        return 200, {"data": [asdict(each) for each in await self._store.usage(month, tenant or None)]}, None

    def _now(self) -> WallTime:
        return self._clock.wall()


def _check_write(exchange: Exchange, admin: Admin) -> None:
    if admin.read_only:
        raise Forbidden("this admin key may look and change nothing")
    if b"idempotency-key" in exchange.headers:
        raise InvalidRequest("no Idempotency-Key is kept here: a tenant's name is taken once, and a change names its "
                             "version", param="Idempotency-Key")  # fmt: skip


def _problem(error: HaifError) -> Problem:
    """A refusal in the words of this API: nobody asks for a model here."""
    if isinstance(error, Absent):
        return Problem(404, "", "not_found", error.message)
    if isinstance(error, Forbidden):
        return Problem(403, "", "read_only", error.message)
    return problem_of(error)


def _moved(name: str) -> Rejected:
    text = f"{name} was changed meanwhile: look at it again, and name the version it has now"
    return Rejected(text, code="version_changed", status=412)
