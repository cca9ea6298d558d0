"""Who comes in: how many are inside, whose key it is, and what their tenant may still ask for."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from haif.base import limits
from haif.base.errors import OverQuota
from haif.gateway.admission import (
    Admitted,
    charge,
    check_quota,
    check_room,
    key_of,
    quota_headers,
    request_headers,
    token_headers,
)
from haif.gateway.allowance import Cost, Hold
from haif.gateway.directory import Grant
from haif.gateway.errors import OverAddress
from haif.gateway.service.exchange import Exchange
from haif.gateway.service.inference import Means
from haif.gateway.service.live import LiveDirectory
from haif.gateway.service.treasury import Treasury
from haif.gateway.tenants import SCOPED_ENDPOINTS, Tenant
from haif.policy.window import Windows
from haif.protocol.receipts import Receipt
from haif.telemetry import names
from haif.wire.crowd import Origin, origin


class Door:
    """One gateway has one; it is made inside a running event loop."""

    def __init__(self, means: Means, tenants: LiveDirectory, treasury: Treasury, address_rpm: int) -> None:
        """`address_rpm`: requests of inference that one address may send in a minute; 0: as many as it likes."""
        self._means = means
        self._windows = Windows(most=address_rpm, seconds=60.0, keys_max=limits.ADDRESSES_COUNTED_MAX)
        self._treasury = treasury
        self._tenants = tenants
        self.open_requests = 0  # being answered now
        self.draining = False
        self._empty = asyncio.Event()
        self._empty.set()

    async def admit(self, exchange: Exchange) -> Admitted:
        """Whoever asks, if one request more may begin now. Raises as `gateway.admission` says."""
        check_room(self.open_requests - 1, self.draining)
        source = exchange.client[0] if exchange.client else None
        if self._windows.most and source is not None and exchange.endpoint in SCOPED_ENDPOINTS:
            self._check_address(exchange, origin(source))
        if exchange.letter is not None:
            grant = self._tenants.directory.named(exchange.letter.tenant)
        else:
            grant = await self._tenants.grant_of(key_of(exchange.headers))
        if grant.limited:
            grant.check(exchange.endpoint, source, self._means.clock.wall())
        return self.charge(exchange, grant, 1)

    def _check_address(self, exchange: Exchange, came_from: Origin) -> None:
        """Count a request of inference from there, before anything else of it is looked at. Raises `OverAddress`."""
        if came_from.here:
            return
        answer = self._windows.take(came_from.address, self._means.clock.now())
        if not answer.allowed:
            exchange.out += request_headers(self._windows.most, answer)
            raise OverAddress(
                f"Rate limit reached for {came_from.address} on requests per minute: limit {self._windows.most}, "
                f"requested 1. Please try again in {answer.retry_after:.3f}s.",
                retry_after=answer.retry_after,
            )

    def charge(self, exchange: Exchange, grant: Grant, requests: int) -> Admitted:
        """Take so many requests from the tenant's bucket. Raises `OverQuota`."""
        admitted = charge(grant, self._tenants.directory, self._means.clock.now(), requests)
        exchange.out = [each for each in exchange.out if not each[0].startswith(b"x-ratelimit-")]
        exchange.out += quota_headers(admitted)
        check_quota(admitted, requests)
        return admitted

    async def begin(self, exchange: Exchange, tenant: Tenant, cost: Cost) -> Hold:
        """Hold what a request may come to, until `end`. Raises `BudgetSpent`, `TooManyAtOnce` or `OverTokens`."""
        allowance = self._tenants.directory.allowance(tenant, self._means.clock.now())
        month = await self._treasury.pay(allowance, cost.most) if tenant.budget else ""
        try:
            hold, minute = allowance.begin(cost, month, self._means.clock.now())
        except OverQuota:
            if month:
                allowance.refund(month, cost.most)
            raise
        if minute is not None:
            exchange.out += token_headers(tenant, minute)
        return hold

    def end(self, hold: Hold, model: str, receipts: Sequence[Receipt], taken: int = 0) -> None:
        """It came to what these receipts say, and, where the tenant hung up before there was one, to so many tokens."""
        used = taken + sum(each.prompt_tokens + each.completion_tokens for each in receipts)
        hold.of.end(hold, used, self._means.clock.now())
        if receipts:
            self._treasury.note(hold.of.tenant.name, model, receipts)

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
