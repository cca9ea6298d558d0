"""Tenants and keys in SQLite, and the gateway's fresh copy of them in memory."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from haif.base import limits
from haif.base.clock import Clock, Instant, WallTime
from haif.base.errors import InvalidRequest, Overloaded, Unauthenticated
from haif.base.ids import Digest
from haif.gateway.tenants import Directory, Key, Tenant, check_tenant, hash_of, id_of, new_key
from haif.runtime.clock import SystemClock
from haif.runtime.clock import entropy as system_entropy
from haif.storage.service import Database

_CLOCK: Final = SystemClock()

TENANTS_SCHEMA: Final = (
    """
    CREATE TABLE tenants (
        name TEXT PRIMARY KEY, rpm INTEGER NOT NULL, burst INTEGER NOT NULL, sandbox_min TEXT NOT NULL,
        service TEXT NOT NULL, weight INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE keys (
        hash BLOB PRIMARY KEY, id TEXT NOT NULL UNIQUE, tenant TEXT NOT NULL REFERENCES tenants (name),
        created INTEGER NOT NULL, revoked INTEGER
    ) STRICT;
    CREATE INDEX keys_by_tenant ON keys (tenant);
    CREATE TABLE revision (one INTEGER PRIMARY KEY CHECK (one = 1), number INTEGER NOT NULL) STRICT;
    INSERT INTO revision VALUES (1, 0);
    """,
)
_KEYS: Final = """
    SELECT keys.hash, keys.id, keys.created, keys.revoked, tenants.name, tenants.rpm, tenants.burst,
        tenants.sandbox_min, tenants.service, tenants.weight
    FROM keys JOIN tenants ON tenants.name = keys.tenant ORDER BY keys.created DESC, keys.id LIMIT ?
"""
_TOUCH: Final = "UPDATE revision SET number = number + 1"


class TenantStore:
    """The tenants of one gateway, for those who administer them."""

    def __init__(self, database: Database, *, clock: Clock, entropy: Callable[[int], bytes]) -> None:
        self._database = database
        self._clock = clock
        self._entropy = entropy

    async def create(self, tenant: Tenant) -> tuple[Key, str]:
        """A new key for this tenant, and its text: the only time anybody sees it.

        A tenant that exists gets one key more, and these limits. Raises `InvalidRequest`, or `Overloaded` when there
        are `limits.TENANT_KEYS_MAX` keys or `limits.TENANTS_MAX` tenants already.
        """
        check_tenant(tenant)
        text = new_key(self._entropy)
        hashed = hash_of(text)
        key = Key(id_of(hashed), tenant, hashed, self._clock.wall(), revoked=False)
        await self._database.write(lambda connection: _insert(connection, key))
        return key, text

    async def keys(self) -> list[Key]:
        """Every key, revoked ones too, newest first."""
        return await read_keys(self._database)

    async def revoke(self, name: str) -> list[str]:
        """Revoke a key by its id, or all keys of a tenant by its name. The ids of the keys that were live until now.

        Raises `InvalidRequest` when there is no such key or tenant.
        """
        now = self._clock.wall()
        found, ids = await self._database.write(lambda connection: _revoke(connection, name, now))
        if not found:
            raise InvalidRequest(f"there is no tenant or key {name!r}; `haif tenant ls` shows what there is")
        return ids


class LiveDirectory:
    """The gateway's copy of the keys: never older than `limits.TENANT_STALE_SECONDS` when it is used."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self.directory = Directory()
        self._database = database
        self._clock = clock
        self._revision = -1
        self._checked: Instant | None = None
        self._looking = asyncio.Lock()

    async def tenant_of(self, key: str) -> Tenant:
        """Whose key this is. Raises as `Directory.tenant_of`.

        A key that is not known may be newer than our copy: look once more before refusing it. However many wrong keys
        come, one look at a time serves them all.
        """
        asked = self._clock.now()
        await self._look(Instant(asked - limits.TENANT_STALE_SECONDS))
        try:
            return self.directory.tenant_of(key)
        except Unauthenticated:
            await self._look(asked)
            return self.directory.tenant_of(key)

    async def _look(self, since: Instant) -> None:
        """Refresh unless that was done since then."""
        async with self._looking:
            if self._checked is None or self._checked < since:
                await self.refresh()

    async def refresh(self) -> None:
        """Look whether keys were made or revoked, and read them if so."""
        asked = self._clock.now()
        ((revision,),) = await self._database.read("SELECT number FROM revision")
        if revision != self._revision:
            self.directory.load(await read_keys(self._database))
            self._revision = revision
        self._checked = asked


@asynccontextmanager
async def open_store(
    folder: Path, *, clock: Clock = _CLOCK, entropy: Callable[[int], bytes] = system_entropy, instance: str = "gateway"
) -> AsyncIterator[TenantStore]:
    """The tenants of the gateway instance whose files are under the state folder `folder`."""
    async with Database(folder / instance / "tenants.sqlite", TENANTS_SCHEMA) as database:
        yield TenantStore(database, clock=clock, entropy=entropy)


async def tenant_key(folder: Path, name: str, known: str | None, *, instance: str = "gateway") -> str:
    """A key of tenant `name` that works: `known`, if it still does, else a new one."""
    tenant = Tenant(name, limits.TENANT_REQUESTS_PER_MINUTE, limits.TENANT_BURST_REQUESTS)
    async with open_store(folder, instance=instance) as store:
        hashed = None if known is None else hash_of(known)
        for key in await store.keys():
            if known is not None and key.hash == hashed and key.tenant.name == name and not key.revoked:
                return known
        _, text = await store.create(tenant)
        return text


async def read_keys(database: Database) -> list[Key]:
    """Every key of a database."""
    rows = await database.read(_KEYS, (limits.TENANT_KEYS_MAX,))
    return [
        Key(key_id, Tenant(*tenant), Digest(hashed), WallTime(created), revoked is not None)
        for hashed, key_id, created, revoked, *tenant in rows
    ]


def _insert(connection: sqlite3.Connection, key: Key) -> None:
    (keys,) = connection.execute("SELECT count(*) FROM keys").fetchone()
    (tenants,) = connection.execute("SELECT count(*) FROM tenants").fetchone()
    if keys >= limits.TENANT_KEYS_MAX or tenants >= limits.TENANTS_MAX:
        raise Overloaded(f"there are {tenants} tenants and {keys} keys, as many as one gateway keeps")
    tenant = key.tenant
    connection.execute(
        "INSERT INTO tenants VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET rpm = excluded.rpm, "
        "burst = excluded.burst, sandbox_min = excluded.sandbox_min, service = excluded.service, "
        "weight = excluded.weight",
        (tenant.name, tenant.rpm, tenant.burst, tenant.sandbox_min, tenant.service, tenant.weight),
    )
    connection.execute(
        "INSERT INTO keys VALUES (?, ?, ?, ?, NULL)", (bytes(key.hash), key.id, tenant.name, key.created)
    )
    connection.execute(_TOUCH)


def _revoke(connection: sqlite3.Connection, name: str, now: WallTime) -> tuple[bool, list[str]]:
    rows = connection.execute("SELECT id, revoked FROM keys WHERE id = ? OR tenant = ?", (name, name)).fetchall()
    live = sorted(key_id for key_id, revoked in rows if revoked is None)
    connection.executemany("UPDATE keys SET revoked = ? WHERE id = ?", [(now, key_id) for key_id in live])
    connection.execute(_TOUCH)
    return bool(rows), live
