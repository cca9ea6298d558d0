"""What admission costs: handshakes of closed and open networks, certificates, lists of revocations, sealed datagrams.

    python -m benchmarks.admission

CPU time, both ends counted, in one process; the best of several rounds, since other processes only make a round slower.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from itertools import pairwise
from pathlib import Path

from haif.base import limits
from haif.base.clock import Instant, WallTime
from haif.base.ids import NetKey, PeerId
from haif.base.roles import Role
from haif.dht.envelope import Envelope
from haif.identity.admission import Book, Network, Office, admit, delegate, open_network, revise
from haif.identity.certificate import certify
from haif.identity.keys import Identity, NoiseKey
from haif.identity.networks import Charter
from haif.identity.replay import HandshakeTimes
from haif.identity.service import Networks
from haif.membership.service import Membership
from haif.runtime.clock import SystemClock
from haif.wire.gate import Gate
from haif.wire.handshake import Credentials, Dial, Door, Handshake
from haif.wire.service import Wire
from haif.wire.session import SessionMachine

ROUNDS = 5
HANDSHAKES = 200
WALL, NOW = WallTime(1_800_000_000_000), Instant(100.0)
ROOT, DELEGATE = Identity(b"r" * 32), Identity(b"d" * 32)
NETWORK = Network("acme", closed=True, roots=(ROOT.peer,))
DEPUTY = Office(DELEGATE, delegate(Office(ROOT), NETWORK, DELEGATE.peer, [Role.WORKER], WALL, 90))


def per_second(work: Callable[[], None], count: int) -> float:
    """Of CPU time, in the best round."""
    best = 0.0
    for _ in range(ROUNDS):
        began = time.process_time()
        work()
        best = max(best, count / (time.process_time() - began))
    return best


def certificate(peer: PeerId, office: Office) -> bytes:
    return admit(office, NETWORK, peer, [Role.WORKER], WALL, days=30)


def shake(office: Office | None) -> Callable[[], None]:
    """IK handshakes between two members, or, without an office, in an open network."""

    def credentials() -> Credentials:
        identity, key = Identity(os.urandom(32)), NoiseKey(os.urandom(32))
        book = Book(open_network("a")) if office is None else Book(NETWORK, certificate(identity.peer, office))
        return Credentials(book.net, identity.peer, key, certify(identity, book.net, key.public, WALL), book)

    dialler, listener = credentials(), credentials()

    def work() -> None:
        times = HandshakeTimes(WallTime(0))
        for number in range(HANDSHAKES):
            door = Door(Gate(listener.net, listener.peer, bytes(32), NOW), times, "127.0.0.1")
            dial = Dial(listener.peer, listener.noise_key.public, WALL * 1000 + number)
            one = SessionMachine(Handshake(dialler, dial, entropy=os.urandom, wall=WALL), NOW)
            two = SessionMachine(Handshake(listener, door, entropy=os.urandom, wall=WALL), NOW)
            two.receive(one.outgoing(NOW), NOW)
            one.receive(two.outgoing(NOW), NOW)
            assert one.established, "the dialler is in"
            assert two.established, "and so is the listener"

    return work


def judge(office: Office, *, met: bool) -> Callable[[], None]:
    """Certificates that nobody has seen, others in each round, or the same again and again."""
    peers = [Identity(os.urandom(32)).peer for _ in range(HANDSHAKES * (1 if met else ROUNDS))]
    shown, book = [(peer, certificate(peer, office)) for peer in peers], Book(NETWORK)

    def work() -> None:
        for number in range(HANDSHAKES):
            peer, evidence = shown[number] if met else shown.pop()
            book.judge(peer, evidence, WALL)

    return work


def learn() -> Callable[[], None]:
    """Full lists, each with a higher number than the last."""
    peers = [PeerId(n.to_bytes(32, "big")) for n in range(limits.REVOCATIONS_MAX)]
    book = Book(NETWORK)
    lists = [revise(Office(ROOT), NETWORK, None, WallTime(WALL - n), peers) for n in range(ROUNDS)]

    def work() -> None:
        book.learn(lists.pop(), WALL)

    return work


def sealed(size: int) -> Callable[[], None]:
    envelope, data = Envelope(NetKey(bytes(32))), os.urandom(size)

    def work() -> None:
        for _ in range(HANDSHAKES):
            envelope.open(envelope.seal(data))

    return work


async def chain(folder: Path) -> float:
    """Milliseconds from a list on the first member's disk until the last of eight ends a session because of it."""
    clock, bad = SystemClock(), Identity(os.urandom(32))
    async with AsyncExitStack() as stack:

        async def member(identity: Identity, name: str) -> tuple[Wire, Networks]:
            networks = Networks(folder / name)
            evidence = admit(Office(ROOT), NETWORK, identity.peer, [Role.WORKER], clock.wall(), days=1)
            networks.found(Charter(NETWORK, NetKey(bytes(32))))
            networks.keep_admission(NETWORK, evidence, clock.wall())
            book = Book(NETWORK, evidence)
            wire = Wire(
                identity=identity, noise_key=NoiseKey(os.urandom(32)), net=NETWORK.net, clock=clock,
                entropy=os.urandom, on_dropped=lambda _: None, book=book,
            )  # fmt: skip
            membership = Membership(
                book=book, peer=identity.peer, networks=networks, wire=wire, clock=clock,
                on_dropped=lambda _: None, on_revoked=lambda _: None,
            )  # fmt: skip
            await stack.enter_async_context(wire)
            await stack.enter_async_context(membership)
            return wire, networks

        members = [(each, *await member(each, str(n))) for n, each in enumerate(map(Identity, _seeds(8)))]
        for (_, one, _), (peer, other, _) in pairwise(members):
            await one.connect(other.address, peer.peer, timeout=5)
        visitor, _ = await member(bad, "bad")
        identity, last, _ = members[-1]
        session = await visitor.connect(last.address, identity.peer, timeout=5)
        began = time.perf_counter()
        evidence = revise(Office(ROOT), NETWORK, None, clock.wall(), [bad.peer])
        members[0][2].keep_list(NETWORK, evidence, clock.wall())
        while session.usable:  # noqa: ASYNC110  # to the millisecond
            await asyncio.sleep(0.001)
        return (time.perf_counter() - began) * 1000


