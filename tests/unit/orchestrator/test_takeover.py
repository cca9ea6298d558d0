"""An orchestrator dies: its jobs go on with another, each once, with the seed and the tickets they had."""

import asyncio
import itertools
from contextlib import suppress

import asyncpg
import pytest

from haif.base import limits
from haif.base.errors import ConnectionLost, Elsewhere, HaifError, Reason, WrongState
from haif.base.ids import JobId
from haif.identity.keys import Identity
from haif.identity.signing import Domain, open_sealed
from haif.orchestrator import decide
from haif.orchestrator.service import snapshots
from haif.orchestrator.state import JobState, State
from haif.protocol.jobs import FailJob, Finalised, Placed, Reservation, RetryJob
from haif.protocol.seeds import check_seed
from haif.runtime.clock import SystemClock
from tests.support.postgres import Server
from tests.unit.orchestrator.nodes import ANNE, BOB, Node, node, shared
from tests.unit.orchestrator.scene import ending, submission


@pytest.fixture
async def url(postgres: Server) -> str:
    return await postgres.database()


async def heir_of(heir: Node, jobs: int) -> asyncio.Task[None]:
    """Wait until it has so many open jobs."""
    inheriting = asyncio.create_task(heir.record.inherit(heir.identity.peer))
    while len(heir.state.open) < jobs:
        assert not inheriting.done()
        await asyncio.sleep(0)
    return inheriting


async def replayed(identity: Identity, url: str) -> State:
    async with node(identity, shared(url, identity)) as again:
        return again.state


def opened(placed: Placed, by: Identity) -> Reservation:
    ticket = open_sealed(Reservation, Domain.RESERVATION, placed.reservation, by.peer)
    check_seed(ticket)
    return ticket.payload


async def test_the_heir_goes_on_where_the_one_who_died_was(url: str) -> None:
    async with node(ANNE, shared(url, ANNE)) as anne:
        over, alive, tried = [await anne.submit_durably(submission(number)) for number in (1, 2, 3)]
        ended = ending(over)
        await anne.finalise_durably(ended)
        second = await anne.retry_durably(RetryJob(submission(3).job, 1, "connection_lost", 2))
    async with node(BOB, shared(url, BOB)) as bob:
        inheriting = await heir_of(bob, 2)
        assert alive.reservation == (await bob.submit_durably(submission(2))).reservation, (
            "asked again, the same ticket"
        )
        again = await bob.retry_durably(RetryJob(submission(3).job, 1, "connection_lost", 2))
        assert second.reservation == again.reservation
        third = await bob.retry_durably(RetryJob(submission(3).job, 2, "connection_lost", 4))
        before, after = opened(tried, ANNE), opened(third, BOB)
        assert (before.seed, before.seed_proof, None) == (after.seed, after.seed_proof, before.drawn_by)
        assert ANNE.peer == after.drawn_by
        assert (3, 4) == (after.attempt, after.resumed)
        assert Finalised(ended.job) == await bob.finalise_durably(ended), "what ended with the other is known"
        assert Finalised(submission(2).job) == await bob.finalise_durably(ending(alive))
        inheriting.cancel()
        state = bob.state
    assert state == await replayed(BOB, url)
    left = await replayed(ANNE, url)
    assert {} == left.open == left.busy
    assert [submission(1).job] == list(left.ended)


async def test_a_job_that_is_anothers_is_not_placed_here(url: str) -> None:
    async with node(ANNE, shared(url, ANNE)) as anne, node(BOB, shared(url, BOB)) as bob:
        placed = await anne.submit_durably(submission(1))
        asked = (
            bob.submit_durably(submission(1)), bob.retry_durably(RetryJob(submission(1).job, 1, "timeout", 0)),
            bob.finalise_durably(ending(placed)), bob.fail_durably(FailJob(submission(1).job, 1, "cancelled")),
        )  # fmt: skip
        for each in asked:
            with pytest.raises(Elsewhere, match="ask that one") as caught:
                await each
            assert Reason.ELSEWHERE is caught.value.reason
        await anne.fail_durably(FailJob(submission(1).job, 1, "cancelled"))
        with pytest.raises(WrongState, match="no longer valid"):
            await bob.submit_durably(submission(1))
        assert {} == bob.state.open


