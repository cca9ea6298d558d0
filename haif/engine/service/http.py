"""One HTTP/1.1 request to a server near us, and its answer as it comes. Every length and every wait has a bound."""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import httptools

from haif.base import limits
from haif.base.errors import EngineDied, Forbidden, Misuse, Oversize


@dataclass(frozen=True)
class Server:
    """Where a server is: `base` is the path of its API. Only loopback, or a host that was allowed by its name."""

    host: str
    port: int
    base: str
    tls: bool
    allowed: bool
    key: str = field(default="", repr=False)


def server_at(url: str, *, allowed: tuple[str, ...], key: str) -> Server:
    """The server of a base URL such as http://127.0.0.1:8000/v1. Raises `Misuse`."""
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    except (ValueError, KeyError):
        raise Misuse(f"--upstream: {url!r} is no URL such as http://127.0.0.1:8000/v1") from None
    host = parts.hostname or ""
    if not host or parts.username or parts.query or parts.fragment:
        raise Misuse("--upstream: give scheme, host, port and path; a key comes from --upstream-key-file")
    if not _is_loopback(host) and host not in allowed:
        raise Misuse(
            f"--upstream: {host} is not this machine. Prompts would leave it: if they may, add --upstream-host {host}"
        )
    if not key.isascii() or not key.isprintable():
        raise Misuse("the key of --upstream-key-file is not one line of printable ASCII")
    return Server(host, port, parts.path.rstrip("/"), parts.scheme == "https", host in allowed, key)


def _is_loopback(host: str) -> bool:
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


class Reply:
    """Status and headers of an answer; `body` gives the rest as it comes. Raises as `asked`."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self._parser = httptools.HttpResponseParser(self)
        self._parts: list[bytes] = []
        self._headed = self._complete = False
        self._head_bytes = 0
        self.headers: dict[bytes, bytes] = {}

    @property
    def status(self) -> int:
        """The status code."""
        return int(self._parser.get_status_code())

    @property
    def retry_after(self) -> float | None:
        """Seconds the server asks for, if it does."""
        with suppress(ValueError):
            return float(self.headers.get(b"retry-after", b""))
        return None

    async def head(self) -> None:
        """Wait for status and headers."""
        while not self._headed:
            await self._more()

    async def body(self) -> AsyncGenerator[bytes, None]:
        """The body, part by part."""
        while True:
            for part in self._parts:
                yield part
            self._parts = []
            if self._complete:
                return
            await self._more()

    async def whole(self) -> bytes:
        """The body. Raises `Oversize` beyond `limits.UPSTREAM_REPLY_BYTES_MAX`."""
        found = b""
        async for part in self.body():
            found += part
            if len(found) > limits.UPSTREAM_REPLY_BYTES_MAX:
                raise Oversize("the server's answer is longer than any it should give here")
        return found

    async def _more(self) -> None:
        try:
            async with asyncio.timeout(limits.UPSTREAM_SILENCE_SECONDS):
                data = await self._reader.read(1 << 16)
        except TimeoutError:
            raise EngineDied("the server behind this worker owed an answer and said nothing") from None
        if not data:
            self._over()
            return
        if not self._headed:
            self._head_bytes += len(data)
            if self._head_bytes > limits.UPSTREAM_HEAD_BYTES_MAX + (1 << 16):
                raise Oversize("the server's headers are too long")
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            raise EngineDied("what is behind this worker does not speak HTTP as it should") from None

    def _over(self) -> None:
        """The connection ended; so does a body without a length."""
        delimited = b"content-length" in self.headers or b"transfer-encoding" in self.headers
        if not self._headed or delimited:
            raise EngineDied("the server behind this worker broke off its answer")
        self._complete = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """`httptools` calls this."""
        self.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        """`httptools` calls this."""
        self._headed = not 100 <= self.status < 200

    def on_body(self, body: bytes) -> None:
        """`httptools` calls this."""
        self._parts.append(body)

    def on_message_complete(self) -> None:
        """`httptools` calls this."""
        self._complete = self._headed


@asynccontextmanager
async def asked(server: Server, method: str, path: str, body: bytes = b"") -> AsyncIterator[Reply]:
    """Ask, and have the answer while the block is entered; leaving it closes the connection, whatever is under way.

    Raises `EngineDied` for a server that is not there, falls silent or speaks nonsense, `Oversize` for one that says
    too much, `Forbidden` if the name leads elsewhere than to this machine.
    """
    try:
        async with asyncio.timeout(limits.UPSTREAM_CONNECT_SECONDS):
            reader, writer = await asyncio.open_connection(
                server.host, server.port, ssl=ssl.create_default_context() if server.tls else None
            )
    except (OSError, TimeoutError):
        raise EngineDied(f"nobody answers at {server.host}:{server.port}", retry_after=1.0) from None
    try:
        if not server.allowed and not _is_loopback(writer.get_extra_info("peername")[0]):
            raise Forbidden(f"{server.host} leads away from this machine")
        writer.write(_head(server, method, path, len(body)) + body)
        try:
            await writer.drain()
        except OSError:
            raise EngineDied("the server behind this worker broke off", retry_after=1.0) from None
        reply = Reply(reader)
        await reply.head()
        yield reply
    except OSError:
        raise EngineDied("the server behind this worker broke off its answer", retry_after=1.0) from None
    finally:
        writer.close()


def _head(server: Server, method: str, path: str, length: int) -> bytes:
    host = f"[{server.host}]" if ":" in server.host else server.host
    lines = [
        f"{method} {server.base}{path} HTTP/1.1", f"Host: {host}:{server.port}", "Connection: close",
        "Accept: application/json, text/event-stream", "Content-Type: application/json", f"Content-Length: {length}",
        *([f"Authorization: Bearer {server.key}"] if server.key else []),
    ]  # fmt: skip
    return "\r\n".join([*lines, "", ""]).encode("ascii")
