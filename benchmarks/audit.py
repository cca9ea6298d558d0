"""What an audit costs against the answer it checks, in processor time: `python -m benchmarks.audit`.

A worker's engine gives answers, alone and eight at once; a validator's engine of the same profile computes each again
from its tokens, one after the other, and compares. Both have one thread and a jail as at work. The ratio, times the
share of answers that is drawn, is what audits add to the mesh's computing: 5 % of it where all workers are known.

It fails if an answer comes out different.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
from msgspec import structs

from haif.artifacts.service import DEMO_FOLDER
from haif.base.ids import JobId, Seed
from haif.base.sampling import Sampling
from haif.engine.request import Finished, Generate, Piece
from haif.engine.service import Engine, EngineSettings
from haif.runtime.clock import SystemClock, entropy
from tests.support.engines import digest_of
from tools.random_model import random_model

PROMPT = "The river runs slowly through the valley, past the mill and the inn, and nobody knows where it begins. "
Answered = tuple[list[int], Finished]


@asynccontextmanager
async def engine(model: Path, slots: int):  # noqa: ANN201 -- an async context manager of an Engine
    """One that nothing else uses."""
    settings = EngineSettings(
        model, digest_of(model), slots=slots, context_tokens=1024, threads=1, insecure_no_sandbox=True
    )
    async with Engine(settings, clock=SystemClock(), entropy=entropy, on_died=print) as running:
        yield running


async def answer(running: Engine, asked: Generate) -> Answered:
    """The tokens of one answer, and its end."""
    tokens: list[int] = []
    async with running.generate(asked) as events:
        async for event in events:
            if isinstance(event, Piece):
                tokens += event.tokens
            else:
                return tokens, event
    raise AssertionError("an answer ends with Finished")


def processor_seconds() -> float:
    """What our children have used so far."""
    return sum(sum(each.cpu_times()[:2]) for each in psutil.Process().children(recursive=True))


async def measure(model: Path, streams: int, answers: int, tokens: int) -> tuple[float, float, int]:
    """Processor seconds of the answers and of their audits, and how many audits came out different."""
    asked = [
        Generate(JobId(bytes(16)), None, PROMPT * 2, tokens, Sampling(1.0), [], Seed(bytes([n]) * 32))
        for n in range(answers)
    ]
    async with engine(model, streams) as worker:
        await answer(worker, asked[0])  # warm
        before, given = processor_seconds(), []
        for start in range(0, answers, streams):
            some = asked[start : start + streams]
            given += await asyncio.gather(*(answer(worker, each) for each in some))
        spent = processor_seconds() - before
    async with engine(model, 1) as validator:
        await answer(validator, asked[0])
        before = processor_seconds()
        again = [
            await answer(validator, structs.replace(each, draft=said, tokens_max=len(said)))
            for each, (said, _) in zip(asked, given, strict=True)
        ]
        audited = processor_seconds() - before
    return spent, audited, differing(given, again)


def differing(given: Iterable[Answered], again: Iterable[Answered]) -> int:
    """How many are not the same to the last bit."""
    return sum((a, x.rows) != (b, y.rows) for (a, x), (b, y) in zip(given, again, strict=True))


def main() -> int:
    """Measure and print; 1 if an audit found a difference."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--answers", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=128)
    options = parser.parse_args()
    wrong = 0
    print("| model | streams | answer, processor ms | audit, processor ms | ratio | at 5 % |")
    print("|---|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        large = random_model("100m", "q8_0", Path(folder))
        for name, path in (("demo, 3.7 M, F16", next(DEMO_FOLDER.glob("*.gguf"))), ("random, 100 M, Q8_0", large)):
            for streams in (1, 8):
                spent, audited, different = asyncio.run(measure(path, streams, options.answers, options.tokens))
                wrong += different
                each = 1000 / options.answers
                ratio = audited / spent
                figures = f"{spent * each:.0f} | {audited * each:.0f} | {ratio:.2f} | {0.05 * ratio:.1%}"
                print(f"| {name} | {streams} | {figures} |", flush=True)
    print(f"\n{options.answers} answers of {options.tokens} tokens a row; audits that differed: {wrong}")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
