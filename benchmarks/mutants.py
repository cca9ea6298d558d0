"""1,000 hostile GGUF files, by seed: what our reader refuses, what the jailed child does with the rest, what grows.

Exits with 1 if an end has no cause, or if the worker has more open files, children or memory at the end.
"""

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from benchmarks.mesh import machine
from tests.support.mutants import MUTATIONS, mutants
from tests.support.ordeal import SEED, Belongings, Outcome, belongings, undergo, whole_models

RESULTS = Path(__file__).parent / "results" / "mutants.md"
GROWTH_BYTES_MAX = 64 << 20  # of the worker, over all files; its buffers for the largest model take a tenth
_ENDS = ("refused by us", "refused by the child", "died", "answered")


async def ordeal(count: int, seed: int, folder: Path) -> tuple[Outcome, Belongings, Belongings]:
    """The outcome, and what this process had before and after."""
    models = whole_models(folder)
    await undergo(mutants(models, len(MUTATIONS), seed + 1), folder)  # what is made once is made
    before = belongings()
    outcome = await undergo(mutants(models, count, seed), folder)
    return outcome, before, belongings()


def table(outcome: Outcome, before: Belongings, after: Belongings) -> str:
    """All of it in Markdown."""
    rows = ["| mutation | " + " | ".join(_ENDS) + " |", "|---" * (1 + len(_ENDS)) + "|"]
    rows += [f"| {kind} | " + " | ".join(str(outcome.ends[kind, end]) for end in _ENDS) + " |" for kind in MUTATIONS]
    rows += ["| **all** | " + " | ".join(f"**{outcome.count(end)}**" for end in _ENDS) + " |", ""]
    rows += ["Deaths of the child, by cause:", ""]
    rows += [f"- {count} x {cause}" for cause, count in outcome.causes.most_common()] or ["- none"]
    grown = after.resident - before.resident
    rows += [
        "",
        f"Open files {before.files} before, {after.files} after; children {before.children}, {after.children}; ",
    ]
    rows[-1] += f"resident memory {grown / 1e6:+.1f} MB; ends without a cause: {len(outcome.unexplained)}."
    return "\n".join(rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--write", action="store_true", help="keep the table in benchmarks/results/")
    options = parser.parse_args()
    began = machine()
    with tempfile.TemporaryDirectory() as folder:
        outcome, before, after = asyncio.run(ordeal(options.count, options.seed, Path(folder)))
    text = f"{options.count} files, seed {options.seed}.\n\n{table(outcome, before, after)}\n"
    print(text)
    for cause in outcome.unexplained:
        print("no cause:", cause, file=sys.stderr)
    whole = not outcome.unexplained and (before.files, before.children) == (after.files, after.children)
    if options.write and whole:
        RESULTS.write_text(f"# mutants\n\n`make mutants` on {began}. {text}")
    return 0 if whole and after.resident - before.resident < GROWTH_BYTES_MAX else 1


if __name__ == "__main__":
    sys.exit(main())
