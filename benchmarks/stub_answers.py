"""What every stub upstream answers, so that gateways are compared and not engines.

A prompt says what it wants: "ms=20 tokens=100 …" is a token every 20 ms, a hundred times. Tokens of one pace come
together, for all who wait, as they do from an engine that batches.
"""

from __future__ import annotations

import asyncio
import re
import resource
from typing import Final

WHOLE: Final = "All is well here, and nothing was computed for it. " * 14
"""The answer that is not streamed: 0.7 KB of text, 1 KB with what stands around it."""
TOKEN: Final = " token"
MODEL: Final = "stub"

_WANTED = re.compile(r"ms=(\d+) tokens=(\d+)")


def wanted(prompt: str) -> tuple[float, int]:
    """Seconds between two tokens, and how many; a whole answer at once for a prompt that does not say."""
    found = _WANTED.match(prompt)
    return (int(found[1]) / 1000, int(found[2])) if found else (0.0, 0)


class Beat:
    """Has all who wait at one pace go on together."""

    def __init__(self) -> None:
        self._next: dict[float, asyncio.Future[None]] = {}

    async def wait(self, seconds: float) -> None:
        """Until the next beat of this pace."""
        beat = self._next.get(seconds)
        if beat is None:
            loop = asyncio.get_running_loop()
            beat = self._next[seconds] = loop.create_future()
            at = ((loop.time() + seconds / 2) // seconds + 1) * seconds  # timers may go off a little early
            loop.call_at(at, self._strike, seconds, beat)
        await asyncio.shield(beat)

    def _strike(self, seconds: float, beat: asyncio.Future[None]) -> None:
        del self._next[seconds]
        beat.set_result(None)


def many_files() -> None:
    """Thousands of connections are thousands of descriptors."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
