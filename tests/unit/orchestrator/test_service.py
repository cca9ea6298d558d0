"""The orchestrator on real sockets, with a real directory and a real journal."""

import asyncio
import sqlite3
from contextlib import suppress
from pathlib import Path

import pytest

from haif.base import codec, limits
from haif.base.errors import (
    BadSignature,
    ConnectionLost,
    Forbidden,
    HaifError,
    JournalBroken,
    NoWorker,
    UnknownModel,
    WrongState,
)
from haif.identity.signing import evidence_digest
from haif.orchestrator import events
from haif.protocol import jobs
from haif.protocol.jobs import FailJob, ListModels, Models, RetryJob
from haif.protocol.reach import Place
from haif.protocol.records import RecordKind, offer_topic
from haif.telemetry import names
from haif.telemetry.service import read_trace
from tests.unit.orchestrator.live import NET, House, house, peer, working
from tests.unit.orchestrator.scene import (
    CATALOGUE,
    GATEWAY,
    MODEL,
    OTHER_GATEWAY,
    WORKERS,
    ending,
    load,
    receipt,
    submission,
    ticket,
)

ANNA, BEN, CARL = WORKERS.values()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What happens now and then happens soon."""
    monkeypatch.setattr(limits, "ORCHESTRATOR_TICK_SECONDS", 0.01)


@pytest.fixture(autouse=True)
async def patience():
    async with asyncio.timeout(30):
        yield


async def journalled(home: House) -> list[str]:
    return [type(events.decode(entry)).__name__ async for _, entry in home.journal.replay()]


async def test_a_job_from_submission_to_its_receipt(tmp_path: Path) -> None:
    async with house(tmp_path) as home, working(home, ANNA) as (gateway, _):
        placed = await gateway.submit(submission())
        assert ticket(placed).worker == ANNA.peer
        assert placed.place == Place((("127.0.0.1", 4000),))
        message = ending(placed)
        await gateway.finalise(message)
        view = await gateway.show(submission().job)
        assert (view.state, view.tenant, view.worker) == ("finalised", "ada", ANNA.peer)
        assert (view.receipt, view.countersignature) == (message.receipt, message.countersignature)
        assert await journalled(home) == ["JobSubmitted", "AttemptReserved", "JobFinalised"]
        assert home.orchestrator.statistics().entries == 3
        assert home.metric('haif_job_transitions_total{state="finalised"}') == 1
        assert home.metric("haif_journal_entries_total") == 3
        assert home.metric("haif_placements_total") == 1
        assert home.metric("haif_jobs_open") == 0


async def test_it_answers_nobody_once_it_leaves(tmp_path: Path) -> None:
    async with house(tmp_path) as home, peer(home, ANNA) as worker:
        await home.orchestrator.__aexit__(None, None, None)
        with pytest.raises(ConnectionLost, match="stopping"):
            await worker.call(jobs.MODELS_METHOD, codec.encode(ListModels()))


async def test_two_workers_share_a_burst(tmp_path: Path) -> None:
    async with house(tmp_path) as home, working(home, ANNA, BEN) as (gateway, _, _):
        placed = await asyncio.gather(*(gateway.submit(submission(n)) for n in range(20)))
        assert [sum(ticket(each).worker == worker.peer for each in placed) for worker in (ANNA, BEN)] == [10, 10]


async def test_failed_attempts_move_on_until_none_is_left(tmp_path: Path) -> None:
    async with house(tmp_path) as home, working(home, ANNA, BEN) as (gateway, _, _):
        first = ticket(await gateway.submit(submission()))
        second = ticket(await gateway.retry(RetryJob(first.job, 1, "connection_lost")))
        assert {first.worker, second.worker} == {ANNA.peer, BEN.peer}
        for attempt in range(2, limits.ATTEMPTS_MAX):
            await gateway.retry(RetryJob(first.job, attempt, "timeout"))
        with pytest.raises(NoWorker, match="attempts were made"):
            await gateway.retry(RetryJob(first.job, limits.ATTEMPTS_MAX, "timeout"))
        view = await gateway.show(first.job)
        assert (view.state, view.reason, view.attempts) == ("failed", "no_worker", limits.ATTEMPTS_MAX)
        assert home.metric('haif_placement_failures_total{reason="no_worker"}') == 1


async def test_a_restart_forgets_no_job(tmp_path: Path) -> None:
    async with house(tmp_path) as home, working(home, ANNA, BEN) as (gateway, _, _):
        done, open_, failed = [await gateway.submit(submission(n)) for n in (1, 2, 3)]
        message = ending(done)
        await gateway.finalise(message)
        await gateway.fail(FailJob(ticket(failed).job, 1, "cancelled"))
    async with house(tmp_path) as home, peer(home, GATEWAY) as gateway:
        assert (await gateway.show(ticket(done).job)).receipt == message.receipt
        assert (await gateway.show(ticket(failed).job)).reason == "cancelled"
        assert (await gateway.show(ticket(open_).job)).state == "reserved"
        assert (await gateway.submit(submission(2))).reservation == open_.reservation
        await gateway.finalise(ending(open_))
        await gateway.finalise(message)
        assert (await gateway.show(ticket(open_).job)).state == "finalised"


async def test_jobs_that_memory_forgot_are_read_from_the_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "JOBS_ENDED_REMEMBERED_MAX", 2)
    async with house(tmp_path) as home, working(home, ANNA) as (gateway, _):
        messages = [ending(await gateway.submit(submission(n))) for n in range(6)]
        for message in messages:
            await gateway.finalise(message)
        assert home.orchestrator.statistics().forgotten == 4
    async with house(tmp_path) as home, working(home, ANNA) as (gateway, _):
        assert home.orchestrator.statistics().forgotten == 4
        for message in messages:
            assert (await gateway.show(message.job)).receipt == message.receipt
            await gateway.finalise(message)
            with pytest.raises(WrongState):
                await gateway.submit(submission(int.from_bytes(message.job, "big")))
        await gateway.submit(submission(99))
        assert (await journalled(home)).count("JobFinalised") == 6


async def test_a_tampered_journal_stops_the_start(tmp_path: Path) -> None:
    async with house(tmp_path) as home, working(home, ANNA) as (gateway, _):
        await gateway.finalise(ending(await gateway.submit(submission())))
    connection = sqlite3.connect(tmp_path / "journal")
    connection.execute("UPDATE journal SET entry = x'00' WHERE sequence = 2")
    connection.commit()
    connection.close()
    with pytest.raises(JournalBroken, match="entry 2 is not"):
        async with house(tmp_path):
            pass


async def test_entries_that_hold_but_make_no_sense_stop_the_start(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        await home.journal.append([b"\xffwhat is this"])
    with pytest.raises(JournalBroken, match="entry 1 makes no sense"):
        async with house(tmp_path):
            pass


async def test_when_the_journal_cannot_be_written_the_orchestrator_stops(tmp_path: Path) -> None:
    def full(connection: sqlite3.Connection) -> None:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}")

    async def fill_the_disk() -> None:
        async with house(tmp_path) as home, working(home, ANNA) as (gateway, _):
            await home.journal.database.write(full)
            with suppress(HaifError):
                for n in range(1000):
                    await gateway.submit(submission(n))
            await asyncio.Event().wait()

    with pytest.raises(ExceptionGroup) as caught:
        await fill_the_disk()
    assert caught.group_contains(sqlite3.OperationalError, match="full")


async def test_only_its_own_gateways_may_submit_and_see(tmp_path: Path) -> None:
    async with house(tmp_path) as home, working(home, ANNA) as (gateway, worker):
        placed = await gateway.submit(submission())
        async with peer(home, OTHER_GATEWAY) as stranger:
            for attempt in (
                stranger.submit(submission(2)),
                stranger.retry(RetryJob(submission().job, 1, "timeout")),
                stranger.finalise(ending(placed)),
                stranger.fail(FailJob(submission().job, 1, "timeout")),
                stranger.show(submission().job),
            ):
                with pytest.raises(Forbidden, match="not a gateway of this orchestrator"):
                    await attempt
        assert home.metric('haif_dropped_total{reason="forbidden"}') == 5
        assert await journalled(home) == ["JobSubmitted", "AttemptReserved"]
        with pytest.raises(Forbidden):
            await worker.show(submission().job)


async def test_a_gateway_sees_only_its_own_jobs(tmp_path: Path) -> None:
    both = {GATEWAY.peer, OTHER_GATEWAY.peer}
    async with house(tmp_path, gateways=both) as home, working(home, ANNA) as (gateway, _):
        await gateway.submit(submission())
        async with peer(home, OTHER_GATEWAY) as other:
            with pytest.raises(Forbidden):
                await other.show(submission().job)
            with pytest.raises(WrongState, match="no such job"):
                await other.show(submission(7).job)


async def test_an_unknown_model_is_answered_with_what_there_is(tmp_path: Path) -> None:
    async with house(tmp_path) as home, peer(home, GATEWAY) as gateway:
        with pytest.raises(UnknownModel, match="there is: tiny"):
            await gateway.submit(submission(model="huge"))
        with pytest.raises(NoWorker) as caught:
            await gateway.submit(submission())
        assert caught.value.retry_after == limits.HEARTBEAT_SECONDS


async def test_the_catalogue_says_how_many_workers_there_are(tmp_path: Path) -> None:
    async with house(tmp_path) as home, working(home, ANNA, BEN) as (gateway, _, _):
        (card,) = codec.decode(Models, await gateway.call(jobs.MODELS_METHOD, codec.encode(ListModels()))).models
        assert (card.name, card.digest, card.context_tokens, card.workers) == ("tiny", MODEL, 1024, 2)
        assert card.published == CATALOGUE["tiny"].published
        assert home.orchestrator.statistics().workers_live == 2


async def test_a_worker_that_drains_or_falls_silent_gets_no_more_work(tmp_path: Path) -> None:
    async with house(tmp_path) as home, working(home, ANNA, BEN) as (gateway, anna, ben):
        await anna.beat()
        assert await gateway.live_workers() == 1
        assert ticket(await gateway.submit(submission())).worker == BEN.peer
        home.clock.ahead += limits.HEARTBEAT_SILENCE_SECONDS
        assert await gateway.live_workers() == 0
        await ben.beat(load())
        assert await gateway.live_workers() == 1


async def test_a_worker_whose_session_ends_gets_no_more_work_from_that_moment(tmp_path: Path) -> None:
    async with house(tmp_path) as home, working(home, ANNA, BEN) as (gateway, anna, ben):
        anna.session.close()
        await gateway.wait_for_workers(1)
        assert ticket(await gateway.submit(submission())).worker == BEN.peer
        ben.session.close()
        await gateway.wait_for_workers(0)


async def test_a_worker_that_fails_again_and_again_is_passed_over(tmp_path: Path) -> None:
    async with house(tmp_path) as home, working(home, ANNA, BEN) as (gateway, _, _):
        for job in range(100):
            worker = ticket(await gateway.submit(submission(job))).worker
            await gateway.fail(FailJob(submission(job).job, 1, "engine_died" if worker == ANNA.peer else "cancelled"))
            if home.orchestrator.statistics().breakers_open:
                break
        assert ticket(await gateway.submit(submission(500))).worker == BEN.peer


async def test_a_worker_that_withdraws_its_offer_gets_no_more_work(tmp_path: Path) -> None:
    async with house(tmp_path) as home, working(home, ANNA, BEN) as (gateway, anna, _):
        assert anna.dht is not None
        await anna.dht.withdraw(offer_topic(NET, MODEL))
        await gateway.wait_for_workers(1)
        assert ticket(await gateway.submit(submission())).worker == BEN.peer


async def test_a_worker_that_moves_is_reached_at_its_new_address(tmp_path: Path) -> None:
    async with house(tmp_path) as home, working(home, ANNA) as (gateway, anna):
        assert anna.dht is not None
        await anna.dht.publish(RecordKind.OFFER, offer_topic(NET, MODEL), b"no offer", ttl_ms=60_000)
        await gateway.wait_for_workers(0)  # what is announced now is no offer
        await anna.announce(5000)
        await gateway.wait_for_workers(1)
        assert (await gateway.submit(submission())).place == Place((("127.0.0.1", 5000),))


async def test_a_job_out_of_time_is_failed_without_being_asked(tmp_path: Path) -> None:
    async with house(tmp_path) as home, working(home, ANNA) as (gateway, _):
        await gateway.submit(submission(deadline_ms=1000))
        home.clock.ahead += 1 + limits.FINALISE_GRACE_MS / 1000
        while (view := await gateway.show(submission().job)).state == "reserved":
            pass
        assert (view.state, view.reason) == ("failed", "timeout")
        assert await journalled(home) == ["JobSubmitted", "AttemptReserved", "JobFailed"]


async def test_a_receipt_that_does_not_hold_leaves_the_job_open(tmp_path: Path) -> None:
    async with house(tmp_path) as home, working(home, ANNA) as (gateway, _):
        placed = await gateway.submit(submission())
        with pytest.raises(BadSignature):
            await gateway.finalise(ending(placed, receipt(placed, by=BEN)))
        assert (await gateway.show(submission().job)).state == "reserved"
        assert home.metric('haif_dropped_total{reason="bad_signature"}') == 1
        await gateway.finalise(ending(placed))


async def test_gateways_that_ask_at_once_get_one_answer(tmp_path: Path) -> None:
    async with house(tmp_path) as home, working(home, ANNA, BEN) as (gateway, _, _):
        placed = await asyncio.gather(*(gateway.submit(submission()) for _ in range(8)))
        assert len({evidence_digest(each.reservation) for each in placed}) == 1
        message = ending(placed[0])
        await asyncio.gather(*(gateway.finalise(message) for _ in range(8)))
        assert await journalled(home) == ["JobSubmitted", "AttemptReserved", "JobFinalised"]


async def test_the_trace_goes_on_and_carries_the_job(tmp_path: Path) -> None:
    parent = f"00-{'a' * 32}-{'b' * 16}-01"
    async with house(tmp_path) as home, working(home, ANNA) as (gateway, _):
        signed = gateway.signed(jobs.SUBMIT, submission())
        await gateway.session.call(jobs.SUBMIT_METHOD, signed, timeout=10, metadata={"traceparent": parent})
    spans = read_trace([tmp_path / "spans"], str(submission().job))
    assert {names.SPAN_SUBMIT, names.SPAN_JOURNAL} == {span.name for span in spans}
    assert {"a" * 32} == {span.trace for span in spans}
