"""Who here watches which topic: one watch of a node for all of them, and nothing that queues up for the slow ones."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Final

from haif.base.clock import Clock
from haif.base.errors import ConnectionLost
from haif.base.ids import Digest
from haif.dht.node import Node
from haif.dht.watch import Change, Live, changes, newest

_CLOSED: Final = "the directory node was closed, and with it whatever it watched"


class Watching:
    """The listeners at the watches of our nodes, one in each directory: what either hears counts."""

    def __init__(self, nodes: Sequence[Node], clock: Clock, pump: Callable[[], None]) -> None:
        self._nodes, self._clock, self._pump = nodes, clock, pump
        self._listeners: dict[Digest, set[asyncio.Event]] = {}
        self._closed = False

    async def watch(self, topic: Digest) -> AsyncGenerator[Change]:
        """As `Dht.watch`."""
        heard = asyncio.Event()
        for node in self._nodes:
            node.watch(topic, self._clock.now())
        self._listeners.setdefault(topic, set()).add(heard)
        heard.set()
        self._pump()
        told: Live = {}
        try:
            while True:
                await heard.wait()
                if self._closed:
                    raise ConnectionLost(_CLOSED)
                heard.clear()
                live = self._live(topic)
                news, told = deque(changes(told, live)), live
                while news:
                    yield news.popleft()
        finally:
            self._leave(topic, heard)

    def changed(self, topic: Digest) -> None:
        """Something changed at a topic."""
        for heard in self._listeners.get(topic, ()):
            heard.set()

    def changed_everywhere(self) -> None:
        """Something changed that may concern any topic."""
        for topic in self._listeners:
            self.changed(topic)

    def close(self) -> None:
        """Whoever still listens is told that there will be nothing more."""
        self._closed = True
        self.changed_everywhere()

    def __len__(self) -> int:
        return sum(len(listeners) for listeners in self._listeners.values())

    def _leave(self, topic: Digest, heard: asyncio.Event) -> None:
        self._listeners[topic].discard(heard)
        if not self._listeners[topic]:
            del self._listeners[topic]
            for node in self._nodes:
                node.attention.unwatch(topic)

    def _live(self, topic: Digest) -> Live:
        held = newest(record for node in self._nodes for record in node.held(topic).values())
        return {owner: record for owner, record in held.items() if not record.payload.tombstone}
