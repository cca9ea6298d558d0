"""What one find_node costs among N directory nodes on real loopback sockets, all in this process, replies signed.

    python benchmarks/dht.py [--nodes 100] [--lookups 200] [--seed 1]

CPU is the process's, so it counts both ends of every datagram; recall is against the true k closest.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import platform
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from random import Random
from statistics import mean, quantiles

from haif.base import limits
from haif.base.ids import Digest, NetId, PeerId
from haif.dht.contact import node_id
from haif.dht.service import Dht
from haif.identity.keys import Identity
from haif.runtime.clock import SystemClock

NET = NetId(b"n" * 32)


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
    while any(dht.statistics().operations for dht in nodes.values()):  # noqa: ASYNC110 - nobody signals the end of it
        await asyncio.sleep(0.05)
    return nodes


async def measure(nodes: dict[PeerId, Dht], lookups: int, random: Random) -> Figures:
    sent, bytes_sent, cpu = datagrams(nodes), kilobytes(nodes), time.process_time()
    walls, right, wanted = list[float](), 0, 0
    outside = 0.0  # CPU of working out the true answers
    for _ in range(lookups):
        peer, target = random.choice(list(nodes)), Digest(random.randbytes(32))
        began = time.perf_counter()
        found = await nodes[peer].find(target)
        walls.append(time.perf_counter() - began)
        mark = time.process_time()
        key = int.from_bytes(target, "big")
        truth = sorted((p for p in nodes if p != peer), key=lambda p: node_id(p) ^ key)[: limits.DHT_K]
        right += len({contact.peer for contact in found} & set(truth))
        wanted += len(truth)
        outside += time.process_time() - mark
    cpu_ms = (time.process_time() - cpu - outside) * 1000 / lookups
    p50, p99 = (quantiles(walls, n=100)[at] * 1000 for at in (49, 98))
    return Figures(
        datagrams=(datagrams(nodes) - sent) / lookups,
        kilobytes=(kilobytes(nodes) - bytes_sent) / lookups,
        cpu_ms=cpu_ms,
        p50_ms=p50,
        p99_ms=p99,
        recall=right / wanted,
    )


async def main(count: int, lookups: int, seed: int) -> None:
    random = Random(seed)
    async with AsyncExitStack() as stack:
        cpu = time.process_time()
        nodes = await grow(stack, count, random)
        join_ms = (time.process_time() - cpu) * 1000 / count
        join_datagrams = datagrams(nodes) / count
        contacts = mean(dht.statistics().contacts for dht in nodes.values())
        gc.collect()
        gc.freeze()  # a real node does not share its garbage collector with hundreds of others
        figures = await measure(nodes, lookups, random)
    print(f"find_node, k = {limits.DHT_K}, alpha = {limits.DHT_ALPHA}, signed replies, loopback UDP, one process")
    print(f"Python {platform.python_version()} on {platform.machine()}; {lookups} lookups; seed {seed}\n")
    print("| nodes | datagrams | kB | CPU ms | p50 ms | p99 ms | recall | join: datagrams | join: CPU ms | contacts |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    print(
        f"| {count} | {figures.datagrams:.1f} | {figures.kilobytes:.1f} | {figures.cpu_ms:.2f} | {figures.p50_ms:.1f} "
        f"| {figures.p99_ms:.1f} | {figures.recall:.4f} | {join_datagrams:.0f} | {join_ms:.1f} | {contacts:.0f} |"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=100)
    parser.add_argument("--lookups", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    asyncio.run(main(given.nodes, given.lookups, given.seed))
