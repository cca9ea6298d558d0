"""Tenants and keys in SQLite, for those who administer them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, Final

from haif.base import limits
from haif.base.clock import Clock, WallTime
from haif.base.errors import Conflict, InvalidRequest, Overloaded
from haif.base.ids import Digest
from haif.gateway.tenants import (
    ANYTHING,
    Absent,
    Key,
    Scope,
    Tenant,
    check_scope,
    check_tenant,
    hash_of,
    id_of,
    new_key,
)
from haif.runtime.clock import SystemClock
from haif.runtime.clock import entropy as system_entropy
from haif.storage.service import Database

_CLOCK: Final = SystemClock()

TENANTS_SCHEMA: Final = (
    """
    CREATE TABLE tenants (
        name TEXT PRIMARY KEY, rpm INTEGER NOT NULL, burst INTEGER NOT NULL, sandbox_min TEXT NOT NULL,
        service TEXT NOT NULL, weight INTEGER NOT NULL, tpm INTEGER NOT NULL, concurrency INTEGER NOT NULL,
        budget INTEGER NOT NULL, models TEXT NOT NULL
    ) STRICT;
    CREATE TABLE keys (
        hash BLOB PRIMARY KEY, id TEXT NOT NULL UNIQUE, tenant TEXT NOT NULL REFERENCES tenants (name),
        created INTEGER NOT NULL, revoked INTEGER, scope TEXT NOT NULL, expires INTEGER
    ) STRICT;
    CREATE INDEX keys_by_tenant ON keys (tenant);
    CREATE TABLE revision (one INTEGER PRIMARY KEY CHECK (one = 1), number INTEGER NOT NULL) STRICT;
    INSERT INTO revision VALUES (1, 0);
    CREATE TABLE budgets (
        tenant TEXT NOT NULL, month TEXT NOT NULL, drawn INTEGER NOT NULL, PRIMARY KEY (tenant, month)
    ) STRICT;
    CREATE TABLE admins (
        hash BLOB PRIMARY KEY, name TEXT NOT NULL UNIQUE, read_only INTEGER NOT NULL, created INTEGER NOT NULL,
        expires INTEGER, revoked INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE usage (
        day TEXT NOT NULL, tenant TEXT NOT NULL, model TEXT NOT NULL, answers INTEGER NOT NULL,
        prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL, PRIMARY KEY (day, tenant, model)
    ) STRICT;
    """,
)
_TENANTS: Final = """
    SELECT name, rpm, burst, sandbox_min, service, weight, tpm, concurrency, budget, models FROM tenants
    ORDER BY name LIMIT ?
"""
_KEYS: Final = """
    SELECT hash, id, tenant, created, revoked, scope, expires FROM keys ORDER BY created DESC, id LIMIT ?
"""
_TOUCH: Final = "UPDATE revision SET number = number + 1"
_USAGE: Final = """
    SELECT day, tenant, model, answers, prompt_tokens, completion_tokens FROM usage
    WHERE day LIKE ? || '%' AND (? IS NULL OR tenant = ?) ORDER BY day, tenant, model LIMIT ?
"""


@dataclass(frozen=True, slots=True)
class Usage:
    """What one day's receipts say of a tenant and a model."""

    day: str
    tenant: str
    model: str
    answers: int
    prompt_tokens: int
    completion_tokens: int


class TenantStore:
    """The tenants of one gateway. What changes here, a gateway that runs knows within `limits.TENANT_STALE_SECONDS`."""

    def __init__(self, database: Database, *, clock: Clock, entropy: Callable[[int], bytes]) -> None:
        self._database = database
        self._clock = clock
        self._entropy = entropy

    async def create(self, tenant: Tenant, scope: Scope = ANYTHING, expires: WallTime | None = None) -> tuple[Key, str]:
        """A new tenant, its first key, and that key's text: the only time anybody sees it.

        Raises `InvalidRequest`, also for a name that is taken, or `Overloaded` when there are
        `limits.TENANT_KEYS_MAX` keys or `limits.TENANTS_MAX` tenants already.
        """
        check_tenant(tenant)
        key, text = self._made(tenant, check_scope(scope), expires)

        def work(connection: sqlite3.Connection) -> None:
            _insert_tenant(connection, tenant)
            _insert_key(connection, key)

        await self._database.write(work)
        return key, text

    async def add_key(self, name: str, scope: Scope = ANYTHING, expires: WallTime | None = None) -> tuple[Key, str]:
        """One more key for this tenant, and its text. Raises as `create`, and `Absent`."""
        tenant = await self.tenant(name)
        key, text = self._made(tenant, check_scope(scope), expires)
        await self._database.write(lambda connection: _insert_key(connection, key))
        return key, text

    async def rotate(self, key_id: str, grace_ms: int) -> tuple[Key, str]:
        """A new key in place of this one, for the same and for as long; the old one ends after the grace.

        Raises `Absent` for a key that is not there or works no more.
        """
        now = self._clock.wall()
        old = next((key for key in await self.keys() if key.id == key_id), None)
        if old is None or old.state(now) != "live":
            raise Absent(f"there is no key {key_id!r} that works; `haif key ls` shows what there is")
        key, text = self._made(old.tenant, old.scope, old.expires)
        ends = now + grace_ms if old.expires is None else min(now + grace_ms, old.expires)

        def work(connection: sqlite3.Connection) -> None:
            _insert_key(connection, key)
            if grace_ms:
                connection.execute("UPDATE keys SET expires = ? WHERE id = ?", (ends, key_id))
            else:
                connection.execute("UPDATE keys SET revoked = ? WHERE id = ?", (now, key_id))

        await self._database.write(work)
        return key, text

    async def change(self, tenant: Tenant, before: Tenant | None = None) -> None:
        """The tenant of this name has these limits from now on. Raises `InvalidRequest`, or `Absent` if it is none.

        Raises `Conflict` if it is not any more what it was `before`, where that is given.
        """
        check_tenant(tenant)
        await self._database.write(lambda connection: _change(connection, tenant, before))

    async def tenants(self) -> list[Tenant]:
        """Every tenant, by name."""
        return await read_tenants(self._database)

    async def tenant(self, name: str) -> Tenant:
        """The tenant of this name. Raises `Absent`."""
        for tenant in await self.tenants():
            if tenant.name == name:
                return tenant
        raise Absent(f"there is no tenant {name!r}; `haif tenant ls` shows what there is")

    async def keys(self) -> list[Key]:
        """Every key, revoked ones too, newest first."""
        return await read_keys(self._database)

    async def revoke(self, name: str) -> list[str]:
        """Revoke a key by its id, or all keys of a tenant by its name. The ids of the keys that were live until now.

        Raises `Absent` when there is no such key or tenant.
        """
        now = self._clock.wall()
        found, ids = await self._database.write(lambda connection: _revoke(connection, name, now))
        if not found:
            raise Absent(f"there is no tenant or key {name!r}; `haif tenant ls` shows what there is")
        return ids

    async def drawn(self, month: str) -> dict[str, int]:
        """What gateways drew of each tenant's budget of that month: what was used, and what they hold to be used."""
        rows = await self._database.read("SELECT tenant, drawn FROM budgets WHERE month = ?", (month,))
        return dict(rows)

    async def usage(self, period: str, tenant: str | None = None) -> list[Usage]:
        """What receipts say of the days that begin with `period`, such as 2026-11."""
        rows = await self._database.read(_USAGE, (period, tenant, tenant, limits.USAGE_LISTED_MAX))
        return [Usage(*row) for row in rows]

    def _made(self, tenant: Tenant, scope: Scope, expires: WallTime | None) -> tuple[Key, str]:
        now = self._clock.wall()
        if expires is not None and expires <= now:
            raise InvalidRequest("a key must expire later than now")
        text = new_key(self._entropy)
        hashed = hash_of(text)
        return Key(id_of(hashed), tenant, hashed, now, False, scope, expires), text


@asynccontextmanager
async def open_store(
    folder: Path, *, clock: Clock = _CLOCK, entropy: Callable[[int], bytes] = system_entropy, instance: str = "gateway"
) -> AsyncIterator[TenantStore]:
    """The tenants of the gateway instance whose files are under the state folder `folder`."""
    async with Database(folder / instance / "tenants.sqlite", TENANTS_SCHEMA) as database:
        yield TenantStore(database, clock=clock, entropy=entropy)


async def tenant_key(folder: Path, name: str, known: str | None, *, instance: str = "gateway") -> str:
    """A key of tenant `name` that works: `known`, if it still does, else a new one."""
    async with open_store(folder, instance=instance) as store:
        hashed = None if known is None else hash_of(known)
        for key in await store.keys():
            if known is not None and key.hash == hashed and key.tenant.name == name and not key.revoked:
                return known
        if any(tenant.name == name for tenant in await store.tenants()):
            return (await store.add_key(name))[1]
        return (await store.create(Tenant(name, limits.TENANT_REQUESTS_PER_MINUTE, limits.TENANT_BURST_REQUESTS)))[1]


async def read_tenants(database: Database) -> list[Tenant]:
    """Every tenant of a database."""
    rows = await database.read(_TENANTS, (limits.TENANTS_MAX,))
    return [
        Tenant(name, rpm, burst, sandbox_min, service, weight, tpm, concurrency, budget, tuple(json.loads(models)))
        for name, rpm, burst, sandbox_min, service, weight, tpm, concurrency, budget, models in rows
    ]


async def read_keys(database: Database) -> list[Key]:
    """Every key of a database."""
    tenants = {tenant.name: tenant for tenant in await read_tenants(database)}
    rows = await database.read(_KEYS, (limits.TENANT_KEYS_MAX,))
    return [
        Key(key_id, tenants[name], Digest(hashed), WallTime(created), revoked is not None,
            Scope(*map(tuple, json.loads(scope))), None if expires is None else WallTime(expires))
        for hashed, key_id, name, created, revoked, scope, expires in rows
        if name in tenants  # else it was made between the two reads
    ]  # fmt: skip


def _insert_tenant(connection: sqlite3.Connection, tenant: Tenant) -> None:
    (tenants,) = connection.execute("SELECT count(*) FROM tenants").fetchone()
    if tenants >= limits.TENANTS_MAX:
        raise Overloaded(f"there are {tenants} tenants, as many as one gateway keeps")
    try:
        connection.execute("INSERT INTO tenants VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", _row(tenant))
    except sqlite3.IntegrityError:
        raise InvalidRequest(
            f"there is a tenant {tenant.name!r} already; `haif key create {tenant.name}` makes one more key for it, "
            f"`haif tenant set {tenant.name}` changes its limits"
        ) from None


def _insert_key(connection: sqlite3.Connection, key: Key) -> None:
    over = key.created - limits.TENANT_KEYS_KEPT_MS
    connection.execute("DELETE FROM keys WHERE revoked < ? OR expires < ?", (over, over))
    (keys,) = connection.execute("SELECT count(*) FROM keys").fetchone()
    if keys >= limits.TENANT_KEYS_MAX:
        raise Overloaded(f"there are {keys} keys, as many as one gateway keeps")
    connection.execute(
        "INSERT INTO keys VALUES (?, ?, ?, ?, NULL, ?, ?)",
        (bytes(key.hash), key.id, key.tenant.name, key.created, json.dumps(astuple(key.scope)), key.expires),
    )
    connection.execute(_TOUCH)


def _change(connection: sqlite3.Connection, tenant: Tenant, before: Tenant | None) -> None:
    name, *limits_of_it = _row(tenant)
    if before is not None:
        found = connection.execute("SELECT * FROM tenants WHERE name = ?", (name,)).fetchone()
        if found is not None and found != _row(before):
            raise Conflict(f"{name} was changed meanwhile")
    changed = connection.execute(
        "UPDATE tenants SET rpm = ?, burst = ?, sandbox_min = ?, service = ?, weight = ?, tpm = ?, concurrency = ?, "
        "budget = ?, models = ? WHERE name = ?", (*limits_of_it, name),
    ).rowcount  # fmt: skip
    if not changed:
        raise Absent(f"there is no tenant {tenant.name!r}; `haif tenant ls` shows what there is")
    connection.execute(_TOUCH)


def _row(tenant: Tenant) -> tuple[Any, ...]:
    *plain, models = astuple(tenant)
    return (*plain, json.dumps(models))


def _revoke(connection: sqlite3.Connection, name: str, now: WallTime) -> tuple[bool, list[str]]:
    rows = connection.execute("SELECT id, revoked FROM keys WHERE id = ? OR tenant = ?", (name, name)).fetchall()
    live = sorted(key_id for key_id, revoked in rows if revoked is None)
    connection.executemany("UPDATE keys SET revoked = ? WHERE id = ?", [(now, key_id) for key_id in live])
    connection.execute(_TOUCH)
    return bool(rows), live
