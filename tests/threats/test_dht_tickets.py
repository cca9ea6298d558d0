"""A flood of records: it cannot push an honest one out, nor keep it out longer than the formula says; nor can tickets.

The flood comes from one /24 with as many keys as it likes, and speaks the protocol to the letter.
"""

from dataclasses import dataclass, field
from random import Random

import pytest

from haif.base import codec, limits
from haif.base.clock import Instant, WallTime
from haif.base.errors import Reason
from haif.base.ids import Digest, NetId, PeerId
from haif.base.machine import Address
from haif.dht import messages
from haif.dht.messages import Command, Kind, Put, Reply
from haif.dht.node import Node
from haif.dht.tickets import Claim, TicketOffice, Wait
from haif.identity.keys import Identity
from haif.protocol.records import Record, RecordKind, presence_topic, sign_record
from haif.testing.directory import NET as SIMULATED
from haif.testing.directory import Directory
from haif.testing.world import World

NET = NetId(b"n" * 32)
TOPIC, OTHER = Digest(b"t" * 31 + b"\1"), Digest(b"u" * 31 + b"\1")  # of offers
WALL = WallTime(1_700_000_000_000)
TTL = limits.RECORD_TTL_MS_MAX
HALF = limits.RECORDS_PER_TOPIC_MAX // 2
WAIT = 1126.0  # seconds: 30 of 32 bits of the flood's address are those of the flood
HONEST: Address = ("150.20.30.40", 4000)


def identity(number: int) -> Identity:
    return Identity(number.to_bytes(32, "big"))


def flooder(number: int) -> Address:
    return "66.6.6.6", 4000 + number


@dataclass
class Store:
    """A node as those see it who want to store something there."""

    now: float = 100.0
    node: Node = field(init=False)

    def __post_init__(self) -> None:
        self.node = Node(identity(0), NET, entropy=Random(1).randbytes, wall=lambda: self.wall, now=Instant(self.now))

    @property
    def wall(self) -> WallTime:
        return WALL + int(self.now * 1000)  # type: ignore[return-value]

    def ask(self, command: Command, target: Digest, argument: bytes, token: bytes | None, source: Address) -> bytes:
        asked = messages.write_query(b"12345678", command, target, argument, token, None)
        self.node.receive(asked, source, Instant(self.now))
        [answer] = [data for data, to in self.node.outgoing(Instant(self.now)) if to == source]
        self.asked = asked
        return answer

    def token(self, source: Address, target: Digest = TOPIC) -> bytes:
        answer = self.ask(Command.PUT, target, b"", None, source)
        assert answer[1] == Kind.RETRY
        return answer[10:]

    def put(
        self, number: int, source: Address, ticket: bytes = b"", target: Digest = TOPIC, sequence: int = 1,
        kind: RecordKind = RecordKind.OFFER,
    ) -> Reply:  # fmt: skip
        owner = identity(number)
        record = Record(kind, target, owner.peer, sequence, self.wall + TTL, False, b"here")
        put = codec.encode(Put(sign_record(owner, NET, record), ticket))
        answer = self.ask(Command.PUT, target, put, self.token(source, target), source)
        return messages.open_reply(messages.read(answer), net=NET, query=self.asked)[1]

    def held(self, topic: Digest = TOPIC) -> set[PeerId]:
        return {record.signer for record in self.node.store.get(topic, self.wall)}


def flooded() -> Store:
    store = Store()
    for number in range(1, HALF + 1):
        assert store.put(number, flooder(number)).refused == ""
    return store


def test_a_flood_from_all_over_one_48_of_ipv6_waits_and_honest_records_of_both_families_hardly_do() -> None:
    store = Store()
    for number in range(1, HALF + 1):
        assert store.put(number, (f"2a10:6:6:{2_000 * number:x}::1", 4000)).refused == ""
    flood = store.put(100, ("2a10:6:6:ffff::1", 4000)).wait_ms
    assert flood > 800_000, "36 of its 52 bits are those of the flood"
    for number, honest in enumerate((HONEST, ("2c0f:fb50:4002::1", 4000), ("2001:67c:2e8::1", 4000)), 200):
        assert store.put(number, honest).wait_ms == 1
    assert store.put(300, ("2a10:3781:1::1", 4000)).wait_ms < 500_000, "a neighbour of the flood's waits half as long"


