"""What one find_node costs among N nodes on real loopback sockets, all in one process; and what it costs others.

    python -m benchmarks.dht [--nodes 1000] [--lookups 200] [--seed 1] [--no-peers]

CPU is that of the process, so it counts both ends of every datagram; recall is against the true k closest. Once grown,
our network is left in peace for `SETTLING_SECONDS`: whoever judged its size while it was small looks again each minute,
and what nodes do of their own accord is no part of a lookup. The peers do the same in processes of their own, one after
the other, in environments made for them under .build/: PyPI's kademlia (k = 20, alpha = 3, nothing signed) and npm's
hyperdht (k = 20, concurrency 10, lookups unsigned). A CPU that is shared makes all of them slower; what a pass of the
whole table gives is comparable within itself.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import platform
import time
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from random import Random
from statistics import mean, quantiles

from benchmarks import peers
from haif.base import limits
from haif.base.ids import Digest, NetId, PeerId
from haif.dht.contact import node_id
from haif.dht.service import Dht
from haif.identity.keys import Identity
from haif.runtime.clock import SystemClock

NET = NetId(b"n" * 32)
SETTLING_SECONDS = 150
COLUMNS = {"datagrams": ".1f", "cpu_ms": ".2f", "p50_ms": ".1f", "p99_ms": ".1f", "recall": ".4f"}


@dataclass(frozen=True)
class Figures:
    datagrams: float
    kilobytes: float
    cpu_ms: float
    p50_ms: float
    p99_ms: float
    recall: float


def datagrams(nodes: dict[PeerId, Dht]) -> int:
    return sum(dht.statistics().datagrams_out for dht in nodes.values())


def kilobytes(nodes: dict[PeerId, Dht]) -> float:
    return sum(dht.statistics().bytes_out for dht in nodes.values()) / 1000


async def grow(stack: AsyncExitStack, count: int, random: Random) -> dict[PeerId, Dht]:
    nodes: dict[PeerId, Dht] = {}
    for _ in range(count):
        identity = Identity(random.randbytes(32))
        first = [next(iter(nodes.values())).address] if nodes else []
        dht = Dht(
            identity=identity, net=NET, clock=SystemClock(), entropy=random.randbytes, bootstrap=first,
            on_dropped=lambda _: None,
        )  # fmt: skip
        nodes[identity.peer] = await stack.enter_async_context(dht)
        while dht.statistics().operations:  # noqa: ASYNC110 - nobody signals the end of it
            await asyncio.sleep(0)
    while any(dht.statistics().operations for dht in nodes.values()):  # noqa: ASYNC110 - nobody signals the end of it
        await asyncio.sleep(0.05)
    return nodes


async def measure(nodes: dict[PeerId, Dht], lookups: int, random: Random) -> Figures:
    jobs = [(random.choice(list(nodes)), Digest(random.randbytes(32))) for _ in range(lookups)]
    truths = [closest(nodes, target, excluding=peer) for peer, target in jobs]
    sent, bytes_sent = datagrams(nodes), kilobytes(nodes)
    gc.collect()
    gc.freeze()  # a real node does not share its garbage collector with hundreds of others
    cpu = time.process_time()
    walls, found = list[float](), list[set[PeerId]]()
    for peer, target in jobs:
        began = time.perf_counter()
        found.append({contact.peer for contact in await nodes[peer].find(target)})
        walls.append(time.perf_counter() - began)
    cpu_ms = (time.process_time() - cpu) * 1000 / lookups
    p50, p99 = (quantiles(walls, n=100)[at] * 1000 for at in (49, 98))
    return Figures(
        datagrams=(datagrams(nodes) - sent) / lookups,
        kilobytes=(kilobytes(nodes) - bytes_sent) / lookups,
        cpu_ms=cpu_ms,
        p50_ms=p50,
        p99_ms=p99,
        recall=sum(len(a & b) for a, b in zip(found, truths, strict=True)) / sum(map(len, truths)),
    )


def closest(nodes: dict[PeerId, Dht], target: Digest, *, excluding: PeerId) -> set[PeerId]:
    key = int.from_bytes(target, "big")
    return set(sorted((p for p in nodes if p != excluding), key=lambda p: node_id(p) ^ key)[: limits.DHT_K])


async def ours(count: int, lookups: int, seed: int) -> None:
    random = Random(seed)
    async with AsyncExitStack() as stack:
        cpu = time.process_time()
        nodes = await grow(stack, count, random)
        join_ms = (time.process_time() - cpu) * 1000 / count
        join_datagrams = datagrams(nodes) / count
        await asyncio.sleep(SETTLING_SECONDS)
        contacts = mean(dht.statistics().contacts for dht in nodes.values())
        figures = await measure(nodes, lookups, random)
    line("haif, replies signed", asdict(figures))
    print(f"\nA lookup of ours took {figures.kilobytes:.1f} kB.", end=" ")
    print(f"To join took {join_datagrams:.0f} datagrams and {join_ms:.1f} ms of CPU a node, all ends counted.", end=" ")
    print(f"Tables hold {contacts:.0f} contacts.")


def line(who: str, figures: dict[str, float] | str) -> None:
    if isinstance(figures, str):
        print(f"| {who} | {figures} | | | | |", flush=True)
        return
    shown = [f"{figures[name]:{form}}" for name, form in COLUMNS.items()]
    print(f"| {who} | {' | '.join(shown)} |", flush=True)


def main(count: int, lookups: int, seed: int, *, with_peers: bool) -> None:
    print(f"find_node among {count} nodes on loopback UDP, k = {limits.DHT_K}; {lookups} lookups; seed {seed}")
    load = f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs"
    print(f"Python {platform.python_version()} on {platform.machine()}; {load}\n")
    print("| | datagrams | CPU ms | p50 ms | p99 ms | recall |")
    print("|---|---|---|---|---|---|")
    if with_peers:
        line("kademlia (PyPI)", peers.kademlia_lookups(count, lookups, seed))
        line("hyperdht (npm)", peers.hyperdht_lookups(count, lookups))
    asyncio.run(ours(count, lookups, seed))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--lookups", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-peers", action="store_true", help="leave out what it costs others")
    given = parser.parse_args()
    main(given.nodes, given.lookups, given.seed, with_peers=not given.no_peers)
