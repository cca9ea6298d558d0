"""How far a token's logits depend on how it was computed: `python -m benchmarks.invariance [--tokens 96]`.

A text is computed token by token, alone, with one thread: the reference. Then in other ways: with other threads, beside
3 and 15 others, in one prefill, in chunks. For each way: how many rows of logits have the very same bits, the largest
difference, and how often another token would have been the best. Recipes are those of HAIF's profiles, on the portable
build and on llama.cpp's ordinary native one (`benchmarks.peers.llama`), used through the same bindings; the last table
holds the references of all of them against that of the portable build's plainest recipe.

What the exact profiles promise is full counts; everything else is what a validator's tolerance has to cover. Models are
the trained demo model and one of about 100 million random parameters, whose logits lie wider apart than a real one's.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from benchmarks.mesh import machine
from benchmarks.peers import BUILD, llama
from haif.artifacts.service import DEMO_FOLDER
from haif.engine.llama import Llama, set_log
from haif.engine.profile import Recipe
from haif.engine.sandbox import ENVIRONMENT
from tools.random_model import random_model

Rows = dict[int, npt.NDArray[np.float32]]  # by position
Way = Callable[[Llama, list[int]], Rows]
SLOTS: Final = 16
STEP: Final = 8  # a prefill is begun anew for every so many positions: only its last row is told
RECIPES: Final = {
    "plain": Recipe(),
    "repacked": Recipe(repack=True),
    "fast": Recipe(repack=True, flash=True, tiled=True, unified=True),
}


def other(token: int, slot: int, size: int) -> int:
    """What a neighbour computes where slot 0 computes `token`."""
    return (token * (slot + 1) + 97 * slot) % size


def stepwise(others: int) -> Way:
    """Token by token, beside so many others."""

    def compute(model: Llama, tokens: list[int]) -> Rows:
        rows: Rows = {}
        for place, token in enumerate(tokens):
            spans = [(slot, place, [other(token, slot, model.size)], True) for slot in range(others + 1)]
            rows[place] = model.decode(spans)[0].copy()
        return rows

    return compute


def prefill(model: Llama, tokens: list[int]) -> Rows:
    """All at once, for every so many positions anew."""
    rows: Rows = {}
    for count in range(STEP, len(tokens) + 1, STEP):
        rows[count - 1] = model.decode([(0, 0, tokens[:count], True)])[0].copy()
        model.forget(0)
    return rows


def chunks(size: int, others: int) -> Way:
    """In chunks, beside others that go token by token."""

    def compute(model: Llama, tokens: list[int]) -> Rows:
        rows: Rows = {}
        for turn, start in enumerate(range(0, len(tokens), size)):
            part = tokens[start : start + size]
            beside = [(slot, turn, [other(tokens[turn], slot, model.size)], True) for slot in range(1, others + 1)]
            rows[start + len(part) - 1] = model.decode([*beside, (0, start, part, True)])[others].copy()
        return rows

    return compute


WAYS: Final[dict[str, tuple[int, Way]]] = {
    "token by token, again": (1, stepwise(0)),
    "with 2 threads": (2, stepwise(0)),
    "beside 3 others": (1, stepwise(3)),
    "beside 15 others": (1, stepwise(15)),
    "one prefill": (1, prefill),
    "one prefill, 2 threads": (2, prefill),
    "chunks of 7": (1, chunks(7, 0)),
    "chunks of 7 beside 3 others": (1, chunks(7, 3)),
}
"""By name: threads, and how."""


# --- the child: one build, one recipe, one number of threads ----------------------------------------------------------


def compute(path: str, recipe: str, threads: int, count: int, target: str) -> None:
    """Compute every way of so many threads, the reference among them, into a file."""
    set_log(print)
    model = Llama(os.open(path, os.O_RDONLY), slots=SLOTS, context_tokens=256, threads=threads, recipe=RECIPES[recipe])
    tokens = [(7919 * place + 11) % model.size for place in range(count)]
    found: dict[str, npt.NDArray[np.float32]] = {}
    for name, (wanted, way) in WAYS.items():
        if wanted == threads:
            rows = way(model, tokens)
            found[name] = np.array([rows[place] for place in sorted(rows)])
            found[f"{name} at"] = np.array(sorted(rows), np.float32)
            for slot in range(SLOTS):
                model.forget(slot)
    if threads == 1:
        found["reference"] = np.array(list(stepwise(0)(model, tokens).values()))
    np.savez(target, **found)


# --- the parent -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Difference:
    """Of rows computed in two ways."""

    rows: int
    equal: int
    largest: float
    flipped: int  # another token is the best

    def __str__(self) -> str:
        if self.equal == self.rows:
            return f"{self.equal} of {self.rows} | 0 | 0"
        return f"{self.equal} of {self.rows} | {self.largest:.2g} | {self.flipped}"


def compare(left: npt.NDArray[np.float32], right: npt.NDArray[np.float32]) -> Difference:
    """Row by row."""
    equal = sum(a.tobytes() == b.tobytes() for a, b in zip(left, right, strict=True))
    flipped = int((left.argmax(axis=1) != right.argmax(axis=1)).sum())
    return Difference(len(left), equal, float(np.abs(left - right).max()), flipped)


def computed(path: Path, recipe: str, library: Path | None, tokens: int) -> dict[str, npt.NDArray[np.float32]]:
    """Everything of one build and recipe, computed by children with the environment they need."""
    environment = os.environ | ENVIRONMENT | {"GGML_CPU_TILED_MM": str(int(RECIPES[recipe].tiled))}
    if library is not None:
        environment["LLAMA_CPP_LIB_PATH"] = str(library)
    found: dict[str, npt.NDArray[np.float32]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for threads in sorted({threads for threads, _ in WAYS.values()}):
            target = f"{folder}/{threads}.npz"
            task = json.dumps([str(path), recipe, threads, tokens, target])
            subprocess.run(
                [sys.executable, "-m", "benchmarks.invariance", "--child", task], check=True, env=environment
            )
            found |= dict(np.load(target))
    return found


def models(sizes: list[str]) -> Iterator[Path]:
    """The demo model, and random ones in each format."""
    yield next(DEMO_FOLDER.glob("*.gguf"))
    for size in sizes:
        for kind in ("f16", "q8_0", "q4_0"):
            yield random_model(size, kind, BUILD / "models")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="*", default=["100m"])
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        compute(*json.loads(options.child))
        return
    builds: dict[str, Path | None] = {"portable": None, "native": llama.programs()}
    print(f"{options.tokens} tokens; {machine()}\n")
    print("| model | build | recipe | way | same bits | largest difference | best token differs |")
    print("|---|---|---|---|---|---|---|")
    across: list[str] = []
    for path in models(options.sizes):
        first: npt.NDArray[np.float32] | None = None
        for build, library in builds.items():
            for recipe in RECIPES:
                found = computed(path, recipe, library, options.tokens)
                reference = found["reference"]
                for name in WAYS:
                    told = compare(found[name], reference[found[f"{name} at"].astype(int)])
                    print(f"| {path.stem} | {build} | {recipe} | {name} | {told} |", flush=True)
                if first is None:
                    first = reference
                across.append(f"| {path.stem} | {build} | {recipe} | {compare(reference, first)} |")
    print("\nthe references against each other: token by token, alone, one thread\n")
    print("| model | build | recipe | same bits | largest difference | best token differs |\n|---|---|---|---|---|---|")
    print("\n".join(across))


if __name__ == "__main__":
    main()
