"""The product's own loop as a driver: `dht.service.endpoint` on a socket that plays a script, in virtual time."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

from haif.base.clock import Instant, WallTime
from haif.base.machine import Address
from haif.dht.node import Node
from haif.dht.service.endpoint import Endpoint
from haif.testing.replay import Input, Sent, VirtualLoop
from haif.testing.world import WALL_AT_START

_HERE: Final = ("120.0.0.1", 4000)


class _Script(socket.socket):
    """What is put here arrives, from whom it says, and what is sent is noted. The descriptor is one end of a pair."""

    def __init__(self, clock: _LoopClock) -> None:
        ours, self._bell = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        super().__init__(fileno=ours.detach())
        self.setblocking(False)
        self._clock = clock
        self._arrived: deque[tuple[bytes, Address]] = deque()
        self.sent: list[Sent] = []

    def put(self, data: bytes, source: Address) -> None:
        """A datagram arrives."""
        self._arrived.append((data, source))
        self._bell.send(b"!")

    def getsockname(self) -> Address:
        return _HERE

    def recvfrom(self, size: int, flags: int = 0) -> tuple[bytes, Any]:
        self.recv(1, flags)  # as the system: raises where nothing is there
        data, source = self._arrived.popleft()
        return data[:size], source

    def sendto(self, data: bytes, address: Address) -> int:  # type: ignore[override]
        self.sent.append(Sent(self._clock.now(), bytes(data), address))
        return len(data)

    def close(self) -> None:
        self._bell.close()
        super().close()


class _LoopClock:
    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def now(self) -> Instant:
        return Instant(self._loop.time())

    def wall(self) -> WallTime:
        return WallTime(WALL_AT_START + int(1000 * self.now()))


class _Owner:
    """A node to its owner; what others send to it goes through the socket."""

    def __init__(self, node: Node, script: _Script) -> None:
        self._node, self._script = node, script

    def receive(self, data: bytes, source: Address, now: Instant) -> None:  # noqa: ARG002 - the socket has its own clock
        self._script.put(data, source)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._node, name)


def by_endpoint(node: Node, inputs: Sequence[Input], *, seconds: float) -> list[Sent]:
    """Drive a node as `Dht` does. Times are those of the loop, which adds up what it waited: equal but for rounding."""

    async def main() -> None:
        endpoint = Endpoint(script, node, clock, lambda _: None, lambda _: None)
        endpoint.pump()
        try:
            for each in inputs:
                if each.at > seconds:
                    break
                await asyncio.sleep(each.at - loop.time())
                each.act(owner, clock.now())
                endpoint.pump()
            await asyncio.sleep(seconds - loop.time())
        finally:
            endpoint.close()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, VirtualLoop), "the loop that was asked for"
        clock = _LoopClock(loop)
        script = _Script(clock)
        owner = _Owner(node, script)
        runner.run(main())
    return script.sent
