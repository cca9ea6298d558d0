"""Web pages of other origins: named ones may call the API from a browser, all others meet no header that lets them.

Keys come in a header that a page must set itself, never by cookie, so no answer allows credentials, and whatever
headers a named origin asks to send may be sent. Source: the Fetch Standard, "CORS protocol".
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from haif.gateway.service.exchange import Message, Receive, Send

_PREFLIGHT: Final = b"access-control-request-method"
_WANTED: Final = b"access-control-request-headers"
_VARY: Final = (b"vary", b"origin")


class CrossOrigin:
    """The application, for pages of these origins too. It stands in front only where some are named."""

    def __init__(self, app: Any, origins: Iterable[str]) -> None:
        self._app = app
        self._allowed = {
            origin.encode(): [
                (b"access-control-allow-origin", origin.encode()), (b"access-control-expose-headers", b"*"), _VARY,
            ]
            for origin in origins
        }  # fmt: skip

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer a preflight; let the application answer everything else."""
        headers = dict(scope["headers"]) if scope["type"] == "http" else {}  # WebSockets look for themselves
        allowed = self._allowed.get(headers.get(b"origin", b""))
        if allowed is None:
            await self._app(scope, receive, send)
        elif scope["method"] == "OPTIONS" and _PREFLIGHT in headers:
            told = [
                *allowed, (b"access-control-allow-methods", b"GET, POST"), (b"access-control-max-age", b"600"),
                (b"access-control-allow-headers", headers.get(_WANTED, b"authorization, content-type")),
            ]  # fmt: skip
            await send({"type": "http.response.start", "status": 204, "headers": told})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        else:
            await self._app(scope, receive, _with(allowed, send))


def _with(headers: list[tuple[bytes, bytes]], send: Send) -> Send:
    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], *headers]
        await send(message)

    return sent
