"""The line for a model's slots: who waits, who is called, who is told to come back, and what happens to who leaves."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from msgspec.structs import replace

from haif.base import limits
from haif.base.clock import Deadline, Instant
from haif.base.errors import Overloaded, Reason, Timeout
from haif.base.ids import JobId, Nonce
from haif.base.sampling import Sampling
from haif.gateway.ask import Ask
from haif.gateway.line import ModelLine, Service, Wish
from haif.gateway.service.lines import Lines, Turn
from haif.gateway.session import Journey
from haif.gateway.tenants import Tenant
from haif.protocol.inference import Request
from haif.protocol.jobs import ModelCard
from haif.telemetry.service import Telemetry
from tests.support.scripted_mesh import CARD, GATEWAY
from tests.unit.gateway.conftest import House


@dataclass
class Clock:
    seconds: float = 0.0

    def now(self) -> Instant:
        return Instant(self.seconds)


class Crowd:
    """Lines of a mesh that has so many slots, and those who wait in them."""

    def __init__(self, slots: int) -> None:
        self.models: tuple[ModelCard, ...] = (replace(CARD, slots=slots),)
        self.clock = Clock()
        self.telemetry = Telemetry(role="gateway", instance="test", spans=None, otlp=None)
        self.lines = Lines(self, self.telemetry, self.clock)  # type: ignore[arg-type]
        self.went: list[str] = []
        self.inside: list[Guest] = []

    def slots(self, slots: int) -> None:
        self.models = (replace(CARD, slots=slots),)

    def come(self, tenant: str, seconds: float = 60.0, **fields: object) -> "Guest":
        return Guest(self, tenant, seconds, **fields)

    async def settle(self) -> None:
        """Until nobody has anything left to do at once."""
        for _ in range(20):
            await asyncio.sleep(0)


class Guest:
    """Who comes, and stays until told to go."""

    def __init__(self, crowd: Crowd, tenant: str, seconds: float, *, tokens_max: int = 100, **fields: object) -> None:
        request = Request(Nonce(b"n" * 16), None, "Once", tokens_max, Sampling(0.0), [])
        ask = Ask(dialect="text", model="tiny", request=request, seed=7, stream=False, **fields)  # type: ignore[arg-type]
        self.journey = Journey(ask, job=JobId(b"j" * 16), tenant=tenant, gateway=GATEWAY.peer)
        self.leaving = asyncio.Event()
        self.task = asyncio.create_task(self._stay(crowd, tenant, Deadline.after(seconds, crowd.clock.now())))

    async def _stay(self, crowd: Crowd, tenant: str, deadline: Deadline) -> Turn:
        async with crowd.lines.turn(self.journey, deadline) as turn:
            crowd.went.append(tenant)
            crowd.inside.append(self)
            await self.leaving.wait()
            crowd.inside.remove(self)
            turn.used = 10
        return turn

    async def go(self) -> None:
        self.leaving.set()
        await self.task


@pytest.fixture(autouse=True)
def no_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many go as there are slots, from the start."""
    monkeypatch.setattr(limits, "WORKER_QUEUE_MAX", 0)


async def test_nobody_waits_while_there_are_slots_and_where_nobody_knows_of_any() -> None:
    for slots, guests in ((3, 3), (0, 50)):
        crowd = Crowd(slots)
        staying = [crowd.come("anna") for _ in range(guests)]
        await crowd.settle()
        assert guests == len(crowd.went)
        for guest in staying:
            await guest.go()
        assert slots == 0 or crowd.lines._lines["tiny"].running == 0


async def test_h_d1_who_asks_seldom_goes_before_a_crowd_that_came_earlier() -> None:
    crowd = Crowd(1)
    staying = [crowd.come("crowd") for _ in range(5)]
    await crowd.settle()
    seldom = crowd.come("seldom")
    await crowd.settle()
    assert ["crowd"] == crowd.went
    await staying[0].go()
    await crowd.settle()
    assert ["crowd", "seldom"] == crowd.went
    await seldom.go()
    for guest in staying[1:]:
        await guest.go()
    assert ["crowd", "seldom", *["crowd"] * 4] == crowd.went


async def test_interactive_requests_go_before_batches_and_batches_go_too() -> None:
    crowd = Crowd(1)
    staying = [crowd.come("first")]
    await crowd.settle()
    staying += [crowd.come("batch", service=Service.BATCH) for _ in range(3)]
    staying += [crowd.come("interactive") for _ in range(30)]
    await crowd.settle()
    while crowd.inside:
        await crowd.inside[0].go()
        await crowd.settle()
    batches = [turn for turn, tenant in enumerate(crowd.went) if tenant == "batch"]
    assert 34 == len(crowd.went)
    assert 8 <= batches[1] - batches[0] <= 9, "eight to one"
    assert batches[0] <= 9, "and nobody waits for ever"


