"""A long time of churn in a simulated network: `make sim-night`. Exit code 1 if a checker complains.

    python -m benchmarks.night [--nodes 60] [--hours 24] [--per-hour 0.5] [--seed 1]

Exponential lifetimes of 1/`per-hour` hours; for each node that dies another joins. Twenty owners republish every third
of a record's life; fifty random readers each period. CPU grows faster than the number of nodes.
"""

from __future__ import annotations

import argparse
import sys
import time
from functools import partial

from haif.testing.scenarios import Scenario, live_through_churn, play

READINGS = 50


def main(nodes: int, hours: float, per_hour: float, seed: int) -> int:
    """Print the figures; return the exit code."""
    story = partial(live_through_churn, hours=hours, per_hour=per_hour, readings=READINGS)
    night = Scenario(name="night", about="churn for a day", story=story, found_min=0.999)
    cpu = time.process_time()
    outcome = play(night, seed=seed, nodes=nodes)
    cpu = time.process_time() - cpu
    print("| nodes | hours | churn per hour | found | read p50 s | read p99 s | datagrams | CPU s | seed | trace |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    print(
        f"| {nodes} | {hours:g} | {per_hour:.0%} | {outcome.found:.2%} | {outcome.read_p50:.2f} "
        f"| {outcome.read_p99:.2f} | {outcome.datagrams} | {cpu:.0f} | {seed} | {outcome.trace[:12]} |"
    )
    for complaint in outcome.broken:
        print(f"\n{complaint}")
    return 1 if outcome.broken else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=60)
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--per-hour", type=float, default=0.5)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    sys.exit(main(given.nodes, given.hours, given.per_hour, given.seed))
