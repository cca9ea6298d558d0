"""Who may use the admin API: keys of their own, in the database of the tenants."""

from __future__ import annotations

import hmac
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from haif.base import limits
from haif.base.clock import Clock, WallTime
from haif.base.errors import InvalidRequest, Overloaded, Unauthenticated
from haif.base.ids import Digest
from haif.gateway.admin import Admin, admin_hash, new_admin_key
from haif.gateway.errors import KeyExpired, KeyRevoked
from haif.gateway.service.tenants import TENANTS_SCHEMA
from haif.gateway.tenants import Absent, check_name
from haif.runtime.clock import SystemClock, entropy
from haif.storage.service import Database


class AdminStore:
    """Over a database opened with `TENANTS_SCHEMA`."""

    def __init__(self, database: Database, *, clock: Clock, entropy: Callable[[int], bytes]) -> None:
        self._database = database
        self._clock = clock
        self._entropy = entropy

    async def create(self, name: str, *, read_only: bool, expires: WallTime | None = None) -> str:
        """A key for whoever goes by this name: the only time anybody sees it.

        Raises `InvalidRequest`, also for a name that is taken, or `Overloaded`.
        """
        check_name(name)
        text = new_admin_key(self._entropy)
        row = (bytes(admin_hash(text)), name, read_only, self._clock.wall(), expires)
        await self._database.write(lambda connection: _insert(connection, row))
        return text

    async def all(self) -> list[Admin]:
        """Everybody, by name."""
        rows = await self._database.read(
            "SELECT name, hash, read_only, expires, revoked FROM admins ORDER BY name LIMIT ?", (limits.ADMINS_MAX,)
        )
        return [
            Admin(name, Digest(hashed), bool(read_only), None if expires is None else WallTime(expires), bool(revoked))
            for name, hashed, read_only, expires, revoked in rows
        ]

    async def revoke(self, name: str) -> None:
        """End the key of this one now. Raises `Absent`."""
        found = await self._database.write(
            lambda connection: connection.execute("UPDATE admins SET revoked = 1 WHERE name = ?", (name,)).rowcount
        )
        if not found:
            raise Absent(f"there is no admin {name!r}; `haif admin ls` shows who there is")

    async def whose(self, key: str) -> Admin:
        """Whose key this is. Looks at the database each time: what is revoked is revoked at once.

        Raises `Unauthenticated`, `KeyRevoked` or `KeyExpired`.
        """
        wanted = admin_hash(key)
        found = next((each for each in await self.all() if hmac.compare_digest(each.hash, wanted)), None)
        if found is None:
            raise Unauthenticated("this admin key is not valid here; `haif admin create NAME` makes one")
        if found.revoked:
            raise KeyRevoked("this admin key was revoked")
        if found.expires is not None and self._clock.wall() >= found.expires:
            raise KeyExpired("this admin key has expired")
        return found


@asynccontextmanager
async def open_admins(folder: Path, *, instance: str = "gateway") -> AsyncIterator[AdminStore]:
    """Who may use the admin API of the gateway instance whose files are under the state folder `folder`."""
    async with Database(folder / instance / "tenants.sqlite", TENANTS_SCHEMA) as database:
        yield AdminStore(database, clock=SystemClock(), entropy=entropy)


def _insert(connection: sqlite3.Connection, row: tuple[bytes, str, bool, WallTime, WallTime | None]) -> None:
    connection.execute("DELETE FROM admins WHERE revoked AND name = ?", (row[1],))  # a name may be given again
    if connection.execute("SELECT count(*) FROM admins").fetchone()[0] >= limits.ADMINS_MAX:
        raise Overloaded(f"there are {limits.ADMINS_MAX} admins, as many as one gateway keeps")
    try:
        connection.execute("INSERT INTO admins VALUES (?, ?, ?, ?, ?, 0)", row)
    except sqlite3.IntegrityError:
        raise InvalidRequest(f"there is an admin {row[1]!r} already; revoke that key first") from None
