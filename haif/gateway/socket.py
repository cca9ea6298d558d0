"""The sub-protocol `haif.v1` of WebSockets: requests as over HTTP, several at a time, over one connection.

1. ask      {"id", "path", "body"}, and `headers` for what goes with this request alone (an Idempotency-Key, a deadline)
2. answer   {"id", "status", "headers", "body"}; or, of a stream, {"id", "status", "headers"}, then {"id", "data"} (and
            `event` where the dialect names its events) for each event, and {"id", "done": true}
3. cancel   {"id", "cancel": true}, as hanging up would be; {"id", "done": true} says that nothing follows

`body` and `data` are what HTTP would carry, in the dialect of the path; so is every error, with its status. What is no
request at all is answered under the id null. Messages are JSON text; anything else closes the connection.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from haif.base import limits
from haif.gateway.errors import Rejected

SUBPROTOCOL: Final = "haif.v1"
PATH: Final = "/haif/v1/socket"
_DONE: Final = b"[DONE]"
_KEY_HEADERS: Final = (b"authorization", b"x-api-key")
_OWN: Final = frozenset({"authorization", "x-api-key", "content-type", "content-length"})


class Asked(msgspec.Struct, forbid_unknown_fields=True):
    """What a client says: a request, or that it wants the answer no more."""

    id: Annotated[str, Meta(min_length=1, max_length=limits.WEBSOCKET_ID_CHARS_MAX)]
    path: Annotated[str, Meta(max_length=200, pattern="^/")] | None = None
    body: msgspec.Raw = msgspec.Raw(b"")
    headers: Annotated[dict[str, str], Meta(max_length=16)] = {}
    cancel: bool = False


def parse(text: str) -> Asked:
    """A client's message. Raises `Rejected` for what is none."""
    try:
        asked = msgspec.json.decode(text, type=Asked)
    except (msgspec.ValidationError, msgspec.DecodeError, RecursionError) as error:
        raise Rejected(f"this is no message of {SUBPROTOCOL}: {error}", code="invalid_json") from None
    if asked.cancel == (asked.path is not None):
        raise Rejected("a message has either path and body, or cancel", code="invalid_value", param="path")
    for name, value in asked.headers.items():
        if name.lower() in _OWN or not (name + value).isascii() or not (name + value).isprintable():
            raise Rejected(f"the header {name[:40]!r} cannot be set for one request", code="invalid_value",
                           param="headers")  # fmt: skip
    return asked


def headers_of(asked: Asked, shaken: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The headers of a request: its own, and the key that came with the handshake."""
    own = [(name.lower().encode(), value.encode()) for name, value in asked.headers.items()]
    keys = [(name, value) for name, value in shaken if name in _KEY_HEADERS]
    return [*own, *keys, (b"content-type", b"application/json"), (b"content-length", b"%d" % len(bytes(asked.body)))]


class Teller:
    """Says one answer in messages."""

    def __init__(self, name: str | None) -> None:
        self._name = name
        self._head: dict[str, Any] = {}
        self._streams = False
        self._rest = b""
        self.whole = False

    def head(self, status: int, headers: list[tuple[bytes, bytes]]) -> Iterator[bytes]:
        """The answer begins: a stream says so at once."""
        told = {name.decode(): value.decode("latin-1") for name, value in headers}
        self._streams = told.get("content-type", "").startswith("text/event-stream")
        self._head = {"id": self._name, "status": status, "headers": told}
        if self._streams:
            yield msgspec.json.encode(self._head)

    def part(self, data: bytes, *, more: bool) -> Iterator[bytes]:
        """Some of the body, or the rest of it."""
        self._rest += data
        if self._streams:
            *events, self._rest = self._rest.split(b"\n\n")
            for event in events:
                yield from self._event(event)
            if not more:
                yield self.done()
        elif not more:
            self.whole = True
            yield msgspec.json.encode(self._head | {"body": msgspec.Raw(self._rest)})

    def done(self) -> bytes:
        """Nothing follows."""
        self.whole = True
        return msgspec.json.encode({"id": self._name, "done": True})

    def _event(self, event: bytes) -> Iterator[bytes]:
        told: dict[str, Any] = {"id": self._name}
        for line in event.splitlines():
            name, _, value = line.partition(b": ")
            if name == b"event":
                told["event"] = value.decode()
            elif name == b"data" and value != _DONE:
                yield msgspec.json.encode(told | {"data": msgspec.Raw(value)})
