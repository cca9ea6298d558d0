"""Everything that serves a model here, behind one door: a prompt in, the times at which its tokens arrived out.

HAIF's engine (its child in the jail, read through the parent as a worker reads it), the whole mesh over HTTP,
llama-server and `python -m llama_cpp.server`. All are kept running side by side on one model file, so that they can
take turns. CPU time is that of all processes of a contender; of the engine this process, which reads it,
is part.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import psutil

from benchmarks.mesh import Mesh
from benchmarks.peers import llama
from haif.base.ids import JobId, Seed
from haif.base.sampling import Sampling
from haif.engine.request import Generate, Piece
from haif.engine.service import Engine, EngineSettings
from haif.engine.service.settings import digest_of, open_model
from haif.runtime.clock import SystemClock, entropy


@dataclass(frozen=True)
class Shape:
    """What every contender is given: a model file, slots, tokens of context each, and threads."""

    model: Path
    slots: int
    context_tokens: int
    threads: int


@dataclass
class Heard:
    """One answer: when it was asked for, and when something of it arrived, in seconds of `time.perf_counter`."""

    asked: float = 0.0
    arrived: list[float] = field(default_factory=list)
    bell: asyncio.Event = field(default_factory=asyncio.Event)  # rung at every arrival; may be shared

    def arrive(self) -> None:
        """Something arrived now."""
        self.arrived.append(time.perf_counter())
        self.bell.set()

    @property
    def first(self) -> float:
        """Seconds to the first token."""
        return self.arrived[0] - self.asked


class Contender(Protocol):
    """One server of the model."""

    name: str

    async def ask(self, prompt: str, tokens: int, heard: Heard, *, reuse: bool = False) -> None:
        """Stream an answer of so many tokens, greedy. With `reuse`, what earlier prompts computed may be used."""

    def cpu(self) -> float:
        """CPU-seconds so far."""


class OfEngine:
    """HAIF's engine."""

    def __init__(self, name: str, engine: Engine, pid: int) -> None:
        self.name = name
        self._engine = engine
        self._pid = pid

    async def ask(self, prompt: str, tokens: int, heard: Heard, *, reuse: bool = False) -> None:
        request = Generate(
            JobId(bytes(16)), None, prompt, tokens, Sampling(0.0), [], Seed(bytes(32)), scope=b"bench" * reuse
        )
        heard.asked = time.perf_counter()
        async with self._engine.generate(request) as pieces:
            async for piece in pieces:
                if isinstance(piece, Piece):
                    heard.arrive()

    def cpu(self) -> float:
        return time.process_time() + cpu_of(self._pid)


class OfHttp:
    """A server that speaks OpenAI's dialect; `more` goes with each request, `fresh` with those that reuse nothing."""

    def __init__(
        self,
        name: str,
        address: tuple[str, int],
        pid: int,
        more: dict[str, Any],
        *,
        fresh: dict[str, Any],
        key: str = "",
    ) -> None:
        self.name = name
        self._address, self._pid = address, pid
        self._more, self._fresh = more, fresh
        self._key = key

    async def ask(self, prompt: str, tokens: int, heard: Heard, *, reuse: bool = False) -> None:
        asked = {"prompt": prompt, "max_tokens": tokens, "temperature": 0, "stream": True, **self._more}
        body = json.dumps(asked if reuse else asked | self._fresh).encode()
        reader, writer = await asyncio.open_connection(*self._address)
        heard.asked = time.perf_counter()
        writer.write(
            b"POST /v1/completions HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nAuthorization: Bearer "
            + self._key.encode() + b"\r\nContent-Length: " + str(len(body)).encode() + b"\r\n\r\n" + body
        )  # fmt: skip
        head = await reader.readuntil(b"\r\n\r\n")
        if b" 200 " not in head.split(b"\r\n")[0]:
            raise RuntimeError(head.decode() + (await reader.read(2000)).decode())
        event = b""
        while b"[DONE]" not in event:
            event = await reader.readuntil(b"\n\n")
            if b'"text":' in event and b'"text":""' not in event and b'"text": ""' not in event:
                heard.arrive()
        writer.close()

    def cpu(self) -> float:
        return cpu_of(self._pid)


@asynccontextmanager
async def contenders(shape: Shape, folder: Path, *, names: tuple[str, ...]) -> AsyncIterator[list[Contender]]:
    """Those named, started one after the other and ended when the block is left."""
    async with AsyncExitStack() as stack:
        below = stack.enter_context(ExitStack())
        yield [await _start(name, shape, folder, stack, below) for name in names]


async def _start(name: str, shape: Shape, folder: Path, stack: AsyncExitStack, below: ExitStack) -> Contender:
    kind, _, profile = name.partition(" ")
    if kind == "engine":
        before = set(psutil.Process().children())
        running = await stack.enter_async_context(engine(shape, profile))
        (child,) = set(psutil.Process().children()) - before
        return OfEngine(name, running, child.pid)
    if kind == "mesh":
        more = {
            "HAIF_WORKER_SLOTS": str(shape.slots), "HAIF_WORKER_CONTEXT_TOKENS": str(shape.context_tokens),
            "HAIF_WORKER_PROFILE": profile,
        }  # fmt: skip
        mesh = Mesh(folder, shape.model, shape.threads, environment=more)
        below.callback(mesh.stop)
        return OfHttp(name, mesh.address, mesh.process.pid, {"model": mesh.card["model"]}, fresh={}, key=mesh.key)
    if name == "llama-server":
        server = below.enter_context(
            llama.llama_server(
                shape.model, slots=shape.slots, context_tokens=shape.context_tokens, threads=shape.threads
            )
        )
        return OfHttp(name, server.address, server.process.pid, {"ignore_eos": True}, fresh={"cache_prompt": False})
    server = below.enter_context(
        llama.python_server(shape.model, context_tokens=shape.context_tokens, threads=shape.threads)
    )
    return OfHttp(name, server.address, server.process.pid, {}, fresh={})


def engine(shape: Shape, profile: str, **more: Any) -> Engine:
    """HAIF's engine on that model."""
    descriptor, _ = open_model(shape.model)
    digest = digest_of(descriptor)
    os.close(descriptor)
    settings = EngineSettings(
        shape.model, digest, slots=shape.slots, context_tokens=shape.context_tokens, threads=shape.threads,
        profile=profile,
    )  # fmt: skip
    return Engine(settings, clock=SystemClock(), entropy=entropy, on_died=print, **more)


def cpu_of(pid: int) -> float:
    """User and system seconds of a process and all below it."""
    whole = psutil.Process(pid)
    total = 0.0
    for each in (whole, *whole.children(recursive=True)):
        try:
            times = each.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total
