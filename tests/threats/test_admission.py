"""Who the network does not admit gets nowhere: threats H-S1, H-S2 and N-12 of docs/threats.md, at the wire.

Each attack is tried from both ends and under both handshake patterns.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from haif.base import limits
from haif.base.clock import WallTime
from haif.base.errors import ConnectionLost, Dropped, Forbidden, Reason, Replayed, Timeout, Unauthenticated
from haif.base.ids import ModelDigest, NetKey, PeerId
from haif.base.machine import Address
from haif.base.roles import Role
from haif.dht.service import Dht
from haif.dht.watch import What
from haif.identity.admission import DAY_MS, Book, Network, Office, admit, delegate, revise
from haif.identity.certificate import certify
from haif.identity.keys import Identity, NoiseKey
from haif.protocol import methods
from haif.protocol.records import RecordKind, offer_topic
from haif.runtime.clock import SystemClock, entropy
from haif.wire.handshake import Credentials, Handshake
from haif.wire.service import Call, Wire
from tests.support.wire_pair import CLIENT, CLIENT_KEY, SERVER, SERVER_KEY, WALL, Pair, dialling, listening

ROOT, DELEGATE, STRANGER = (Identity(bytes([n]) * 32) for n in (1, 2, 3))
NETWORK = Network("acme", closed=True, roots=(ROOT.peer,))
NET = NETWORK.net
OTHER = Network("other", closed=True, roots=(ROOT.peer,))
OFFICE = Office(ROOT)
WORKERS, GATEWAYS = frozenset({Role.WORKER}), frozenset({Role.GATEWAY})
CLOCK = SystemClock()


def certificate(peer: PeerId, office: Office = OFFICE, network: Network = NETWORK, days: int = 30, ago: int = 0,
                roles: frozenset[Role] = WORKERS) -> bytes:  # fmt: skip
    return admit(office, network, peer, roles, WallTime(WALL - ago * DAY_MS), days=days)


def credentials(identity: Identity, key: NoiseKey, admission: bytes) -> Credentials:
    """A liar's book shows what it was given, whether it holds or not."""
    book = Book(NETWORK, admission)
    book.certificate = lambda now: admission  # type: ignore[method-assign]
    return Credentials(NET, identity.peer, key, certify(identity, NET, key.public, WALL), book)


def pair(client: bytes, server: bytes, pattern: str) -> Pair:
    known = SERVER_KEY if pattern == "IK" else None
    dialler: Handshake = dialling(own=credentials(CLIENT, CLIENT_KEY, client), known=known)
    return Pair(dialler, listening(credentials(SERVER, SERVER_KEY, server)))


