"""What lookups and readings take in a simulated network: calm, lossy, after the death of many. Seconds are simulated.

    python -m benchmarks.sim [--nodes 1000] [--readings 1000] [--seed 1]

Links of 5 to 85 ms one way, with 2 ms of jitter; readers are drawn at random and all begin at once; nothing is repaired
between a death and the readings. Found, seconds, queries and hops follow from the seed alone; only CPU is measured.
"""

from __future__ import annotations

import argparse
import platform
import time

from haif.base import limits
from haif.testing import troubles
from haif.testing.net import Conditions
from haif.testing.scenarios import LOSSY, percentile
from haif.testing.stage import Figures, Stage

RECORDS = 20
LOSS = Conditions(loss=LOSSY.loss)
CASES: tuple[tuple[str, Conditions, float], ...] = (
    ("calm", Conditions(), 0.0),
    ("5 % loss", LOSS, 0.0),
    ("20 % dead", Conditions(), 0.2),
    ("50 % dead", Conditions(), 0.5),
    ("75 % dead", Conditions(), 0.75),
)


def measured(nodes: int, readings: int, seed: int, conditions: Conditions, dead: float) -> tuple[Figures, int, str]:
    """The figures of one case, how many datagrams it took, and its trace."""
    stage = Stage(seed=seed, nodes=nodes)
    stage.grow()
    stage.world.conditions = conditions
    stage.publish(RECORDS)
    troubles.mass_death(stage, dead)
    stage.read_records(readings)
    stage.world.run(seconds=2 * limits.DHT_SELF_LOOKUP_SECONDS if dead else 0)
    stage.look_up(readings // 2)
    return stage.figures, stage.world.datagrams, stage.world.trace()


def main(nodes: int, readings: int, seed: int) -> None:
    """Print the table."""
    print(f"{nodes} nodes, k = {limits.DHT_K}, alpha = {limits.DHT_ALPHA}, {readings} readings; seed {seed}")
    print(f"Python {platform.python_version()} on {platform.machine()}\n")
    print(
        "| case | found | read p50 s | read p99 s | recall | lookup p50 s | lookup p99 s | queries | hops | datagrams "
        "| CPU s | trace |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|---|")
    for name, conditions, dead in CASES:
        cpu = time.process_time()
        figures, datagrams, trace = measured(nodes, readings, seed, conditions, dead)
        cpu = time.process_time() - cpu
        read, lookup = figures.read_seconds, figures.lookup_seconds
        print(
            f"| {name} | {figures.found_share:.2%} | {percentile(read, 0.5):.3f} | {percentile(read, 0.99):.3f} "
            f"| {figures.recall:.4f} | {percentile(lookup, 0.5):.3f} | {percentile(lookup, 0.99):.3f} "
            f"| {sum(figures.queries) / len(figures.queries):.1f} | {sum(figures.hops) / len(figures.hops):.2f} "
            f"| {datagrams} | {cpu:.1f} | {trace[:12]} |",
            flush=True,
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--readings", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    main(given.nodes, given.readings, given.seed)
