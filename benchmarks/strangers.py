"""What strangers can do to one node of the directory, beside PyPI's kademlia in the same run: rows 9 and 10.

    python -m benchmarks.strangers [--count 10000] [--seed 1] [--no-peers]

1. as many made-up ids ping it from one /24, and answer when they are asked: how many places of its table they get
2. as many datagrams come that were whole before bytes were changed, cut off or added: what share escapes as exceptions
3. a stranger stores under the key that another has stored under: whose value is there then

No sockets: the machine, or the protocol object, is handed each datagram. Everything follows from the seed.
"""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import dataclass, field
from random import Random

from benchmarks import peers
from haif.base import codec
from haif.base.clock import Instant, WallTime
from haif.base.ids import Digest, NetId, PeerId
from haif.base.machine import Address
from haif.dht import messages
from haif.dht.contact import node_id, pack_address
from haif.dht.messages import Command, Kind, Put, Reply
from haif.dht.node import Node
from haif.identity.keys import Identity
from haif.protocol.records import Record, RecordKind, presence_topic, sign_record

NET = NetId(b"n" * 32)
NOW, WALL = Instant(100.0), WallTime(1_700_000_000_000)
HERE, OWNER, STRANGER = ("10.1.0.1", 4000), ("10.2.0.1", 4000), ("66.6.6.6", 4000)
COLUMNS = {"entries": ".0f", "bucket": ".0f", "escaped": ".1%", "overwritten": ".0f"}
ANYWHERE = Digest(bytes(32))
_TID = b"12345678"


@dataclass
class Victim:
    """A node, and what it says to whom."""

    random: Random
    node: Node = field(init=False)

    def __post_init__(self) -> None:
        own = Identity(self.random.randbytes(32))
        self.node = Node(own, NET, entropy=self.random.randbytes, wall=lambda: WALL, now=NOW)

    def hears(self, data: bytes, source: Address) -> list[tuple[bytes, Address]]:
        self.node.receive(data, source, NOW)
        return list(self.node.outgoing(NOW))

    def token(self, requester: PeerId, source: Address, topic: Digest) -> bytes:
        asked = messages.write_query(_TID, Command.FIND, topic, b"", None, requester)
        [data] = [data for data, to in self.hears(asked, source) if to == source and data[1] == Kind.REPLY]
        return messages.open_reply(messages.read(data), net=NET, query=asked)[1].token


def crowded(count: int, random: Random) -> Counter[int]:
    """How many places the made-up ids have in each bucket."""
    victim = Victim(random)
    for number in range(count):
        stranger, source = Identity(random.randbytes(32)), (f"66.6.6.{number % 256}", 4000 + number // 256)
        ping = messages.write_query(_TID, Command.PING, ANYWHERE, b"", None, stranger.peer)
        for data, to in victim.hears(ping, source):
            if data[1] == Kind.QUERY:
                honest = Reply(pack_address(HERE), bytes(16))
                victim.hears(messages.sign_reply(stranger, NET, messages.read(data), honest), to)
    own = int.from_bytes(victim.node.id, "big")
    return Counter((own ^ node_id(known.peer)).bit_length() for known in victim.node.table.closest(0, count))


def escaped(count: int, random: Random) -> float:
    """What share of mutated datagrams raises."""
    victim, peer = Victim(random), PeerId(bytes(32))
    commands = (Command.PING, Command.FIND, Command.GET, Command.WATCH)
    valid = [messages.write_query(_TID, command, ANYWHERE, b"", None, peer) for command in commands]
    raised = 0
    for _ in range(count):
        try:
            victim.hears(mutated(random.choice(valid), random), STRANGER)
        except Exception:  # noqa: BLE001 - it is what is counted
            raised += 1
    return raised / count


def mutated(data: bytes, random: Random) -> bytes:
    """A datagram with some bytes changed, cut short, or followed by more."""
    altered = bytearray(data)
    for _ in range(random.randint(1, 4)):
        altered[random.randrange(len(altered))] = random.randrange(256)
    end = random.choice((len(altered), random.randrange(len(altered))))
    return bytes(altered[:end]) + random.choice((b"", random.randbytes(8)))


def overwritten(random: Random) -> bool:
    """Whether a stranger's record stands where an owner says where it is."""
    victim, owner, stranger = Victim(random), Identity(random.randbytes(32)), Identity(random.randbytes(32))
    topic = presence_topic(NET, owner.peer)
    for sequence, (who, source) in enumerate(((owner, OWNER), (stranger, STRANGER))):
        record = Record(RecordKind.PRESENCE, topic, owner.peer, sequence, WALL + 60_000, False, who.peer)
        forged = who.sign(b"haif/record/v1\0" + NET + codec.encode(record)) + codec.encode(record)
        data = sign_record(owner, NET, record) if who is owner else forged
        token = victim.token(who.peer, source, topic)
        victim.hears(messages.write_query(_TID, Command.PUT, topic, codec.encode(Put(data)), token, who.peer), source)
    [kept] = victim.node.store.get(topic, WALL)
    return kept.payload.body != owner.peer


def line(who: str, figures: dict[str, float] | str) -> None:
    """One row, or why there is none."""
    if isinstance(figures, str):
        print(f"| {who} | {figures} | | | |")
        return
    print(f"| {who} | {' | '.join(f'{figures[name]:{form}}' for name, form in COLUMNS.items())} |")


def main(count: int, seed: int, *, with_peers: bool) -> None:
    """Print the table."""
    print(f"{count} pings of made-up ids from one /24; {count} mutated datagrams; one stranger's store; seed {seed}\n")
    print("| | places in the table | in one bucket | exceptions escaped | values overwritten |\n|---|---|---|---|---|")
    if with_peers:
        line("kademlia (PyPI)", peers.kademlia_strangers(count, seed))
    random = Random(seed)
    places = crowded(count, random)
    figures = {"entries": sum(places.values()), "bucket": max(places.values())}
    line("haif", figures | {"escaped": escaped(count, random), "overwritten": overwritten(random)})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-peers", action="store_true", help="leave out what strangers do to others")
    given = parser.parse_args()
    main(given.count, given.seed, with_peers=not given.no_peers)