@pytest.fixture(params=["IK", "XX"])
def pattern(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def deputy(who: Identity = DELEGATE) -> Office:
    """A delegate for workers, or a thief of its delegation."""
    return Office(who, delegate(OFFICE, NETWORK, DELEGATE.peer, WORKERS, WALL, 90))


def beyond(peer: PeerId) -> bytes:
    return certificate(peer, deputy(), roles=frozenset({Role.ORCHESTRATOR}))


ATTACKS = {
    "a stranger": (lambda _: b"", Reason.UNAUTHENTICATED),
    "expired": (lambda peer: certificate(peer, days=9, ago=10), Reason.EXPIRED),
    "not yet": (lambda peer: certificate(peer, ago=-1), Reason.EXPIRED),
    "another network's": (lambda peer: certificate(peer, network=OTHER), Reason.UNAUTHENTICATED),
    "another peer's": (lambda _: certificate(STRANGER.peer), Reason.UNAUTHENTICATED),
    "a forged issuer": (lambda peer: certificate(peer, Office(STRANGER)), Reason.UNAUTHENTICATED),
    "a stolen delegation": (lambda peer: certificate(peer, deputy(STRANGER)), Reason.UNAUTHENTICATED),
    "beyond the delegate's roles": (beyond, Reason.FORBIDDEN),
    "one bit changed": (lambda peer: certificate(peer)[:-1] + b"\0", Reason.BAD_SIGNATURE),
    "garbage": (lambda _: b"\xd2" * 300, Reason.MALFORMED),
}  # fmt: skip


def test_h_s2_those_whom_the_network_admits_meet_under_either_pattern_and_know_each_others_roles(pattern: str) -> None:
    both = pair(certificate(CLIENT.peer, roles=GATEWAYS), certificate(SERVER.peer, deputy()), pattern)
    both.settle()
    client, server = both.client.established, both.server.established
    assert client is not None
    assert server is not None
    assert (client.roles, server.roles) == (WORKERS, GATEWAYS)


@pytest.mark.parametrize("attack", ATTACKS)
def test_h_s2_nobody_dials_in_without_a_certificate_that_holds(attack: str, pattern: str) -> None:
    shown, reason = ATTACKS[attack]
    both = pair(shown(CLIENT.peer), certificate(SERVER.peer), pattern)
    both.settle()
    assert both.server.established is None
    assert both.server.closed is not None
    assert both.server.closed.reason is reason
    if reason is not Reason.MALFORMED:  # who does not speak our protocol is told nothing
        assert both.client.closed is not None
        assert both.client.closed.reason is reason
        assert "the peer says" in str(both.client.closed)


@pytest.mark.parametrize("attack", ATTACKS)
def test_h_s1_nobody_answers_without_a_certificate_that_holds(attack: str, pattern: str) -> None:
    shown, reason = ATTACKS[attack]
    both = pair(certificate(CLIENT.peer), shown(SERVER.peer), pattern)
    both.settle()
    assert both.client.established is None
    assert both.client.closed is not None
    assert both.client.closed.reason is reason


def test_the_certificate_of_admission_is_never_in_the_clear(pattern: str) -> None:
    shown = certificate(CLIENT.peer), certificate(SERVER.peer)
    both = pair(*shown, pattern)
    sent = b""
    for _ in range(4):
        for source, target in ((both.client, both.server), (both.server, both.client)):
            data = source.outgoing(both.now)
            sent += data
            target.receive(data, both.now)
    assert both.client.established
    assert both.server.established
    assert not any(evidence[40:80] in sent for evidence in shown)


# --- on real sockets --------------------------------------------------------------------------------------------------


class Drops(list[Dropped]):
    def __call__(self, event: Dropped) -> None:
        self.append(event)


def book(peer: PeerId, *roles: Role, network: Network = NETWORK) -> Book:
    return Book(network, admit(OFFICE, network, peer, roles, CLOCK.wall(), days=1) if roles else b"")


def wire(identity: Identity, known: Book, *, port: int | None = None, drops: Drops | None = None) -> Wire:
    return Wire(
        identity=identity, noise_key=NoiseKey(entropy(32)), net=known.net, clock=CLOCK, entropy=entropy,
        on_dropped=drops if drops is not None else Drops(), port=port, book=known,
    )  # fmt: skip


async def answer(call: Call) -> bytes:
    return call.argument


async def forever(call: Call) -> bytes:
    await asyncio.Event().wait()
    return call.argument


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


async def test_h_s2_a_method_for_gateways_is_refused_to_a_worker_of_a_closed_network(stack: AsyncExitStack) -> None:
    drops = Drops()
    server = await stack.enter_async_context(wire(SERVER, book(SERVER.peer, Role.ORCHESTRATOR), port=0, drops=drops))
    server.serve(methods.SUBMIT.name, answer, methods.SUBMIT.terms)
    server.serve(methods.MODELS.name, answer, methods.MODELS.terms)
    client = await stack.enter_async_context(wire(CLIENT, book(CLIENT.peer, Role.WORKER, Role.OBSERVER)))
    session = await client.connect(server.address, SERVER.peer, timeout=5)
    with pytest.raises(Forbidden, match=r"jobs\.submit is for gateway; you were admitted as observer, worker"):
        await session.call(methods.SUBMIT.name, b"", timeout=5)
    assert [(event.reason, event.peer) for event in drops] == [(Reason.FORBIDDEN, CLIENT.peer)]
    assert await session.call(methods.MODELS.name, b"still here", timeout=5) == b"still here"

    gateway = await stack.enter_async_context(wire(STRANGER, book(STRANGER.peer, Role.GATEWAY)))
    session = await gateway.connect(server.address, SERVER.peer, timeout=5)
    assert await session.call(methods.SUBMIT.name, b"mine", timeout=5) == b"mine"


async def test_in_an_open_network_roles_are_not_asked_for(stack: AsyncExitStack) -> None:
    network = Network("acme", closed=False, roots=(ROOT.peer,))
    server = await stack.enter_async_context(wire(SERVER, Book(network), port=0))
    server.serve(methods.SUBMIT.name, answer, methods.SUBMIT.terms)
    client = await stack.enter_async_context(wire(CLIENT, book(CLIENT.peer, Role.WORKER, network=network)))
    session = await client.connect(server.address, SERVER.peer, timeout=5)
    assert await session.call(methods.SUBMIT.name, b"mine", timeout=5) == b"mine"


async def test_n_12_a_stranger_who_knows_name_and_roots_of_a_closed_network_stays_outside(
    stack: AsyncExitStack,
) -> None:
    server = await stack.enter_async_context(wire(SERVER, book(SERVER.peer, Role.WORKER), port=0))
    stranger = await stack.enter_async_context(wire(STRANGER, Book(NETWORK)))
    for certificate in (b"", server.certificate):  # XX, refused after its last message, and IK
        with pytest.raises(Unauthenticated, match="haif network admit"):
            await stranger.connect(server.address, SERVER.peer, timeout=5, certificate=certificate)
    assert server.statistics().sessions == stranger.statistics().sessions == 0


@pytest.mark.parametrize("whom", ["the dialler", "the listener"])
async def test_h_s2_a_peer_that_is_revoked_while_connected_loses_its_session_and_gets_no_other(
    stack: AsyncExitStack, whom: str
) -> None:
    books = book(SERVER.peer, Role.WORKER), book(CLIENT.peer, Role.GATEWAY)
    server = await stack.enter_async_context(wire(SERVER, books[0], port=0))
    client = await stack.enter_async_context(wire(CLIENT, books[1]))
    server.serve("held", forever)
    session = await client.connect(server.address, SERVER.peer, timeout=5)
    call = asyncio.create_task(session.call("held", b"", timeout=60))
    await asyncio.sleep(0)
    judge, judged = (server, CLIENT.peer) if whom == "the dialler" else (client, SERVER.peer)
    judge._book.learn(revise(OFFICE, NETWORK, None, CLOCK.wall(), [judged]), CLOCK.wall())
    assert session.usable
    judge.review()
    with pytest.raises(ConnectionLost):
        await call
    assert judge.statistics().sessions == 0
    with pytest.raises(Forbidden, match="revoked"):
        await client.connect(server.address, SERVER.peer, timeout=5)


async def test_h_s2_a_list_of_the_past_lets_nobody_back_in(stack: AsyncExitStack) -> None:
    """Rollback: a revoked peer, or whoever restores a backup, brings the list from before."""
    known, now = book(SERVER.peer, Role.WORKER), CLOCK.wall()
    before = revise(OFFICE, NETWORK, None, WallTime(now - 1000), [])
    after = revise(OFFICE, NETWORK, None, now, [CLIENT.peer])
    known.learn(before, now)
    known.learn(after, now)
    for old in (before, revise(OFFICE, NETWORK, None, now, [])):  # an older one, and another of the same number
        with pytest.raises(Replayed, match="an old list"):
            known.learn(old, now)
    server = await stack.enter_async_context(wire(SERVER, known, port=0))
    client = await stack.enter_async_context(wire(CLIENT, book(CLIENT.peer, Role.GATEWAY)))
    client._book.own = admit(OFFICE, NETWORK, CLIENT.peer, GATEWAYS, WallTime(now - 500), days=1)
    with pytest.raises(Forbidden, match="revoked"):
        await client.connect(server.address, SERVER.peer, timeout=5, certificate=server.certificate)


async def test_a_session_ends_when_the_certificate_behind_it_does(stack: AsyncExitStack) -> None:
    server = await stack.enter_async_context(wire(SERVER, book(SERVER.peer, Role.WORKER), port=0))
    client = await stack.enter_async_context(wire(CLIENT, book(CLIENT.peer, Role.GATEWAY)))
    session = await client.connect(server.address, SERVER.peer, timeout=5)
    server.review()
    assert session.usable

    class Tomorrow(SystemClock):
        def wall(self) -> WallTime:
            return WallTime(super().wall() + 2 * DAY_MS)

    server.clock = Tomorrow()
    server.review()
    assert server.statistics().sessions == 0
    assert server.statistics().dropped[Reason.EXPIRED] == 1


# --- the directory ----------------------------------------------------------------------------------------------------

KEY = NetKey(b"k" * 32)
TOPIC = offer_topic(NET, ModelDigest(b"m" * 32))


def dht(identity: Identity, key: NetKey | None, *bootstrap: Address, drops: Drops | None = None) -> Dht:
    return Dht(
        identity=identity, net=NET, clock=CLOCK, entropy=entropy, bootstrap=bootstrap, key=key,
        on_dropped=drops if drops is not None else Drops(),
    )  # fmt: skip


async def test_n_12_a_closed_networks_directory_is_deaf_and_dumb_to_strangers(
    stack: AsyncExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "DHT_JOIN_SECONDS", 0.3)
    drops = Drops()
    first = await stack.enter_async_context(dht(SERVER, KEY, drops=drops))
    member = await stack.enter_async_context(dht(CLIENT, KEY, first.address))
    await member.publish(RecordKind.OFFER, TOPIC, b"here", ttl_ms=60_000)
    assert [record.payload.body for record in await first.lookup(TOPIC)] == [b"here"]
    sent = first.statistics().datagrams_out
    for key in (None, NetKey(b"o" * 32)):  # who knows no key, and who knows another network's
        with pytest.raises(Timeout):
            await stack.enter_async_context(dht(STRANGER, key, first.address))
    assert first.statistics().datagrams_out == sent
    assert {drop.reason for drop in drops} == {Reason.UNAUTHENTICATED}
    assert first.statistics().dropped[Reason.UNAUTHENTICATED] == len(drops) > 0
    assert first.statistics().contacts == 1


async def test_what_a_revoked_peer_announces_is_not_passed_on_to_whoever_looks(stack: AsyncExitStack) -> None:
    first = await stack.enter_async_context(dht(SERVER, KEY))
    revoked = await stack.enter_async_context(dht(CLIENT, KEY, first.address))
    await revoked.publish(RecordKind.OFFER, TOPIC, b"here", ttl_ms=60_000)
    assert len(await first.lookup(TOPIC)) == first.statistics().contacts == 1
    changes = first.watch(TOPIC)
    assert (await anext(changes)).what is What.ADDED
    first.exclude(frozenset({CLIENT.peer}))
    assert (await anext(changes)).what is What.GONE
    await revoked.find(TOPIC)  # it asks, and asks to be taken for a contact
    assert len(await first.lookup(TOPIC)) == first.statistics().contacts == 0
    first.exclude(frozenset())
    assert (await anext(changes)).what is What.ADDED
    assert len(await first.lookup(TOPIC)) == 1
