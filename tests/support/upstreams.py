"""Scripted HTTP servers that stand where an OpenAI-compatible one should: honest, broken, hostile."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from haif.engine.service import Upstream, UpstreamSettings, server_at
from haif.runtime.clock import SystemClock

MODEL = "theirs"


def http(body: bytes, *, status: str = "200 OK", kind: str = "text/event-stream", extra: str = "") -> bytes:
    """An answer whose end is the end of the connection."""
    return f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\n{extra}\r\n".encode() + body


def event(**fields: Any) -> bytes:
    return b"data: " + json.dumps(fields).encode() + b"\n\n"


def said(text: str | None, reason: str | None = None) -> bytes:
    return event(choices=[{"index": 0, "delta": {"content": text}, "finish_reason": reason}])


def usage(prompt: int, completion: int) -> bytes:
    return event(choices=[], usage={"prompt_tokens": prompt, "completion_tokens": completion})


DONE = b"data: [DONE]\n\n"
HONEST = http(said("once ") + said("upon") + said(None, "stop") + usage(3, 3) + DONE)
MODELS = http(json.dumps({"data": [{"id": MODEL, "max_model_len": 900}]}).encode(), kind="application/json")
HANG = object()
"""In a script: say nothing more and keep the connection."""


@dataclass
class Scripted:
    """What the server saw, and what it answers next: `script` for a chat or completion, `models` for the list."""

    script: list[Any] = field(default_factory=lambda: [HONEST])
    models: bytes = MODELS
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)
    url: str = ""
    server: asyncio.Server | None = None

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = dict(line.split(": ", 1) for line in head[1:] if line)
            body = await reader.readexactly(int(headers["Content-Length"]))
            if head[0].split()[1].endswith("/models"):
                writer.write(self.models)
                return
            self.requests.append((head[0], headers, body))
            self.asked.set()
            for part in self.script:
                if part is HANG:
                    await reader.read()
                    self.left.set()
                else:
                    writer.write(part)
                    await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            self.left.set()
        finally:
            writer.close()


@asynccontextmanager
async def scripted(**options: Any) -> AsyncIterator[Scripted]:
    stand = Scripted(**options)
    stand.server = await asyncio.start_server(stand.connected, "127.0.0.1", 0)
    stand.url = f"http://127.0.0.1:{stand.server.sockets[0].getsockname()[1]}/v1"
    try:
        yield stand
    finally:
        stand.server.close()


def upstream(
    url: str, *, slots: int = 2, context_tokens: int = 0, key: str = "", died: Callable[[str], None] = lambda _: None
) -> Upstream:
    server = server_at(url, allowed=(), key=key)
    return Upstream(UpstreamSettings(server, MODEL, slots, context_tokens), clock=SystemClock(), on_died=died)
