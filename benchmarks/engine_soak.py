"""Ten thousand short requests of every kind through an engine: `python -m benchmarks.engine_soak [--requests 10000]`.

Whole, cancelled, refused, greedy, drawn, scored, held to a schema, stopped, with prompts seen before and never seen:
16 at a time over 8 slots, in the jail. It fails where resident memory or open descriptors of the parent or of the
child's processes grow in the second half (Theil-Sen, `benchmarks.trend`), or where the engine does not come to rest.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from dataclasses import dataclass, field
from random import Random
from statistics import median

import psutil

from benchmarks.contenders import Shape, engine
from benchmarks.mesh import machine
from benchmarks.trend import growth
from haif.artifacts.service import DEMO_FOLDER
from haif.base.errors import Refusal
from haif.base.ids import JobId, Seed
from haif.base.sampling import Sampling
from haif.engine.request import Generate
from haif.engine.service import Engine

AT_ONCE = 16
SAMPLES = 100
SCHEMA = '{"type": "object", "properties": {"known": {"type": "boolean"}}, "required": ["known"]}'
GROWTH = {"parent_kib": 1024.0, "child_kib": 1024.0, "parent_descriptors": 0.5, "child_descriptors": 0.5}
"""What the second half may add: a MiB is 100 bytes a request, less than any request itself takes."""


@dataclass
class Soak:
    """The requests that are left, and what was seen meanwhile."""

    engine: Engine
    requests: int
    random: Random
    asked: int = 0
    ended: dict[str, int] = field(default_factory=dict)
    seen: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: {name: [] for name in GROWTH})

    async def run(self) -> None:
        """Ask everything."""
        await asyncio.gather(*(self._client() for _ in range(AT_ONCE)))

    async def _client(self) -> None:
        while self.asked < self.requests:
            self.asked += 1
            if self.asked % (self.requests // SAMPLES or 1) == 0:
                self._look()
            kind = await self._ask()
            self.ended[kind] = self.ended.get(kind, 0) + 1

    async def _ask(self) -> str:
        patience = self.random.choice((1, 2, 1000, 1000, 1000))
        try:
            async with self.engine.generate(self._request()) as pieces:
                async for _ in pieces:
                    patience -= 1
                    if patience == 0:
                        return "cancelled"
        except Refusal as refusal:
            return refusal.reason.value
        return "finished"

    def _request(self) -> Generate:
        random = self.random
        words = random.choices(("Once", "upon", "a", "time", "the", "baker", "Zoë", "☕"), k=random.randint(0, 24))
        chat = [("user", " ".join(words))] if random.random() < 0.3 else None
        sampling = Sampling(
            random.choice((0.0, 0.8, 1.0)), top_k=random.choice((0, 40)), top_p=random.choice((1.0, 0.9)),
            repeat_penalty=random.choice((1.0, 1.1)), bias=[(300, 1.0)] if random.random() < 0.1 else [],
        )  # fmt: skip
        return Generate(
            JobId(bytes(16)), chat, None if chat else " ".join(words), random.choice((1, 4, 8, 16, 2000)), sampling,
            random.choice(([], ["."], ["e w", "\n"])), Seed(random.randbytes(32)),
            logprobs=random.choice((None, None, 0, 5)), json_schema=SCHEMA if random.random() < 0.05 else None,
            scope=random.choice((b"", b"a", b"b")),
        )  # fmt: skip

    def _look(self) -> None:
        now = time.perf_counter()
        me = psutil.Process()
        children = me.children(recursive=True)
        figures = {
            "parent_kib": me.memory_info().rss / 1024,
            "child_kib": sum(each.memory_info().rss for each in children) / 1024,
            "parent_descriptors": me.num_fds(),
            "child_descriptors": sum(map(descriptors, children)),
        }
        for name, value in figures.items():
            self.seen[name].append((now, value))


def descriptors(process: psutil.Process) -> int:
    """Open descriptors; 0 where the jail lets nobody look."""
    try:
        return int(process.num_fds())
    except psutil.AccessDenied:
        return 0


async def soak(requests: int, seed: int) -> bool:
    """Run it and print what was found; whether all is well."""
    (model,) = DEMO_FOLDER.glob("*.gguf")
    async with engine(Shape(model, 8, 512, 1), "exact") as running:
        work = Soak(running, requests, Random(seed))
        began, cpu = time.perf_counter(), time.process_time()
        await work.run()
        seconds = time.perf_counter() - began
        rest = running.statistics()
    print(
        f"{requests} requests in {seconds:.0f} s, parent {1e6 * (time.process_time() - cpu) / requests:.0f} CPU-us each"
    )
    print(", ".join(f"{count} {kind}" for kind, count in sorted(work.ended.items())))
    print("\n| | median | growth of the second half | at most |\n|---|---|---|---|")
    well = rest.running == rest.queued == rest.deaths == 0
    for name, most in GROWTH.items():
        half = work.seen[name][len(work.seen[name]) // 2 :]
        grown = growth(half)
        well &= grown <= most
        print(f"| {name} | {median(value for _, value in half):.0f} | {grown:.1f} | {most:g} |")
    return well


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "big"))
    options = parser.parse_args()
    print(f"seed {options.seed}; {machine()}\n", flush=True)
    return 0 if asyncio.run(soak(options.requests, options.seed)) else 1


if __name__ == "__main__":
    sys.exit(main())
