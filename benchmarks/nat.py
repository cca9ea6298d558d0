"""Each kind of NAT against each kind, in namespaces: how long until the first byte, and until the way is direct.

    python -m benchmarks.nat

Needs root, ip and nft, as the tests in tests/netns do. Real HAIF processes, one relay, no delay on the links: the times
are those of our own steps and of the machine's load. A row asks, a column is asked.
"""

import argparse
import asyncio
import statistics
import sys

from tests.support.nat_matrix import BY_NAME, KINDS, Meeting, matrix, table
from tests.support.netlab import Lab, why_not


def summary(met: list[Meeting]) -> str:
    """Who connected, who went direct, and the times of both."""
    there = [each for each in met if not each.error]
    independent = [each for each in there if each.must_be_direct]
    moved = [each for each in there if each.last != each.first]
    direct = sum(each.last == "direct" for each in independent)
    more = sum(each.last == "direct" for each in there) - direct
    return "\n".join([
        f"connected: {len(there)} of {len(met)} pairs, streams whole: {sum(each.whole for each in there)}",
        f"direct in the end where both sides map endpoint-independently: {direct} of {len(independent)}",
        f"direct in the end elsewhere: {more} of {len(there) - len(independent)}",
        f"first byte of an answer: {spread([each.connected for each in there])}",
        f"moved to a direct way: {spread([each.settled for each in moved])}",
    ])  # fmt: skip


def spread(seconds: list[float]) -> str:
    """Median and worst, in ms."""
    if not seconds:
        return "never"
    return f"median {1000 * statistics.median(seconds):.0f} ms, worst {1000 * max(seconds):.0f} ms ({len(seconds)})"


def main() -> int:
    """Print the matrix, or why this machine makes no namespaces."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kind", action="append", choices=[*BY_NAME], help="only this kind; may be given again")
    chosen = parser.parse_args().kind or [*BY_NAME]
    refusal = why_not()
    if refusal:
        print(f"no namespaces here: {refusal}")
        return 0
    with Lab() as lab:
        met = asyncio.run(matrix(lab, [kind for kind in KINDS if kind.name in chosen]))
    print(summary(met).replace("\n", "\n\n"))
    print("\nms; R: relayed, D: direct, and where the way changed, when\n")
    print(table(met))
    return 0


if __name__ == "__main__":
    sys.exit(main())
