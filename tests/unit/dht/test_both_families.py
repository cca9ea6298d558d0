"""Nodes of IPv4, of IPv6 and of both on real sockets of this machine."""

import asyncio
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path

import pytest

from haif.base import limits
from haif.base.errors import Misuse, Timeout
from haif.base.ids import Digest, NetId
from haif.base.machine import Address
from haif.dht.operations import Found
from haif.dht.service import Dht
from haif.dht.watch import What
from haif.identity.keys import Identity
from haif.protocol.records import RecordKind
from haif.runtime.clock import SystemClock, entropy

NET = NetId(b"n" * 32)
TOPIC = Digest(b"t" * 31 + b"\1")  # of offers


@pytest.fixture(autouse=True)
async def patience() -> AsyncGenerator[None]:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as udp:
        try:
            udp.bind(("::1", 0))
        except OSError as error:
            pytest.skip(f"this machine has no IPv6: {error}")
    async with asyncio.timeout(60):
        yield


def dht(
    *bootstrap: Address,
    host: str = "127.0.0.1",
    port: int = 0,
    beside: str = "",
    contacts_file: Path | None = None,
    ephemeral: bool = False,
) -> Dht:
    return Dht(
        identity=Identity(entropy(32)), net=NET, clock=SystemClock(), entropy=entropy, bootstrap=bootstrap, host=host,
        port=port, beside=beside, ephemeral=ephemeral, on_dropped=lambda _: None, contacts_file=contacts_file,
    )  # fmt: skip


@asynccontextmanager
async def town(both: int = 3) -> AsyncIterator[tuple[Dht, Dht, Sequence[Dht]]]:
    """One of IPv4, one of IPv6, and some of both, which were given the IPv4 address of the first of them."""
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(dht(beside="::1"))
        others = [await stack.enter_async_context(dht(first.address, beside="::1")) for _ in range(both - 1)]
        for other in others:
            while other.sides[1].is_alone:  # they meet there because they say where else they stand
                await other.find(TOPIC)
        four = await stack.enter_async_context(dht(first.address))
        six = await stack.enter_async_context(dht(first.sides[1].address, host="::1"))
        yield four, six, [first, *others]


async def bodies(node: Dht) -> list[bytes]:
    return [record.payload.body for record in await node.lookup(TOPIC)]


async def until(node: Dht, wanted: list[bytes]) -> None:
    while wanted != await bodies(node):
        pass


async def test_who_has_ipv4_alone_and_who_has_ipv6_alone_find_each_others_records() -> None:
    async with town() as (four, six, both):
        await four.publish(RecordKind.OFFER, TOPIC, b"of four", ttl_ms=60_000)
        await until(six, [b"of four"])
        await four.withdraw(TOPIC)
        await until(six, [])
        await six.publish(RecordKind.OFFER, TOPIC, b"of six", ttl_ms=60_000)
        await until(four, [b"of six"])
        for node in both:
            assert [b"of six"] == await bodies(node), "one record, though it stands in both"


async def test_what_a_node_of_both_publishes_is_in_both_when_it_is_published() -> None:
    async with town() as (four, six, (one, *_)):
        await one.publish(RecordKind.OFFER, TOPIC, b"of both", ttl_ms=60_000)
        assert [b"of both"] == await bodies(four) == await bodies(six)
        await one.withdraw(TOPIC)
        assert [] == await bodies(four) == await bodies(six)


async def test_a_watcher_of_either_family_hears_of_changes_in_the_other() -> None:
    async with town() as (four, six, (one, *_)):
        for watcher, speaker, body in ((four, six, b"of six"), (one, four, b"of four")):
            async with aclosing(watcher.watch(TOPIC)) as changes:
                heard = asyncio.create_task(anext(changes))
                await speaker.publish(RecordKind.OFFER, TOPIC, body, ttl_ms=60_000)
                change = await heard
                assert (What.ADDED, body) == (change.what, change.record.payload.body)
                gone = asyncio.create_task(anext(changes))
                await speaker.withdraw(TOPIC)
                assert What.GONE is (await gone).what


async def test_who_only_asks_finds_its_way_into_the_other_family_too() -> None:
    async with town() as (_, six, (one, *_)), dht(one.address, beside="::1", ephemeral=True) as asker:
        while asker.sides[1].is_alone:
            await asker.find(TOPIC)
        await six.publish(RecordKind.OFFER, TOPIC, b"of six", ttl_ms=60_000)
        assert b"of six" in await bodies(asker)


async def test_an_operation_that_ended_before_anybody_waited_has_its_outcome_all_the_same() -> None:
    async with dht(beside="::1") as node:
        side = node.sides[0]
        ended = side.endpoint.outcome(Found, side.node.find(TOPIC, SystemClock().now()))
        assert ended.done(), "nobody is there to ask"
        assert () == (await ended).contacts


async def test_both_sockets_have_one_port_and_one_family_twice_is_a_mistake() -> None:
    async with dht(beside="::1") as node:
        (four, six) = (side.address for side in node.sides)
        assert (("127.0.0.1", "::1"), four[1]) == ((four[0], six[0]), six[1])
        with pytest.raises(OSError, match="in use"):
            await dht(beside="::1", port=four[1]).__aenter__()
    with pytest.raises(Misuse, match="one family"):
        await dht(host="127.0.0.1", beside="127.0.0.1").__aenter__()


async def test_a_restarted_node_finds_both_directories_by_the_contacts_it_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "DHT_CONTACTS_KEPT_MAX", 2)  # fewer than there are of one family
    async with town(both=2) as (_, _, (first, *_)):
        async with dht(first.address, first.sides[1].address, beside="::1", contacts_file=tmp_path / "kept"):
            pass
        async with dht(beside="::1", contacts_file=tmp_path / "kept") as again:
            assert [False, False] == [side.is_alone for side in again.sides]


async def test_addresses_of_one_family_that_nobody_answers_at_do_not_keep_a_node_from_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "DHT_JOIN_SECONDS", 0.5)
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as silent:
        silent.bind(("::1", 0))
        nobody = silent.getsockname()[:2]
        async with dht() as first, dht(first.address, nobody, beside="::1") as node:
            assert [False, True] == [side.is_alone for side in node.sides]
        with pytest.raises(Timeout, match="no bootstrap address answered"):
            await dht(nobody, beside="::1").__aenter__()


async def test_an_address_of_the_other_family_alone_is_refused_by_name() -> None:
    async with dht(host="::1") as six:
        with pytest.raises(Timeout, match=r"\(::1:\d+\)"):
            await dht(six.address).__aenter__()
