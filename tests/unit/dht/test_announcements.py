"""What we publish and withdraw while the directory cannot be reached: in virtual time, against a store that fails."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from haif.base.clock import Instant, WallTime
from haif.base.errors import Dropped, Misuse, Reason, Timeout
from haif.base.ids import Digest, PeerId
from haif.dht.service.announcements import Announcements
from haif.protocol.records import Record, RecordKind
from haif.testing.replay import VirtualLoop

TOPIC = Digest(b"t" * 31 + b"\1")
OWNER = PeerId(b"o" * 32)
WALL = 1_700_000_000_000
TTL = 60_000


class Directory:
    """Keeps what it is given while it can be reached, and the time."""

    def __init__(self) -> None:
        self.kept: list[Record] = []
        self.asked = 0
        self.reached, self.stalls = True, False
        self.dropped: list[Dropped] = []
        self.announcements = Announcements(OWNER, self, self._store, self.dropped.append)

    def now(self) -> Instant:
        return Instant(asyncio.get_running_loop().time())

    def wall(self) -> WallTime:
        return WallTime(WALL + int(self.now() * 1000))

    async def publish(self, body: bytes) -> None:
        await self.announcements.publish(RecordKind.OFFER, TOPIC, body, ttl_ms=TTL)

    async def withdraw(self) -> None:
        await self.announcements.withdraw(TOPIC)

    async def _store(self, record: Record) -> None:
        self.asked += 1
        if self.stalls:
            await asyncio.sleep(3600)
        if not self.reached:
            raise Timeout("no node that should keep the record answered")
        self.kept.append(record)

    @property
    def says(self) -> bytes | None:
        """What a reader finds: the newest body, or nothing."""
        newest = max(self.kept, key=lambda record: record.sequence)
        return None if newest.tombstone else newest.body


def play(story: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(story)


async def cut_off_while_it_withdrew() -> tuple[Directory, asyncio.Task[None]]:
    directory = Directory()
    keeper = asyncio.create_task(directory.announcements.republish_forever())
    await directory.publish(b"here")
    directory.reached = False
    with pytest.raises(Timeout):
        await directory.withdraw()
    assert (directory.says, len(directory.announcements)) == (b"here", 0)
    return directory, keeper


def test_a_withdrawal_that_reached_nobody_is_tried_again_until_it_does() -> None:
    async def story() -> None:
        directory, keeper = await cut_off_while_it_withdrew()
        await asyncio.sleep(12)
        assert [each.reason for each in directory.dropped] == [Reason.TIMEOUT] * 2
        directory.reached = True
        await asyncio.sleep(6)
        assert directory.says is None
        asked = directory.asked
        await asyncio.sleep(600)
        assert directory.asked == asked, "once is enough"
        with pytest.raises(Misuse):
            await directory.withdraw()
        keeper.cancel()

    play(story())


def test_whoever_withdraws_again_is_no_misuser() -> None:
    async def story() -> None:
        directory, keeper = await cut_off_while_it_withdrew()
        with pytest.raises(Timeout):
            await directory.withdraw()
        directory.reached = True
        await directory.withdraw()
        assert directory.says is None
        keeper.cancel()

    play(story())


def test_a_withdrawal_that_nobody_waits_for_any_more_is_tried_again_too() -> None:
    async def story() -> None:
        directory = Directory()
        keeper = asyncio.create_task(directory.announcements.republish_forever())
        await directory.publish(b"here")
        directory.stalls = True
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await directory.withdraw()
        directory.stalls = False
        await asyncio.sleep(6)
        assert directory.says is None
        keeper.cancel()

    play(story())


def test_what_is_published_anew_is_not_withdrawn() -> None:
    async def story() -> None:
        directory, keeper = await cut_off_while_it_withdrew()
        directory.reached = True
        await directory.publish(b"back")
        await asyncio.sleep(100)
        assert (directory.says, len(directory.announcements)) == (b"back", 1)
        keeper.cancel()

    play(story())


def test_what_has_expired_needs_no_tombstone() -> None:
    async def story() -> None:
        directory, keeper = await cut_off_while_it_withdrew()
        await asyncio.sleep(TTL / 1000 + 6)
        asked = directory.asked
        await asyncio.sleep(60)
        assert directory.asked == asked
        assert all(record.expires <= WALL + TTL for record in directory.kept)
        keeper.cancel()

    play(story())
