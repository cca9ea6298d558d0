"""Nodes of the same network nearby, found by multicast: IPv4, one hop, on the interface the node is bound to.

We say where we are every half minute, and every few seconds while we know nobody. Nobody answers a beacon: whoever
hears a new one pings its node. Where the system offers no multicast, that is reported, and the node goes on without.
There is none of this for IPv6: most hosts have a global address, which no beacon may name (`beacon`), and a link-local
one, which means nothing without the interface it was heard on.
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
from haif.identity.keys import Identity
from haif.policy.bucket import Bucket

GROUP: Final = "239.255.72.65"  # administratively scoped to the site (RFC 2365); "H" and "A"
PORT: Final = 47265
_RECEIVE_BYTES: Final = BEACON_BYTES + OVERHEAD_BYTES + 1
_DRAIN_BEACONS: Final = 16  # read per turn of the event loop


class Lan:
    """Says and hears beacons until closed. `found` is told of each node that says it is there."""

    def __init__(
        self,
        identity: Identity,
        net: NetId,
        clock: Clock,
        entropy: Callable[[int], bytes],
        *,
        at: Address,
        envelope: Envelope | None,
        found: Callable[[Contact], None],
        on_dropped: Callable[[Dropped], None],
        port: int = PORT,
    ) -> None:
        self._identity, self._net, self._clock, self._entropy = identity, net, clock, entropy
        self._host, self._at, self._envelope = at[0], at[1], envelope
        self._found, self._on_dropped = found, on_dropped
        self._port = port
        self._bucket = Bucket.full(
            capacity=limits.LAN_BEACONS_BURST, rate=limits.LAN_BEACONS_PER_SECOND, now=clock.now()
        )
        self._sockets: list[socket.socket] = []

    def open(self) -> bool:
        """Begin to listen; False, and reported, where the system does not offer it."""
        try:
            self._speaking = self._speaker()
            self._hearing = self._listener()
        except OSError as error:
            self.close()
            self._on_dropped(Dropped(Reason.UNSUPPORTED, None, f"no multicast on {self._host}: {error}"))
            return False
        asyncio.get_running_loop().add_reader(self._hearing, self._readable)
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
        for each in self._sockets:
            asyncio.get_running_loop().remove_reader(each)
            each.close()
        self._sockets.clear()

    def _say(self) -> None:
        beacon = sign_beacon(self._identity, self._net, self._at, self._clock.wall())
        sealed = self._envelope.seal(beacon) if self._envelope else beacon
        with suppress(OSError):  # an interface that is down: as if nobody heard
            self._speaking.sendto(sealed, (GROUP, self._port))

    def _readable(self) -> None:
        for _ in range(_DRAIN_BEACONS):
            try:
                data, source = self._hearing.recvfrom(_RECEIVE_BYTES)
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
            self._found(open_beacon(beacon, source, net=self._net, now=self._clock.wall()))
        except (PeerFault, Refusal) as fault:
            peer = fault.peer if isinstance(fault, PeerFault) else None
            self._on_dropped(Dropped(fault.reason, peer, f"beacon from {source[0]}: {fault.message}"))

    def _speaker(self) -> socket.socket:
        udp = self._socket()
        udp.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(self._host))
        udp.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 1)
        udp.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 1)  # other nodes of this machine hear it
        udp.bind((self._host, 0))
        return udp

    def _listener(self) -> socket.socket:
        udp = self._socket()
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        udp.bind((GROUP, self._port))
        membership = socket.inet_aton(GROUP) + socket.inet_aton(self._host)
        udp.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
        return udp

    def _socket(self) -> socket.socket:
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._sockets.append(udp)
        udp.setblocking(False)
        return udp