async def test_of_two_who_take_on_a_job_at_the_same_time_one_forgets_it(url: str) -> None:
    async with node(ANNE, shared(url, ANNE)) as anne, node(BOB, shared(url, BOB)) as bob:
        numbers = range(1, 21)
        outcomes = await asyncio.gather(
            *(each.submit_durably(submission(number)) for number in numbers for each in (anne, bob, anne)),
            return_exceptions=True,
        )
        for number in numbers:
            mine, theirs, again = outcomes[3 * (number - 1) : 3 * number]
            assert isinstance(theirs, Placed) != isinstance(mine, Placed)
            assert isinstance(theirs if isinstance(mine, Placed) else mine, Elsewhere)
            assert type(mine) is type(again), "whoever asked meanwhile is told the same"
        assert len(numbers) == len(anne.state.open) + len(bob.state.open)
        assert set() == anne.state.open.keys() & bob.state.open.keys()
        states = anne.state, bob.state
    assert states[0] == await replayed(ANNE, url)
    async with node(BOB, shared(url, BOB)) as bob:
        assert states[1].open.items() <= bob.state.open.items()


async def test_many_jobs_move_in_steps_and_from_a_snapshot(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ESTATE_MOVES_MAX", 2)
    async with node(ANNE, shared(url, ANNE)) as anne:
        for number in range(1, 5):
            await anne.submit_durably(submission(number))
        kept = await snapshots.write(anne.store, SystemClock())
        await anne.submit_durably(submission(5))
        assert 8 == kept.sequence
        state = anne.state
    async with node(BOB, shared(url, BOB)) as bob:
        (await heir_of(bob, 5)).cancel()
        assert state.open.keys() == bob.state.open.keys()
        assert state.busy == bob.state.busy


async def test_a_journal_that_does_not_hold_is_not_taken_over_and_costs_the_heir_nothing(url: str) -> None:
    async with node(ANNE, shared(url, ANNE)) as anne:
        await anne.submit_durably(submission(1))
    connection = await asyncpg.connect(url)
    await connection.execute("UPDATE journal SET entry = '' WHERE sequence = 1")
    await connection.close()
    async with node(BOB, shared(url, BOB)) as bob:
        inheriting = asyncio.create_task(bob.record.inherit(BOB.peer))
        while b'reason="journal_broken"' not in bob.telemetry.exposition():
            await asyncio.sleep(0)
        assert not inheriting.done()
        await bob.submit_durably(submission(2))
        inheriting.cancel()


async def test_a_job_taken_over_ends_at_its_deadline_like_any_other(url: str) -> None:
    async with node(ANNE, shared(url, ANNE)) as anne:
        await anne.submit_durably(submission(1))
    async with node(BOB, shared(url, BOB)) as bob:
        (await heir_of(bob, 1)).cancel()
        bob.seconds = 1000.0
        for failed in decide.decide(bob.state, bob.wall):
            await bob.record.apply(failed.job, [failed])
        assert JobState.FAILED is bob.state.ended[submission(1).job].state


async def seized(url: str, who: Identity, heir: Node, job: JobId) -> None:
    """Its lease runs out, before it can renew it, until the heir has its job."""
    connection = await asyncpg.connect(url)
    token = await connection.fetchval("SELECT token FROM chains WHERE chain = $1", bytes(who.peer))
    while heir.record.state.find(job) is None:
        await connection.execute(
            "UPDATE chains SET expires = clock_timestamp() WHERE chain = $1 AND token = $2", bytes(who.peer), token
        )
    await connection.close()


async def until_rejoined(node: Node, times: int = 1) -> None:
    while f"haif_orchestrator_rejoins_total {times}".encode() not in node.telemetry.exposition():
        await asyncio.sleep(0)


async def test_one_that_lost_its_lease_forgets_what_it_had_and_goes_on(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LEASE_WATCH_SECONDS", 0.01)
    async with node(ANNE, shared(url, ANNE)) as anne, node(BOB, shared(url, BOB)) as bob:
        over, alive = [await anne.submit_durably(submission(number)) for number in (1, 2)]
        await anne.finalise_durably(ending(over))
        believed = anne.record.state
        inheriting = [asyncio.create_task(each.record.inherit(each.identity.peer)) for each in (anne, bob)]
        await seized(url, ANNE, bob, submission(2).job)
        await until_rejoined(anne)
        anne.state = anne.record.state
        assert [submission(2).job] == list(believed.open)
        assert {} == anne.state.open == anne.state.busy
        assert [submission(1).job] == list(anne.state.ended)
        with pytest.raises(Elsewhere):
            await anne.finalise_durably(ending(alive))
        await bob.finalise_durably(ending(alive))
        assert Finalised(submission(2).job) == await anne.finalise_durably(ending(alive)), "it can be read from here"
        await anne.submit_durably(submission(3))
        for each in inheriting:
            assert not each.done()
            each.cancel()
        state = anne.state
    assert state == await replayed(ANNE, url)


async def test_leases_lost_amid_requests_lose_no_job_and_double_none(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LEASE_WATCH_SECONDS", 0.01)
    async with node(ANNE, shared(url, ANNE)) as anne, node(BOB, shared(url, BOB)) as bob:
        nodes = (anne, bob)
        inheriting = [asyncio.create_task(each.record.inherit(each.identity.peer)) for each in nodes]
        told: dict[int, set[bytes]] = {}

        async def ask(number: int) -> None:
            """As a gateway does: whoever it is with, until it ended."""
            placed = None
            for turn in itertools.count():
                each = nodes[turn % 2]
                each.state = each.record.state
                with suppress(ConnectionLost, Elsewhere):
                    if placed is None:
                        placed = await each.submit_durably(submission(number))
                    await each.finalise_durably(ending(placed))
                    told.setdefault(number, set()).add(placed.reservation)
                    return
                await asyncio.sleep(0)

        for round_number in range(4):
            who, heir = nodes[round_number % 2], nodes[1 - round_number % 2]
            held = await who.submit_durably(submission(1000 + round_number))
            asking = [asyncio.create_task(ask(20 * round_number + number)) for number in range(1, 21)]
            await seized(url, who.identity, heir, submission(1000 + round_number).job)
            await asyncio.gather(*asking)
            await until_rejoined(who, round_number // 2 + 1)
            for each in nodes:
                each.state = each.record.state
            assert Finalised(submission(1000 + round_number).job) == await heir.finalise_durably(ending(held))
        assert {} == anne.state.open == bob.state.open
        assert 80 == len(told)
        for each in inheriting:
            assert not each.done()
            each.cancel()
    connection = await asyncpg.connect(url)
    ends = [bytes(job) for (job,) in await connection.fetch("SELECT subject FROM journal WHERE get_byte(entry, 0) = 4")]
    await connection.close()
    assert 84 == len(ends) == len(set(ends)), "each job ended once"


async def test_both_may_come_and_go_and_no_job_is_lost(url: str) -> None:
    told = {}
    for round_number in range(4):
        who = (ANNE, BOB)[round_number % 2]
        async with node(who, shared(url, who)) as here:
            (await heir_of(here, len(told))).cancel()
            number = round_number + 1
            told[number] = (await here.submit_durably(submission(number))).reservation
            for known, reservation in told.items():
                with suppress(HaifError):
                    assert reservation == (await here.submit_durably(submission(known))).reservation
            assert len(told) == len(here.state.open)
