"""Tokens per second of the engine against llama.cpp driven directly by a plain loop, in one run.

Both use the same model, threads, build and recipe; they take turns, and the median of the rounds' ratios counts.
"direct" is the least a Python program can do: one process, a batch filled by hand, no text, no pipe, no checks; greedy,
and at temperature 1 with llama.cpp's own sampler. Where other programs take the processors, ratios of wall time say
little, so processor time (of parent and child together) is compared too. Then: what choosing one token costs.
"""

import argparse
import asyncio
import dataclasses
import itertools
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from haif.engine.profile import EXACT, PROFILES
from haif.engine.service.settings import environment

if not environment(next((name for name in PROFILES if name in sys.argv), EXACT)).items() <= os.environ.items():
    chosen = environment(next((name for name in PROFILES if name in sys.argv), EXACT))
    program = [sys.executable, "-m", "benchmarks.engine", *sys.argv[1:]]
    os.execve(sys.executable, program, os.environ | chosen)  # the direct loop gets what the child gets

import blake3
import llama_cpp as api
import numpy as np

from haif.base.ids import JobId, ModelDigest, Seed
from haif.base.sampling import Sampling
from haif.engine.llama import climb, set_log
from haif.engine.passes import Span
from haif.engine.request import Finished, Generate
from haif.engine.sampler import Sampler
from haif.engine.service import Engine, EngineSettings
from haif.engine.service.jail import processor_seconds
from haif.runtime.clock import SystemClock, entropy
from tests.support.tiny_model import build_benchmark_model

PROMPT = "the of and in to a is it"
CONTEXT = 512
PREFIX = 1000  # tokens that prompts begin with
OPTIONS = {
    "T = 0": Sampling(0.0),
    "T = 1": Sampling(),
    "top-p 0.95": Sampling(top_p=0.95),
    "top-k 40": Sampling(top_k=40),
    "T = 1, repeat 1.1": Sampling(repeat_penalty=1.1),
}


class Rate(NamedTuple):
    """What tokens cost, in seconds each."""

    wall: float
    processor: float


class Direct:
    """A loop around llama.cpp, and llama.cpp's sampler."""

    def __init__(self, settings: EngineSettings) -> None:
        descriptor = os.open(settings.model, os.O_RDONLY)
        self._llama, _ = climb(
            descriptor,
            settings.profile,
            slots=settings.slots,
            context_tokens=settings.context_tokens,
            threads=settings.threads,
        )
        self._prompt = [1, *self._llama.tokenise(PROMPT, special=False)]

    def run(self, streams: int, tokens: int, temperature: float) -> Rate:
        """Compute `streams` answers of `tokens` tokens."""
        llama, prompt = self._llama, self._prompt
        samplers = [_chain(temperature, seed) for seed in range(streams)]
        wall, processor = time.perf_counter(), time.process_time()
        spans: list[Span] = [(slot, 0, prompt, True) for slot in range(streams)]
        for place in range(len(prompt), len(prompt) + tokens):
            llama.decode(spans)
            last = [
                api.llama_sampler_sample(sampler, llama.context, row)
                for sampler, row in zip(samplers, _rows(spans), strict=True)
            ]
            spans = [(slot, place, [token], True) for slot, token in enumerate(last)]
        rate = Rate(
            (time.perf_counter() - wall) / tokens / streams, (time.process_time() - processor) / tokens / streams
        )
        for slot, sampler in enumerate(samplers):
            llama.forget(slot)
            api.llama_sampler_free(sampler)
        return rate


def _chain(temperature: float, seed: int) -> Any:
    chain = api.llama_sampler_chain_init(api.llama_sampler_chain_default_params())
    if temperature:
        api.llama_sampler_chain_add(chain, api.llama_sampler_init_temp(temperature))
        api.llama_sampler_chain_add(chain, api.llama_sampler_init_dist(seed))
    else:
        api.llama_sampler_chain_add(chain, api.llama_sampler_init_greedy())
    return chain


def _rows(spans: Sequence[Span]) -> Iterator[int]:
    """Where in the batch each span's last token is."""
    return (count - 1 for count in itertools.accumulate(len(tokens) for _, _, tokens, _ in spans))


