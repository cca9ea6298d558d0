"""What the jail costs: launch to sealed and to ready, and tokens, with and without it, in one run.

"without" is the same child with `seal` taken out; the two take turns, and the median of the rounds counts. Launch to
sealed contains starting Python and importing everything, which comes before the seal. The model is tiny, so that what a
system call costs shows: with a real one (`--model`) a token takes a hundred times as long. Tokens per CPU-second are of
the child's processes.
"""

import argparse
import asyncio
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import blake3
import psutil

from benchmarks.contenders import cpu_of
from benchmarks.mesh import machine
from haif.base.ids import JobId, ModelDigest, Seed
from haif.base.sampling import Sampling
from haif.engine.meter import Meter
from haif.engine.request import Generate
from haif.engine.service import CHILD_PROGRAM, EngineSettings
from haif.engine.service.process import Process
from haif.engine.service.settings import open_model
from haif.runtime.clock import SystemClock
from tests.support.tiny_model import build_tiny_model

BARE = """
import os, sys
sys.path += sys.argv.pop(1).split(os.pathsep)
from haif.engine import child
from haif.engine.sandbox.layers import LAYERS, Statement
child.seal = lambda *_, **__: Statement((), dict.fromkeys(LAYERS, "a benchmark"), (), os.getpid())
child.main()
"""


ANSWERS = 6  # by each child: the kernel counts CPU time in hundredths of a second


@dataclass(frozen=True)
class Round:
    """One child's life: milliseconds from its launch, then its tokens."""

    sealed: float
    ready: float
    rate: float  # tokens/s
    per_cpu: float  # tokens per CPU-second


async def one(settings: EngineSettings, program: str, tokens: int) -> Round:
    """Start a child, let it answer, end it."""
    descriptor, _ = open_model(settings.model)
    child = Process(settings, SystemClock(), Meter())
    began = time.perf_counter()
    try:
        await child.start(program, descriptor)
        await child.sealed()
        sealed = time.perf_counter() - began
        await child.load()
        ready = time.perf_counter() - began
        before = 0.0
        (process,) = psutil.Process().children()
        for turn in range(1 + ANSWERS):
            if turn == 1:  # the first touched memory for the first time
                before, began = cpu_of(process.pid), time.perf_counter()
            request = Generate(JobId(bytes(16)), None, "the of and", tokens, Sampling(0.0), [], Seed(bytes(32)))
            async for _ in child.submit(request, 0)[1]:
                pass
        seconds, used = time.perf_counter() - began, cpu_of(process.pid) - before
        return Round(1000 * sealed, 1000 * ready, ANSWERS * tokens / seconds, ANSWERS * tokens / used)
    finally:
        await child.close()
        os.close(descriptor)


async def measure(settings: EngineSettings, *, rounds: int, tokens: int) -> None:
    """Print the table."""
    without, within = [], []
    for _ in range(rounds):
        without.append(await one(settings, BARE, tokens))
        within.append(await one(settings, CHILD_PROGRAM, tokens))
    print(f"{rounds} rounds, {tokens} tokens each; {machine()}\n")
    print("| | without | in the jail | ratio |\n|---|---|---|---|")
    for name, unit, part in (
        ("launch to sealed", "ms", "sealed"), ("launch to ready", "ms", "ready"),
        ("greedy, one stream", "tokens/s", "rate"), ("greedy, one stream", "tokens/CPU-s", "per_cpu"),
    ):  # fmt: skip
        bare, jailed = (median(getattr(each, part) for each in these) for these in (without, within))
        print(f"| {name} | {bare:.0f} {unit} | {jailed:.0f} {unit} | {jailed / bare:.3f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, help="a GGUF file; without it, 1.6 M random parameters")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--tokens", type=int, default=900)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = options.model or build_tiny_model(Path(folder) / "model.gguf")
        digest = ModelDigest(blake3.blake3(path.read_bytes()).digest())
        threads = max(1, (os.cpu_count() or 2) // 2)
        settings = EngineSettings(path, digest, slots=8, context_tokens=1000, threads=threads, insecure_no_sandbox=True)
        asyncio.run(measure(settings, rounds=options.rounds, tokens=options.tokens))


if __name__ == "__main__":
    main()