def _seeds(count: int) -> list[bytes]:
    return [bytes([number]) * 32 for number in range(1, count + 1)]


def main() -> None:
    sizes = len(certificate(ROOT.peer, Office(ROOT))), len(certificate(ROOT.peer, DEPUTY))
    print(
        f"load {os.getloadavg()[0]:.1f}; a certificate has {sizes[0]} bytes from a root, {sizes[1]} from a delegate\n"
    )
    print("| what | per CPU-second | µs each |\n|---|---|---|")
    for name, work, count in (
        ("IK handshake, open network", shake(None), HANDSHAKES),
        ("IK handshake, closed, both met before", shake(Office(ROOT)), HANDSHAKES),
        ("IK handshake, closed, by a delegate", shake(DEPUTY), HANDSHAKES),
        ("certificate of a root, never seen", judge(Office(ROOT), met=False), HANDSHAKES),
        ("certificate of a delegate, never seen", judge(DEPUTY, met=False), HANDSHAKES),
        ("certificate, seen before", judge(DEPUTY, met=True), HANDSHAKES),
        (f"list with {limits.REVOCATIONS_MAX} entries learnt", learn(), 1),
        ("datagram of 100 bytes sealed and opened", sealed(100), HANDSHAKES),
        ("datagram of 1,200 bytes sealed and opened", sealed(1200), HANDSHAKES),
    ):
        rate = per_second(work, count)
        print(f"| {name} | {rate:,.0f} | {1e6 / rate:,.1f} |")
    took = []
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory() as folder:
            took.append(asyncio.run(chain(Path(folder))))
    said = ", ".join(f"{each:,.0f}" for each in sorted(took))
    print(f"\nfrom a list on disk through a chain of eight members to the end of a session: {said} ms of the clock")
    print(f"(the first member looks at its disk every {limits.NETWORK_LOOK_SECONDS:g} s)")


if __name__ == "__main__":
    main()
