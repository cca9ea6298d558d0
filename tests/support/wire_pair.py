"""Two session machines back to back, with a clock that is moved by hand and no socket in between."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from haif.base import limits
from haif.base.clock import Deadline, Instant, WallTime
from haif.base.errors import HaifError
from haif.base.ids import NetId, PeerId
from haif.identity.certificate import certify
from haif.identity.keys import Identity, NoiseKey
from haif.identity.replay import HandshakeTimes
from haif.wire.events import Event
from haif.wire.frames import Kind, frame, request_head
from haif.wire.gate import Gate
from haif.wire.handshake import Credentials, Dial, Door, Handshake
from haif.wire.opening import LENGTH
from haif.wire.session import SessionMachine

NET = NetId(b"n" * 32)
WALL = WallTime(1_800_000_000_000)
CLIENT = Identity(b"c" * 32)
SERVER = Identity(b"s" * 32)
CLIENT_KEY = NoiseKey(b"C" * 32)
SERVER_KEY = NoiseKey(b"S" * 32)


def entropy(seed: int = 0) -> Callable[[int], bytes]:
    """Bytes that are different each time and the same on every run."""
    counter = itertools.count(seed * 1000 + 1)
    return lambda count: next(counter).to_bytes(count, "little")


def credentials(identity: Identity, key: NoiseKey, net: NetId = NET, wall: WallTime = WALL) -> Credentials:
    return Credentials(net, identity.peer, key, certify(identity, net, key.public, wall))


def dialling(
    expected: PeerId = SERVER.peer,
    own: Credentials | None = None,
    *,
    known: NoiseKey | None = None,
    made_us: int = WALL * 1000,
    ticket: bytes = b"",
    seed: int = 1,
) -> Handshake:
    """A dialler's handshake: IK if the responder's key is `known`, else XX."""
    own = own or credentials(CLIENT, CLIENT_KEY)
    dial = Dial(expected, known.public if known else None, made_us, ticket)
    return Handshake(own, dial, entropy=entropy(seed), wall=WALL)


def door(own: Credentials | None = None, source: str = "192.0.2.1") -> Door:
    own = own or credentials(SERVER, SERVER_KEY)
    return Door(Gate(own.net, own.peer, b"k" * 32, Instant(100.0)), HandshakeTimes(WallTime(WALL - 3600_000)), source)


def listening(own: Credentials | None = None, at: Door | None = None, seed: int = 2) -> Handshake:
    own = own or credentials(SERVER, SERVER_KEY)
    return Handshake(own, at or door(own), entropy=entropy(seed), wall=WALL)


def impostor(own: Credentials, whom: PeerId = SERVER.peer) -> Handshake:
    """A responder that pretends to be `whom` and shows what it has."""
    return listening(Credentials(own.net, whom, own.noise_key, own.certificate))


class Pair:
    """A client and a server. `settle` carries bytes to and fro until both are quiet; events gather in lists."""

    def __init__(self, client: Handshake | None = None, server: Handshake | None = None) -> None:
        self.now = Instant(100.0)
        self.client = SessionMachine(client or dialling(), self.now)
        self.server = SessionMachine(server or listening(), self.now)
        self.heard_client: list[Event] = []
        self.heard_server: list[Event] = []

    def settle(self, piece: int = 1 << 20) -> None:
        """Carry everything, at most `piece` bytes at a time."""
        while self._carry(self.client, self.server, piece) | self._carry(self.server, self.client, piece):
            pass
        self.gather()

    def gather(self) -> None:
        for machine, heard in ((self.client, self.heard_client), (self.server, self.heard_server)):
            while (event := machine.next_event()) is not None:
                heard.append(event)

    def _carry(self, source: SessionMachine, target: SessionMachine, piece: int) -> bool:
        data = source.outgoing(self.now)
        for start in range(0, len(data), piece):
            target.receive(data[start : start + piece], self.now)
        return bool(data)

    def call(self, method: str = "m", argument: bytes = b"", seconds: float = 10.0, **options) -> int:
        return self.client.rpc.call(method, argument, Deadline.after(seconds, self.now), self.now, **options)

    def wait(self, seconds: float) -> None:
        """Let time pass, waking both sides as they asked to be, but carry nothing."""
        self.now = Instant(self.now + seconds)
        self.client.wake(self.now)
        self.server.wake(self.now)
        self.gather()

    def forge(self, plaintext: bytes, *, to: str = "server") -> HaifError | None:
        """Have one side send a plaintext of the test's making, properly sealed; why the other closed, if it did."""
        source, target = (self.client, self.server) if to == "server" else (self.server, self.client)
        sealed = source._channel.sealer.seal(plaintext)
        target.receive(LENGTH.pack(len(sealed)) + sealed, self.now)
        self.gather()
        return target.closed


def opened() -> Pair:
    """A pair whose handshake is done and told."""
    pair = Pair()
    pair.settle()
    assert pair.client.established
    assert pair.server.established
    pair.heard_client.clear()
    pair.heard_server.clear()
    return pair


def req(stream: int, size: int, piece: bytes = b"", kind: Kind = Kind.REQ, timeout_ms: int = 1000) -> bytes:
    """The bytes of a REQ or OPEN frame."""
    return frame(kind, stream, request_head(size, timeout_ms, "m", None) + piece)


def told(events: list[Event], kind: type) -> list[Event]:
    return [event for event in events if isinstance(event, kind)]


MESSAGE_MAX = limits.MESSAGE_BYTES_MAX
