"""What a key's records are worth when Sybils stand around it, beside plain Kademlia in the same run: row 5.

    python -m benchmarks.eclipse [--nodes 2000] [--readers 8] [--seed 5] [--only WORD]

Sybils are ground into the region around one key, in as many /24s and /16s as there are; three owners publish, then
readers read. Datagrams are all that the reader sent and received meanwhile. Everything but CPU follows from the
seed. A second table shows what becomes of the estimate of the network's size under attack.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from random import Random
from unittest import mock

from haif.base import limits
from haif.base.clock import Instant
from haif.base.ids import PeerId
from haif.dht import node as node_module
from haif.dht.contact import Contact
from haif.dht.lookup import Extent
from haif.dht.size import KEY_SPACE, NetworkSize
from haif.dht.table import RoutingTable
from haif.testing.siege import Age, Result, Siege, Sybils

OWNERS = 3
CASES: tuple[tuple[str, Sybils], ...] = (
    ("nobody", Sybils(count=0)),
    ("20 at the key, older", Sybils(count=20, regions=0.01)),
    *((f"{count} in the region, older", Sybils(count=count)) for count in (20, 100, 200, 400, 1000)),
    ("200 in the region, same age", Sybils(count=200, age=Age.SAME)),
    ("200 in the region, younger", Sybils(count=200, age=Age.YOUNGER)),
    *((f"200 over {regions} regions, older", Sybils(count=200, regions=regions)) for regions in (2, 4, 8)),
    ("400 over 4 regions, older", Sybils(count=400, regions=4)),
    ("200 that claim records", Sybils(count=200, claims=9)),
    ("200 that name nobody real", Sybils(count=200, invents=20)),
    ("200 that name as many unreal", Sybils(count=200, invents=10, claims=3)),
)


@contextmanager
def plain_kademlia() -> Iterator[None]:
    """Lookups that ask the k closest and nobody else; buckets of k that belong to whoever came first."""
    nothing: dict[str, object] = {"widen": lambda *_: None, "_outdrawn": lambda *_: None}
    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(node_module, "Extent", return_value=Extent()))
        for name, function in nothing.items():
            stack.enter_context(mock.patch.object(RoutingTable, name, function))
        yield


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


def estimate_table(seed: int) -> None:
    """What the estimate of a network's size becomes while somebody on the way of our lookups invents ids near it."""
    print("\n2,000 nodes; the attacker invents 100 ids near the target of each lookup, at addresses of so many /24s,")
    print("and our own neighbourhood is crowded, too. 72 lookups an hour; the estimate, as a multiple of the truth\n")
    print("| lookups it sees | /24s | after 1 h | 3 h | 10 h |")
    print("|---|---|---|---|---|")
    for share in (0.2, 0.5, 1.0):
        for subnets in (20, 200, 1000):
            seen = list(estimates(2000, 10, subnets, share, seed))
            print(f"| {share:.0%} | {subnets} | {seen[0]:.2f} | {seen[2]:.2f} | {seen[9]:.2f} |", flush=True)


def estimates(nodes: int, hours: int, subnets: int, share: float, seed: int) -> Iterator[float]:
    """Estimate over truth after each hour; a first hour passes undisturbed."""
    random = Random(seed)
    size, invented, near = NetworkSize(), 0, 3 * limits.DHT_K * KEY_SPACE // nodes
    crowded = [(distance >> 10, contact) for distance, contact in _seen(nodes, random, [])]
    for hour in range(hours + 1):
        for lookup in range(72):
            lies: list[tuple[int, Contact]] = []
            if hour and random.random() < share:
                for _ in range(100):
                    invented += 1
                    at = invented % subnets
                    liar = Contact(PeerId(random.randbytes(32)), (f"200.{at // 250}.{at % 250}.1", 4000))
                    lies.append((random.randrange(near), liar))
            size.sampled(_seen(nodes, random, lies), Instant(3600.0 * hour + 50.0 * lookup))
        if hour:
            yield size.nodes(size.around(crowded), Instant(3600.0 * (hour + 1))) / nodes
        else:
            size.nodes(size.around(crowded), Instant(3600.0))


def _seen(nodes: int, random: Random, lies: list[tuple[int, Contact]]) -> list[tuple[int, Contact]]:
    """The k closest to a random point, honest nodes in a /24 each and those who lie."""
    near = 3 * limits.DHT_K * KEY_SPACE // nodes
    honest = [
        (random.randrange(near), Contact(PeerId(number.to_bytes(32, "big")), _home(number)))
        for number in random.sample(range(nodes), 3 * limits.DHT_K)
    ]
    return sorted([*honest, *lies])[: limits.DHT_K]


def _home(number: int) -> tuple[str, int]:
    return f"20.{number // 250}.{number % 250}.1", 4000


def main(nodes: int, readers: int, seed: int, only: str) -> None:
    """Print the tables."""
    print(f"Python {platform.python_version()} on {platform.machine()}")
    eclipse_table(nodes, readers, seed, only)
    estimate_table(seed)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=2000)
    parser.add_argument("--readers", type=int, default=8)
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--only", default="", help="only the cases whose name has this in it")
    given = parser.parse_args()
    main(given.nodes, given.readers, given.seed, given.only)
