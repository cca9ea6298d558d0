"""The incident switch: what is paused gets no work, the journal says who ordered it, every orchestrator hears of it."""

import asyncio
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from haif.base import limits
from haif.base.errors import Forbidden, InvalidRequest, NoWorker, Reason
from haif.orchestrator import events
from haif.orchestrator.events import PauseOrdered
from haif.orchestrator.pauses import SUBJECT, Pauses, check_order
from haif.orchestrator.service import Desk
from haif.orchestrator.service.pauses import ORDERS, Switch
from haif.protocol.jobs import RetryJob
from haif.runtime.clock import SystemClock
from haif.storage.service import Store
from haif.telemetry.service import Telemetry
from tests.support.postgres import Server
from tests.unit.orchestrator.live import house, working
from tests.unit.orchestrator.nodes import ANNE, BOB, Open, alone, shared
from tests.unit.orchestrator.scene import CLEO, MODEL, WORKERS, submission, ticket
from tests.unit.orchestrator.scene import Desk as Place

ANNA = next(iter(WORKERS.values()))


def order(
    kind: str = "model", name: str = "tiny", *, paused: bool = True, at: int = 1, reason: str = ""
) -> PauseOrdered:
    return PauseOrdered(kind, name, paused, reason, "ada", at)


def paused(*orders: PauseOrdered) -> Pauses:
    made = Pauses()
    made.take(orders)
    return made


# --- what holds -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (order(), NoWorker), (order(name=str(MODEL)), NoWorker), (order("all", ""), NoWorker),
        (order("tenant", "ada"), Forbidden), (order(name="other"), None), (order("tenant", "ben"), None),
        (order("tenant", "tiny"), None),
    ],
)  # fmt: skip
def test_what_is_paused_is_not_placed_and_nothing_else_is_touched(said: PauseOrdered, error: type[Exception]) -> None:
    here = Place().staffed()
    here.fleet.pause(paused(said))
    if error is None:
        here.submit(submission())
        return
    with pytest.raises(error, match="paused") as caught:
        here.submit(submission())
    assert caught.value.reason in {Reason.NO_WORKER, Reason.FORBIDDEN}  # type: ignore[attr-defined]
    assert [] == here.happened
    here.fleet.pause(paused(said, order(said.kind, said.name, paused=False, at=2)))
    here.submit(submission())


def test_an_attempt_that_fails_while_its_model_or_tenant_is_paused_is_the_last() -> None:
    for said in (order(), order("tenant", "ada")):
        here = Place().staffed()
        placed = here.submit(submission())
        here.fleet.pause(paused(said))
        with pytest.raises((NoWorker, Forbidden), match="paused"):
            here.retry(RetryJob(submission().job, 1, "timeout"))
        assert {} == here.state.open
        assert ticket(placed).job in here.state.ended


def test_a_paused_worker_gets_no_work_and_others_do() -> None:
    here = Place().staffed()
    here.fleet.pause(paused(*(order("worker", str(worker)) for worker in WORKERS if worker != CLEO)))
    assert {CLEO} == {ticket(here.submit(submission(number))).worker for number in range(1, 9)}
    here.fleet.pause(paused(*(order("worker", str(worker)) for worker in WORKERS)))
    with pytest.raises(NoWorker):
        here.submit(submission(9))


def test_the_latest_order_holds_in_whatever_order_they_are_heard() -> None:
    on, off, again = order(at=1), order(at=2, paused=False), order(at=3, reason="again")
    for heard, holds in (((off, on), []), ((again, on, off), [again]), ((on, on), [on])):
        assert holds == paused(*heard).in_force
    cautious = paused(order(at=5, paused=False), order(at=5))
    assert [order(at=5)] == cautious.in_force, "of two in the same millisecond the pause"


@pytest.mark.parametrize(
    "wrong",
    [
        order("region"), order("model", ""), order("all", "x"), order("worker", "nobody"),
        order(reason="x" * (limits.PAUSE_REASON_CHARS_MAX + 1)), order(name="x" * 300),
    ],
)  # fmt: skip
def test_what_can_be_no_order_is_refused(wrong: PauseOrdered) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_order(wrong)
    assert Reason.INVALID_REQUEST is caught.value.reason


