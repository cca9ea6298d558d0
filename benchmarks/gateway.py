"""HAIF's gateway beside other gateways, in one run: what a request costs, and what a streamed token costs.

Everybody is put before a stub upstream that gives the same answers and computes nothing, one gateway at a time, under
the same load; the figures are of the gateway's process alone. HAIF's is the real one with its whole path: key, quota,
breaker, placement by an orchestrator, a Noise session to a worker, the reservation's and the receipt's signatures
checked, the countersignature, metrics and spans. The others relay HTTP (`benchmarks.peers.gateways`). Figures are CPU
time, which a busy machine leaves nearly alone; those of latency are the machine's of that hour.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import uvloop

from benchmarks.contenders import cpu_of
from benchmarks.http_load import Connection, Target, as_fast_as_they_come, at_a_rate, connections
from benchmarks.mesh import machine
from benchmarks.peers import gateways
from benchmarks.run import RESULTS
from benchmarks.stub_answers import many_files
from haif.gateway.service import open_store
from haif.gateway.tenants import Tenant
from haif.identity.service import Keyring
from haif.runtime.clock import entropy

WORKERS = 5  # of the stub mesh: a session carries 256 streams
CONNECTIONS = 32  # that ask for whole answers
AT_ONCE = 64  # streams that begin together
START_SECONDS = 60.0


@dataclass
class Row:
    """What was measured of one gateway; what could not be is missing, and `why` says it."""

    name: str
    figures: dict[str, float] = field(default_factory=dict)
    why: str = ""


@dataclass(frozen=True)
class Load:
    """How much is asked for."""

    seconds: float
    rates: tuple[int, ...]
    streams: tuple[int, ...]
    open_streams: int


@dataclass
class Running:
    """A gateway that is up."""

    process: subprocess.Popen[bytes]
    target: Target

    def cpu(self) -> float:
        """CPU-seconds so far."""
        return cpu_of(self.process.pid)

    def resident(self) -> float:
        """Resident memory of its processes, in MB."""
        whole = psutil.Process(self.process.pid)
        return sum(each.memory_info().rss for each in (whole, *whole.children(recursive=True))) / 1e6


# --- starting ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def process(command: list[str], folder: Path, cores: set[int]) -> Iterator[subprocess.Popen[bytes]]:
    """It runs inside the block, on these cores; what it says on stderr is kept in the folder."""
    with (folder / "stderr").open("ab") as errors:
        running = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors)
    with contextlib.suppress(OSError):
        os.sched_setaffinity(running.pid, cores)
    try:
        yield running
    finally:
        running.terminate()
        try:
            running.wait(10)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


def said(running: subprocess.Popen[bytes]) -> dict[str, Any]:
    """The line of JSON that a process prints when it is ready."""
    assert running.stdout is not None
    line = running.stdout.readline()
    if not line:
        raise RuntimeError(f"{running.args!r} ended before it was ready")
    told: dict[str, Any] = json.loads(line)
    return told


@asynccontextmanager
async def haif(folder: Path, server: set[int], others: set[int]) -> AsyncIterator[Running]:
    """The real gateway before the stub mesh."""
    ring = Keyring(folder / "keys")
    ring.load_or_create("gateway", entropy)
    async with open_store(folder) as store:
        _, key = await store.create(Tenant("bench", 1_000_000, 1_000_000))
    stub = [sys.executable, "-m", "benchmarks.stub_mesh", str(folder), str(WORKERS)]
    with process(stub, folder, others) as mesh:
        card = said(mesh)
        command = [sys.executable, "-m", "haif.cli.main", "gateway", "--json", "--until-eof", "--state", str(folder)]
        command += ["--orchestrator", card["peer"], "--bootstrap", card["dht"], "--http-port", "0"]
        with process(command, folder, server) as running:
            host, _, port = said(running)["http"].removeprefix("http://").partition(":")
            yield Running(running, Target(host, int(port), key))


@asynccontextmanager
async def peer(name: str, folder: Path, server: set[int], others: set[int]) -> AsyncIterator[Running]:
    """Another gateway before the stub that speaks HTTP. Raises `RuntimeError` where it cannot be had."""
    with process([sys.executable, "-m", "benchmarks.stub_http"], folder, others) as stub:
        port = free_port()
        how = gateways.start(name, folder, port, said(stub)["port"])
        with process(how.command, folder, server) as running:
            yield Running(running, Target("127.0.0.1", port, how.key))


@asynccontextmanager
async def directly(folder: Path, others: set[int]) -> AsyncIterator[Target]:
    """The stub that speaks HTTP, without anybody before it."""
    with process([sys.executable, "-m", "benchmarks.stub_http"], folder, others) as stub:
        yield Target("127.0.0.1", said(stub)["port"], "none")


def free_port() -> int:
    """A port nobody has now, for programs that cannot pick one themselves; the next one is free, most likely."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def until_ready(running: Running) -> None:
    """Until it gives a whole answer. Raises `RuntimeError` if it ends, or does not within `START_SECONDS`."""
    until, why = time.monotonic() + START_SECONDS, ""
    while time.monotonic() < until and running.process.poll() is None:
        try:
            async with asyncio.timeout(10), connections(running.target, 1) as opened:
                return await opened[0].ask(running.target.request())
        except (OSError, RuntimeError, TimeoutError) as error:
            why = str(error)
            await asyncio.sleep(0.05)
    raise RuntimeError(f"it never answered: {why}")


