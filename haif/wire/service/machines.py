"""Makes the session machines of a wire: who we are in handshakes, and what guards our listener."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from haif.base.clock import Clock, WallTime
from haif.base.ids import NetId
from haif.identity.admission import Book
from haif.identity.keys import Identity, NoiseKey
from haif.identity.replay import HandshakeTimes
from haif.wire.gate import Gate
from haif.wire.handshake import Credentials, Dial, Door, Handshake
from haif.wire.session import SessionMachine
from haif.wire.statics import Statics

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
        self._entropy = entropy
        self._book = book
        self.statics = Statics(identity, net, noise_key, entropy)

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
        """The certificate of the static key we show now."""
        return self.statics.at(wall)[0].certificate

    def _machine(self, way: Dial | Door) -> SessionMachine:
        wall = self.clock.wall()
        newest, *former = self.statics.at(wall)
        credentials = Credentials(
            self.net, self._identity.peer, newest.key, newest.certificate, self._book, former[0] if former else None
        )
        return SessionMachine(Handshake(credentials, way, entropy=self._entropy, wall=wall), self.clock.now())