def test_beyond_half_a_topic_the_flood_must_wait_and_an_honest_record_does_not() -> None:
    store = flooded()
    refused = store.put(100, flooder(100))
    assert refused.refused == Reason.MUST_WAIT
    assert refused.wait_ms == pytest.approx(1_200_000 * 30 / 32, rel=1e-3)
    honest = store.put(200, HONEST)
    assert honest.refused == Reason.MUST_WAIT
    assert honest.wait_ms == 1, "1.2e-4 s, as the formula says, in whole milliseconds"
    store.now += 0.001
    assert store.put(200, HONEST, honest.ticket).refused == ""
    assert identity(200).peer in store.held()


@pytest.mark.parametrize("kind", [RecordKind.OFFER, RecordKind.PRESENCE])
def test_nobodys_records_take_the_places_where_another_says_it_is(kind: RecordKind) -> None:
    store, topic = Store(), presence_topic(NET, identity(200).peer)
    for number in range(1, limits.RECORDS_PER_TOPIC_MAX + 1):
        assert store.put(number, (f"{20 + number}.9.3.4", 4000), target=topic, kind=kind).refused == Reason.MALFORMED
    assert store.held(topic) == set()
    assert store.put(200, HONEST, target=topic, kind=RecordKind.PRESENCE).refused == ""


def test_the_same_flood_for_hours_on_end_pushes_nobody_out_and_leaves_room() -> None:
    store = flooded()
    honest = store.put(200, HONEST)
    store.now += 0.001
    assert store.put(200, HONEST, honest.ticket).refused == ""
    tickets = {number: store.put(number, flooder(number)).ticket for number in range(300, 340)}
    for step in range(24):  # six hours: each comes back when it was told to, and renews what it has
        store.now += 1130
        for number in range(1, HALF + 1):
            store.put(number, flooder(number), sequence=step + 2)
        store.put(200, HONEST, sequence=step + 2)
        for number, ticket in tickets.items():
            tickets[number] = store.put(number, flooder(number), ticket).ticket or ticket
    assert identity(200).peer in store.held()
    assert len(store.held()) < limits.RECORDS_PER_TOPIC_MAX - 10
    late = store.put(201, ("201.2.3.4", 4000))
    assert late.wait_ms <= 50, "another honest one waits no longer"


def test_a_forged_ticket_buys_nothing() -> None:
    store = flooded()
    claim = Claim(TOPIC, identity(100).peer, flooder(100))
    long_ago = Wait(Instant(0.0), Instant(store.now))
    forged = TicketOffice(Random(2).randbytes).issue(claim, long_ago)
    for ticket in (forged, bytes(32), Random(3).randbytes(32)):
        assert store.put(100, flooder(100), ticket).refused == Reason.MUST_WAIT
    assert store.node.answerer.tickets.void == 3


def test_a_ticket_of_ones_own_with_an_earlier_time_written_into_it_buys_nothing() -> None:
    store = flooded()
    ticket = store.put(100, flooder(100)).ticket
    earlier = bytes(8) + int(store.now * 1000).to_bytes(8, "big") + ticket[16:]
    assert store.put(100, flooder(100), earlier).wait_ms > 1_100_000


def test_a_transferred_ticket_buys_nothing() -> None:
    """The honest one's ticket, in the hands of the flood: for another owner, from another address, at another topic."""
    store = flooded()
    ticket = store.put(200, HONEST).ticket
    store.now += 1
    assert store.put(100, HONEST, ticket).wait_ms == 1, (
        "the address may wait for itself; the ticket is not for this key"
    )
    assert store.put(200, flooder(1), ticket).wait_ms > 1_100_000
    for number in range(1, HALF + 1):
        store.put(400 + number, flooder(number), target=OTHER)
    assert store.put(200, HONEST, ticket, target=OTHER).refused == Reason.MUST_WAIT
    assert store.node.answerer.tickets.void == 3


