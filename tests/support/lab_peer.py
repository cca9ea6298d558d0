"""A peer that runs inside a namespace of the lab and does what it is told: one JSON object a line, in and out.

    python -m tests.support.lab_peer '{"host": "11.1.0.2", "bootstrap": [["11.2.0.2", 4000]], "ephemeral": true}'

What runs is HAIF's own DHT, wire, reach and relay; this only puts them together and says what happened.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any

from haif.base.errors import HaifError
from haif.base.ids import Digest, PeerId
from haif.dht.service import Dht
from haif.identity.admission import open_network
from haif.identity.keys import Identity, NoiseKey
from haif.protocol.reach import Place
from haif.protocol.relay import RelayAt
from haif.reach.service import Reach, judge, judge_wire
from haif.relay.service import Carrier, Places, Relay
from haif.runtime.clock import SystemClock, entropy
from haif.wire.service import Call, Wire

NET = open_network("lab").net
NUMBERS = 100  # of a stream that must survive a move
CALL_SECONDS = 10.0


class Peer:
    """What a peer can be told to do: each public method is a command, its keywords the object's other members."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        self.identity, self.clock = Identity(entropy(32)), SystemClock()
        self.relays = [RelayAt(PeerId.parse(peer), host, port) for peer, host, port in settings.get("relays", [])]
        self._waiting: dict[Digest, asyncio.Event] = {}

    async def start(self, stack: AsyncExitStack) -> None:
        mine: dict[str, Any] = {"identity": self.identity, "net": NET, "clock": self.clock, "on_dropped": drop}
        host = self.settings["host"]
        self.wire = await stack.enter_async_context(
            Wire(noise_key=NoiseKey(entropy(32)), entropy=entropy, host=host, **mine)
        )
        self.wire.serve_stream("lab.count", self._count)
        self.wire.serve("lab.go_on", self._go_on)
        del mine["identity"]
        self.places = await stack.enter_async_context(
            Places(self.relays, peer=self.identity.peer, wire=self.wire, on_change=lambda _: None, **mine)
        )
        self.reach = await stack.enter_async_context(
            Reach(identity=self.identity, wire=self.wire, carry=Carrier(self.wire), relay_at=self.places.at, **mine)
        )
        if self.settings.get("relay"):
            await stack.enter_async_context(
                Relay(identity=self.identity, wire=self.wire, entropy=entropy, leave_seconds=0, **mine)
            )
        if "bootstrap" in self.settings:
            self.dht = await stack.enter_async_context(
                Dht(
                    identity=self.identity,
                    entropy=entropy,
                    host=host,
                    ephemeral=self.settings.get("ephemeral", False),
                    bootstrap=[(name, port) for name, port in self.settings["bootstrap"]],
                    **mine,
                )
            )

    def ready(self) -> dict[str, Any]:
        dht = self.dht.address if "bootstrap" in self.settings else None
        return {
            "peer": str(self.identity.peer),
            "wire": self.wire.address,
            "dht": dht,
            "places": len(self.places.relays),
        }

    # --- commands -----------------------------------------------------------------------------------------------------

    async def survey(self) -> dict[str, Any]:
        verdict = await judge(self.dht)
        return {"mapping": verdict.mapping, "host": verdict.host, "observers": verdict.observers}

    async def survey_wire(self, observers: list[list[Any]]) -> dict[str, Any]:
        asked = [RelayAt(PeerId.parse(who), host, port) for who, host, port in observers]
        verdict = await judge_wire(self.reach.meetings, asked)
        return {"mapping": verdict.mapping, "host": verdict.host, "observers": verdict.observers}

    async def meet(self, peer: str, addresses: list[list[Any]], relays: list[list[Any]]) -> dict[str, Any]:
        """Connect, begin a stream, see whether the session moves while the stream is open, and read it to its end."""
        place = Place(
            tuple((host, port) for host, port in addresses),
            tuple(RelayAt(PeerId.parse(who), host, port) for who, host, port in relays),
        )
        began = time.perf_counter()
        session = await self.reach.connect(PeerId.parse(peer), place, timeout=CALL_SECONDS)
        first = self.reach.path(session)
        async with session.stream("lab.count", b"", timeout=60) as numbers:
            got = [await anext(numbers)]
            connected = time.perf_counter() - began
            await self.reach.settled(session)
            took = time.perf_counter() - began
            await session.call("lab.go_on", b"", timeout=CALL_SECONDS)
            got += [number async for number in numbers]
        last = self.reach.path(session)
        session.close()
        return {
            "whole": got == [b"%d" % number for number in range(NUMBERS)], "first": first, "last": last,
            "connected": connected, "settled": took,
        }  # fmt: skip

    # --- what others ask of it ----------------------------------------------------------------------------------------

    async def _count(self, call: Call) -> AsyncIterator[bytes]:
        go_on = self._waiting.setdefault(call.scope, asyncio.Event())
        for number in range(NUMBERS):
            yield b"%d" % number
            if number == NUMBERS // 2:
                await go_on.wait()

    async def _go_on(self, call: Call) -> bytes:
        self._waiting.setdefault(call.scope, asyncio.Event()).set()
        return b""


def drop(_: object) -> None:
    """Nobody watches what a peer of the lab refuses; the tests look at what comes of it."""


async def main(settings: dict[str, Any]) -> None:
    peer = Peer(settings)
    async with AsyncExitStack() as stack:
        await peer.start(stack)
        say(peer.ready())
        lines = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
        while line := await lines.readline():
            command = json.loads(line)
            work: Callable[..., Coroutine[Any, Any, dict[str, Any]]] = getattr(peer, command.pop("do"))
            try:
                say(await work(**command))
            except HaifError as error:
                say({"error": error.reason, "message": error.message})


def say(what: dict[str, Any]) -> None:
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
