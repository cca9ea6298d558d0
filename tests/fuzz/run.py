"""Hostile input without end: `python -m tests.fuzz.run --inputs 10000000 [--seed N] [--jobs N]`.

Each door gets its share, in batches that depend on seed, door and number only, so `--door D --batch B --seed N` plays
one again. An input fails if anything escapes that does not blame the peer, or if taking it costs more memory or work
than its length allows: both are measured in a part of the batches, work as calls of functions and not as time.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from random import Random
from typing import Any

from tests.fuzz.doors import DOORS

BATCH = 500
MEMORY_BYTES, MEMORY_FACTOR = 1 << 20, 100  # an input and the answer to it: so much, and so many times its length
WORK_CALLS, WORK_FACTOR = 40_000, 8  # calls of functions, Python's and C's


@dataclass(frozen=True)
class Batch:
    """A run of inputs that can be played again."""

    seed: int
    door: str
    number: int

    def __str__(self) -> str:
        return f"--seed {self.seed} --door {self.door} --batch {self.number}"


class Escaped(AssertionError):
    """An input that did what none may do."""


def play(batch: Batch, inputs: int = BATCH) -> int:
    """Take every input of a batch; how many that were. Raises `Escaped`."""
    rng = Random(f"{batch.seed} {batch.door} {batch.number}")
    door = DOORS[batch.door][0]()
    take = {7: partial(_weighed, door.take), 3: partial(_counted, door.take)}.get(batch.number % 16, door.take)
    for position in range(inputs):
        case = door.make(rng)
        try:
            take(case)
        except Exception as error:
            raise Escaped(f"{type(error).__name__}: {error}\n{batch}, input {position}: {case!r}"[:4000]) from error
    return inputs


def _weighed(take: Callable[[Any], None], case: Any) -> None:
    for shared in _caches():  # bounded, and no input's: but the one that comes when a large one grows would be blamed
        shared.cache_clear()
    tracemalloc.start()
    try:
        take(case)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    allowed = MEMORY_BYTES + MEMORY_FACTOR * _size(case)
    assert peak <= allowed, f"took {peak} bytes of memory, allowed are {allowed}"


def _counted(take: Callable[[Any], None], case: Any) -> None:
    calls = 0

    def count(_frame: object, event: str, _arg: object) -> None:
        nonlocal calls
        calls += event in {"call", "c_call"}

    sys.setprofile(count)
    try:
        take(case)
    finally:
        sys.setprofile(None)
    allowed = WORK_CALLS + WORK_FACTOR * _size(case)
    assert calls <= allowed, f"took {calls} calls, allowed are {allowed}"


@cache
def _caches() -> list[Any]:
    """The bounded caches of functions in HAIF."""
    found = [each for each in gc.get_objects() if isinstance(each, type(lru_cache(len)))]
    return [each for each in found if each.__module__.startswith("haif.") and each.cache_info().maxsize]


def _size(case: Any) -> int:
    return len(case) if isinstance(case, bytes) else sum(len(part) for part in case if isinstance(part, bytes))


def batches(inputs: int, seed: int) -> Iterator[Batch]:
    """As many batches of each door as its share of so many inputs asks for."""
    for door, (_, share) in DOORS.items():
        yield from (Batch(seed, door, number) for number in range(-(-inputs * share // (100 * BATCH))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=10_000_000)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000_007)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--door", choices=DOORS)
    parser.add_argument("--batch", type=int)
    options = parser.parse_args()
    if options.batch is not None:
        print(play(Batch(options.seed, options.door, options.batch)), "inputs, nothing escaped")
        return
    work = [batch for batch in batches(options.inputs, options.seed) if options.door in {None, batch.door}]
    print(f"seed {options.seed}, {len(work) * BATCH:,} inputs", flush=True)
    done, began = Counter[str](), time.monotonic()
    with ProcessPoolExecutor(options.jobs) as pool:
        for batch, inputs in zip(work, pool.map(play, work, chunksize=8), strict=True):
            done[batch.door] += inputs
            if sum(done.values()) % (1000 * BATCH) == 0:
                print(f"{sum(done.values()):12,} after {time.monotonic() - began:,.0f} s", flush=True)
    for door, inputs in done.items():
        print(f"{door:12}{inputs:12,}")
    print(f"{'all':12}{sum(done.values()):12,}  nothing escaped, {time.monotonic() - began:,.0f} s")


if __name__ == "__main__":
    main()
