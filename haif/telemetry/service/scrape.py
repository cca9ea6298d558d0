"""`GET /metrics`, and nothing else: the small HTTP/1.1 server that Prometheus asks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from haif.base import limits
from haif.base.machine import Address

_TEXT = "text/plain; version=0.0.4; charset=utf-8"


class MetricsServer:
    """Answers one request per connection, within `limits.METRICS_REQUEST_SECONDS`, and closes it.

    Refused: another path (404), another method (405), what is no HTTP (400), a head over
    `limits.METRICS_REQUEST_BYTES_MAX` (431), more than `limits.METRICS_CONNECTIONS_MAX` at once (closed unanswered).
    """

    def __init__(self, exposition: Callable[[], bytes]) -> None:
        self._exposition = exposition
        self._server: asyncio.Server | None = None
        self._talks: set[asyncio.Task[None]] = set()

    async def start(self, host: str, port: int) -> Address:
        """Listen; port 0 takes a free one. Raises `OSError` where the address cannot be had."""
        self._server = await asyncio.start_server(
            self._admit, host, port, limit=limits.METRICS_REQUEST_BYTES_MAX, backlog=limits.METRICS_CONNECTIONS_MAX
        )
        found: Address = self._server.sockets[0].getsockname()[:2]
        return found

    async def close(self) -> None:
        """Stop listening and drop who is still connected."""
        if self._server is None:
            return
        self._server.close()
        talks = tuple(self._talks)
        for talk in talks:
            talk.cancel()
        await asyncio.gather(*talks, return_exceptions=True)
        await self._server.wait_closed()

    def _admit(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._talks) >= limits.METRICS_CONNECTIONS_MAX:
            writer.close()
            return
        talk = asyncio.create_task(self._talk(reader, writer))
        self._talks.add(talk)
        talk.add_done_callback(self._talks.discard)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(limits.METRICS_REQUEST_SECONDS):
                writer.write(await self._respond(reader))
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (OSError, EOFError, TimeoutError):
            pass  # the scraper went away or dawdled; it will ask again
        finally:
            writer.transport.abort()

    async def _respond(self, reader: asyncio.StreamReader) -> bytes:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            return _response("431 Request Header Fields Too Large", b"the request is too long\n")
        return self._answer(head.split(b"\r\n", 1)[0].split(b" "))

    def _answer(self, request_line: list[bytes]) -> bytes:
        match request_line:
            case [b"GET", b"/metrics", b"HTTP/1.0" | b"HTTP/1.1"]:
                return _response("200 OK", self._exposition())
            case [_, b"/metrics", b"HTTP/1.0" | b"HTTP/1.1"]:
                return _response("405 Method Not Allowed", b"only GET is answered\n", "Allow: GET\r\n")
            case [_, _, b"HTTP/1.0" | b"HTTP/1.1"]:
                return _response("404 Not Found", b"only /metrics is here\n")
        return _response("400 Bad Request", b"this is no HTTP/1.1 request\n")


def _response(status: str, body: bytes, headers: str = "") -> bytes:
    entity = f"Content-Type: {_TEXT}\r\nContent-Length: {len(body)}\r\n"
    return f"HTTP/1.1 {status}\r\n{entity}{headers}Connection: close\r\n\r\n".encode() + body
