"""What a key's records are worth when Sybils stand around it, beside plain Kademlia in the same run: rows 5 and 10.

    python -m benchmarks.eclipse [--nodes 2000] [--readers 8] [--seed 5] [--only WORD]

Sybils are ground into the region around one key, in as many /24s and /16s as there are; three owners publish, then
readers read. Datagrams are those the reader sent and received meanwhile. All follow from the seed; only CPU is measured.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random

from haif.base import limits
from haif.base.clock import Instant
from haif.base.ids import PeerId
from haif.dht import node as node_module
from haif.dht.contact import Contact
from haif.dht.lookup import Extent
from haif.dht.size import KEY_SPACE, NetworkSize
from haif.testing.siege import Age, Result, Siege, Sybils

OWNERS = 3
CASES: tuple[tuple[str, Sybils], ...] = (
    ("nobody", Sybils(count=0)),
    *((f"{count} at the key, {age}", Sybils(count=count, age=age, regions=0.01)) for count in (20,) for age in Age),
    *(
        (f"{count} in the region, {age}", Sybils(count=count, age=age))
        for count in (20, 100, 200, 400, 1000)
        for age in Age
    ),
    *((f"200 in {regions} regions, older", Sybils(count=200, regions=regions)) for regions in (2, 4, 8, 16)),
    ("400 in 4 regions, older", Sybils(count=400, regions=4)),
    ("200 that claim records", Sybils(count=200, claims=9)),
    ("200 that name nobody real", Sybils(count=200, invents=20)),
    ("200 that name as many unreal", Sybils(count=200, invents=10, claims=3)),
)


@contextmanager
def plain_kademlia() -> Iterator[None]:
    """Lookups that ask the k closest and nobody else."""
    extent = node_module.Extent
    node_module.Extent = lambda *_: Extent()  # type: ignore[assignment, misc]
    try:
        yield
    finally:
        node_module.Extent = extent  # type: ignore[misc]


def besieged(nodes: int, sybils: Sybils, readers: int, seed: int) -> Result:
    """One case."""
    return Siege(nodes=nodes, sybils=sybils, seed=seed).read(owners=OWNERS, readers=readers)


def eclipse_table(nodes: int, readers: int, seed: int, only: str) -> None:
    """Found against how many Sybils, how old, and what they do."""
    print(f"{nodes} nodes, {readers} readers of {OWNERS} owners' records; seed {seed}\n")
    print(
        "| Sybils | plain Kademlia finds | found | honest holders (of) | queries mean / max | datagrams mean / max "
        "| datagrams of a write | suspected | nodes seen | CPU s |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name, sybils in CASES:
        if only not in name:
            continue
        cpu = time.process_time()
        with plain_kademlia():
            plain = besieged(nodes, sybils, readers, seed)
        result = besieged(nodes, sybils, readers, seed)
        cpu = time.process_time() - cpu
        print(
            f"| {name} | {plain.found:.2f} | {result.found:.3f} | {result.holders} ({result.honest}) "
            f"| {result.queries:.0f} / {result.queries_max} | {result.datagrams:.0f} / {result.datagrams_max} "
            f"| {result.writing} | {result.suspected} of {readers} | {result.nodes_estimated:.0f} | {cpu:.0f} |",
            flush=True,
        )


def estimates(nodes: int, hours: int, subnets: int, denser: float, seed: int) -> Iterator[float]:
    """The estimate after each hour in which somebody on the way of every lookup of ours invents ids near its target.

    A dozen lookups an hour; the neighbourhood in our table is as much denser, too, as ids ground against us make it.
    """
    random = Random(seed)  # noqa: S311 - replayed, never secret
    size, invented = NetworkSize(), 0

    def honest(number: int) -> Contact:
        return Contact(PeerId(number.to_bytes(32, "big")), (f"20.{number // 250}.{number % 250}.1", 4000))

    def seen() -> list[tuple[int, Contact]]:
        nonlocal invented
        found = [(random.getrandbits(256), honest(number)) for number in range(nodes)]
        for _ in range(int(limits.DHT_K * (denser - 1))):
            invented += 1
            at = invented % subnets
            who = Contact(PeerId(random.randbytes(32)), (f"200.{at // 250}.{at % 250}.1", 4000))
            found.append((random.randrange(limits.DHT_K * KEY_SPACE // nodes), who))
        return sorted(found)[: limits.DHT_K]

    neighbours = seen()
    for hour in range(hours):
        for lookup in range(12):
            now = Instant(3600.0 * hour + 300.0 * lookup)
            size.sampled(seen() if hour else sorted(honest_only(random, nodes, honest))[: limits.DHT_K], now)
        yield size.nodes(neighbours, Instant(3600.0 * hour + 3599.0))


def honest_only(random: Random, nodes: int, honest: object) -> list[tuple[int, Contact]]:
    """What a lookup of an undisturbed hour sees."""
    return [(random.getrandbits(256), honest(number)) for number in range(nodes)]  # type: ignore[operator]


def main(nodes: int, readers: int, seed: int, only: str) -> None:
    """Print the tables."""
    print(f"Python {platform.python_version()} on {platform.machine()}")
    eclipse_table(nodes, readers, seed, only)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=2000)
    parser.add_argument("--readers", type=int, default=8)
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--only", default="", help="only the cases whose name has this in it")
    given = parser.parse_args()
    main(given.nodes, given.readers, given.seed, given.only)