# --- measuring --------------------------------------------------------------------------------------------------------


async def measure(running: Running, load: Load, direct: dict[str, float], row: Row) -> None:
    """Every figure, the dearest last."""
    figures = row.figures
    await until_ready(running)
    figures["start CPU s"] = running.cpu()
    figures["idle MB"] = running.resident()
    figures["µs/request"] = await whole_answers(running, load.seconds)
    for rate in load.rates:
        if rate * figures["µs/request"] > 0.9e6:
            continue  # more than one core can do
        p50, p99 = await latency(running.target, rate, load.seconds)
        figures[f"p50 +ms @{rate}/s"] = 1e3 * p50 - direct[f"p50 @{rate}/s"]
        figures[f"p99 +ms @{rate}/s"] = 1e3 * p99 - direct[f"p99 @{rate}/s"]
    for streams in load.streams:
        figures[f"µs/token, {streams} streams"], share = await streamed(running, streams, load.seconds)
        if share < 0.9:
            row.why += f"; of {50 * streams} tokens/s offered it carried {share:.0%}"
            break
    resident = await held_open(running, load.open_streams)
    figures["KB/stream"] = (resident - figures["idle MB"]) / load.open_streams * 1e3


async def whole_answers(running: Running, seconds: float) -> float:
    """CPU microseconds of an answer that is not streamed, while all connections ask again at once."""
    request = running.target.request()
    async with connections(running.target, CONNECTIONS) as opened:
        await as_fast_as_they_come(opened, request, min(1.0, seconds))
        before = running.cpu()
        answers = await as_fast_as_they_come(opened, request, seconds)
        return (running.cpu() - before) / answers * 1e6


async def latency(target: Target, rate: int, seconds: float) -> tuple[float, float]:
    """Median and 99th percentile in seconds at so many requests a second."""
    async with connections(target, 64) as opened:
        await at_a_rate(opened, target.request(), rate, 0.5)
        took = await at_a_rate(opened, target.request(), rate, seconds)
    return statistics.median(took), took[int(len(took) * 0.99)]


async def streamed(running: Running, streams: int, seconds: float) -> tuple[float, float]:
    """CPU microseconds of a token while all streams are open at 50 tokens/s; which share of those arrived."""
    request = running.target.request(milliseconds=20, tokens=int((seconds + 4) * 50))
    async with speaking(running, streams, request) as opened:
        tokens, before, begun = sum(each.tokens for each in opened), running.cpu(), time.monotonic()
        await asyncio.sleep(seconds)
        used, took = running.cpu() - before, time.monotonic() - begun
        came = sum(each.tokens for each in opened) - tokens
    return used / max(1, came) * 1e6, came / (50 * streams * took)


