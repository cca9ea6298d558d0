"""Every benchmark, one after the other: `make bench`. With `--write` the tables go to benchmarks/results/ as well."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from benchmarks.mesh import machine

RESULTS = Path(__file__).parent / "results"
ALL = (
    "mesh", "engine", "jail", "wire", "flood", "relay", "admission", "dht", "watch", "sim", "journal", "failover",
    "nat", "strangers", "audit", "panels", "isolation",
)  # fmt: skip
LONG = ("engines", "invariance", "gateway")  # these build or install others' programs first, and are run when named
RENAMED = {"invariance": "batch_invariance"}  # in benchmarks/results/


def main() -> int:
    """Run those that were named, or all; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"which (default: {', '.join(ALL)}; besides: {', '.join(LONG)})"
    )
    parser.add_argument("--write", action="store_true", help="keep the tables in benchmarks/results/")
    options = parser.parse_args()
    unknown = set(options.names) - {*ALL, *LONG}
    if unknown:
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}")
    for name in options.names or ALL:
        print(f"## {name}\n", flush=True)
        before = machine()
        done = subprocess.run(
            [sys.executable, "-m", f"benchmarks.{name}"], stdout=subprocess.PIPE, text=True, check=False
        )
        print(done.stdout, flush=True)
        if done.returncode != 0:
            return done.returncode
        if options.write:
            head = f"# {name}\n\n`python -m benchmarks.{name}` on {before}.\n\n"
            (RESULTS / f"{RENAMED.get(name, name)}.md").write_text(head + done.stdout.strip() + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
