"""Streams whose workers fail in their middle: is a token lost, doubled or another than would have come?

`python -m benchmarks.failover [--failures N] [--seed S]`. Real orchestrator, tickets, cores, journeys and receipts, in
one process (`tests/support/brittle.py`); every answer is compared with the one that nothing interrupted. What it shows
is exact and no matter of speed: it fails if any answer differs.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections import Counter
from random import Random

from haif.telemetry.service import Telemetry
from tests.support.brittle import Told, any_ask, any_break, tell


async def measure(failures: int, seed: int) -> Counter[str]:
    """Count what became of answers until so many attempts had failed inside a stream."""
    random = Random(seed)
    telemetry = Telemetry(role="gateway", instance="benchmark", spans=None, otlp=None)
    count = Counter[str]()
    while count["failures inside a stream"] < failures:
        ask = any_ask(random)
        whole, _ = await tell(ask, [], telemetry)
        told, mesh = await tell(ask, [any_break(random) for _ in range(random.randint(1, 4))], telemetry)
        (job,) = mesh.desk.state.ended.values()
        count["answers"] += 1
        count["failures before a token"] += sum(not each.resumed for each in job.attempts[1:])
        count["failures inside a stream"] += sum(each.resumed > 0 for each in job.attempts)
        count["tokens"] += len(told.tokens)
        count.update(differences(whole, told))
    return count


def differences(whole: Told, told: Told) -> dict[str, int]:
    """What a tenant got that differs from what it would have got."""
    return {
        "tokens lost": max(0, len(whole.tokens) - len(told.tokens)),
        "tokens doubled": max(0, len(told.tokens) - len(whole.tokens)),
        "answers that differ": whole != told,
    }


def main() -> int:
    """Measure and print; 1 if anything differed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--failures", type=int, default=1000, help="inside streams (default: 1000)")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    count = asyncio.run(measure(options.failures, options.seed))
    print("| | |\n|---|---:|")
    for name in (
        "answers", "tokens", "failures inside a stream", "failures before a token", "tokens lost", "tokens doubled",
        "answers that differ",
    ):  # fmt: skip
        print(f"| {name} | {count[name]:,} |")
    return int(bool(count["answers that differ"]))


if __name__ == "__main__":
    sys.exit(main())
