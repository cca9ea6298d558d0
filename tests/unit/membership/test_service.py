"""Lists of revocations go from disk to a node, from node to node, and end sessions wherever they come."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from haif.base import codec
from haif.base.clock import WallTime
from haif.base.errors import ConnectionLost, Dropped, Forbidden, Oversize, Reason
from haif.base.ids import NetKey, PeerId
from haif.base.roles import Role
from haif.identity.admission import Book, Network, Office, admit, revise
from haif.identity.keys import Identity, NoiseKey
from haif.identity.networks import Charter
from haif.identity.service import Networks
from haif.membership.service import Membership
from haif.protocol.methods import REVOCATIONS
from haif.protocol.networks import Edition, Lists
from haif.runtime.clock import SystemClock, entropy
from haif.wire.service import Wire

ROOT = Identity(b"r" * 32)
OFFICE = Office(ROOT)
NETWORK = Network("acme", closed=True, roots=(ROOT.peer,))
CLOCK = SystemClock()
SOMEBODY = PeerId(bytes(32))


@dataclass
class Node:
    """A member on a machine of its own."""

    identity: Identity
    networks: Networks
    book: Book
    wire: Wire
    dropped: list[Dropped]
    excluded: list[frozenset[PeerId]]

    @property
    def peer(self) -> PeerId:
        return self.identity.peer

    def revoke(self, *peers: PeerId) -> bytes:
        """What the owner's command does on this machine."""
        data = revise(OFFICE, NETWORK, None, CLOCK.wall(), peers)
        self.networks.keep_list(NETWORK, data, CLOCK.wall())
        return data


Make = Callable[[str], Awaitable[Node]]


@pytest.fixture
async def member(tmp_path: Path) -> AsyncIterator[Make]:
    async with AsyncExitStack() as stack:

        async def make(name: str) -> Node:
            identity = Identity(name.encode().ljust(32, b"."))
            networks = Networks(tmp_path / name)
            networks.found(Charter(NETWORK, NetKey(bytes(32))))
            evidence = admit(OFFICE, NETWORK, identity.peer, [Role.WORKER], CLOCK.wall(), days=1)
            networks.keep_admission(NETWORK, evidence, CLOCK.wall())
            book = networks.book(NETWORK, CLOCK.wall(), identity.peer)
            dropped: list[Dropped] = []
            excluded: list[frozenset[PeerId]] = []
            wire = Wire(
                identity=identity, noise_key=NoiseKey(entropy(32)), net=NETWORK.net, clock=CLOCK, entropy=entropy,
                on_dropped=dropped.append, book=book,
            )  # fmt: skip
            membership = Membership(
                book=book, peer=identity.peer, networks=networks, wire=wire, clock=CLOCK,
                on_dropped=dropped.append, on_revoked=excluded.append,
            )  # fmt: skip
            await stack.enter_async_context(wire)
            await stack.enter_async_context(membership)
            return Node(identity, networks, book, wire, dropped, excluded)

        yield make


async def until(holds: Callable[[], bool]) -> None:
    """Wait for what another task does."""
    async with asyncio.timeout(20):
        while not holds():  # it is told to nobody
            await asyncio.sleep(0.01)


async def test_a_revocation_on_one_machines_disk_reaches_every_member_and_ends_the_sessions(member: Make) -> None:
    first, middle, last, bad = [await member(name) for name in ("first", "middle", "last", "bad")]
    session = await bad.wire.connect(last.wire.address, last.peer, timeout=5)
    for one, other in ((first, middle), (middle, last)):
        await one.wire.connect(other.wire.address, other.peer, timeout=5)
    await until(lambda: len(last.wire.sessions()) == 2)
    data = first.revoke(bad.peer)
    await until(lambda: not session.usable)
    assert [node.book.lists()[0].evidence for node in (first, middle, last)] == [data] * 3
    assert last.networks.lists(NETWORK) == [data]  # and stays, over a restart
    assert last.excluded == [frozenset(), frozenset({bad.peer})]
    assert {(drop.reason, drop.peer) for drop in last.dropped} == {(Reason.FORBIDDEN, bad.peer)}
    assert len(middle.wire.sessions()) == 2
    for node in (first, middle, last):
        with pytest.raises(Forbidden, match="revoked"):
            await node.wire.connect(bad.wire.address, bad.peer, timeout=5)


async def test_whoever_comes_later_is_told(member: Make) -> None:
    first = await member("first")
    first.revoke(SOMEBODY)
    await until(lambda: bool(first.book.lists()))
    late = await member("late")
    await late.wire.connect(first.wire.address, first.peer, timeout=5)
    await until(lambda: late.book.revoked() == {SOMEBODY})