async def held_open(running: Running, streams: int) -> float:
    """Resident memory in MB while so many streams are open and each says two tokens a second."""
    request = running.target.request(milliseconds=500, tokens=120)
    async with speaking(running, streams, request):
        return running.resident()


@asynccontextmanager
async def speaking(running: Running, streams: int, request: bytes) -> AsyncIterator[list[Connection]]:
    """So many streams, begun some at a time; inside the block every one of them has said a token."""
    opened: list[Connection] = []
    until = time.monotonic() + START_SECONDS
    async with AsyncExitStack() as stack:
        while len(opened) < streams:
            few = min(AT_ONCE, streams - len(opened))
            opened += await stack.enter_async_context(connections(running.target, few))
            for each in opened[-few:]:
                each.ask(request)
            while not all(each.tokens for each in opened[-few:]):
                await asyncio.sleep(0.01)
                for each in opened:
                    each.check()
                if running.process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError(f"of {streams} streams {sum(not each.tokens for each in opened)} never began")
        yield opened


async def run(names: list[str], load: Load) -> list[Row]:
    """Measure those named, one after the other."""
    many_files()
    cores = sorted(os.sched_getaffinity(0))
    server, others = ({cores[0]}, set(cores[1:])) if len(cores) > 1 else (set(cores), set(cores))
    os.sched_setaffinity(0, others)
    rows, direct = [], dict[str, float]()
    with tempfile.TemporaryDirectory(prefix="bench-") as below:
        async with directly(Path(below), others) as target:
            for rate in load.rates:
                p50, p99 = await latency(target, rate, load.seconds)
                direct |= {f"p50 @{rate}/s": 1e3 * p50, f"p99 @{rate}/s": 1e3 * p99}
        for name in names:
            folder = Path(below) / name
            folder.mkdir(mode=0o700)
            row = Row(name)
            rows.append(row)
            opened = haif(folder, server, others) if name == "haif" else peer(name, folder, server, others)
            try:
                async with opened as running:
                    await measure(running, load, direct, row)
            except (OSError, RuntimeError, TimeoutError) as error:
                row.why += f"; {str(error) or type(error).__name__}"
            print(f"{name}: {row.figures} {row.why}", file=sys.stderr, flush=True)
    return rows


def table(rows: list[Row], before: str) -> str:
    """The measurement as Markdown."""
    columns = list(dict.fromkeys(column for row in rows for column in row.figures))
    lines = [f"{before}. The gateway on one core, load and stub on the others.", ""]
    lines += ["| gateway | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for row in rows:
        shown = [f"{row.figures[each]:.3g}" if each in row.figures else "" for each in columns]
        shown = [f"{float(each):,.0f}" if each and abs(float(each)) >= 1000 else each for each in shown]
        lines.append("| " + " | ".join([row.name, *shown]) + " |")
    lines += ["", *(f"{row.name}: {row.why.removeprefix('; ')}." for row in rows if row.why)]
    return "\n".join(lines).strip() + "\n"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of haif, {', '.join(gateways.NAMES)} (default: all)")
    parser.add_argument("--seconds", type=float, default=4.0, help="how long each load lasts")
    parser.add_argument("--write", action="store_true", help="keep the table in benchmarks/results/gateway.md")
    options = parser.parse_args()
    unknown = set(options.names) - {"haif", *gateways.NAMES}
    if unknown:
        parser.error(f"there is no gateway {', '.join(sorted(unknown))}")
    before = machine()
    load = Load(options.seconds, rates=(500, 2000), streams=(10, 100, 400), open_streams=1000)
    text = table(uvloop.run(run(options.names or ["haif", *gateways.NAMES], load)), before)
    print(text)
    if options.write:
        head = "# gateway\n\n`python -m benchmarks.gateway` on "
        (RESULTS / "gateway.md").write_text(head + text)


if __name__ == "__main__":
    main()
