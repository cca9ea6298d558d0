"""Budgets of a month, drawn ahead from the database, and what receipts say was used, written back in batches.

1. draw     a part of the budget becomes the gateway's, durably, before any of it is used; two gateways over one
            database cannot both have it
2. pay      a request takes from the purse what it may come to at most, and puts back what it did not need
3. return   what is left of the purse goes back when the gateway stops; after a crash, one part at most counts as used

So what is used of a budget is never more than the budget, whatever happens, and hardly any request waits for the disk.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterable
from typing import Final

from haif.base import limits
from haif.base.clock import Clock, Instant
from haif.gateway.allowance import Allowance, day_of, spent
from haif.protocol.receipts import Receipt
from haif.storage.service import Database

_Key = tuple[str, str, str]  # day, tenant, model
_DAY_MS: Final = 24 * 3600 * 1000


class Treasury:
    """One gateway's, over the database of its tenants."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._drawing: dict[str, asyncio.Lock] = {}  # by tenant with a budget: bounded as tenants are
        self._draws: set[asyncio.Future[int]] = set()  # on their way, also for who has gone meanwhile
        self._used: dict[_Key, tuple[int, int, int]] = {}
        self._day = (0, "")  # since 1970, and as people write it

    async def pay(self, allowance: Allowance, tokens: int) -> str:
        """Take what a request may come to from its tenant's budget; the month that paid. Raises `BudgetSpent`."""
        month = self._today()[:7]
        if allowance.pay(month, tokens):
            return month
        tenant = allowance.tenant
        async with self._drawing.setdefault(tenant.name, asyncio.Lock()):  # one draw at a time serves all who wait
            if allowance.pay(month, tokens):
                return month
            if self._clock.now() < allowance.dry_until and tokens >= allowance.dry_for:
                raise spent(tenant, month, tokens)
            while not allowance.pay(month, tokens):  # others may pay from the purse meanwhile
                if not await self._draw(allowance, month, tokens - allowance.purse):
                    allowance.dry_for = tokens
                    allowance.dry_until = Instant(self._clock.now() + limits.BUDGET_DRY_SECONDS)
                    raise spent(tenant, month, tokens)
        return month

    async def _draw(self, allowance: Allowance, month: str, least: int) -> int:
        """Draw what is missing, and a part of the budget ahead if there is one; 0 if there is not even that."""
        name, budget = allowance.tenant.name, allowance.tenant.budget
        most = max(least, budget // limits.BUDGET_DRAWS)

        def arrived(done: asyncio.Future[int]) -> None:
            self._draws.discard(done)
            if not done.cancelled() and done.exception() is None:
                allowance.refund(month, done.result())  # also when whoever asked has gone meanwhile

        drawing = self._database.write_nowait(lambda connection: _draw(connection, name, month, least, most))
        self._draws.add(drawing)
        drawing.add_done_callback(arrived)
        return await asyncio.shield(drawing)

    def note(self, tenant: str, model: str, receipts: Iterable[Receipt]) -> None:
        """These receipts were settled."""
        key = (self._today(), tenant, model)
        answers, prompt, completion = self._used.get(key, (0, 0, 0))
        for receipt in receipts:
            answers, prompt = answers + 1, prompt + receipt.prompt_tokens
            completion += receipt.completion_tokens
        self._used[key] = (answers, prompt, completion)

    def _today(self) -> str:
        """The day in UTC; made anew once a day."""
        wall = self._clock.wall()
        number = wall // _DAY_MS
        if number != self._day[0]:
            self._day = (number, day_of(wall))
        return self._day[1]

    async def write(self) -> None:
        """Make what was noted durable. What cannot be written is written later."""
        noted, self._used = self._used, {}
        if not noted:
            return
        try:
            await self._database.write(lambda connection: _add(connection, noted))
        except BaseException:
            for key, amounts in noted.items():
                before = self._used.get(key, (0, 0, 0))
                self._used[key] = tuple(map(sum, zip(before, amounts, strict=True)))  # type: ignore[assignment]
            raise

    async def close(self, allowances: Iterable[Allowance]) -> None:
        """Return what is left in the purses, and write what was noted."""
        await asyncio.gather(*self._draws, return_exceptions=True)
        left = [(each.purse, each.tenant.name, each.month) for each in allowances if each.purse]
        if left:
            await self._database.write(lambda connection: _return(connection, left))
        await self.write()


def _draw(connection: sqlite3.Connection, tenant: str, month: str, least: int, most: int) -> int:
    connection.execute("INSERT INTO budgets VALUES (?, ?, 0) ON CONFLICT DO NOTHING", (tenant, month))
    (room,) = connection.execute(
        "SELECT tenants.budget - budgets.drawn FROM budgets JOIN tenants ON tenants.name = budgets.tenant "
        "WHERE budgets.tenant = ? AND budgets.month = ?", (tenant, month),
    ).fetchone()  # fmt: skip
    if room < least:
        return 0
    drawn = min(int(room), most)
    connection.execute("UPDATE budgets SET drawn = drawn + ? WHERE tenant = ? AND month = ?", (drawn, tenant, month))
    return drawn


def _return(connection: sqlite3.Connection, left: list[tuple[int, str, str]]) -> None:
    connection.executemany("UPDATE budgets SET drawn = drawn - ? WHERE tenant = ? AND month = ?", left)


def _add(connection: sqlite3.Connection, noted: dict[_Key, tuple[int, int, int]]) -> None:
    connection.executemany(
        "INSERT INTO usage VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET answers = answers + excluded.answers, "
        "prompt_tokens = prompt_tokens + excluded.prompt_tokens, "
        "completion_tokens = completion_tokens + excluded.completion_tokens",
        [(*key, *amounts) for key, amounts in noted.items()],
    )