async def test_who_leaves_the_line_is_forgotten_and_who_is_cancelled_when_called_gives_the_slot_on() -> None:
    crowd = Crowd(1)
    first, second, third = (crowd.come(name) for name in ("anna", "ben", "cleo"))
    await crowd.settle()
    second.task.cancel()
    await crowd.settle()
    assert 1 == len(crowd.lines._lines["tiny"])
    first.leaving.set()
    while crowd.lines._waiting:
        await asyncio.sleep(0)
    third.task.cancel()  # it was called, and has not noticed
    fourth = crowd.come("dora")
    await crowd.settle()
    assert "dora" == crowd.went[-1]
    await fourth.go()
    assert 0 == crowd.lines._lines["tiny"].running == len(crowd.lines._lines["tiny"])


async def test_of_a_crowd_too_large_for_the_line_its_own_last_gives_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LINE_PLACES_MAX", 3)
    crowd = Crowd(1)
    staying = [crowd.come("crowd") for _ in range(4)]
    await crowd.settle()
    seldom = crowd.come("seldom")
    with pytest.raises(Overloaded, match="gave way") as caught:
        await staying[-1].task
    assert Reason.OVERLOADED is caught.value.reason
    assert 1.0 <= (caught.value.retry_after or 0) <= limits.WAIT_SECONDS_MAX
    with pytest.raises(Overloaded, match="as many as may"):
        await crowd.come("crowd").task
    for guest in (staying[0], seldom, *staying[1:3]):
        await guest.go()


async def test_who_would_be_called_too_late_is_told_at_once_when_to_come_back() -> None:
    crowd = Crowd(1)
    first = crowd.come("anna")
    await crowd.settle()
    crowd.clock.seconds = 4.0
    await first.go()  # a job takes 4 s
    staying = [crowd.come("anna") for _ in range(4)]
    await crowd.settle()
    with pytest.raises(Overloaded, match="in about 16 s, and the answer is wanted within 19 s") as caught:
        await crowd.come("anna", seconds=19.0).task
    assert 16.0 == caught.value.retry_after
    seldom = crowd.come("ben", seconds=19.0)
    await crowd.settle()
    assert not seldom.task.done(), "it is next, whatever the others have waiting"
    for guest in (staying[0], seldom, *staying[1:]):
        await guest.go()


async def test_nobody_waits_beyond_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MODELS_REFRESH_SECONDS", 0.0)
    crowd = Crowd(1)
    first = crowd.come("anna")
    await crowd.settle()
    second = crowd.come("ben")
    await crowd.settle()
    crowd.clock.seconds = 60.0
    with pytest.raises(Timeout, match="no slot of this model was free"):
        await second.task
    await first.go()


async def test_slots_that_come_are_used_and_where_all_went_the_orchestrator_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "MODELS_REFRESH_SECONDS", 0.0)
    for slots, going in ((3, 3), (0, 6)):
        crowd = Crowd(1)
        staying = [crowd.come("anna") for _ in range(6)]
        await crowd.settle()
        assert 1 == len(crowd.went)
        crowd.slots(slots)
        while len(crowd.went) < going:
            await asyncio.sleep(0)
        await crowd.settle()
        assert going == len(crowd.went)
        await asyncio.gather(*(guest.go() for guest in staying))


def test_as_much_more_is_asked_for_as_ends_while_the_next_is_on_its_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "WORKER_QUEUE_MAX", 64)
    for job_seconds, more in ((10.0, 1), (0.4, 4), (0.001, 64)):
        line = ModelLine()
        line.resize(16)
        now = Instant(0.0)
        line.come(_wish(), now)
        (wish,) = line.called(now)
        line.done(wish, 1, Instant(job_seconds))
        for _ in range(100):
            line.come(_wish(), now)
        assert 16 + more == len(list(line.called(now)))


def _wish() -> Wish:
    return Wish(Service.INTERACTIVE, "anna", 1, 1, Instant(1000.0))


def test_a_request_may_ask_for_a_lower_class_than_its_tenants_and_for_no_higher_one() -> None:
    request = Request(Nonce(b"n" * 16), None, "Once", 16, Sampling(0.0), [])
    for asked, of_tenant, got in (
        (Service.INTERACTIVE, "interactive", Service.INTERACTIVE),
        (Service.BATCH, "interactive", Service.BATCH),
        (Service.INTERACTIVE, "batch", Service.BATCH),
    ):
        ask = Ask(dialect="text", model="tiny", request=request, seed=7, stream=False, service=asked)
        tenant = Tenant("anna", 60, 1, service=of_tenant, weight=3)
        ranked = ask.under(scope=b"s", execution="any", tenant=tenant)
        assert (got, 3) == (ranked.service, ranked.weight)


async def test_a_request_waits_in_the_class_it_asked_for(a_house: Callable[..., House]) -> None:
    async with a_house() as house:
        house.mesh.models = (replace(CARD, slots=2),)
        answered = await house.chat(service_tier="flex")
        assert "flex" == answered.service_tier
        assert "default" == (await house.chat(service_tier="auto")).service_tier
        assert 'haif_gateway_queue_seconds_count{model="tiny",service="batch"} 1' in house.metrics()
        assert 'haif_gateway_queue_seconds_count{model="tiny",service="interactive"} 1' in house.metrics()
