"""Tokens per second of the engine against llama.cpp driven directly by a plain loop, in one run.

Both use the same model, threads and exact settings; they take turns, and the median of the rounds counts. "direct" is
the least a Python program can do: one process, greedy, a batch filled by hand, no text, no pipe, no checks.
"""

import argparse
import asyncio
import dataclasses
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from haif.engine.sandbox import ENVIRONMENT

if not ENVIRONMENT.items() <= os.environ.items():  # the direct loop gets what the child gets
    os.execve(sys.executable, [sys.executable, "-m", "benchmarks.engine", *sys.argv[1:]], os.environ | ENVIRONMENT)

import blake3

from haif.base.ids import JobId, ModelDigest, Seed
from haif.base.sampling import Sampling
from haif.engine.llama import Llama, set_log
from haif.engine.request import Finished, Generate
from haif.engine.service import Engine, EngineSettings
from haif.runtime.clock import SystemClock, entropy
from tests.support.tiny_model import build_benchmark_model

PROMPT = "the of and in to a is it"
CONTEXT = 512
PREFIX = 1000  # tokens that prompts begin with


def direct(model: Llama, streams: int, tokens: int) -> float:
    """Tokens/s of a greedy loop over `streams` sequences."""
    prompt = [1, *model.tokenise(PROMPT, special=False)]
    began = time.perf_counter()
    rows = model.decode([(slot, 0, prompt, True) for slot in range(streams)])
    last = rows.argmax(axis=1).tolist()
    for place in range(len(prompt), len(prompt) + tokens - 1):
        rows = model.decode([(slot, place, [last[slot]], True) for slot in range(streams)])
        last = rows.argmax(axis=1).tolist()
    seconds = time.perf_counter() - began
    for slot in range(streams):
        model.forget(slot)
    return streams * tokens / seconds


async def through(engine: Engine, streams: int, tokens: int, temperature: float) -> float:
    """Tokens/s of the engine over `streams` requests at once."""

    async def one(number: int) -> int:
        request = Generate(
            JobId(bytes(16)), None, PROMPT, tokens, Sampling(temperature), [], Seed(number.to_bytes(32, "big"))
        )
        count = 0
        async with engine.generate(request) as pieces:
            async for piece in pieces:
                count += len(getattr(piece, "tokens", ()))
        return count

    began = time.perf_counter()
    counts = await asyncio.gather(*(one(number) for number in range(streams)))
    return sum(counts) / (time.perf_counter() - began)


async def shared_prefix(engine: Engine, tokens: int, rounds: int) -> tuple[float, float, int, int]:
    """Seconds of prompt time for prompts that begin with the same `tokens`: never seen, and seen before; reused, of."""
    fresh: list[float] = []
    again: list[float] = []
    reused = of = 0
    for number in range(rounds):
        beginning = f"{number} " + "the of and in to a is it " * (tokens // 21)  # 21 tokens each
        for place, times in enumerate((fresh, again)):
            request = Generate(
                JobId(bytes(16)), None, f"{beginning} that {place}", 1, Sampling(0.0), [], Seed(bytes(32)),
                scope=b"tenant",
            )  # fmt: skip
            async with engine.generate(request) as pieces:
                async for piece in pieces:
                    if isinstance(piece, Finished):
                        times.append(piece.prefill_ns / 1e9)
                        reused, of = piece.cached_tokens, piece.prompt_tokens
    return statistics.median(fresh), statistics.median(again), reused, of


async def measure(settings: EngineSettings, *, tokens: int, rounds: int) -> list[tuple[str, float, float, float]]:
    """Rows of the table: streams, direct, engine greedy, engine at temperature 1."""
    began = time.perf_counter()
    async with Engine(settings, clock=SystemClock(), entropy=entropy, on_died=print) as engine:
        print(f"engine ready after {time.perf_counter() - began:.2f} s: {engine.model.engine}")
        set_log(print)
        model = Llama(os.open(settings.model, os.O_RDONLY), slots=8, context_tokens=CONTEXT, threads=settings.threads)
        rows = []
        for streams in (1, 8):
            found = [
                (
                    direct(model, streams, tokens),
                    await through(engine, streams, tokens, 0.0),
                    await through(engine, streams, tokens, 1.0),
                )
                for _ in range(rounds)
            ]
            rows.append((str(streams), *(statistics.median(column) for column in zip(*found, strict=True))))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, help="a GGUF file; without it, about 100 M random parameters in Q8_0")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = options.model or build_benchmark_model(Path(folder) / "model.gguf")
        digest = ModelDigest(blake3.blake3(path.read_bytes()).digest())
        settings = EngineSettings(path, digest, slots=8, context_tokens=CONTEXT, threads=options.threads)
        rows = asyncio.run(measure(settings, tokens=options.tokens, rounds=options.rounds))
        long = dataclasses.replace(settings, slots=2, context_tokens=PREFIX + 256)
        fresh, again, reused, of = asyncio.run(reuse(long, options.rounds))
    print("| streams | direct tokens/s | engine T=0 | ratio | engine T=1 | ratio |\n|---|---|---|---|---|---|")
    for streams, plain, greedy, sampled in rows:
        print(
            f"| {streams} | {plain:.1f} | {greedy:.1f} | {greedy / plain:.3f} | {sampled:.1f} | {sampled / plain:.3f} |"
        )

    print(f"\na prompt of {of} tokens: {fresh:.3f} s; one with {reused} of them seen before: {again:.4f} s, ", end="")
    print(f"{1 - again / fresh:.1%} less")


async def reuse(settings: EngineSettings, rounds: int) -> tuple[float, float, int, int]:
    """`shared_prefix` in an engine of its own."""
    async with Engine(settings, clock=SystemClock(), entropy=entropy, on_died=print) as engine:
        return await shared_prefix(engine, PREFIX, rounds)


if __name__ == "__main__":
    main()
