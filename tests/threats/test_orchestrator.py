"""What attackers send to an orchestrator, and that none of it gets anywhere."""

import asyncio
import sqlite3
from pathlib import Path

import pytest

from haif.base import codec, limits
from haif.base.errors import (
    BadSignature,
    Expired,
    Forbidden,
    HaifError,
    JournalBroken,
    Malformed,
    NoWorker,
    Oversize,
    Reason,
    Replayed,
    WrongState,
)
from haif.base.ids import PeerId
from haif.identity.voice import Voice
from haif.protocol import heartbeats, jobs
from haif.protocol.heartbeats import Heartbeat
from haif.protocol.jobs import FinaliseJob, RetryJob
from haif.runtime.clock import entropy
from tests.unit.orchestrator.live import NET, Clock, House, Peer, house, peer, working
from tests.unit.orchestrator.scene import GATEWAY, WORKERS, ending, load, receipt, submission, ticket

ANNA, BEN, CARL = WORKERS.values()


@pytest.fixture(autouse=True)
async def patience():
    async with asyncio.timeout(30):
        yield


def heartbeat(worker: Peer, receiver: PeerId | None = None) -> bytes:
    addressee = receiver or worker.session.peer
    return worker.voice.say(addressee, worker.session.scope, heartbeats.HEARTBEAT, Heartbeat([load()]))[0]


async def refused(home: House, sender: Peer, method: str, argument: bytes, error: type[HaifError]) -> None:
    """The call is refused with this error, and the refusal counted."""
    metric = f'haif_dropped_total{{reason="{error.reason}"}}'
    before = home.metric(metric)
    with pytest.raises(error):
        await sender.call(method, argument)
    assert home.metric(metric) == before + 1


async def test_h_s3_a_recorded_heartbeat_keeps_nobody_alive(tmp_path: Path) -> None:
    async with house(tmp_path) as home, working(home, ANNA) as (gateway, anna):
        recorded = heartbeat(anna)
        await anna.call(heartbeats.METHOD, recorded)
        home.clock.ahead += limits.HEARTBEAT_SILENCE_SECONDS - 1
        await refused(home, anna, heartbeats.METHOD, recorded, Replayed)
        home.clock.ahead += 1
        assert await gateway.live_workers() == 0
        home.clock.ahead += limits.LIVE_MESSAGE_TTL_MS / 1000
        await refused(home, anna, heartbeats.METHOD, recorded, Expired)


async def test_h_s3_a_heartbeat_for_another_orchestrator_or_session_is_refused(tmp_path: Path) -> None:
    async with house(tmp_path) as home, peer(home, ANNA) as anna, peer(home, BEN) as ben:
        await refused(home, anna, heartbeats.METHOD, heartbeat(anna, CARL.peer), WrongState)
        await refused(home, ben, heartbeats.METHOD, heartbeat(anna), WrongState)


async def test_h_s3_a_recorded_submission_places_nothing(tmp_path: Path) -> None:
    async with house(tmp_path) as home, working(home, ANNA) as (gateway, _):
        recorded = gateway.signed(jobs.SUBMIT, submission())
        await gateway.call(jobs.SUBMIT_METHOD, recorded)
        await refused(home, gateway, jobs.SUBMIT_METHOD, recorded, Replayed)
        assert home.orchestrator.statistics().entries == 2


async def test_h_s1_nobody_speaks_in_anothers_name(tmp_path: Path) -> None:
    async with house(tmp_path) as home, peer(home, BEN) as ben:
        forged = Voice(ANNA, NET, Clock(), entropy).say(
            ben.session.peer, ben.session.scope, heartbeats.HEARTBEAT, Heartbeat([load()])
        )[0]
        await refused(home, ben, heartbeats.METHOD, forged, BadSignature)


@pytest.mark.parametrize("position", [0, 40, 80, 120, 140, 150, 170, 177, 180, 241, 242, -1])
async def test_h_s1_a_heartbeat_with_any_part_changed_is_refused(tmp_path: Path, position: int) -> None:
    async with house(tmp_path) as home, peer(home, ANNA) as anna:
        changed = bytearray(heartbeat(anna))
        changed[position] ^= 1
        await refused(home, anna, heartbeats.METHOD, bytes(changed), BadSignature)


