"""The gateway's fresh copy of its tenants and keys in memory."""

from __future__ import annotations

import asyncio

from haif.base import limits
from haif.base.clock import Clock, Instant
from haif.base.errors import Unauthenticated
from haif.gateway.directory import Directory, Grant
from haif.gateway.service.tenants import read_keys
from haif.storage.service import Database


class LiveDirectory:
    """Never older than `limits.TENANT_STALE_SECONDS` when it is used."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self.directory = Directory()
        self._database = database
        self._clock = clock
        self._revision = -1
        self._checked = Instant(float("-inf"))
        self._looking = asyncio.Lock()

    async def grant_of(self, key: str) -> Grant:
        """What this key is good for. Raises as `Directory.grant_of`.

        A key that is not known may be newer than our copy: look once more before refusing it. However many wrong keys
        come, one look at a time serves them all.
        """
        asked = self._clock.now()
        if self._checked < asked - limits.TENANT_STALE_SECONDS:
            await self._look(Instant(asked - limits.TENANT_STALE_SECONDS))
        try:
            return self.directory.grant_of(key)
        except Unauthenticated:
            await self._look(asked)
            return self.directory.grant_of(key)

    async def _look(self, since: Instant) -> None:
        """Refresh unless that was done since then."""
        async with self._looking:
            if self._checked < since:
                await self.refresh()

    async def refresh(self) -> None:
        """Look whether tenants or keys were changed, and read them if so."""
        asked = self._clock.now()
        ((revision,),) = await self._database.read("SELECT number FROM revision")
        if revision != self._revision:
            self.directory.load(await read_keys(self._database))
            self._revision = revision
        self._checked = asked
