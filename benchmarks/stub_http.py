"""An upstream that speaks OpenAI's dialect and computes nothing: what other gateways are put in front of.

It prints its port and serves until its standard input ends.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from typing import Any, cast

import httptools
import uvloop

from benchmarks.stub_answers import MODEL, TOKEN, WHOLE, Beat, many_files, wanted

_HEAD = {"id": "chatcmpl-0", "created": 1, "model": MODEL}
_USAGE = {"prompt_tokens": 16, "completion_tokens": 16, "total_tokens": 32}
_CHOICE = {"index": 0, "message": {"role": "assistant", "content": WHOLE}, "finish_reason": "stop", "logprobs": None}
_WHOLE = json.dumps({**_HEAD, "object": "chat.completion", "choices": [_CHOICE], "usage": _USAGE}).encode()
_MODELS = json.dumps({"object": "list", "data": [{"id": MODEL, "object": "model", "owned_by": "stub"}]}).encode()


def _event(delta: dict[str, Any], reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
    data = json.dumps({**_HEAD, "object": "chat.completion.chunk", "choices": [choice]}, separators=(",", ":"))
    return _chunk(b"data: " + data.encode() + b"\n\n")


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


_FIRST, _TOKEN, _LAST = _event({"role": "assistant", "content": ""}), _event({"content": TOKEN}), _event({}, "stop")
_DONE = _chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"
_STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


class Upstream(asyncio.Protocol):
    """One connection; requests on it are answered one after the other."""

    beat = Beat()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._parser = httptools.HttpRequestParser(self)
        self._body: list[bytes] = []
        self._path = b""
        self._task: asyncio.Task[None] | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        if self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    # --- the parser calls these ---------------------------------------------------------------------------------------

    def on_url(self, url: bytes) -> None:
        self._path = url
        self._body = []

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        if not self._path.endswith(b"/chat/completions"):
            self._reply(_MODELS)
            return
        asked = json.loads(b"".join(self._body))
        if not asked.get("stream"):
            self._reply(_WHOLE)
            return
        content = asked["messages"][-1]["content"]
        seconds, tokens = wanted(content if isinstance(content, str) else content[0]["text"])
        self._task = asyncio.create_task(self._stream(seconds, tokens))

    def _reply(self, body: bytes) -> None:
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
        self._transport.write(head + body)

    async def _stream(self, seconds: float, tokens: int) -> None:
        self._transport.write(_STREAM + _FIRST)
        for _ in range(tokens):
            await self.beat.wait(seconds)
            self._transport.write(_TOKEN)
        self._transport.write(_LAST + _DONE)


async def serve() -> None:
    """Serve until standard input ends."""
    many_files()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Upstream, "127.0.0.1", 0, backlog=4096)
    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    uvloop.run(serve())
