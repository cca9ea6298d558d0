"""Every row of the attack matrix, with intervals: `make attack`. What `haif attack` prints, kept with its machine.

Exits with 1 if an attack gets through or an honest answer is accused, and then writes nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from pathlib import Path

from benchmarks.mesh import machine
from haif.testing.attacks import matrix, report
from haif.testing.attacks.arena import Arena
from haif.testing.attacks.contest import Case

RESULTS = Path(__file__).parent / "results"


async def play(tries: int, seed: int, *, quick: bool) -> list[matrix.Result]:
    """All rows, in a folder that goes away."""

    def tell(row: matrix.Row, case: Case) -> None:
        print(f"row {row.number}, {row.attack}: {case.name}", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory() as folder:
        async with Arena(Path(folder)) as arena:
            rows = matrix.chosen((), quick=quick)
            return await matrix.play(arena, rows, tries=tries, quick=quick, seed=seed, tell=tell)


def page(results: list[matrix.Result], about: str) -> str:
    """The tables and what they do not say, in Markdown."""
    notes = "\n".join(f"- {words}" for words in report.notes(results))
    rows, cases = (report.as_markdown(report.table(results, cases=each)) for each in (False, True))
    return f"# attacks\n\n{about}\n\n{rows}\n\n{notes}\n\n## By case\n\n{cases}\n"


def main() -> int:
    """Play, print, and write if all is well."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tries", type=int, default=matrix.TRIES, help="answers of each row")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--write", action="store_true", help="keep the result in benchmarks/results/")
    options = parser.parse_args()
    began = machine()
    results = asyncio.run(play(options.tries, options.seed, quick=options.quick))
    print(report.as_text(report.table(results)), *report.notes(results), sep="\n")
    broken = report.broken(results)
    for words in broken:
        print(words, file=sys.stderr)
    if options.write and not broken:
        about = (
            f"`make attack` on {began}, seed {options.seed}, {options.tries} answers a row, the demo model.\n"
            "`attacks.json` has every count. Intervals are Clopper and Pearson's; where an attack on bytes leaves "
            "nothing to chance (rows 13, 15, 16, 21, 23), they say how often it was tried and no more."
        )
        told = report.as_json(results, machine=began, seed=options.seed, tries=options.tries, model="haif-demo")
        (RESULTS / "attacks.json").write_text(json.dumps(told, indent=1) + "\n")
        (RESULTS / "attacks.md").write_text(page(results, about))
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main())