def test_a_replayed_ticket_buys_one_place_and_that_only_once() -> None:
    store = flooded()
    ticket = store.put(100, flooder(100)).ticket
    store.now += WAIT
    assert store.put(100, flooder(100), ticket).refused == ""
    held = len(store.held())
    for _ in range(3):
        assert store.put(100, flooder(100), ticket).refused == "", "its place is its own, ticket or no ticket"
    assert len(store.held()) == held
    store.now += limits.TICKET_WINDOW_SECONDS + 1
    assert store.put(101, flooder(100), ticket).refused == Reason.MUST_WAIT


def test_whoever_comes_too_early_has_gained_nothing_and_lost_nothing() -> None:
    store = flooded()
    told = store.put(100, flooder(100))
    for _ in range(11):
        store.now += 100
        again = store.put(100, flooder(100), told.ticket)
        assert again.refused == Reason.MUST_WAIT
        assert again.ticket == told.ticket
    store.now += 26
    assert store.put(100, flooder(100), told.ticket).refused == ""


def test_whoever_comes_too_late_begins_anew() -> None:
    store = flooded()
    told = store.put(100, flooder(100))
    store.now += WAIT + limits.TICKET_WINDOW_SECONDS + 1
    for number in range(1, HALF + 1):
        store.put(number, flooder(number), sequence=2)
    assert store.put(100, flooder(100), told.ticket).wait_ms > 1_100_000


def test_waiting_counts_from_the_first_ticket_and_a_higher_price_is_paid_by_waiting_on() -> None:
    store = flooded()
    first, second = store.put(100, flooder(100)), store.put(101, flooder(101))
    store.now += WAIT
    for number in range(1, HALF + 1):
        store.put(number, flooder(number), sequence=2)
    assert store.put(100, flooder(100), first.ticket).refused == ""
    again = store.put(101, flooder(101), second.ticket)
    assert again.refused == Reason.MUST_WAIT
    assert 0 < again.wait_ms < 600_000, "one place dearer, less what was waited already"


# --- in a network -----------------------------------------------------------------------------------------------------


def test_in_a_network_an_honest_worker_is_found_at_once_through_a_flood_of_its_topic() -> None:
    directory = Directory(World(seed=11))
    addresses = directory.grow(20)
    world = directory.world
    flood = Node(identity(1), SIMULATED, entropy=world.entropy("flood"), wall=world.wall, now=world.now())
    world.add(("66.6.6.6", 4000), flood)
    world.do(("66.6.6.6", 4000), lambda now: flood.join([addresses[0]], now))
    world.run(seconds=10)
    for number in range(60):
        owner = identity(1000 + number)
        record = Record(RecordKind.OFFER, TOPIC, owner.peer, 1, world.wall() + TTL, False, b"come to me")
        data = sign_record(owner, SIMULATED, record)
        world.do(("66.6.6.6", 4000), lambda now, data=data: flood.publish(data, now))  # type: ignore[misc]
        world.run(seconds=2)
    assert flood.waiting > 100, "the second half of each store is waited for"
    assert min(len(node.store.get(TOPIC, world.wall())) for node in directory.nodes.values()) == HALF

    honest = addresses[7]
    directory.publish(honest, directory.record(honest, TOPIC, body=b"honest"))
    world.run(seconds=2)
    peer = directory.identities[honest].peer
    keepers = [
        at for at, node in directory.nodes.items() if peer in {r.signer for r in node.store.get(TOPIC, world.wall())}
    ]
    assert len(keepers) >= 15, f"it came back with its tickets by itself; seed {world.seed}"
    assert directory.nodes[honest].counters.puts_waited >= 15
    for reader in addresses[10:15]:
        assert peer in {record.signer for record in directory.gather(reader, TOPIC).records}
