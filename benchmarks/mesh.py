"""A whole mesh against llama.cpp driven directly, in one run: throughput, time to first token, requests per second.

The mesh is `haif up` with one worker: gateway, orchestrator, worker and engine child as separate processes, a light
HTTP client in this one. "direct" is `benchmarks.direct`. They take turns on the same machine; medians count, and the
ratio is what matters: absolute figures are the machine's.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from haif.artifacts.service import DEMO_FOLDER, DEMO_NAME
from haif.engine.sandbox import ENVIRONMENT
from tests.support.tiny_model import build_benchmark_model

PROMPT = "the of and in to a is it"
CONTEXT = 512


@dataclass
class Answer:
    """What one streamed request gave, in seconds since it was sent."""

    first: float
    last: float
    tokens: int


class Mesh:
    """A running `haif up`."""

    def __init__(
        self, state: Path, model: Path | str, threads: int, *, environment: Mapping[str, str] | None = None
    ) -> None:
        command = [sys.executable, "-m", "haif.cli.main", "up", "--json", "--workers", "1", "--state", str(state)]
        self.process = subprocess.Popen(
            [*command, "--model", str(model), "--threads", str(threads)], stdout=subprocess.PIPE, text=True,
            env={**os.environ, **(environment or {})},
        )  # fmt: skip
        assert self.process.stdout is not None
        began = time.monotonic()
        self.card = json.loads(self.process.stdout.readline())
        self.seconds = time.monotonic() - began
        host, port = self.card["gateway"].removeprefix("http://").split(":")
        self.address = host, int(port)
        run = [
            sys.executable,
            "-m",
            "haif.cli.main",
            "tenant",
            "create",
            "bench",
            "--rpm",
            "600000",
            "--burst",
            "100000",
        ]
        made = subprocess.run([*run, "--json", "--state", str(state)], capture_output=True, text=True, check=True)
        self.key = json.loads(made.stdout)["key"]

    def stop(self) -> float:
        """Interrupt it and wait; the seconds it took."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGINT)
        self.process.wait(20)
        return time.monotonic() - began

    async def connect(self) -> Connection:
        """A keep-alive connection to the gateway."""
        return Connection(*await asyncio.open_connection(*self.address), self.card["model"], self.key)


class Connection:
    """HTTP as thin as it goes, so that the client weighs little on the machine it shares."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, model: str, key: str) -> None:
        self.reader, self.writer, self.model, self.key = reader, writer, model, key

    def send(self, tokens: int, *, stream: bool, temperature: float = 0.0) -> None:
        """Send one completion request."""
        options = {"temperature": temperature, "stream": stream}
        body = json.dumps({"model": self.model, "prompt": PROMPT, "max_tokens": tokens, **options}).encode()
        self.writer.write(
            b"POST /v1/completions HTTP/1.1\r\nHost: haif\r\nContent-Type: application/json\r\nAuthorization: Bearer "
            + self.key.encode() + b"\r\nContent-Length: " + str(len(body)).encode() + b"\r\n\r\n" + body
        )  # fmt: skip

    async def head(self) -> bytes:
        """The reply's header. Raises if it is not 200."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        if b" 200 " not in head.split(b"\r\n")[0]:
            raise RuntimeError(head.decode() + (await self.reader.read(2000)).decode())
        return head

    async def streamed(self, tokens: int, temperature: float = 0.0) -> Answer:
        """One streamed answer, to its [DONE]."""
        began = time.perf_counter()
        self.send(tokens, stream=True, temperature=temperature)
        await self.head()
        first, text = 0.0, b""
        while b"[DONE]" not in text[-64:]:
            text += await self.reader.readuntil(b"\n\n")
            first = first or time.perf_counter() - began
        last = time.perf_counter() - began
        await self.reader.readuntil(b"0\r\n\r\n")
        return Answer(first, last, tokens)

    async def whole(self, tokens: int) -> float:
        """Seconds of one answer that is not streamed."""
        began = time.perf_counter()
        self.send(tokens, stream=False)
        head = (await self.head()).lower()
        length = int(head.partition(b"content-length: ")[2].partition(b"\r")[0])
        await self.reader.readexactly(length)
        return time.perf_counter() - began


