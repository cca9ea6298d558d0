"""Processes inside a lab, spoken to line by line."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from tests.support.netlab import Host

ROOT = Path(__file__).parents[2]
_START_SECONDS = 60.0
_LINE_BYTES_MAX = 1 << 20


class Resident:
    """A Python module that runs on a host. `ready` is the first line it said."""

    def __init__(self, host: Host, process: asyncio.subprocess.Process, ready: dict[str, Any]) -> None:
        self.host, self.ready = host, ready
        self._process = process
        self._turn = asyncio.Lock()

    @classmethod
    async def start(cls, host: Host, module: str, *argv: str) -> Resident:
        """Run `python -m module argv` on the host, and wait for its first line."""
        process = await asyncio.create_subprocess_exec(
            *host.command(sys.executable, "-m", module, *argv), cwd=ROOT, limit=_LINE_BYTES_MAX,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        async with asyncio.timeout(_START_SECONDS):
            return cls(host, process, await _line(process))

    async def ask(self, do: str, **more: Any) -> dict[str, Any]:
        """What it answers to this command."""
        async with self._turn:
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps({"do": do, **more}).encode() + b"\n")
            return await _line(self._process)

    async def stop(self) -> None:
        """Close its standard input, which ends it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(5):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()


async def _line(process: asyncio.subprocess.Process) -> dict[str, Any]:
    assert process.stdout is not None
    line = await process.stdout.readline()
    assert line, f"a process of the lab ended; its words are above (exit code {await process.wait()})"
    said = json.loads(line)
    assert isinstance(said, dict)
    return said
