"""How many journal entries a second become durable: one by one, and when many wait at once (group commit).

Run as `python -m benchmarks.journal [--folder DIR] [--seconds S]`. The folder's disk is what is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from pathlib import Path

from haif.storage.service import JOURNAL_SCHEMA, Database, Journal

ENTRY_BYTES = 600  # as an event with a reservation or a receipt in it
CALLERS = (1, 8, 64, 512)


async def measure(folder: Path, callers: int, seconds: float) -> tuple[float, float, float]:
    """Durable entries a second, entries a commit, and the median time one append took in milliseconds."""
    took: list[float] = []
    async with Database(folder / f"{callers}.sqlite", [JOURNAL_SCHEMA], exclusive=True) as database:
        journal = Journal(database)
        end = time.perf_counter() + seconds

        async def append() -> None:
            while (begun := time.perf_counter()) < end:
                await journal.append([os.urandom(ENTRY_BYTES)])
                took.append(time.perf_counter() - begun)

        begun = time.perf_counter()
        await asyncio.gather(*(append() for _ in range(callers)))
        elapsed = time.perf_counter() - begun
        commits = database.statistics().commits
    took.sort()
    return len(took) / elapsed, len(took) / commits, took[len(took) // 2] * 1000


async def replay(folder: Path) -> float:
    """Entries a second read back and checked."""
    async with Database(folder / f"{CALLERS[-1]}.sqlite", [JOURNAL_SCHEMA], exclusive=True) as database:
        begun = time.perf_counter()
        entries = [number async for number, _ in Journal(database).replay()]
        return len(entries) / (time.perf_counter() - begun)


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
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        print(f"{ENTRY_BYTES}-byte entries, WAL, synchronous=FULL; bare fsync: {fsyncs(folder, 1.0):,.0f}/s\n")
        print("| callers | durable entries/s | entries per commit | median append, ms | against one by one |")
        print("|---:|---:|---:|---:|---:|")
        alone = 0.0
        for callers in CALLERS:
            rate, together, median = asyncio.run(measure(folder, callers, arguments.seconds))
            alone = alone or rate
            print(f"| {callers} | {rate:,.0f} | {together:.1f} | {median:.2f} | {rate / alone:.1f}x |", flush=True)
        print(f"\nreplayed and checked: {asyncio.run(replay(folder)):,.0f} entries/s")


if __name__ == "__main__":
    main()
