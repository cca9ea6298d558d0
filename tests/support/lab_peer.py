"""A peer that runs inside a namespace of the lab and does what it is told: one JSON object a line, in and out.

python -m tests.support.lab_peer '{"host": "11.1.0.2", "bootstrap": [["11.2.0.2", 4000]], "ephemeral": true}'
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any

from haif import config
from haif.base.errors import HaifError
from haif.dht.service import Dht
from haif.identity.keys import Identity
from haif.reach.service.outlook import judge
from haif.runtime.clock import SystemClock, entropy

NET = config.net_id("lab")


class Peer:
    """What a peer can be told to do: each public method is a command, its keywords the object's other members."""

    def __init__(self, host: str, bootstrap: list[list[Any]], *, ephemeral: bool) -> None:
        self.identity, self.clock = Identity(entropy(32)), SystemClock()
        self.dht = Dht(
            identity=self.identity, net=NET, clock=self.clock, entropy=entropy, host=host, ephemeral=ephemeral,
            bootstrap=[(name, port) for name, port in bootstrap], on_dropped=lambda _: None,
        )  # fmt: skip

    async def survey(self) -> dict[str, Any]:
        verdict = await judge(self.dht)
        return {"mapping": verdict.mapping, "host": verdict.host, "observers": verdict.observers}


async def main(settings: dict[str, Any]) -> None:
    peer = Peer(settings["host"], settings.get("bootstrap", []), ephemeral=settings.get("ephemeral", False))
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(peer.dht)
        say({"peer": str(peer.identity.peer), "dht": peer.dht.address})
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
