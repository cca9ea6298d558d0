"""What strangers do to a node of PyPI's kademlia: run by `benchmarks.peers`, prints a line of JSON.

python kademlia_strangers.py COUNT SEED
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import sys
from collections import Counter

import umsgpack
from kademlia.node import Node
from kademlia.protocol import KademliaProtocol
from kademlia.storage import ForgetfulStorage

OWNER, STRANGER = ("10.2.0.1", 4000), ("66.6.6.6", 4000)
KEY = bytes(20)


class Silence:
    """A transport that leads nowhere."""

    def sendto(self, data: bytes, address: tuple[str, int]) -> None:
        pass


def victim() -> KademliaProtocol:
    protocol = KademliaProtocol(Node(random.randbytes(20)), ForgetfulStorage(), 20)
    protocol.transport = Silence()
    protocol._wait_timeout = 0.01  # noqa: SLF001 - its constructor does not pass it on
    return protocol


def query(function: str, *arguments: object) -> bytes:
    return b"\0" + random.randbytes(20) + umsgpack.packb([function, list(arguments)])


async def hears(protocol: KademliaProtocol, data: bytes, source: tuple[str, int]) -> int:
    """How many exceptions escape from what a datagram sets off."""
    protocol.datagram_received(data, source)
    escaped = 0
    while others := asyncio.all_tasks() - {asyncio.current_task()}:
        escaped += sum(isinstance(each, Exception) for each in await asyncio.gather(*others, return_exceptions=True))
    return escaped


def mutated(data: bytes) -> bytes:
    """A datagram with some bytes changed, cut short, or followed by more."""
    altered = bytearray(data)
    for _ in range(random.randint(1, 4)):
        altered[random.randrange(len(altered))] = random.randrange(256)
    end = random.choice((len(altered), random.randrange(len(altered))))
    return bytes(altered[:end]) + random.choice((b"", random.randbytes(8)))


async def main(count: int) -> None:
    crowded = victim()
    for number in range(count):
        data = query("ping", random.randbytes(20))
        crowded.datagram_received(data, (f"66.6.6.{number % 256}", 4000 + number // 256))
        await asyncio.sleep(0)
    places = Counter(index for index, bucket in enumerate(crowded.router.buckets) for _ in bucket.get_nodes())
    confused = victim()
    valid = [query("ping", KEY), query("find_node", KEY, KEY), query("find_value", KEY, KEY), query("stun")]
    escaped = 0
    for _ in range(count):
        escaped += await hears(confused, mutated(random.choice(valid)), STRANGER) > 0
    robbed = victim()
    await hears(robbed, query("store", random.randbytes(20), KEY, b"the owner's"), OWNER)
    await hears(robbed, query("store", random.randbytes(20), KEY, b"a stranger's"), STRANGER)
    print(
        json.dumps(
            {
                "entries": sum(places.values()),
                "bucket": max(places.values()),
                "escaped": escaped / count,
                "overwritten": float(robbed.storage.get(KEY) == b"a stranger's"),
            }
        )
    )


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    random.seed(int(sys.argv[2]))
    asyncio.run(main(int(sys.argv[1])))
