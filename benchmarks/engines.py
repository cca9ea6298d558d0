"""HAIF's engine and mesh against llama.cpp's own programs: one run, one model file, equal threads, taking turns.

    python -m benchmarks.engines [--model FILE | --size 100m --format q8_0 q4_0] [--threads 1] [--rounds 3]

1. Tokens/s and inter-token times of 1, 4, 16 and 32 streams; tokens per CPU-second, which a busy machine leaves alone.
2. A prompt of 2,000 tokens arrives while 8 streams run: its time to first token, and what the streams feel of it.
3. Prompts that share their first 1,000 tokens: how much less prompt time the second one costs.

`llama-batched-bench` is the floor: no text, no sampling, no server. `llama_cpp.server` answers one request at a time,
so its streams wait for one another. Medians of the rounds count, and ratios within one run; absolute figures are the
machine's.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from random import Random
from statistics import median, quantiles

from benchmarks.contenders import Contender, Heard, Shape, contenders
from benchmarks.mesh import machine
from benchmarks.peers import BUILD, llama
from tools.random_model import FORMATS, SHAPES, random_model

STREAMS = (1, 4, 16, 32)
PROMPT_TOKENS = 32
LONG_TOKENS, PREFIX_TOKENS = 2000, 1000
RUNNING = 8  # streams that a long prompt meets
SETTLED = 8  # tokens each of them has before it arrives
SERIAL = "llama_cpp.server"
REFERENCE = "llama-server"
NAMES = ("engine exact", "engine fast", "mesh fast", REFERENCE, SERIAL)


@dataclass(frozen=True)
class Pass:
    """What one contender did with so many streams, once."""

    rate: float  # tokens/s
    per_cpu: float  # tokens per CPU-second
    gaps: list[float]  # seconds between tokens


def text(tokens: int, salt: int) -> str:
    """A prompt of so many tokens of the random models, to which a letter is one; no two begin alike."""
    start = [salt // 26**place % 26 for place in range(4)]
    return "".join(chr(ord("a") + each) for each in [*start, *Random(salt).choices(range(26), k=tokens - 4)])


async def run(contender: Contender, streams: int, tokens: int, salt: int) -> Pass:
    """All streams at once, to their end."""
    heard = [Heard() for _ in range(streams)]
    cpu, began = contender.cpu(), time.perf_counter()
    await asyncio.gather(*(contender.ask(text(PROMPT_TOKENS, salt + n), tokens, each) for n, each in enumerate(heard)))
    seconds, used = time.perf_counter() - began, contender.cpu() - cpu
    return Pass(
        streams * tokens / seconds,
        streams * tokens / used,
        [b - a for each in heard for a, b in pairwise(each.arrived)],
    )


@dataclass(frozen=True)
class Meeting:
    """A long prompt among running streams, in seconds."""

    first: float  # to its first token
    before: float  # median time between tokens of the streams, before it came
    during: float  # the same while it was computed
    worst: float  # 99th percentile while it was computed


async def meet(contender: Contender, tokens: int, salt: int) -> Meeting:
    """Let a long prompt arrive while streams run."""
    bell = asyncio.Event()
    heard = [Heard(bell=bell) for _ in range(RUNNING)]
    async with asyncio.TaskGroup() as group:
        asked = (contender.ask(text(PROMPT_TOKENS, salt + n), tokens, each) for n, each in enumerate(heard))
        streams = [group.create_task(each) for each in asked]
        await _until(bell, lambda: all(len(each.arrived) > SETTLED for each in heard))
        late = Heard()
        await contender.ask(text(LONG_TOKENS, salt + 100), 1, late)
        end = late.arrived[0]
        await _until(bell, lambda: all(each.arrived[-1] > end for each in heard))
        for each in streams:
            each.cancel()
    before = [b - a for each in heard for a, b in pairwise(each.arrived) if b <= late.asked]
    during = [b - a for each in heard for a, b in pairwise(each.arrived) if b > late.asked and a < end]
    return Meeting(late.first, median(before), median(during), percentile(during, 99))


async def _until(bell: asyncio.Event, condition: Callable[[], bool]) -> None:
    while not condition():
        bell.clear()
        await bell.wait()


async def share(contender: Contender, salt: int) -> tuple[float, float]:
    """Seconds to the first token of a prompt never seen, and of one that begins with the same 1,000 tokens."""
    beginning, times = text(PREFIX_TOKENS, salt), []
    for end in (" the of", " and in"):
        heard = Heard()
        await contender.ask(beginning + end, 1, heard, reuse=True)
        times.append(heard.first)
    return times[0], times[1]


def percentile(values: Sequence[float], percent: int) -> float:
    """By linear interpolation."""
    return quantiles(values, n=100, method="inclusive")[percent - 1] if len(values) > 1 else max(values, default=0.0)


# --- the tables -------------------------------------------------------------------------------------------------------


async def throughput(shape: Shape, names: tuple[str, ...], *, rounds: int, tokens: int, counts: Sequence[int]) -> None:
    """Print the first table."""
    found: dict[tuple[str, int], list[Pass]] = defaultdict(list)
    floor: dict[int, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        async with contenders(shape, Path(folder), names=names) as ready:
            for contender in ready:
                await run(contender, 1, 4, 0)
            for turn in range(rounds):
                for streams in counts:
                    for contender in ready:
                        if contender.name == SERIAL and streams not in (1, 16):
                            continue
                        again = streams == 1 and contender.name != SERIAL  # one stream is over soon
                        for extra in range(1 + again):
                            salt = 1000 * turn + 100 * extra + streams
                            found[contender.name, streams].append(await run(contender, streams, tokens, salt))
                    floor[streams].append(_floor(shape, streams, tokens))
                    print(f"   round {turn + 1} of {rounds}, {streams} streams", file=sys.stderr, flush=True)
    print("| streams | | tokens/s | of llama-server | tokens/CPU-s | of llama-server | p50 ms | p99 ms |")
    print("|---|---|---|---|---|---|---|---|")
    for streams in counts:
        for name in names:
            if passes := found[name, streams]:
                print(_row(streams, name, passes, found[REFERENCE, streams]))
        rate = median(floor[streams])
        ratio = _over(floor[streams], [each.rate for each in found[REFERENCE, streams]])
        print(f"| {streams} | llama-batched-bench | {rate:.1f} | {ratio} | | | | |")


def _floor(shape: Shape, streams: int, tokens: int) -> float:
    seconds = llama.batched_bench(
        shape.model, prompt=PROMPT_TOKENS, tokens=tokens, streams=streams, context_tokens=shape.context_tokens,
        threads=shape.threads,
    )  # fmt: skip
    return streams * tokens / seconds


def _row(streams: int, name: str, passes: list[Pass], reference: list[Pass]) -> str:
    gaps = [gap for each in passes for gap in each.gaps]
    cells = [
        f"{median(each.rate for each in passes):.1f}",
        _over([each.rate for each in passes], [each.rate for each in reference]),
        f"{median(each.per_cpu for each in passes):.1f}",
        _over([each.per_cpu for each in passes], [each.per_cpu for each in reference]),
        f"{1000 * median(gaps):.1f}",
        f"{1000 * percentile(gaps, 99):.1f}",
    ]
    return f"| {streams} | {name} | " + " | ".join(cells) + " |"


def _over(these: Sequence[float], those: Sequence[float]) -> str:
    return f"{median(these) / median(those):.2f}" if those else ""


async def interference(shape: Shape, names: tuple[str, ...], *, rounds: int) -> None:
    """Print the second and the third table."""
    meetings: dict[str, list[Meeting]] = defaultdict(list)
    shared: dict[str, list[tuple[float, float]]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        async with contenders(shape, Path(folder), names=names) as ready:
            for turn in range(rounds):
                for contender in ready:
                    if contender.name != SERIAL:
                        meetings[contender.name].append(await meet(contender, 2000, 10_000 * turn))
                    shared[contender.name].append(await share(contender, 10_000 * turn + 5000))
                    print(f"   round {turn + 1} of {rounds}, {contender.name}", file=sys.stderr, flush=True)
    print(f"\n{LONG_TOKENS} tokens arrive while {RUNNING} streams run\n")
    print("| | its first token s | streams before ms | during, p50 | during, p99 | p99 over before | p99 over p50 |")
    print("|---|---|---|---|---|---|---|")
    for name, each in meetings.items():
        first, before, during, worst = (median(getattr(m, part) for m in each) for part in Meeting.__annotations__)
        cells = f"{first:.2f} | {1000 * before:.0f} | {1000 * during:.0f} | {1000 * worst:.0f}"
        print(f"| {name} | {cells} | {worst / before:.1f} | {worst / during:.1f} |")
    print(f"\nprompts that share their first {PREFIX_TOKENS} tokens\n")
    print("| | never seen, s | seen before, s | less |\n|---|---|---|---|")
    for name, times in shared.items():
        fresh, again = (median(column) for column in zip(*times, strict=True))
        print(f"| {name} | {fresh:.3f} | {again:.4f} | {1 - again / fresh:.1%} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a GGUF file; without it one of random parameters is made")
    parser.add_argument("--size", choices=SHAPES, default="100m")
    parser.add_argument("--format", nargs="*", choices=("f16", *FORMATS), default=("q8_0", "q4_0"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--streams", type=int, nargs="*", default=STREAMS)
    parser.add_argument("--only", nargs="*", default=NAMES, metavar="NAME", help=f"which of {', '.join(NAMES)}")
    parser.add_argument("--without", nargs="*", default=(), choices=("throughput", "interference"))
    options = parser.parse_args()
    for kind in ("",) if options.model else options.format:
        measure(options.model or random_model(options.size, kind, BUILD / "models"), options)


def measure(model: Path, options: argparse.Namespace) -> None:
    """All tables of one model."""
    names, threads, rounds = tuple(options.only), options.threads, options.rounds
    print(
        f"### {model.stem}\n\n{threads} thread(s), {rounds} rounds of {options.tokens} tokens; {machine()}\n",
        flush=True,
    )
    if "throughput" not in options.without:
        shape = Shape(model, max(options.streams), 256, threads)
        asyncio.run(throughput(shape, names, rounds=rounds, tokens=options.tokens, counts=options.streams))
    if "interference" not in options.without:
        asyncio.run(interference(Shape(model, RUNNING + 1, 2560, threads), names, rounds=rounds))
    print(f"\nload at the end {os.getloadavg()[0]:.1f}\n", flush=True)


if __name__ == "__main__":
    main()
