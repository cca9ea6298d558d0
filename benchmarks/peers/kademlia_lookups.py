"""find_node by PyPI's kademlia, all nodes in one process: run by `benchmarks.peers`, prints a line of JSON.

python kademlia_lookups.py NODES LOOKUPS SEED
"""

from __future__ import annotations

import asyncio
import gc
import json
import random
import sys
import time
from typing import Any

from kademlia.crawling import NodeSpiderCrawl
from kademlia.network import Server
from kademlia.node import Node

HOST = "127.0.0.1"


class Counting:
    """A transport that counts what all of them send."""

    sent = 0

    def __init__(self, transport: Any) -> None:
        self._transport = transport

    def sendto(self, data: bytes, address: tuple[str, int]) -> None:
        Counting.sent += 1
        self._transport.sendto(data, address)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


async def grow(count: int) -> list[Server]:
    servers: list[Server] = []
    for number in range(count):
        server = Server(node_id=random.randbytes(20))
        await server.listen(0, interface=HOST)
        server.protocol.transport = Counting(server.protocol.transport)
        server.port = server.transport.get_extra_info("sockname")[1]
        if number:
            await server.bootstrap([(HOST, servers[0].port)])
        servers.append(server)
    await asyncio.sleep(1)
    return servers


async def look_up(server: Server, target: Node) -> set[bytes]:
    near = server.protocol.router.find_neighbors(target)
    crawl = NodeSpiderCrawl(server.protocol, target, near, server.ksize, server.alpha)
    return {node.id for node in await crawl.find()}


async def main(count: int, lookups: int) -> None:
    servers = await grow(count)
    jobs = [(random.choice(servers), Node(random.randbytes(20))) for _ in range(lookups)]
    wanted = []
    for server, target in jobs:
        others = (other.node for other in servers if other is not server)
        wanted.append({node.id for node in sorted(others, key=target.distance_to)[: server.ksize]})
    gc.collect()
    gc.freeze()
    before, cpu = Counting.sent, time.process_time()
    walls, right = [], 0
    for (server, target), truth in zip(jobs, wanted, strict=True):
        began = time.perf_counter()
        right += len(truth & await look_up(server, target))
        walls.append((time.perf_counter() - began) * 1000)
    cpu = time.process_time() - cpu
    walls.sort()
    figures = {
        "datagrams": (Counting.sent - before) / lookups,
        "cpu_ms": cpu * 1000 / lookups,
        "p50_ms": walls[len(walls) // 2],
        "p99_ms": walls[int(0.99 * len(walls))],
        "recall": right / sum(map(len, wanted)),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    random.seed(int(sys.argv[3]))
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
