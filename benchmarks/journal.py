"""How many journal entries a second become durable, in SQLite and PostgreSQL, and how long a start takes.

Run as `python -m benchmarks.journal [--folder DIR] [--seconds S] [--jobs N]`. The folder's disk is what is measured;
both databases are on it, with every commit flushed. Without a PostgreSQL on this machine its columns are missing.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sqlite3
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from pathlib import Path

from haif.base import limits
from haif.base.ids import Digest, JobId, ModelDigest, PeerId, Seed
from haif.orchestrator import events
from haif.orchestrator.events import AttemptReserved, Event, JobFinalised, JobSubmitted
from haif.orchestrator.service import MIGRATIONS, snapshots
from haif.orchestrator.service.record import Record
from haif.runtime.clock import SystemClock
from haif.storage.service import JOURNAL_SCHEMA, Database, DatabaseStatistics, Journal, Store
from haif.storage.service.postgres import PostgresJournal
from haif.telemetry.service import Telemetry
from tests.support.postgres import Server, programs, server

ENTRY_BYTES = 600  # as an event with a reservation or a receipt in it
CALLERS = (1, 8, 64, 512)
OPEN_JOBS = 1000  # of an orchestrator that is killed


@asynccontextmanager
async def sqlite(path: Path) -> AsyncIterator[tuple[Store, Callable[[], DatabaseStatistics]]]:
    async with Database(path, [JOURNAL_SCHEMA], exclusive=True) as database:
        yield Journal(database), database.statistics


@asynccontextmanager
async def postgresql(running: Server) -> AsyncIterator[tuple[Store, Callable[[], DatabaseStatistics]]]:
    async with PostgresJournal(await running.database(), bytes(32)) as journal:
        yield journal, journal.statistics


async def measure(
    opened: AbstractAsyncContextManager[tuple[Store, Callable[[], DatabaseStatistics]]], callers: int, seconds: float
) -> tuple[float, float, float]:
    """Durable entries a second, entries a commit, and the median time one append took in milliseconds."""
    took: list[float] = []
    async with opened as (journal, statistics):
        end = time.perf_counter() + seconds

        async def append() -> None:
            while (begun := time.perf_counter()) < end:
                await journal.append([os.urandom(ENTRY_BYTES)])
                took.append(time.perf_counter() - begun)

        begun = time.perf_counter()
        await asyncio.gather(*(append() for _ in range(callers)))
        elapsed = time.perf_counter() - begun
        commits = statistics().commits
    took.sort()
    return len(took) / elapsed, len(took) / commits, took[len(took) // 2] * 1000


async def replay(folder: Path) -> float:
    """Entries a second read back and checked."""
    async with Database(folder / f"{CALLERS[-1]}.sqlite", [JOURNAL_SCHEMA], exclusive=True) as database:
        begun = time.perf_counter()
        entries = [number async for number, _ in Journal(database).replay()]
        return len(entries) / (time.perf_counter() - begun)


def job(number: int) -> Iterator[Event]:
    """A job as most are: submitted, reserved, finalised; with evidence of the usual size."""
    name, peer, some = JobId(number.to_bytes(16, "big")), PeerId(bytes(32)), Digest(bytes(32))
    model, seed = ModelDigest(bytes(32)), Seed(bytes(32))
    yield JobSubmitted(name, peer, "tenant", "model", model, some, 256, None, seed, bytes(80), 2, 1)
    yield AttemptReserved(name, 1, peer, "127.0.0.1", 4000, os.urandom(500), some, 2, 0, 1)
    yield JobFinalised(name, 1, 200, os.urandom(600), os.urandom(200), 2)


async def fill(path: Path, numbers: range) -> None:
    """Write these jobs."""
    async with Database(path, MIGRATIONS, exclusive=True) as database:
        journal = Journal(database)
        for number in numbers:
            entries = [events.encode(event) for event in job(number)]
            written = journal.append_nowait(entries, subject=number.to_bytes(16, "big"))
            if number % 1000 == 0:
                await written


async def hold(url: str) -> None:
    """In a child: an orchestrator with open jobs, until it is killed."""
    async with PostgresJournal(url, bytes([1]) * 32) as journal:
        for number in range(OPEN_JOBS):
            entries = [events.encode(event) for event in list(job(number))[:2]]
            done = journal.append_nowait(entries, subject=number.to_bytes(16, "big"), refused=lambda: None)
        await done
        print("ready", flush=True)
        await asyncio.Event().wait()


async def takeover(running: Server) -> float:
    """Seconds from kill -9 of one orchestrator until another has all of its jobs."""
    url = await running.database()
    program = "import asyncio, sys; from benchmarks.journal import hold; asyncio.run(hold(sys.argv[1]))"
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", program, url, stdout=asyncio.subprocess.PIPE)
    assert child.stdout is not None
    async with PostgresJournal(url, bytes([2]) * 32) as journal:
        heir = Record(journal, Telemetry(role="orchestrator", instance="bench"), SystemClock(), lambda *_: None)
        await heir.remember()
        inheriting = asyncio.create_task(heir.inherit(PeerId(bytes([2]) * 32)))
        await child.stdout.readline()
        child.kill()
        begun = time.perf_counter()
        while len(heir.state.open) < OPEN_JOBS:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        took = time.perf_counter() - begun
        inheriting.cancel()
        await child.wait()
    return took


async def start(path: Path) -> tuple[float, int]:
    """Seconds from the file to a state that decisions can be made on, and the entries that were read for it."""
    async with Database(path, MIGRATIONS, exclusive=True) as database:
        begun = time.perf_counter()
        found = await snapshots.restore(Journal(database))
        before = found.sequence
        await snapshots.follow(Journal(database), found)
        return time.perf_counter() - begun, found.sequence - before


async def snapshot(path: Path) -> tuple[float, float]:
    """Seconds that a snapshot took, and the longest that something else had to wait for its turn beside it."""
    longest = 0.0

    async def notice() -> None:
        nonlocal longest
        while True:
            begun = time.perf_counter()
            await asyncio.sleep(0)
            longest = max(longest, time.perf_counter() - begun)

    async with Database(path, MIGRATIONS, exclusive=True) as database:
        noticing = asyncio.create_task(notice())
        begun = time.perf_counter()
        await snapshots.write(Journal(database), SystemClock())
        took = time.perf_counter() - begun
        noticing.cancel()
    return took, longest


def starts(path: Path, jobs: int) -> None:
    """The table of starts; the last with as many entries after the snapshot as there ever are."""
    tail = limits.SNAPSHOT_ENTRIES // 3
    asyncio.run(fill(path, range(jobs - tail)))
    asyncio.run(snapshot(path))
    took, pause = asyncio.run(snapshot(path))
    asyncio.run(fill(path, range(jobs - tail, jobs)))
    with_snapshot, read = asyncio.run(start(path))
    forget(path)
    without, whole = asyncio.run(start(path))
    print(f"\n| start after {jobs:,} jobs | entries read | s | against none |")
    print("|---|---:|---:|---:|")
    print(f"| without a snapshot | {whole:,} | {without:.2f} | 1.0x |")
    print(f"| with one, {read:,} entries ago | {read:,} | {with_snapshot:.2f} | {without / with_snapshot:.1f}x |")
    print(f"\na snapshot from the one before it: {took:.2f} s, others wait at most {pause * 1000:.1f} ms")


def forget(path: Path) -> None:
    """Lose the snapshots, as a disk may."""
    connection = sqlite3.connect(path)
    connection.executescript("DELETE FROM journal_parts")
    connection.close()


def fsyncs(folder: Path, seconds: float) -> float:
    """What the disk gives: 4 KiB writes, each followed by fsync, a second."""
    with (folder / "fsync").open("wb") as file:
        done, end = 0, time.perf_counter() + seconds
        while time.perf_counter() < end:
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
            done += 1
    return done / seconds


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=None, help="measure the disk of this folder")
    parser.add_argument("--seconds", type=float, default=2.0, help="for each row")
    parser.add_argument("--jobs", type=int, default=100_000, help="of the journal that a start reads")
    arguments = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=arguments.folder)))
        running = stack.enter_context(server(parent=arguments.folder)) if programs() else None
        print(f"{ENTRY_BYTES}-byte entries, WAL, synchronous=FULL; bare fsync: {fsyncs(folder, 1.0):,.0f}/s\n")
        print("| store | callers | durable entries/s | entries per commit | median append, ms | against one by one |")
        print("|---|---:|---:|---:|---:|---:|")
        rates: dict[str, list[float]] = {"SQLite": [], "PostgreSQL": []}
        for callers in CALLERS:
            for store, its in rates.items():
                if store == "PostgreSQL" and running is None:
                    continue
                opened = sqlite(folder / f"{callers}.sqlite") if store == "SQLite" else postgresql(running)
                rate, together, median = asyncio.run(measure(opened, callers, arguments.seconds))
                its.append(rate)
                against = f"{rate / its[0]:.1f}x"
                print(f"| {store} | {callers} | {rate:,.0f} | {together:.1f} | {median:.2f} | {against} |", flush=True)
        if running is not None:
            shares = ", ".join(f"{p / s:.2f}" for s, p in zip(*rates.values(), strict=True))
            print(f"\nPostgreSQL's rate, SQLite's being 1: {shares}")
            took = asyncio.run(takeover(running))
            print(f"killed, with {OPEN_JOBS:,} open jobs: {took:.1f} s until all of them are with another orchestrator")
        print(f"\nreplayed and checked: {asyncio.run(replay(folder)):,.0f} entries/s")
        starts(folder / "jobs.sqlite", arguments.jobs)


if __name__ == "__main__":
    main()
