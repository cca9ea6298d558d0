"""Tokens are held before a request begins and settled when it ends; a budget is never exceeded, whatever happens."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from typing import Any

import openai
import pytest

from haif.base.clock import Instant, WallTime
from haif.base.errors import OverQuota, Reason
from haif.gateway.allowance import FREE, Allowance, Cost, cost_of, day_of, vectors_cost
from haif.gateway.errors import BudgetSpent, OverTokens, TooManyAtOnce
from haif.gateway.service import TENANTS_SCHEMA, TenantStore
from haif.gateway.service.treasury import Treasury
from haif.gateway.tenants import Tenant
from haif.runtime.clock import SystemClock, entropy
from haif.storage.service import Database
from tests.support.scripted_mesh import Attempt, Hang, ScriptedMesh

NOW = Instant(0.0)


class Calendar(SystemClock):
    """A clock whose month a test turns."""

    def __init__(self) -> None:
        self.at, self.day = 1000.0, 20_000

    def now(self) -> Instant:
        return Instant(self.at)

    def wall(self) -> WallTime:
        return WallTime(self.day * 24 * 3600 * 1000)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with Database(tmp_path / "tenants.sqlite", TENANTS_SCHEMA) as opened:
        yield opened


# --- the minute -------------------------------------------------------------------------------------------------------


def test_a_request_holds_what_it_may_come_to_and_gives_back_what_it_did_not_need() -> None:
    allowance = Allowance(Tenant("acme", 60, 5, tpm=600), NOW)
    hold, left = allowance.begin(Cost(400, 500), "", NOW)
    assert (left.remaining if left else None, hold.budget) == (200, 0)
    with pytest.raises(OverTokens, match="limit 600, used 400, requested 300") as caught:
        allowance.begin(Cost(300, 500), "", NOW)
    assert (caught.value.reason, caught.value.retry_after) == (Reason.OVER_QUOTA, 10.0)
    allowance.end(hold, 50, NOW)
    assert allowance.begin(Cost(550, 550), "", NOW)[1].remaining == 0  # type: ignore[union-attr]


def test_what_comes_to_more_than_was_guessed_is_a_debt() -> None:
    allowance = Allowance(Tenant("acme", 60, 5, tpm=600), NOW)
    hold, _ = allowance.begin(Cost(600, 700), "", NOW)
    allowance.end(hold, 900, NOW)
    with pytest.raises(OverTokens) as caught:
        allowance.begin(Cost(1, 1), "", NOW)
    assert caught.value.retry_after == pytest.approx(30.1)


def test_a_request_larger_than_a_minute_waits_for_a_full_bucket() -> None:
    allowance = Allowance(Tenant("acme", 60, 5, tpm=600), NOW)
    hold, left = allowance.begin(Cost(9000, 9000), "", NOW)
    assert (hold.tokens, left.remaining if left else None) == (600, 0)


def test_only_so_many_are_answered_at_a_time() -> None:
    allowance = Allowance(Tenant("acme", 60, 5, concurrency=2), NOW)
    holds = [allowance.begin(FREE, "", NOW)[0] for _ in range(2)]
    with pytest.raises(TooManyAtOnce, match="limit 2 requests at a time, used 2") as caught:
        allowance.begin(FREE, "", NOW)
    assert isinstance(caught.value, OverQuota)
    allowance.end(holds[0], 0, NOW)
    allowance.begin(FREE, "", NOW)


def test_new_limits_are_taken_and_levels_stay() -> None:
    allowance = Allowance(Tenant("acme", 60, 5), NOW)
    allowance.adapt(Tenant("acme", 60, 5, tpm=600), NOW)
    allowance.begin(Cost(600, 600), "", NOW)
    allowance.adapt(Tenant("acme", 60, 5, tpm=6000), NOW)
    with pytest.raises(OverTokens):
        allowance.begin(Cost(1, 1), "", NOW)
    allowance.adapt(Tenant("acme", 60, 5), NOW)
    assert allowance.begin(Cost(1, 1), "", NOW)[1] is None


def test_what_a_request_may_come_to() -> None:
    assert cost_of(1000, 100, 1, None) == Cost(350, 1000 + 256 + 100)
    assert cost_of(1000, 100, 2, 512) == Cost(700, 1024)  # no model holds more than its context
    assert vectors_cost(400, 3, 20) == Cost(115, 400 + 60 + 3 * 256)
    assert day_of(WallTime(20_000 * 24 * 3600 * 1000)) == "2024-10-04"


# --- the month --------------------------------------------------------------------------------------------------------


async def test_a_budget_holds_over_two_gateways_and_a_restart_gives_back_what_was_not_used(database: Database) -> None:
    clock, tenant = Calendar(), Tenant("acme", 60, 5, budget=1000)
    store = TenantStore(database, clock=clock, entropy=entropy)
    await store.create(tenant)
    houses = [(Treasury(database, clock), Allowance(tenant, NOW)) for _ in range(2)]
    for treasury, allowance in houses:
        month = await treasury.pay(allowance, 500)
        assert month == "2024-10"
    with pytest.raises(BudgetSpent) as caught:
        await houses[0][0].pay(houses[0][1], 1)
    assert caught.value.reason is Reason.OVER_QUOTA
    houses[1][1].refund("2024-10", 400)
    await houses[1][0].close([houses[1][1]])
    assert await store.drawn("2024-10") == {"acme": 600}
    clock.at += 2.0  # a refusal is remembered for a moment
    assert await houses[0][0].pay(houses[0][1], 400)
    with pytest.raises(BudgetSpent):
        await houses[0][0].pay(houses[0][1], 1)


async def test_a_new_month_has_its_own_budget_and_the_last_ones_change_is_not_carried_over(database: Database) -> None:
    clock, tenant = Calendar(), Tenant("acme", 60, 5, budget=100)
    await TenantStore(database, clock=clock, entropy=entropy).create(tenant)
    treasury, allowance = Treasury(database, clock), Allowance(tenant, NOW)
    hold, _ = allowance.begin(Cost(100, 100), await treasury.pay(allowance, 100), NOW)
    clock.day += 31
    next_month = await treasury.pay(allowance, 100)
    allowance.end(hold, 0, NOW)  # of the last month
    with pytest.raises(BudgetSpent):
        await treasury.pay(allowance, 1)
    assert (hold.month, next_month) == ("2024-10", "2024-11")


async def test_a_refused_tenant_does_not_keep_the_disk_busy(database: Database) -> None:
    clock, tenant = Calendar(), Tenant("acme", 60, 5, budget=100)
    await TenantStore(database, clock=clock, entropy=entropy).create(tenant)
    treasury, allowance = Treasury(database, clock), Allowance(tenant, NOW)
    for _ in range(50):
        with pytest.raises(BudgetSpent):
            await treasury.pay(allowance, 101)
    assert database.statistics().writes <= 2  # its tenant, and one look


class Books:
    """What the checker knows of each month: how much is held and used by whoever was let in."""

    def __init__(self, budget: int) -> None:
        self.budget, self.held, self.used, self.lost = budget, 0, 0, 0
        self.refused: list[tuple[int, int]] = []

    def check(self) -> None:
        assert self.used + self.held <= self.budget, "more is held and used than there is"


@pytest.mark.parametrize("seed", range(6))
async def test_no_history_of_concurrent_clients_crashes_and_gateways_exceeds_a_budget(
    database: Database, seed: int
) -> None:
    rng, clock, tenant = Random(seed), Calendar(), Tenant("acme", 60, 5, budget=20_000)
    store = TenantStore(database, clock=clock, entropy=entropy)
    await store.create(tenant)
    books = Books(tenant.budget)
    gateways = [(Treasury(database, clock), Allowance(tenant, NOW)) for _ in range(3)]

    async def client(at: int, requests: int) -> None:
        for _ in range(requests):
            treasury, allowance = gateways[at]
            most = rng.randrange(1, 400)
            paying = asyncio.create_task(treasury.pay(allowance, most))
            if rng.random() < 0.1:  # it hangs up while the disk works
                await asyncio.sleep(0)
                paying.cancel()
            try:
                month = await paying
            except BudgetSpent:
                clock.at += 2.0
                continue
            except asyncio.CancelledError:
                continue
            books.held += most
            books.check()
            hold, _ = allowance.begin(Cost(0, most), month, NOW)
            for _ in range(rng.randrange(3)):
                await asyncio.sleep(0)
            used = rng.randrange(2 * most)  # also when a receipt claims more than there can be
            allowance.end(hold, used, NOW)
            books.held -= most
            books.used += min(used, most)
            books.check()

    for round_ in range(4):
        await asyncio.gather(*(client(number % 3, 12) for number in range(9)))
        if round_ < 3:  # one crashes, and forgets its purse; one stops as it should
            await asyncio.gather(*gateways[0][0]._draws)
            books.lost += gateways[0][1].purse
            gateways[0] = (Treasury(database, clock), Allowance(tenant, NOW))
            await gateways[1][0].close([gateways[1][1]])
            gateways[1] = (Treasury(database, clock), Allowance(tenant, NOW))
    for treasury, allowance in gateways:
        await treasury.close([allowance])
    assert (await store.drawn("2024-10"))["acme"] == books.used + books.lost
    assert books.used > tenant.budget // 2  # and that was no idle day


# --- as tenants see it ------------------------------------------------------------------------------------------------


async def make(house: Any, **limits_of_it: Any) -> openai.AsyncOpenAI:
    _, key = await house.store.create(Tenant("thrifty", 600, 60, **limits_of_it))
    client: openai.AsyncOpenAI = house.client.with_options(api_key=key)
    return client


ASKED: dict[str, Any] = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 10}


async def test_a_spent_budget_is_insufficient_quota_and_is_not_asked_again(house: Any, mesh: ScriptedMesh) -> None:
    mesh.gate = asyncio.Event()
    client = await make(house, budget=800)
    asking = [asyncio.create_task(client.chat.completions.create(**ASKED)) for _ in range(3)]
    await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
    mesh.gate.set()
    answers = await asyncio.gather(*asking, return_exceptions=True)
    refused = [each for each in answers if isinstance(each, openai.RateLimitError)]
    assert len(refused) == 1  # two hold what they may come to; that a third would have fitted is known later
    assert (refused[0].code, refused[0].type) == ("insufficient_quota", "insufficient_quota")
    assert refused[0].response.headers["x-should-retry"] == "false"
    assert "budget of 800 tokens" in refused[0].message
    assert (await client.chat.completions.create(**ASKED)).choices  # the answers came to 7 tokens each
    assert 'haif_gateway_rate_limited_total{dimension="budget"} 1.0' in house.metrics()


async def test_tokens_of_the_minute_are_told_in_headers_and_refused_with_the_numbers(house: Any) -> None:
    client = await make(house, tpm=100)
    told = await client.chat.completions.with_raw_response.create(**ASKED)
    assert told.headers["x-ratelimit-limit-tokens"] == "100"
    assert 0 < int(told.headers["x-ratelimit-remaining-tokens"]) < 100
    with pytest.raises(openai.RateLimitError, match="tokens per minute: limit 100") as caught:
        await client.chat.completions.create(**ASKED | {"max_tokens": 99})
    assert caught.value.code == "rate_limit_exceeded"
    assert int(caught.value.response.headers["retry-after"]) >= 1


async def test_who_hangs_up_pays_for_what_came(house: Any, mesh: ScriptedMesh) -> None:
    mesh.attempts = [Attempt(["Hello", " world", Hang()])]
    client = await make(house, budget=10_000)
    stream = await client.chat.completions.create(**ASKED, stream=True)
    await anext(aiter(stream))
    await stream.close()
    allowance = house.front.tenants.directory.allowances["thrifty"]
    async with asyncio.timeout(10):
        while allowance.open:
            await asyncio.sleep(0)
    (drawn,) = (await house.store.drawn(allowance.month)).values()
    assert 0 < drawn - allowance.purse < 100


async def test_a_failure_costs_nothing_and_an_answer_what_its_receipt_says(house: Any, mesh: ScriptedMesh) -> None:
    client = await make(house, budget=10_000)
    with pytest.raises(openai.NotFoundError):
        await client.chat.completions.create(**ASKED | {"model": "nobody's"})
    answer = await client.chat.completions.create(**ASKED)
    allowance = house.front.tenants.directory.allowances["thrifty"]
    (drawn,) = (await house.store.drawn(allowance.month)).values()
    assert drawn - allowance.purse == answer.usage.total_tokens
    await house.front._treasury.write()
    (used,) = await house.store.usage(allowance.month, "thrifty")
    assert (used.model, used.answers) == ("tiny", 1)
    assert used.prompt_tokens + used.completion_tokens == answer.usage.total_tokens