async def through(engine: Engine, child: int, streams: int, tokens: int, temperature: float) -> Rate:
    """The same by the engine, whose child has this process id."""

    async def one(number: int) -> int:
        request = Generate(
            JobId(bytes(16)), None, PROMPT, tokens, Sampling(temperature), [], Seed(number.to_bytes(32, "big"))
        )
        count = 0
        async with engine.generate(request) as pieces:
            async for piece in pieces:
                count += len(getattr(piece, "tokens", ()))
        return count

    wall, processor = time.perf_counter(), time.process_time() + processor_seconds(child)
    count = sum(await asyncio.gather(*(one(number) for number in range(streams))))
    return Rate(
        (time.perf_counter() - wall) / count, (time.process_time() + processor_seconds(child) - processor) / count
    )


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


async def measure(settings: EngineSettings, *, tokens: int, rounds: int) -> list[str]:
    """Rows of the table."""
    set_log(print)
    began = time.perf_counter()
    async with Engine(settings, clock=SystemClock(), entropy=entropy, on_died=print) as engine:
        print(f"engine ready after {time.perf_counter() - began:.2f} s: {engine.model.engine}")
        direct, child, rows = Direct(settings), _child(), []
        for streams, temperature in itertools.product((1, 8), (0.0, 1.0)):
            found = [
                (direct.run(streams, tokens, temperature), await through(engine, child, streams, tokens, temperature))
                for _ in range(rounds)
            ]
            plain, ours = (1 / statistics.median(rate.wall for rate in column) for column in zip(*found, strict=True))
            wall = statistics.median(bare.wall / whole.wall for bare, whole in found)
            processor = statistics.median(bare.processor / whole.processor for bare, whole in found)
            rows.append(f"| {streams} | {temperature:g} | {plain:.1f} | {ours:.1f} | {wall:.3f} | {processor:.3f} |")
    return rows


def _child() -> int:
    """The process id of the engine: our youngest descendant."""
    pid = os.getpid()
    while children := _children(pid):
        pid = children[-1]
    return pid


def _children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def sampling(options: Sampling, vocabulary: int, *, rounds: int = 50) -> float:
    """Microseconds of processor time for one token; a third of the logits are noise, forty stand out, as in life."""
    random = np.random.default_rng(vocabulary)
    logits = (random.standard_normal(vocabulary) * 2).astype(np.float32)
    logits[random.choice(vocabulary, 40, replace=False)] += np.linspace(6, 16, 40, dtype=np.float32)
    sampler = Sampler(Seed(bytes(32)), options, range(100))
    times = []
    for place in range(rounds):
        began = time.process_time()
        sampler.choose(logits, place)
        times.append(time.process_time() - began)
    return statistics.median(times) * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, help="a GGUF file; without it, about 100 M random parameters in Q8_0")
    parser.add_argument("--profile", choices=PROFILES, default=EXACT)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = options.model or build_benchmark_model(Path(folder) / "model.gguf")
        digest = ModelDigest(blake3.blake3(path.read_bytes()).digest())
        settings = EngineSettings(
            path, digest, slots=8, context_tokens=CONTEXT, threads=options.threads, profile=options.profile
        )
        rows = asyncio.run(measure(settings, tokens=options.tokens, rounds=options.rounds))
        long = dataclasses.replace(settings, slots=2, context_tokens=PREFIX + 256)
        fresh, again, reused, of = asyncio.run(reuse(long, options.rounds))
    print("| streams | T | direct tokens/s | engine tokens/s | ratio | ratio by processor time |")
    print("\n".join(["|---|---|---|---|---|---|", *rows]))
    print(f"\na prompt of {of} tokens: {fresh:.3f} s; one with {reused} of them seen before: {again:.4f} s, ", end="")
    print(f"{1 - again / fresh:.1%} less\n\n| tokens known | " + " | ".join(OPTIONS) + " |")
    print("|---" * (1 + len(OPTIONS)) + "|")
    for vocabulary in (512, 8192, 32_000, 128_256, 262_144):
        costs = " | ".join(f"{sampling(each, vocabulary):.0f} us" for each in OPTIONS.values())
        print(f"| {vocabulary} | {costs} |")


async def reuse(settings: EngineSettings, rounds: int) -> tuple[float, float, int, int]:
    """`shared_prefix` in an engine of its own."""
    async with Engine(settings, clock=SystemClock(), entropy=entropy, on_died=print) as engine:
        return await shared_prefix(engine, PREFIX, rounds)


if __name__ == "__main__":
    main()