# --- how it is said ---------------------------------------------------------------------------------------------------


@asynccontextmanager
async def switch(folder: Path, opened: Open):
    async with opened() as store:
        changes: list[Pauses] = []
        telemetry = Telemetry(role="orchestrator", instance="test")
        yield Switch(store, folder, telemetry, SystemClock(), changes.append), store, changes


async def orders_of(store: Store) -> list[events.Entry]:
    return [events.decode(entry) for entry in await store.everywhere(SUBJECT)]


async def test_an_order_is_journalled_and_holds_after_a_restart(tmp_path: Path) -> None:
    desk, journal = Desk(tmp_path), alone(tmp_path / "journal")
    async with switch(tmp_path, journal) as (at_first, store, changes):
        await at_first.refresh()
        left = desk.leave(order(reason="it leaks"), "a")
        assert left.stat().st_mode & 0o077 == 0
        await at_first.refresh()
        assert not left.exists()
        (held,) = changes[-1].in_force
        assert ("model", "tiny", "it leaks", "ada") == (held.kind, held.name, held.reason, held.by)
        assert [held] == desk.shown() == await orders_of(store)
    async with switch(tmp_path, journal) as (later, store, changes):
        await later.refresh()
        assert [held] == later.pauses.in_force
        desk.leave(order(paused=False), "b")
        await later.refresh()
        assert [] == changes[-1].in_force == desk.shown()
        assert 2 == len(await orders_of(store)), "the evidence stays"


async def test_an_order_left_while_nobody_runs_is_carried_out_first(tmp_path: Path) -> None:
    Desk(tmp_path / "orchestrator").leave(order("all", ""), "a")
    async with house(tmp_path) as home, working(home, ANNA) as (gateway, _):
        with pytest.raises(NoWorker, match="all work is paused by the operator"):
            await gateway.submit(submission())
        assert 1 == home.metric("haif_pauses")


async def test_n_11_a_running_orchestrator_hears_within_a_tick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ORCHESTRATOR_TICK_SECONDS", 0.01)
    async with house(tmp_path) as home, working(home, ANNA) as (gateway, _):
        await gateway.submit(submission(1))
        left = Desk(tmp_path / "orchestrator").leave(order("tenant", "ada"), "a")
        while left.exists():
            await asyncio.sleep(0)
        with pytest.raises(Forbidden, match="paused this tenant"):
            await gateway.submit(submission(2))
        assert "PauseOrdered" in [type(events.decode(entry)).__name__ async for _, entry in home.journal.replay()]


async def test_a_file_that_is_no_order_is_deleted_and_the_next_is_carried_out(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    first, last = desk.leave(order(at=1), "a"), desk.leave(order("all", "", at=2), "b")
    for number, junk in enumerate((b"", b"{}", b'{"kind":"model","name":"","paused":true,"reason":"","by":"","at":1}')):
        bad = tmp_path / ORDERS / f"0{number}.json"
        bad.write_bytes(junk)
        bad.chmod(0o600)
    async with switch(tmp_path, alone(tmp_path / "journal")) as (here, store, _):
        await here.refresh()
        assert [] == desk.orders()
        assert not first.exists()
        assert not last.exists()
        assert ["model", "all"] == [held.kind for held in here.pauses.in_force]
        assert 2 == len(await orders_of(store))


async def test_n_11_orchestrators_of_one_store_hear_of_each_others_orders(tmp_path: Path, postgres: Server) -> None:
    url = await postgres.database()
    async with (
        switch(tmp_path / "anne", shared(url, ANNE)) as (anne, _, _),
        switch(tmp_path / "bob", shared(url, BOB)) as (bob, _, heard),
    ):
        for each in (anne, bob):
            await each.refresh()
        Desk(tmp_path / "anne").leave(order(), "a")
        await anne.refresh()
        await bob.refresh()
        assert anne.pauses.in_force == heard[-1].in_force != []
        Desk(tmp_path / "bob").leave(order(paused=False), "b")
        await bob.refresh()
        await anne.refresh()
        assert [] == anne.pauses.in_force == bob.pauses.in_force
