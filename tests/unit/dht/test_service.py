"""The directory on real loopback sockets."""

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from haif.base import limits
from haif.base.errors import ConnectionLost, Dropped, Misuse, OverQuota, Oversize, Reason, Timeout
from haif.base.ids import Digest, NetId
from haif.base.machine import Address
from haif.dht.service import Dht
from haif.identity.keys import Identity
from haif.protocol.records import RecordKind
from haif.runtime.clock import SystemClock, entropy

NET = NetId(b"n" * 32)
TOPIC = Digest(b"t" * 31 + b"\1")  # of offers


def dht(
    bootstrap: Sequence[Address] = (), *, dropped: list[Dropped] | None = None, host: str = "127.0.0.1",
    contacts_file: Path | None = None,
) -> Dht:  # fmt: skip
    heard = [] if dropped is None else dropped
    return Dht(
        identity=Identity(entropy(32)), net=NET, clock=SystemClock(), entropy=entropy, bootstrap=bootstrap, host=host,
        on_dropped=heard.append, contacts_file=contacts_file,
    )  # fmt: skip


@asynccontextmanager
async def network(count: int) -> AsyncIterator[list[Dht]]:
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(dht())]
        while len(nodes) < count:
            nodes.append(await stack.enter_async_context(dht([nodes[0].address])))
        while count > 1 and not nodes[0].statistics().contacts:
            await nodes[1].find(TOPIC)  # the first has yet to hear from whom it was asked
        yield nodes


def bodies(records: Sequence[object]) -> set[bytes]:
    return {record.payload.body for record in records}  # type: ignore[attr-defined]


async def test_thirty_nodes_with_one_bootstrap_address_find_each_others_records() -> None:
    async with network(30) as nodes:
        for number in (3, 14, 27):
            await nodes[number].publish(RecordKind.OFFER, TOPIC, b"from %d" % number, ttl_ms=60_000)
        wanted = {b"from 3", b"from 14", b"from 27"}
        for node in nodes:
            assert bodies(await node.lookup(TOPIC)) == wanted
        await nodes[14].withdraw(TOPIC)
        for node in nodes:
            assert bodies(await node.lookup(TOPIC)) == wanted - {b"from 14"}
        assert sum(node.statistics().records >= 3 for node in nodes) >= limits.DHT_K


async def test_a_lookup_finds_what_was_published_before_anybody_else_was_there() -> None:
    async with dht() as first:
        await first.publish(RecordKind.OFFER, TOPIC, b"alone", ttl_ms=60_000)
        assert bodies(await first.lookup(TOPIC)) == {b"alone"}
        async with dht([first.address]) as second:
            assert bodies(await second.lookup(TOPIC)) == {b"alone"}
            assert await second.lookup(Digest(bytes(32))) == ()


async def test_publishing_again_replaces_the_body_and_after_a_withdrawal_it_may_be_published_anew() -> None:
    async with network(3) as (a, b, c):
        for body in (b"one", b"two"):
            await a.publish(RecordKind.OFFER, TOPIC, body, ttl_ms=60_000)
            assert bodies(await c.lookup(TOPIC)) == {body}
        await a.withdraw(TOPIC)
        assert await b.lookup(TOPIC) == ()
        await a.publish(RecordKind.OFFER, TOPIC, b"back", ttl_ms=60_000)
        assert bodies(await b.lookup(TOPIC)) == {b"back"}


async def test_a_record_is_republished_until_it_is_withdrawn() -> None:
    async with network(2) as (a, b):
        await a.publish(RecordKind.OFFER, TOPIC, b"pulse", ttl_ms=3000)
        [first] = await b.lookup(TOPIC)
        while (latest := (await b.lookup(TOPIC))[0]).payload.sequence == first.payload.sequence:
            pass
        assert latest.payload.expires > first.payload.expires
        await a.withdraw(TOPIC)
        assert await b.lookup(TOPIC) == ()
        assert a.statistics().published == 0


async def test_joining_through_addresses_where_nobody_answers_fails_and_names_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "DHT_JOIN_SECONDS", 0.05)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        with pytest.raises(Timeout, match=f"127.0.0.1:{silent.getsockname()[1]}") as error:
            async with dht([silent.getsockname()]):
                pass
    assert error.value.reason is Reason.TIMEOUT


async def test_a_node_that_waits_for_its_bootstrap_joins_when_that_comes_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as placeholder:
        placeholder.bind(("127.0.0.1", 0))
        address = placeholder.getsockname()
    late = Dht(
        identity=Identity(entropy(32)), net=NET, clock=SystemClock(), entropy=entropy, bootstrap=[], port=address[1],
        on_dropped=lambda dropped: None,
    )  # fmt: skip
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        early = group.create_task(stack.enter_async_context(dht([address])))
        await asyncio.sleep(0)  # its first greeting goes to a port where nobody listens
        await stack.enter_async_context(late)
        assert (await early).statistics().contacts == 1


async def test_limits_are_refused_before_anything_is_sent() -> None:
    async with dht() as node:
        with pytest.raises(Oversize):
            await node.publish(RecordKind.OFFER, TOPIC, bytes(limits.RECORD_BODY_BYTES_MAX + 1), ttl_ms=60_000)
        for ttl_ms in (0, limits.RECORD_TTL_MS_MAX + 1):
            with pytest.raises(Oversize):
                await node.publish(RecordKind.OFFER, TOPIC, b"", ttl_ms=ttl_ms)
        with pytest.raises(Misuse) as error:
            await node.withdraw(TOPIC)
        assert error.value.reason is Reason.MISUSE
        assert node.statistics().published == 0