class Direct:
    """The direct loop's process."""

    def __init__(self, model: Path, slots: int, threads: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.direct", str(model), str(slots), str(CONTEXT), str(threads)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | ENVIRONMENT,
        )  # fmt: skip

    def run(self, streams: int, tokens: int) -> dict[str, float]:
        """Measure once."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"streams": streams, "tokens": tokens, "prompt": PROMPT}) + "\n")
        self.process.stdin.flush()
        return dict(json.loads(self.process.stdout.readline()))

    def stop(self) -> None:
        """End it."""
        self.process.communicate(timeout=20)


async def rate(mesh: Mesh, streams: int, tokens: int, temperature: float = 0.0) -> float:
    """Tokens/s of `streams` streamed requests at once, all of equal length."""
    connections = [await mesh.connect() for _ in range(streams)]
    began = time.perf_counter()
    await asyncio.gather(*(each.streamed(tokens, temperature) for each in connections))
    seconds = time.perf_counter() - began
    for each in connections:
        each.writer.close()
    return streams * tokens / seconds


async def requests_per_second(mesh: Mesh, clients: int, each: int) -> float:
    """Completions of one token per second, by `clients` connections that each ask again when answered."""

    async def client() -> None:
        connection = await mesh.connect()
        for _ in range(each):
            await connection.whole(1)
        connection.writer.close()

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    return clients * each / (time.perf_counter() - began)


async def first_tokens(mesh: Mesh, count: int) -> list[float]:
    """Seconds to the first token of `count` requests, one after the other."""
    connection = await mesh.connect()
    found = [(await connection.streamed(2)).first for _ in range(count)]
    connection.writer.close()
    return found


def throughput(threads: int, tokens: int, rounds: int) -> list[list[str]]:
    """Rows for a model of about 100 million random parameters: a real load on the engine."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        model = build_benchmark_model(Path(folder) / "random-100m.gguf")
        mesh, direct = Mesh(Path(folder) / "state", model, threads), Direct(model, 8, threads)
        for streams in (1, 8):
            direct.run(streams, 8)
            asyncio.run(rate(mesh, streams, 8))
            found = [
                (direct.run(streams, tokens)["rate"], asyncio.run(rate(mesh, streams, tokens))) for _ in range(rounds)
            ]
            plain, through = (statistics.median(column) for column in zip(*found, strict=True))
            ratio = statistics.median(b / a for a, b in found)
            name = f"tokens/s, {streams} stream{'s' * (streams > 1)}, 100 M parameters Q8_0"
            rows.append([name, f"{through:.1f}", f"{plain:.1f}", f"{ratio:.3f}"])
        mesh.stop()
        direct.stop()
    return rows


def latency(threads: int, count: int) -> list[list[str]]:
    """Rows for the demo model: so small that what the mesh adds is nearly all there is to see."""
    with tempfile.TemporaryDirectory() as folder:
        (model,) = DEMO_FOLDER.glob("*.gguf")
        mesh, direct = Mesh(Path(folder), DEMO_NAME, threads), Direct(model, 8, threads)
        asyncio.run(first_tokens(mesh, 10))
        through = asyncio.run(first_tokens(mesh, count))
        plain = [direct.run(1, 1)["first"] for _ in range(count)]
        asyncio.run(requests_per_second(mesh, 8, 10))
        busy = asyncio.run(requests_per_second(mesh, 8, 60))
        alone = asyncio.run(requests_per_second(mesh, 1, 60))
        stopped = mesh.stop()
        direct.stop()
    added = [1000 * (statistics.median(through) - statistics.median(plain))]
    high = 1000 * sorted(through)[int(0.95 * len(through))]
    return [
        ["time to first token, median ms", f"{1000 * statistics.median(through):.1f}",
         f"{1000 * statistics.median(plain):.1f}", f"+{added[0]:.1f} ms"],
        ["time to first token, 95th percentile ms", f"{high:.1f}", "", ""],
        ["requests/s of 1 token, 8 clients", f"{busy:.0f}", "", ""],
        ["requests/s of 1 token, 1 client", f"{alone:.0f}", "", ""],
        ["`haif up` until ready, 1 worker, s", f"{mesh.seconds:.1f}", "", ""],
        ["Ctrl-C until everything has stopped, s", f"{stopped:.1f}", "", ""],
    ]  # fmt: skip


def machine() -> str:
    """What this was measured on, in a line."""
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    model = next((line.split(":")[1].strip() for line in info.splitlines() if line.startswith("model name")), "CPU")
    load = os.getloadavg()[0]
    return f"{os.cpu_count()} x {model}, Python {platform.python_version()}, {platform.system()}, load {load:.1f}"


def table(options: argparse.Namespace) -> str:
    """The whole measurement as Markdown."""
    before = machine()
    rows: list[list[Any]] = throughput(options.threads, options.tokens, options.rounds)
    rows += latency(options.threads, options.requests)
    lines = [f"{before}; {options.threads} engine thread(s), medians of {options.rounds} rounds", ""]
    lines += ["| figure | mesh | direct | ratio |", "|---|---|---|---|"]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=60)
    print(table(parser.parse_args()))


if __name__ == "__main__":
    main()
