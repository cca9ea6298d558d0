"""Makes the session machines of a wire: who we are in handshakes, and what guards our listener."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from haif.base import limits
from haif.base.clock import Clock, WallTime
from haif.base.ids import NetId
from haif.identity.admission import Book
from haif.identity.certificate import certify
from haif.identity.keys import Identity, NoiseKey
from haif.identity.replay import HandshakeTimes
from haif.wire.gate import Gate
from haif.wire.handshake import Credentials, Dial, Door, Handshake
from haif.wire.session import SessionMachine

_OURS: Final = "127.0.0.1"  # as the gate sees sockets of our own making: like this very machine's


class Machines:
    """`gate` and `times` judge everybody who dials us."""

    def __init__(
        self,
        *,
        identity: Identity,
        noise_key: NoiseKey,
        net: NetId,
        clock: Clock,
        entropy: Callable[[int], bytes],
        book: Book | None,
    ) -> None:
        self.net = net
        self.clock = clock
        self.gate = Gate(net, identity.peer, entropy(32), clock.now())
        self.times = HandshakeTimes(clock.wall())
        self._identity = identity
        self._noise_key = noise_key
        self._entropy = entropy
        self._book = book
        self._certified: tuple[WallTime, bytes] | None = None

    def dialling(self, dial: Dial) -> SessionMachine:
        """The machine of a dial of ours."""
        return self._machine(dial)

    def answering(self, source: str) -> SessionMachine:
        """The machine of somebody who dialled us from this IP address."""
        return self._machine(Door(self.gate, self.times, source))

    def answering_ours(self, _source: str) -> SessionMachine:
        """The machine of somebody at the other end of a socket of our own making."""
        return self.answering(_OURS)

    def certificate(self, wall: WallTime) -> bytes:
        """Our certificate, renewed when half its time is over."""
        if self._certified is None or wall - self._certified[0] > limits.CERTIFICATE_TTL_MS // 2:
            self._certified = (wall, certify(self._identity, self.net, self._noise_key.public, wall))
        return self._certified[1]

    def _machine(self, way: Dial | Door) -> SessionMachine:
        wall = self.clock.wall()
        credentials = Credentials(self.net, self._identity.peer, self._noise_key, self.certificate(wall), self._book)
        return SessionMachine(Handshake(credentials, way, entropy=self._entropy, wall=wall), self.clock.now())
