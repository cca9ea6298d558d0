"""What LoRA adapters cost a step of 8 answers: `python -m benchmarks.adapters [--steps 20] [--write]`.

One adapter for a whole batch, several in one step (a batch for each, `haif/engine/core.py`), and the same batches with
no adapter at all, so that what is the batches' and what the adapters' can be told apart. Processor time, the best of
some rounds, as ratios to one batch without an adapter in the same run. Models are the demo model and one of about 100
million random parameters (Q8_0); adapters are random, of rank 16 in F16, on all seven products of every layer.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from benchmarks.mesh import machine
from haif.artifacts.service import DEMO_FOLDER
from haif.base.ids import Digest
from haif.engine.llama import Llama, set_log
from haif.engine.profile import EXACT, PROFILES
from tests.support.tiny_model import build_benchmark_model
from tools.random_adapter import random_adapter

RESULTS = Path(__file__).parent / "results" / "adapters.md"
SLOTS: Final = 8
ADAPTERS: Final = tuple(Digest(bytes([number]) * 32) for number in range(4))
Groups = Sequence[tuple[Digest | None, Sequence[int]]]  # what is on, and for which slots
ONE, OTHER, *_ = ADAPTERS
HALVES: Final = (range(4), range(4, 8))
PAIRS: Final = tuple(range(first, first + 2) for first in range(0, 8, 2))
CASES: Final[Mapping[str, Groups]] = {
    "8 without": [(None, range(8))],
    "8 with one adapter": [(ONE, range(8))],
    "4 with one, 4 without": [(ONE, HALVES[0]), (None, HALVES[1])],
    "4 with one, 4 with another": [(ONE, HALVES[0]), (OTHER, HALVES[1])],
    "2 with each of four": list(zip(ADAPTERS, PAIRS, strict=True)),
    "two batches of 4 without": [(None, half) for half in HALVES],
    "four batches of 2 without": [(None, pair) for pair in PAIRS],
}


def step_ms(model: Llama, groups: Groups, steps: int) -> float:
    """Milliseconds of processor time a step takes; what is on last goes first, as the engine has it."""
    model.forget_all()
    for slot in range(SLOTS):
        model.decode([(slot, 0, [1, 5, 9], 0)])
    began = time.process_time()
    for step in range(steps):
        for adapter, slots in groups if step % 2 else reversed(groups):
            model.decode([(slot, 3 + step, [7], 1) for slot in slots], adapter)
    return (time.process_time() - began) / steps * 1000


def measured(path: Path, folder: Path, steps: int, rounds: int) -> list[str]:
    """Rows of a table: the case, milliseconds a step, and how many times the first."""
    files = {
        digest: os.open(random_adapter(path, folder / f"{number}.gguf", seed=number, rank=16, kind="f16"), os.O_RDONLY)
        for number, digest in enumerate(ADAPTERS)
    }
    descriptor = os.open(path, os.O_RDONLY)
    model = Llama(
        descriptor, slots=SLOTS, context_tokens=256, threads=1, recipe=PROFILES[EXACT][0], adapters=files
    )  # fmt: skip
    found: dict[str, list[float]] = {case: [] for case in CASES}
    for _ in range(rounds):
        for case, groups in CASES.items():
            found[case].append(step_ms(model, groups, steps))
    model.close()
    base = min(found["8 without"])
    return [f"| {path.stem} | {case} | {min(ms):.2f} | {min(ms) / base:.2f} |" for case, ms in found.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--write", action="store_true", help="keep the table in benchmarks/results/")
    options = parser.parse_args()
    set_log(print)
    began = machine()
    rows = ["| model | a step of 8 answers | ms of processor time | to 8 without |", "|---|---|---:|---:|"]
    with tempfile.TemporaryDirectory() as folder:
        (demo,) = DEMO_FOLDER.glob("*.gguf")
        for path in (demo, build_benchmark_model(Path(folder) / "random-100m-q8_0.gguf")):
            rows += measured(path, Path(folder), options.steps, options.rounds)
    text = "\n".join(rows) + "\n"
    print(text)
    if options.write:
        RESULTS.write_text(f"# adapters\n\n`python -m benchmarks.adapters` on {began}; one thread.\n\n{text}")


if __name__ == "__main__":
    main()
