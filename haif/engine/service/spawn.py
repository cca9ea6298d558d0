"""The child's process and our ends of its pipes: started bare, ended for certain."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from haif.base import limits
from haif.engine.service.settings import EngineSettings, environment

CHILD_PROGRAM: Final = (
    "import os, sys; sys.path += sys.argv.pop(1).split(os.pathsep); from haif.engine.child import main; main()"
)
"""-I and -S keep everything out of the child's path; so it gets the folders of this package and its libraries named."""


class Child:
    """One process, once it was started; before that, nothing."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._orders: asyncio.WriteTransport | None = None
        self._reports: asyncio.BaseTransport | None = None
        self._words: _Words | None = None

    async def start(
        self, program: str, settings: EngineSettings, files: Sequence[int], heard: asyncio.Protocol
    ) -> None:
        """Make the process; `heard` is told what it reports, and when it closes its end.

        It inherits the ends of three pipes, the files, a clean environment, and nothing else. The error stream is a
        pipe of ours too: what an event loop makes for that purpose may be a socket.
        """
        orders_in, orders_out = os.pipe()
        reports_in, reports_out = os.pipe()
        words_in, words_out = os.pipe()
        try:
            loop = asyncio.get_running_loop()
            self._orders, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, os.fdopen(orders_out, "wb", 0))
            self._reports, _ = await loop.connect_read_pipe(lambda: heard, os.fdopen(reports_in, "rb", 0))
            _, self._words = await loop.connect_read_pipe(_Words, os.fdopen(words_in, "rb", 0))
            flags = (int(settings.insecure_no_sandbox), int(settings.offload.layers > 0))
            model, *adapters = files
            numbers = (os.getpid(), orders_in, reports_out, model, *flags, *adapters)
            arguments = (_search_path(), *map(str, numbers))
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-I", "-S", "-B", "-c", program, *arguments,
                stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=words_out,
                pass_fds=(orders_in, reports_out, *files), start_new_session=True,
                env=environment(settings.profile),
            )  # fmt: skip
        finally:
            os.close(orders_in)
            os.close(reports_out)
            os.close(words_out)

    @property
    def pid(self) -> int:
        """Of the process that was started."""
        assert self._process is not None, "it was started"
        return self._process.pid

    @property
    def connected(self) -> bool:
        """Whether its reports are, or were, listened to."""
        return self._reports is not None

    def send(self, data: bytes) -> None:
        """Bytes into its orders; into nothing where it is gone."""
        if self._orders is not None and not self._orders.is_closing():
            self._orders.write(data)

    def kill(self) -> None:
        """End it now."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()

    async def ended(self) -> tuple[int, bytes]:
        """Its exit status and last words, once it is over; it is killed if that takes long."""
        assert self._process is not None, "it was started"
        assert self._words is not None, "it was started"
        try:
            async with asyncio.timeout(limits.ENGINE_CLOSE_SECONDS):
                await self._process.wait()
        except TimeoutError:  # it closed its pipe and lives on
            self.kill()
            await self._process.wait()
        return self._process.returncode or 0, await self._words.end

    async def close(self, *, at_once: bool) -> None:
        """End it, politely first unless `at_once`, and let go of its pipes."""
        if self._orders is not None:
            self._orders.close()
        if self._process is not None and self._process.returncode is None:
            if at_once:
                self.kill()
            await self.ended()
        if self._words is not None:
            await self._words.end
        if self._reports is not None:
            self._reports.close()


def _search_path() -> str:
    """Where the child finds this package and its libraries."""
    package = str(Path(__file__).resolve().parents[3])
    libraries = [folder for folder in sys.path if folder.endswith("-packages")]
    return os.pathsep.join(dict.fromkeys([package, *libraries]))


class _Words(asyncio.Protocol):
    """The end of what the child wrote to its error stream."""

    def __init__(self) -> None:
        self.end: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._last = b""

    def data_received(self, data: bytes) -> None:
        self._last = (self._last + data)[-limits.ENGINE_STDERR_BYTES_MAX :]

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio names it
        if not self.end.done():
            self.end.set_result(self._last)