async def test_whoever_comes_back_with_a_copy_of_the_past_hears_the_present(member: Make) -> None:
    first, second = await member("first"), await member("second")
    old = revise(OFFICE, NETWORK, None, WallTime(CLOCK.wall() - 1000), [])
    new = first.revoke(SOMEBODY)
    await until(lambda: bool(first.book.lists()))
    second.networks.keep_list(NETWORK, old, CLOCK.wall())
    await until(lambda: bool(second.book.lists()))
    session = await second.wire.connect(first.wire.address, first.peer, timeout=5)
    await session.call(REVOCATIONS.name, codec.encode(Lists([], [old])), timeout=5)
    assert first.book.lists()[0].evidence == new
    assert [(drop.reason, drop.peer) for drop in first.dropped] == [(Reason.REPLAYED, second.peer)]
    assert "an old list" in first.dropped[0].detail
    await until(lambda: second.networks.lists(NETWORK) == [new])


async def test_an_old_list_put_back_on_disk_is_said_to_be_old_and_replaced(member: Make) -> None:
    node = await member("node")
    old = revise(OFFICE, NETWORK, None, WallTime(CLOCK.wall() - 1000), [])
    new = node.revoke(SOMEBODY)
    await until(lambda: bool(node.book.lists()))
    node.networks._write(NETWORK, f"{ROOT.peer}.revocations", old)
    await until(lambda: any(drop.reason is Reason.REPLAYED for drop in node.dropped))
    assert node.book.lists()[0].evidence == new
    await until(lambda: node.networks.lists(NETWORK) == [new])


async def test_a_certificate_that_is_renewed_on_disk_is_shown_from_then_on(member: Make) -> None:
    node = await member("node")
    renewed = admit(OFFICE, NETWORK, node.peer, [Role.RELAY, Role.WORKER], WallTime(CLOCK.wall() + 1), days=2)
    node.networks.keep_admission(NETWORK, renewed, CLOCK.wall())
    await until(lambda: node.book.own == renewed)


async def test_a_forged_list_changes_nothing_and_the_session_goes_on(member: Make) -> None:
    first, second = await member("first"), await member("second")
    session = await second.wire.connect(first.wire.address, first.peer, timeout=5)
    forged = revise(Office(second.identity), NETWORK, None, CLOCK.wall(), [first.peer])
    reply = await session.call(REVOCATIONS.name, codec.encode(Lists([], [forged, b"x"])), timeout=5)
    assert codec.decode(Lists, reply) == Lists([], [])
    assert [drop.reason for drop in first.dropped] == [Reason.UNAUTHENTICATED, Reason.MALFORMED]
    assert session.usable


async def test_more_lists_than_a_network_has_are_not_looked_at(member: Make) -> None:
    first, second = await member("first"), await member("second")
    session = await second.wire.connect(first.wire.address, first.peer, timeout=5)
    for said in (Lists([Edition(SOMEBODY, 1)] * 17, []), Lists([], [b"x"] * 17)):
        with pytest.raises(Oversize):
            await session.call(REVOCATIONS.name, codec.encode(said), timeout=5)
    assert not first.dropped


def test_the_exchange_has_these_bytes() -> None:
    data = codec.encode(Lists([Edition(PeerId(b"p" * 32), 7)], [b"L"]))
    assert data == b"\x92\x91\x92\xc4\x20" + b"p" * 32 + b"\x07\x91\xc4\x01L"


async def test_a_visitor_who_keeps_no_lists_is_left_in_peace(member: Make) -> None:
    node = await member("node")
    identity = Identity(b"visitor".ljust(32, b"."))
    book = Book(NETWORK, admit(OFFICE, NETWORK, identity.peer, [Role.OBSERVER], CLOCK.wall(), days=1))
    visitor = Wire(
        identity=identity, noise_key=NoiseKey(entropy(32)), net=NETWORK.net, clock=CLOCK, entropy=entropy,
        on_dropped=lambda _: None, book=book, port=None,
    )  # fmt: skip
    async with visitor:
        session = await visitor.connect(node.wire.address, node.peer, timeout=5)
        await until(lambda: len(node.wire.sessions()) == 1)
        await session.call(REVOCATIONS.name, codec.encode(Lists([], [])), timeout=5)
    assert not node.dropped
    with pytest.raises(ConnectionLost):
        await session.call(REVOCATIONS.name, b"", timeout=5)