async def test_truncated_and_oversize_messages_are_refused(tmp_path: Path) -> None:
    async with house(tmp_path) as home, peer(home, ANNA) as anna:
        await refused(home, anna, heartbeats.METHOD, heartbeat(anna)[:200], Malformed)
        await refused(home, anna, heartbeats.METHOD, b"", Malformed)
        await refused(home, anna, heartbeats.METHOD, heartbeat(anna)[:-1], BadSignature)


async def test_h_s2_a_worker_that_was_not_admitted_gets_no_work(tmp_path: Path) -> None:
    async with (
        house(tmp_path, workers=frozenset({ANNA.peer})) as home,
        working(home, ANNA) as (gateway, _),
        peer(home, BEN, with_dht=True) as ben,
    ):
        await ben.announce()
        await refused(home, ben, heartbeats.METHOD, heartbeat(ben), Forbidden)
        for n in range(8):
            assert ticket(await gateway.submit(submission(n))).worker == ANNA.peer


async def test_a_worker_cannot_draw_all_work_with_invented_slots(tmp_path: Path) -> None:
    async with house(tmp_path) as home, peer(home, ANNA, with_dht=True) as anna, peer(home, GATEWAY) as gateway:
        await anna.announce()
        with pytest.raises(Malformed):
            await anna.beat(load(slots=1_000_000))
        with pytest.raises(NoWorker) as caught:
            await gateway.submit(submission())
        assert Reason.NO_WORKER is caught.value.reason


async def test_a_worker_cannot_end_a_job_that_was_given_to_another(tmp_path: Path) -> None:
    async with house(tmp_path) as home, working(home, ANNA, BEN) as (gateway, _, _):
        placed = await gateway.submit(submission())
        other = BEN if ticket(placed).worker == ANNA.peer else ANNA
        forged = ending(placed, receipt(placed, by=other))
        await refused(home, gateway, jobs.FINALISE_METHOD, codec.encode(forged), BadSignature)
        retried = await gateway.retry(RetryJob(submission().job, 1, "timeout"))
        late = ending(placed)  # the first worker comes back with its receipt after it was given up
        await refused(home, gateway, jobs.FINALISE_METHOD, codec.encode(late), BadSignature)
        await gateway.finalise(ending(retried))


@pytest.mark.parametrize("bit", range(0, 8 * 400, 397))
async def test_h_r1_a_receipt_with_a_changed_bit_is_refused(tmp_path: Path, bit: int) -> None:
    async with house(tmp_path) as home, working(home, ANNA) as (gateway, _):
        placed = await gateway.submit(submission())
        message = ending(placed)
        changed = bytearray(message.receipt)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises((BadSignature, Malformed)):
            await gateway.finalise(FinaliseJob(message.job, bytes(changed), message.countersignature))
        assert (await gateway.show(message.job)).state == "reserved"


async def test_h_r2_deleting_or_editing_the_record_of_a_job_is_detected(tmp_path: Path) -> None:
    for sql in ("DELETE FROM journal WHERE sequence = 3", "UPDATE journal SET entry = x'05' WHERE sequence = 1"):
        folder = tmp_path / sql[:6]
        folder.mkdir()
        async with house(folder) as home, working(home, ANNA) as (gateway, _):
            await gateway.finalise(ending(await gateway.submit(submission())))
        connection = sqlite3.connect(folder / "journal")
        connection.execute(sql)
        connection.commit()
        connection.close()
        with pytest.raises(JournalBroken):
            async with house(folder):
                pass


async def test_h_d1_open_jobs_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "JOBS_OPEN_MAX", 3)
    async with house(tmp_path) as home, working(home, ANNA) as (gateway, _):
        outcomes = await asyncio.gather(*(gateway.submit(submission(n)) for n in range(6)), return_exceptions=True)
        assert [error.reason for error in outcomes if isinstance(error, HaifError)] == [Reason.OVERLOADED] * 3
        assert home.metric('haif_dropped_total{reason="overloaded"}') == 3


def test_oversize_live_messages_are_refused_before_they_are_looked_at() -> None:
    voice = Voice(ANNA, NET, Clock(), entropy)
    with pytest.raises(Oversize):
        voice.hear(Heartbeat, heartbeats.HEARTBEAT, bytes(limits.MESSAGE_BYTES_MAX + 1), submission().request_digest)
