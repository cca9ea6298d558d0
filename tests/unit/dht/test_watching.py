"""Watching a topic over real sockets: changes come as they happen, to everybody who listens."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from haif.base.errors import ConnectionLost
from haif.base.ids import Digest
from haif.dht.service import Dht
from haif.dht.watch import Change, What
from haif.protocol.records import RecordKind
from tests.unit.dht.test_service import dht, network

TOPIC = Digest(b"w" * 31 + b"\1")  # of offers


@pytest.fixture(autouse=True)
async def patience() -> AsyncGenerator[None]:
    async with asyncio.timeout(30):
        yield


async def announce(node: Dht, body: bytes, ttl_ms: int = 60_000) -> None:
    await node.publish(RecordKind.OFFER, TOPIC, body, ttl_ms=ttl_ms)


async def told(changes: AsyncGenerator[Change]) -> tuple[str, bytes]:
    change = await anext(changes)
    return change.what.value, change.record.payload.body


async def test_what_is_there_and_then_each_change_is_told_as_it_happens() -> None:
    async with network(4) as (a, b, c, d):
        await announce(a, b"a")
        async with aclosing(d.watch(TOPIC)) as changes:
            assert await told(changes) == ("added", b"a")
            await announce(b, b"b")
            assert await told(changes) == ("added", b"b")
            await announce(a, b"a")  # the same again is no change
            await announce(a, b"another")
            assert await told(changes) == ("renewed", b"another")
            await b.withdraw(TOPIC)
            assert await told(changes) == ("gone", b"b")
            assert c.statistics().watched == 0


async def test_lookups_are_told_once_with_their_hops_and_seconds() -> None:
    async with network(3) as (a, _, c):
        await announce(a, b"a")
        c.lookups_ended()
        await c.lookup(TOPIC)
        [ended] = c.lookups_ended()
        assert ended.hops == 1
        assert ended.seconds > 0
        assert c.lookups_ended() == []


async def test_what_expires_is_gone() -> None:
    async with network(2) as (a, b), aclosing(b.watch(TOPIC)) as changes:
        await announce(a, b"brief", ttl_ms=500)
        assert await told(changes) == ("added", b"brief")
        a._announcements._published.clear()  # it dies
        assert await told(changes) == ("gone", b"brief")


async def test_several_who_watch_one_topic_share_one_watch_and_the_last_to_leave_ends_it() -> None:
    async with network(3) as (a, b, c):
        async with aclosing(c.watch(TOPIC)) as first, aclosing(c.watch(TOPIC)) as second:
            await announce(a, b"a")
            assert await told(first) == await told(second) == ("added", b"a")
            assert c.statistics().watched == 1
            await announce(b, b"b")
            assert await told(first) == ("added", b"b")
            async with aclosing(c.watch(TOPIC)) as late:
                assert {await told(late), await told(late)} == {("added", b"a"), ("added", b"b")}
            await first.aclose()
            assert c.statistics().watched == 1
            assert await told(second) == ("added", b"b")
        assert c.statistics().watched == 0


async def test_whoever_is_slow_to_listen_is_told_how_it_is_now() -> None:
    async with network(2) as (a, b), aclosing(b.watch(TOPIC)) as slow, aclosing(b.watch(TOPIC)) as quick:
        await announce(a, b"0")
        assert await told(slow) == await told(quick) == ("added", b"0")
        for body in (b"1", b"2", b"3"):
            await announce(a, body)
            assert await told(quick) == ("renewed", body)
        assert await told(slow) == ("renewed", b"3")


async def test_the_records_of_a_node_itself_and_of_a_node_alone_are_watched_too() -> None:
    async with dht() as alone, aclosing(alone.watch(TOPIC)) as changes:
        await announce(alone, b"me")
        assert await told(changes) == ("added", b"me")
        async with dht([alone.address]) as other:
            await announce(other, b"you")
            assert await told(changes) == ("added", b"you")
            await other.withdraw(TOPIC)
            assert await told(changes) == ("gone", b"you")


async def test_whoever_still_listens_when_the_node_is_closed_is_told() -> None:
    async with dht() as node:
        changes = node.watch(TOPIC)
        await announce(node, b"me")
        assert (await anext(changes)).what is What.ADDED
        waiting = asyncio.create_task(anext(changes))
    with pytest.raises(ConnectionLost):
        await waiting


async def test_whoever_has_reason_to_may_have_it_read_at_once() -> None:
    async with network(3) as (a, _, c):
        c.sides[0].node.attention.noticed = lambda *_: None  # type: ignore[method-assign]  # every notice is lost
        c.sides[0].node.attention.stored = lambda *_: None  # type: ignore[method-assign]
        async with aclosing(c.watch(TOPIC)) as changes:
            waiting = asyncio.create_task(anext(changes))
            await announce(a, b"a")
            c.hurry(TOPIC)
            assert (await waiting).record.payload.body == b"a"
