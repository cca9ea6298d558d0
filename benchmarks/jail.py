"""What the jail costs: launch to ready, and tokens per second, with and without it, in one run.

"without" is the same child with `seal` taken out; the two take turns, and the median of the rounds counts. The model is
tiny, so that what a system call costs shows: with a real one a token takes a hundred times as long.
"""

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from pathlib import Path

import blake3

from haif.base.ids import JobId, ModelDigest, Seed
from haif.base.sampling import Sampling
from haif.engine.request import Generate
from haif.engine.service import CHILD_PROGRAM, Engine, EngineSettings
from haif.runtime.clock import SystemClock, entropy
from tests.support.tiny_model import build_tiny_model

BARE = """
import os, sys
sys.path += sys.argv.pop(1).split(os.pathsep)
from haif.engine import child
from haif.engine.sandbox.layers import LAYERS, Statement
child.seal = lambda *_, **__: Statement((), dict.fromkeys(LAYERS, "a benchmark"), (), os.getpid())
child.main()
"""


async def one(settings: EngineSettings, program: str, tokens: int) -> tuple[float, float, str]:
    """Seconds to ready, tokens/s, and the level."""
    began = time.perf_counter()
    async with Engine(settings, clock=SystemClock(), entropy=entropy, on_died=print, program=program) as engine:
        ready = time.perf_counter() - began
        request = Generate(JobId(bytes(16)), None, "the of and", tokens, Sampling(0.0), [], Seed(bytes(32)))
        for _ in range(2):  # the first touches memory for the first time
            began = time.perf_counter()
            async with engine.generate(request) as pieces:
                async for _ in pieces:
                    pass
        return ready, tokens / (time.perf_counter() - began), engine.model.sandbox


async def measure(settings: EngineSettings, *, rounds: int, tokens: int) -> None:
    """Print the table."""
    without, within = [], []
    for _ in range(rounds):
        without.append(await one(settings, BARE, tokens))
        within.append(await one(settings, CHILD_PROGRAM, tokens))
    print(f"{rounds} rounds, {tokens} tokens each, level {within[0][2]}\n")
    print("| | without | in the jail | ratio |\n|---|---|---|---|")
    for place, (name, unit, scale) in enumerate(
        (("launch to ready", "ms", 1e3), ("greedy, one stream", "tokens/s", 1))
    ):
        bare, jailed = (scale * statistics.median(found[place] for found in each) for each in (without, within))
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
