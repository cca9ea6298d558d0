"""Who comes in: how many are inside, whose key it is, and what their tenant may still ask for."""

from __future__ import annotations

import asyncio

from haif.base import limits
from haif.gateway.admission import Admitted, charge, check_quota, check_room, key_of, quota_headers
from haif.gateway.service.exchange import Exchange
from haif.gateway.service.inference import Means
from haif.gateway.service.tenants import LiveDirectory
from haif.gateway.tenants import Tenant
from haif.telemetry import names


class Door:
    """One gateway has one; it is made inside a running event loop."""

    def __init__(self, means: Means, tenants: LiveDirectory) -> None:
        self._means = means
        self._tenants = tenants
        self.open_requests = 0  # being answered now
        self.draining = False
        self._empty = asyncio.Event()
        self._empty.set()

    async def admit(self, exchange: Exchange) -> Admitted:
        """Whoever asks, if one request more may begin now. Raises as `gateway.admission` says."""
        check_room(self.open_requests - 1, self.draining)
        if exchange.letter is not None:
            tenant = self._tenants.directory.named(exchange.letter.tenant)
        else:
            tenant = await self._tenants.tenant_of(key_of(exchange.headers))
        return self.charge(exchange, tenant, 1)

    def charge(self, exchange: Exchange, tenant: Tenant, requests: int) -> Admitted:
        """Take so many requests from the tenant's bucket. Raises `OverQuota`."""
        admitted = charge(tenant, self._tenants.directory, self._means.clock.now(), requests)
        exchange.out = [each for each in exchange.out if not each[0].startswith(b"x-ratelimit-")]
        exchange.out += quota_headers(admitted)
        check_quota(admitted, requests)
        return admitted

    def count(self, change: int) -> None:
        """So many requests have come, or, below zero, were answered."""
        self.open_requests += change
        self._means.telemetry.gauge(names.GATEWAY_INFLIGHT, self.open_requests)
        if self.open_requests:
            self._empty.clear()
        else:
            self._empty.set()

    async def drain(self) -> None:
        """Refuse new requests, give running ones `limits.GATEWAY_DRAIN_SECONDS`, then end them with an error."""
        self.draining = True
        try:
            async with asyncio.timeout(limits.GATEWAY_DRAIN_SECONDS):
                await self._empty.wait()
        except TimeoutError:
            if not self._means.stopping.done():
                self._means.stopping.set_result(None)
