"""The socket a running worker's operator speaks to: in the worker's own folder, for its own user alone."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Final

from haif.base import limits
from haif.base.errors import ConnectionLost, Forbidden, HaifError, InvalidRequest, Oversize, Timeout
from haif.worker.control import Asked, Told, Verb, read_answer, read_request, shown, write
from haif.worker.service.pool import Pool

SOCKET: Final = "control"
_PROGRESS_SECONDS: Final = 0.2  # between two lines of progress


@asynccontextmanager
async def controlled(pool: Pool, folder: Path) -> AsyncIterator[None]:
    """While the block is entered, the pool does what its owner, and nobody else, asks at the socket in `folder`."""
    server = _Server(pool)
    path = folder / SOCKET
    path.unlink(missing_ok=True)  # of a worker that was killed; whoever runs here now holds the folder's lock
    with _short(folder) as within:
        listening = socket.socket(socket.AF_UNIX)
        mask = os.umask(0o177)
        try:
            listening.bind(str(within / SOCKET))
        finally:
            os.umask(mask)
    async with await asyncio.start_unix_server(
        server.connected, sock=listening, limit=limits.CONTROL_LINE_BYTES_MAX
    ) as running:
        try:
            yield
        finally:
            running.close()
            await server.close()
            path.unlink(missing_ok=True)


class _Server:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._tasks: set[asyncio.Task[None]] = set()

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request and its answer."""
        task = asyncio.current_task()
        assert task is not None
        if len(self._tasks) >= limits.CONTROL_CONNECTIONS_MAX:
            writer.close()
            return
        self._tasks.add(task)
        try:
            _check_user(writer)
            async with aclosing(self._answer(await _line(reader))) as lines:
                async for line in lines:
                    writer.write(write(line))
                    async with asyncio.timeout(limits.CONTROL_SECONDS):
                        await writer.drain()
        except HaifError as error:
            writer.write(write(Told(error=error.message, reason=error.reason.value)))
        except (OSError, TimeoutError):
            pass  # whoever asked is gone, or does not read
        finally:
            self._tasks.discard(task)
            writer.close()

    async def close(self) -> None:
        """Leave nobody waiting."""
        tasks = [task for task in self._tasks if not task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _answer(self, line: bytes) -> AsyncGenerator[Told, None]:
        asked = read_request(line)
        note = ""
        if asked.verb is not Verb.LIST:
            model = self._pool.find(asked.model)
            work = asyncio.create_task(self._obey(asked))
            try:
                while not (await asyncio.wait({work}, timeout=_PROGRESS_SECONDS))[0]:
                    standing = next(each for each in self._pool.standings() if each.model == model)
                    yield Told(progress=shown(standing))
                note = work.result()
            finally:
                work.cancel()  # whoever asked is gone; a loading under way goes on
                with suppress(asyncio.CancelledError, HaifError):
                    await work
        yield Told(
            models=[shown(each) for each in self._pool.standings()], note=note,
            memory_bytes=self._pool.memory_bytes, memory_used=self._pool.memory_used,
        )  # fmt: skip

    async def _obey(self, asked: Asked) -> str:
        model = self._pool.find(asked.model)
        match asked.verb:
            case Verb.LOAD:
                await self._pool.load(model)
            case Verb.UNLOAD:
                cut = await self._pool.unload(model, seconds=asked.seconds)
                return f"{cut} answers took longer than {asked.seconds:g} s and were cut" if cut else ""
            case Verb.PIN:
                self._pool.pin(model, pinned=True)
                await self._pool.load(model)
            case Verb.UNPIN:
                self._pool.pin(model, pinned=False)
            case Verb.RELEASE:
                return "" if self._pool.release(model) else "it was not quarantined"
        return ""


async def ask(folder: Path, asked: Asked) -> AsyncGenerator[Told, None]:
    """What a running worker answers, line by line, the last one without `progress`.

    Raises `ConnectionLost` where none runs, `Timeout` when it does not answer.
    """
    try:
        with _short(folder) as within:
            reader, writer = await asyncio.open_unix_connection(str(within / SOCKET), limit=1 << 20)
    except OSError:
        raise ConnectionLost(f"no worker is running with its state in {folder}") from None
    try:
        writer.write(write(asked))
        while line := await _answered(reader):
            yield (told := read_answer(line))
            if told.progress is None:
                return
        raise ConnectionLost("the worker ended, or closed the connection, before it answered")
    finally:
        writer.close()


async def _answered(reader: asyncio.StreamReader) -> bytes:
    try:
        async with asyncio.timeout(limits.CONTROL_SECONDS):
            return await reader.readline()
    except TimeoutError:
        raise Timeout(f"the worker said nothing for {limits.CONTROL_SECONDS:g} s") from None
    except (OSError, ValueError) as error:
        raise ConnectionLost(f"the worker's answer broke off: {error}") from None


async def _line(reader: asyncio.StreamReader) -> bytes:
    try:
        async with asyncio.timeout(limits.CONTROL_SECONDS):
            return await reader.readuntil(b"\n")
    except asyncio.LimitOverrunError:
        raise Oversize(f"a request to a worker has at most {limits.CONTROL_LINE_BYTES_MAX} bytes") from None
    except asyncio.IncompleteReadError:
        raise InvalidRequest("a request to a worker ends with a newline") from None


def _check_user(writer: asyncio.StreamWriter) -> None:
    """The mode of the socket keeps others away; where the kernel says who asks, ask it too."""
    if sys.platform != "linux":
        return
    credentials = struct.Struct("3i")
    raw = writer.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, credentials.size)
    user = credentials.unpack(raw)[1]
    if user not in {os.geteuid(), 0}:
        raise Forbidden(f"this worker listens to user {os.geteuid()} only, not to {user}")


@contextmanager
def _short(folder: Path) -> Iterator[Path]:
    """A way to the folder that a socket's address, of about a hundred bytes, has room for."""
    if sys.platform != "linux":
        yield folder
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield Path(f"/proc/self/fd/{handle}")
    finally:
        os.close(handle)
