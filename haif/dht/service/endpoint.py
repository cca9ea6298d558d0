"""A directory node on a UDP socket: it is given what arrives, what it wants to say is sent, and it is woken in time."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any, Final, TypeVar

from haif.base import limits
from haif.base.clock import Clock, Instant
from haif.base.errors import ConnectionLost, Dropped, Unauthenticated
from haif.base.machine import Address
from haif.dht.crossing import Carry, Elsewhere
from haif.dht.envelope import Envelope
from haif.dht.node import Node
from haif.dht.operations import Changed, Event, Found, Gathered, Stored

_DRAIN_DATAGRAMS: Final = 64  # read per turn of the event loop, so that other tasks keep their turn
_RECEIVE_BYTES: Final = limits.DATAGRAM_BYTES_MAX + 1  # one more shows that a datagram is too long
_SOCKET_BYTES: Final = 1 << 20  # what the kernel keeps for us while we verify signatures
_CLOSED: Final = "the directory node was closed; open it again before asking it anything"

EventT = TypeVar("EventT", Found, Stored, Gathered)
News = Changed | Carry | Elsewhere
"""What is no outcome of an operation."""


async def bind(host: str, port: int) -> socket.socket:
    """A UDP socket at this address, of its family alone."""
    loop = asyncio.get_running_loop()
    family, _, _, _, address = (await loop.getaddrinfo(host, port, type=socket.SOCK_DGRAM))[0]
    udp = socket.socket(family, socket.SOCK_DGRAM)
    try:
        udp.setblocking(False)
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SOCKET_BYTES)
        if family == socket.AF_INET6:
            udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # an IPv4 address inside one is nobody's here
        udp.bind(address)
    except BaseException:
        udp.close()
        raise
    return udp


class Endpoint:
    """Runs a node on a bound socket until closed; the socket is closed with it. `envelope`: a closed network's."""

    def __init__(
        self,
        udp: socket.socket,
        node: Node,
        clock: Clock,
        on_dropped: Callable[[Dropped], None],
        on_news: Callable[[News], None],
        envelope: Envelope | None = None,
    ) -> None:
        self.address: Address = udp.getsockname()[:2]
        self.unsent = 0  # datagrams that the operating system would not take
        self._socket, self._node, self._clock = udp, node, clock
        self._on_dropped, self._on_news = on_dropped, on_news
        self._envelope = envelope
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[int, tuple[type[Any], asyncio.Future[Any]]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._alarm = Instant(0.0)  # when the timer rings: perhaps before the node wants to be woken, never after
        self._closed = False
        self._loop.add_reader(udp, self._readable)

    def outcome(self, kind: type[EventT], number: int) -> asyncio.Future[EventT]:
        """How the operation with this number ends: to be called as soon as it has begun, and awaited at any time.

        Raises `ConnectionLost` once closed.
        """
        if self._closed:
            raise ConnectionLost(_CLOSED)
        future: asyncio.Future[EventT] = self._loop.create_future()
        self._waiting[number] = kind, future
        future.add_done_callback(lambda _: self._waiting.pop(number, None))
        self.pump()
        return future

    async def resolve(self, address: Address) -> Address:
        """The literal address of a name, of the family of this socket."""
        found = await self._loop.getaddrinfo(*address, family=self._socket.family, type=socket.SOCK_DGRAM)
        host, port = found[0][4][:2]
        return str(host), int(port)

    def pump(self) -> None:
        """Send, tell, and set the alarm."""
        now = self._clock.now()
        for data, address in self._node.outgoing(now):
            try:
                self._socket.sendto(data if self._envelope is None else self._envelope.seal(data), address)
            except OSError:
                self.unsent += 1  # as if lost on the way
        while (event := self._node.next_event()) is not None:
            self._tell(event)
        wake_at = self._node.wake_at()
        if wake_at is not None and (self._timer is None or wake_at < self._alarm):
            if self._timer is not None:
                self._timer.cancel()
            self._alarm = wake_at
            self._timer = self._loop.call_later(max(0.0, wake_at - now), self._wake)

    def close(self) -> None:
        """Close the socket; whoever waits is told."""
        if self._timer is not None:
            self._timer.cancel()
        self._loop.remove_reader(self._socket)
        self._socket.close()
        self._closed = True
        for _, future in self._waiting.values():
            if not future.done():
                future.set_exception(ConnectionLost(_CLOSED))

    def _readable(self) -> None:
        for _ in range(_DRAIN_DATAGRAMS):
            try:
                data, source = self._socket.recvfrom(_RECEIVE_BYTES)
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                continue  # an ICMP error for something we sent: its query will time out
            self._receive(data, source[:2])
        self.pump()

    def _receive(self, data: bytes, source: Address) -> None:
        if self._envelope is not None:
            try:
                data = self._envelope.open(data)
            except Unauthenticated as stranger:
                self._node.counters.dropped[stranger.reason] += 1
                self._on_dropped(Dropped(stranger.reason, None, f"from {source[0]}:{source[1]}: {stranger.message}"))
                return
        self._node.receive(data, source, self._clock.now())

    def _wake(self) -> None:
        self._timer = None
        self._node.wake(self._clock.now())
        self.pump()

    def _tell(self, event: Event) -> None:
        if isinstance(event, Dropped):
            self._on_dropped(event)
        elif isinstance(event, News):
            self._on_news(event)
        elif (waiting := self._waiting.get(event.number)) is not None and not waiting[1].done():
            kind, future = waiting
            assert isinstance(event, kind), "an operation ends in its own kind of event"
            future.set_result(event)
