"""Nodes of the same network nearby, found by multicast: one hop, IPv4 or IPv6 as the address is that the node has.

We say where we are every half minute, and every few seconds while we know nobody. Nobody answers a beacon: whoever
hears a new one pings its node. Where the system offers no multicast, that is reported, and the node goes on without.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from haif.base import limits
from haif.base.clock import Clock
from haif.base.errors import Dropped, Overloaded, PeerFault, Reason, Refusal
from haif.base.ids import NetId
from haif.base.machine import Address
from haif.dht.beacon import BEACON_BYTES, concerns, open_beacon, sign_beacon
from haif.dht.contact import Contact
from haif.dht.envelope import OVERHEAD_BYTES, Envelope
from haif.dht.service.multicast import join
from haif.identity.keys import Identity
from haif.policy.bucket import Bucket

_RECEIVE_BYTES: Final = BEACON_BYTES + OVERHEAD_BYTES + 1
_DRAIN_BEACONS: Final = 16  # read per turn of the event loop


class Lan:
    """Says and hears beacons until closed. `found` is told of each node that says it is there.

    `host` is an address of this machine in the local network, `listening` where our node takes datagrams.
    """

    def __init__(
        self,
        identity: Identity,
        net: NetId,
        clock: Clock,
        entropy: Callable[[int], bytes],
        *,
        host: str,
        listening: int,
        envelope: Envelope | None,
        found: Callable[[Contact], None],
        on_dropped: Callable[[Dropped], None],
    ) -> None:
        self._identity, self._net, self._clock, self._entropy = identity, net, clock, entropy
        self._host, self._at, self._envelope = host, listening, envelope
        self._found, self._on_dropped = found, on_dropped
        self._bucket = Bucket.full(
            capacity=limits.LAN_BEACONS_BURST, rate=limits.LAN_BEACONS_PER_SECOND, now=clock.now()
        )
        self._speaking: list[socket.socket] = []
        self._hearing: list[socket.socket] = []

    def open(self) -> bool:
        """Begin to listen; False, and reported, where the system does not offer it."""
        try:
            self._speaking, self._hearing = join(self._host)
        except OSError as error:
            self._on_dropped(Dropped(Reason.UNSUPPORTED, None, f"no multicast on {self._host}: {error}"))
            return False
        for hearing in self._hearing:
            asyncio.get_running_loop().add_reader(hearing, self._readable, hearing)
        return True

    async def say_forever(self, *, is_silent: Callable[[], bool], is_alone: Callable[[], bool]) -> None:
        """Say where we are, until cancelled, whenever we want to be relied upon; more often while we are alone."""
        while True:
            if not is_silent():
                self._say()
            seconds = limits.LAN_ALONE_SECONDS if is_alone() else limits.LAN_SECONDS
            await asyncio.sleep(seconds * (0.8 + 0.4 * self._entropy(1)[0] / 255))

    def close(self) -> None:
        """Be silent, and deaf."""
        for each in [*self._hearing, *self._speaking]:
            asyncio.get_running_loop().remove_reader(each)
            each.close()
        self._hearing, self._speaking = [], []

    def _say(self) -> None:
        beacon = sign_beacon(self._identity, self._net, self._at, self._clock.wall())
        sealed = self._envelope.seal(beacon) if self._envelope else beacon
        for each in self._speaking:
            with suppress(OSError):  # an interface that is down, or is not this address's: as if nobody heard
                each.send(sealed)

    def _readable(self, hearing: socket.socket) -> None:
        for _ in range(_DRAIN_BEACONS):
            try:
                data, source = hearing.recvfrom(_RECEIVE_BYTES)
            except OSError:
                return
            self._hear(data, source[:2])

    def _hear(self, data: bytes, source: Address) -> None:
        try:
            beacon = self._envelope.open(data) if self._envelope else data
            if not concerns(beacon, self._net) or beacon[13:45] == self._identity.peer:
                return  # another network's, or our own
            self._bucket, answer = self._bucket.take(1, self._clock.now())
            if not answer.allowed:
                raise Overloaded("more beacons than a local network has nodes")
            self._found(open_beacon(beacon, source, own=self._host, net=self._net, now=self._clock.wall()))
        except (PeerFault, Refusal) as fault:
            peer = fault.peer if isinstance(fault, PeerFault) else None
            self._on_dropped(Dropped(fault.reason, peer, f"beacon from {source[0]}: {fault.message}"))