async def test_a_publisher_over_its_quota_everywhere_is_told() -> None:
    async with network(2) as (a, _):
        for number in range(limits.RECORDS_PER_SIGNER_MAX):
            await a.publish(RecordKind.OFFER, Digest(bytes([number]) * 31 + b"\1"), b"", ttl_ms=60_000)
        with pytest.raises(OverQuota) as error:
            await a.publish(RecordKind.OFFER, TOPIC, b"", ttl_ms=60_000)
        assert error.value.reason is Reason.OVER_QUOTA


async def test_hostile_datagrams_on_the_socket_are_counted_and_the_node_goes_on() -> None:
    dropped: list[Dropped] = []
    async with dht(dropped=dropped) as node, dht([node.address]) as other:
        before = len(dropped)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as hostile:
            for data in (b"", b"\xa1", b"\xa1\x00" + bytes(2000), b"\xa1\x01" + bytes(150), b"GET / HTTP/1.1"):
                hostile.sendto(data, node.address)
        while len(dropped) < before + 5:
            await other.lookup(TOPIC)
        assert [event.reason for event in dropped[before:]] == [
            Reason.MALFORMED, Reason.MALFORMED, Reason.OVERSIZE, Reason.WRONG_STATE, Reason.MALFORMED,
        ]  # fmt: skip
        assert node.statistics().dropped[Reason.MALFORMED] == 3


async def test_many_callers_at_once_are_served_in_turn() -> None:
    async with network(4) as nodes:
        await nodes[1].publish(RecordKind.OFFER, TOPIC, b"popular", ttl_ms=60_000)
        found = await asyncio.gather(*(nodes[2].lookup(TOPIC) for _ in range(60)))
        assert all(bodies(records) == {b"popular"} for records in found)
        assert nodes[2].statistics().operations == 0


async def test_the_callers_error_leaves_the_block_as_it_is_and_the_port_is_free_again() -> None:
    node = dht()
    with pytest.raises(ZeroDivisionError):
        async with node:
            raise ZeroDivisionError
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as again:
        again.bind(node.address)


async def test_who_waits_while_the_node_is_closed_is_told_and_so_is_who_asks_afterwards() -> None:
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(dht())
        async with dht([first.address]) as second:
            await stack.aclose()  # the only other node is gone: the lookup waits for it in vain
            waiting = asyncio.create_task(second.lookup(TOPIC))
            await asyncio.sleep(0)
    for asked in (waiting, second.lookup(TOPIC)):
        with pytest.raises(ConnectionLost) as error:
            await asked
        assert error.value.reason is Reason.CONNECTION_LOST


async def test_a_publication_that_nobody_answers_is_reported_and_kept_for_another_try() -> None:
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(dht())
        async with dht([first.address]):
            pass
        while first.statistics().contacts == 0:
            async with dht([first.address]):
                pass
        with pytest.raises(Timeout, match="it will be tried again"):
            await first.publish(RecordKind.OFFER, TOPIC, b"anybody?", ttl_ms=60_000)
        assert first.statistics().published == 1
        assert bodies(await first.lookup(TOPIC)) == {b"anybody?"}


async def test_a_cancelled_lookup_leaves_nothing_behind() -> None:
    async with network(2) as (a, _):
        task = asyncio.create_task(a.lookup(TOPIC))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await a.lookup(TOPIC) == ()
        assert a.statistics().operations == 0


async def test_it_speaks_ipv6() -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6 on this machine")
    async with AsyncExitStack() as stack:
        try:
            first = await stack.enter_async_context(dht(host="::1"))
        except OSError:
            pytest.skip("no IPv6 loopback on this machine")
        second = await stack.enter_async_context(dht([first.address], host="::1"))
        third = await stack.enter_async_context(dht([first.address], host="::1"))
        await second.publish(RecordKind.OFFER, TOPIC, b"six", ttl_ms=60_000)
        assert bodies(await third.lookup(TOPIC)) == {b"six"}
        assert third.statistics().contacts == 2


async def test_a_restarted_node_comes_back_through_the_contacts_it_kept(tmp_path: Path) -> None:
    file = tmp_path / "node" / "contacts"
    async with network(5) as nodes:
        await nodes[1].publish(RecordKind.OFFER, TOPIC, b"here", ttl_ms=60_000)
        async with dht([nodes[0].address], contacts_file=file):
            pass
        assert file.stat().st_mode & 0o077 == 0
        async with dht(contacts_file=file) as back:
            assert bodies(await back.lookup(TOPIC)) == {b"here"}
            assert back.statistics().contacts == 5


async def test_a_node_whose_kept_contacts_are_all_gone_is_alone_and_keeps_them(tmp_path: Path) -> None:
    file = tmp_path / "contacts"
    async with network(1) as nodes, dht([nodes[0].address], contacts_file=file):
        pass
    kept = file.read_bytes()
    async with dht(contacts_file=file) as alone:
        assert alone.statistics().contacts == 0
    assert file.read_bytes() == kept


async def test_a_broken_file_of_contacts_is_reported_and_stops_nobody(tmp_path: Path) -> None:
    file, dropped = tmp_path / "contacts", list[Dropped]()
    for content in (b"rubbish", bytes(limits.DHT_CONTACTS_KEPT_BYTES_MAX + 9)):
        file.write_bytes(content)
        async with dht(contacts_file=file, dropped=dropped):
            pass
    assert [each.reason for each in dropped] == [Reason.MALFORMED] * 2


async def test_where_no_bootstrap_address_answers_the_kept_contacts_do(tmp_path: Path) -> None:
    file = tmp_path / "contacts"
    async with network(3) as nodes:
        async with dht([nodes[0].address], contacts_file=file):
            pass
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
            silent.bind(("127.0.0.1", 0))
            async with dht([silent.getsockname()], contacts_file=file) as back:
                assert back.statistics().contacts == 3
