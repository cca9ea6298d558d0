"""uvicorn on our terms: no signal handlers, no logs of its own, headers bounded in size and time.

The attacks this answers: slow headers and idle connections (slowloris), endless headers. Floods of connections meet
`doorkeeper`; bodies are bounded where they are read (`exchange.Exchange.body`); llhttp refuses ambiguous framing
(request smuggling).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from haif.base import limits
from haif.base.errors import Misuse
from haif.base.machine import Address
from haif.gateway.errors import Problem
from haif.gateway.service.doorkeeper import Doorkeeper
from haif.gateway.service.sockets import BoundedSocket
from haif.gateway.service.tls import Tls

SAFE_HEADERS: Final = [  # of every answer: none of them is a page, and none may be taken for one or shown inside one
    ("x-content-type-options", "nosniff"), ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
    ("referrer-policy", "no-referrer"), ("cross-origin-resource-policy", "same-origin"),
]  # fmt: skip
ONLY_TLS: Final = ("strict-transport-security", "max-age=31536000")


class _TooMuch(Exception):
    """The headers are over their limit."""


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol with a limit on the size of headers and the time they may take."""

    on_lost: Callable[[], None]  # called once, when the connection is gone

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection; its first headers have this long."""
        super().connection_made(transport)
        self._cycles: deque[RequestResponseCycle] = deque()  # requests not answered yet, the oldest first
        self._header_bytes = 0
        self._waiting_bytes = 0
        self._discarded = 0
        self._in_headers = True
        self._ended_headers = False  # during the read that is being parsed
        self._timer = self.loop.call_later(limits.HTTP_HEADER_SECONDS, self._too_slow)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it, and tell every request that came over it; uvicorn tells only the newest of a pipeline."""
        self._timer.cancel()
        self.on_lost()
        super().connection_lost(exc)
        for cycle in self._cycles:
            cycle.disconnected = True
            cycle.message_event.set()
            gone: asyncio.Future[None] = cycle.scope["haif.gone"]  # type: ignore[typeddict-item]
            if not gone.done():
                gone.set_result(None)

    def data_received(self, data: bytes) -> None:
        """Parse, unless a single header grows without end (the parser shows it only when it is whole)."""
        waiting = self._in_headers
        self._ended_headers = False
        super().data_received(data)
        if waiting and self._in_headers and not self._ended_headers and not self.transport.is_closing():
            self._waiting_bytes += len(data)
            if self._waiting_bytes > limits.HTTP_HEADER_BYTES_MAX:
                self._header_bytes = self._waiting_bytes
                self.send_400_response("")

    def on_message_begin(self) -> None:
        """A request begins: its headers have this long and this much."""
        super().on_message_begin()
        self.scope["haif.gone"] = self.loop.create_future()  # type: ignore[typeddict-unknown-key]  # ours
        self._header_bytes = 0
        self._in_headers = True
        self._timer.cancel()
        self._timer = self.loop.call_later(limits.HTTP_HEADER_SECONDS, self._too_slow)

    def on_url(self, url: bytes) -> None:
        """Count, then take."""
        self._grow(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count, then take."""
        self._grow(len(name) + len(value) + 4)  # with ": " and the line end
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The headers are whole: their time no longer counts."""
        self._in_headers = False
        self._ended_headers = True
        self._waiting_bytes = 0
        self._timer.cancel()
        super().on_headers_complete()
        if not (self.parser.should_upgrade() and self._should_upgrade()):
            self._cycles.append(self.cycle)
            self.scope["haif.write"] = partial(self._write, self.cycle)  # type: ignore[typeddict-unknown-key]

    def handle_websocket_upgrade(self) -> None:
        """From here on it is a WebSocket, and the place of this connection is given back when that ends."""
        if self._cycles:
            self.transport.close()  # behind a request that is still being answered: two languages at a time
            return
        super().handle_websocket_upgrade()
        protocol = self.transport.get_protocol()
        assert isinstance(protocol, BoundedSocket), "what the configuration names"
        protocol.on_lost = self.on_lost

    def on_response_complete(self) -> None:
        """A request was answered: the next of the pipeline begins."""
        self._cycles.popleft()
        super().on_response_complete()

    def on_body(self, body: bytes) -> None:
        """Take it; of what comes after the answer, only so much is read away (closing at once would reset it)."""
        if self.cycle is not None and self.cycle.response_complete:
            self._discarded += len(body)
            if self._discarded > limits.HTTP_DISCARD_BYTES_MAX:
                self.transport.close()
        super().on_body(body)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP, or too much of it, in the dialect, and close."""
        if self._header_bytes > limits.HTTP_HEADER_BYTES_MAX:
            text = f"request line and headers are over {limits.HTTP_HEADER_BYTES_MAX} bytes"
            self._refuse(Problem(431, "invalid_request_error", "headers_too_large", text))
        else:
            self._refuse(Problem(400, "invalid_request_error", "invalid_value", msg))

    def _write(self, cycle: RequestResponseCycle, data: bytes) -> bool:
        """Send a piece of a chunked answer without a detour, if the socket takes it now; whether it was sent."""
        if self.flow.write_paused or cycle.disconnected or not cycle.chunked_encoding or cycle.response_complete:
            return False
        self.transport.write(b"%x\r\n%b\r\n" % (len(data), data))
        return True

    def _grow(self, count: int) -> None:
        self._header_bytes += count
        if self._header_bytes > limits.HTTP_HEADER_BYTES_MAX:
            raise _TooMuch

    def _too_slow(self) -> None:
        if not self.transport.is_closing():
            text = f"the request's headers did not arrive within {limits.HTTP_HEADER_SECONDS:.0f} seconds"
            self._refuse(Problem(408, "timeout_error", "request_header_timeout", text))

    def _refuse(self, problem: Problem) -> None:
        at_work = self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete
        if at_work or self.pipeline:
            self.transport.close()  # in the middle of another answer, this one would be taken for a part of it
            return
        body = problem.body("")
        head = b"content-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n" % len(body)
        safe = b"".join(b"%s: %s\r\n" % each for each in self.server_state.default_headers)
        self.transport.write(STATUS_LINE[problem.status] + head + safe + b"\r\n" + body)
        self.transport.close()


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the process's signals alone: whoever runs the gateway decides when it stops."""
        yield


class HttpServer:
    """An ASGI application on a socket, with TLS if any. Raises `Misuse` when the address cannot be had."""

    def __init__(self, app: Any, host: str, port: int, tls: Tls | None = None) -> None:
        self._socket = _listen(host, port)
        self.address: Address = self._socket.getsockname()[:2]
        self._tls = tls
        config = uvicorn.Config(
            app, http=BoundedProtocol, loop="none", ws=BoundedSocket, ws_max_size=limits.WEBSOCKET_MESSAGE_BYTES_MAX,
            ws_per_message_deflate=False, ws_ping_interval=limits.WEBSOCKET_PING_SECONDS,
            ws_ping_timeout=limits.WEBSOCKET_PING_SECONDS, lifespan="off", interface="asgi3", log_config=None,
            log_level="critical", access_log=False, proxy_headers=False, server_header=False,
            headers=[*SAFE_HEADERS, *([ONLY_TLS] if tls else [])],
            timeout_keep_alive=limits.HTTP_KEEPALIVE_SECONDS, timeout_graceful_shutdown=1,
        )  # fmt: skip
        self._server = _Server(config)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Serve from now on."""
        config = self._server.config
        config.load()
        self._server.lifespan = config.lifespan_class(config)
        self._server.servers = []  # connections are taken here, not by a server of asyncio's
        self._socket.listen(config.backlog)
        self._doorkeeper = Doorkeeper(self._socket, self._protocol, self._tls)
        await self._server.on_tick(0)  # the headers of the first answer
        self._tasks = [
            asyncio.create_task(self._server.main_loop(), name="gateway: http"),
            asyncio.create_task(self._doorkeeper.run(), name="gateway: connections"),
        ]

    async def stop(self) -> None:
        """Stop listening, close idle connections, and wait a moment for the others."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._socket.close()
        await self._server.shutdown()

    def _protocol(self, on_lost: Callable[[], None]) -> BoundedProtocol:
        server = self._server
        made = BoundedProtocol(config=server.config, server_state=server.server_state, app_state=server.lifespan.state)
        made.on_lost = on_lost
        return made


def _listen(host: str, port: int) -> socket.socket:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise Misuse(f"the gateway cannot listen on {host}:{port}: {error}") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise Misuse(f"the gateway cannot listen on {host}:{port}: {error.strerror}; choose another port") from None
    return listener
