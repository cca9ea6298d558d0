"""A publisher at nodes that fill up, over real sockets: it comes back with its tickets by itself."""

import asyncio

from haif.base import limits
from haif.base.ids import Digest
from haif.identity.keys import Identity
from haif.protocol.records import Record, RecordKind, sign_record
from haif.runtime.clock import SystemClock, entropy
from tests.unit.dht.test_service import NET, bodies, network

TOPIC = Digest(b"c" * 31 + b"\1")  # of offers


def record(body: bytes) -> bytes:
    owner, now = Identity(entropy(32)), SystemClock().wall()
    return sign_record(owner, NET, Record(RecordKind.OFFER, TOPIC, owner.peer, now, now + 600_000, False, body))


async def test_what_had_to_wait_is_kept_soon_after_and_so_is_what_is_published_meanwhile() -> None:
    async with asyncio.timeout(60), network(3) as (a, b, c):
        for number in range(limits.RECORDS_PER_TOPIC_MAX // 2):
            assert len((await a.put(record(b"%d" % number))).by) == 2
        told = await a.put(record(b"one too many"))
        assert (told.by, set(told.refused), len(told.waiting)) == ((), {"must_wait"}, 2)
        await b.publish(RecordKind.OFFER, TOPIC, b"another", ttl_ms=600_000)  # returns, and waits by itself
        for reader in (a, b, c):
            while not {b"one too many", b"another"} <= bodies(await reader.lookup(TOPIC)):
                pass
        while a.statistics().puts_waited < 2 or b.statistics().puts_waited < 1:
            await asyncio.sleep(0)
        assert sum(node.statistics().tickets_given for node in (a, b, c)) >= 4
        assert [node.statistics().tickets_held for node in (a, b, c)] == [0, 0, 0]
