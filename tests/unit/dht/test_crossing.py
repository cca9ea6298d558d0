"""Who is asked to carry a record into the other family's directory, and what a carrier takes."""

from random import Random

import pytest

from haif.base import codec, limits
from haif.base.clock import Instant, WallTime
from haif.base.errors import Dropped, OverQuota, Reason
from haif.base.ids import Digest, NetId, PeerId
from haif.base.machine import Address
from haif.dht import messages
from haif.dht.contact import Contact, pack_address
from haif.dht.crossing import Carriers, Carry, Elsewhere, Freight
from haif.dht.diversity import Scope
from haif.dht.messages import Command, Kind, Put, Reply
from haif.dht.node import Node
from haif.identity.keys import Identity
from haif.protocol.records import Record, RecordKind, sign_record

NET = NetId(b"n" * 32)
TOPIC = Digest(b"t" * 31 + b"\1")  # of offers
WALL = WallTime(1_700_000_000_000)
NOW = Instant(0.0)
ASKER = ("203.0.113.7", 4000)
SIX = ("2a10:5::1", 4000)
OWNER = Identity(b"o" * 32)


def contact(number: int) -> Contact:
    return Contact(PeerId(bytes([number]) * 32), (f"20.0.{number}.1", 4000))


def elsewhere(number: int) -> bytes:
    return pack_address((f"2a10:{number:x}::1", 4000))


def record(**changes: object) -> bytes:
    fields = {
        "kind": RecordKind.OFFER, "topic": TOPIC, "owner": OWNER.peer, "sequence": 1, "expires": WALL + 60_000,
        "tombstone": False, "body": b"here",
    }  # fmt: skip
    return sign_record(OWNER, NET, Record(**fields | changes))  # type: ignore[arg-type]


def node(*, both: bool = True) -> Node:
    made = Node(Identity(b"a" * 32), NET, entropy=Random(1).randbytes, wall=lambda: WALL, now=NOW)
    if both:
        made.stand(SIX)
    return made


def asked(at: Node, command: Command, argument: bytes, source: Address = ASKER, target: Digest = TOPIC) -> Reply | None:
    """What a node answers who proves its address; None where it is no reply."""
    query = messages.write_query(b"12345678", command, target, argument, None, None)
    at.receive(query, source, NOW)
    answer = messages.read(next(iter(at.outgoing(NOW)))[0])
    if answer.kind is Kind.RETRY:
        query = messages.write_query(b"12345678", command, target, argument, answer.rest, None)
        at.receive(query, source, NOW)
        answer = messages.read(next(iter(at.outgoing(NOW)))[0])
    return messages.open_reply(answer, net=NET, query=query)[1] if answer.kind is Kind.REPLY else None


def news(of: Node) -> list[object]:
    return [event for event in iter(of.next_event, None) if not isinstance(event, Dropped)]


def carried(at: Node, data: bytes, source: Address = ASKER) -> str:
    reply = asked(at, Command.CARRY, codec.encode(Put(data)), source)
    assert reply is not None
    return reply.refused


def test_the_closest_that_was_met_is_chosen_and_others_by_lot() -> None:
    met: list[Contact] = []
    carriers = Carriers(Random(1).randbytes, met.append)
    for number in (1, 2, 3, 4, 5):
        carriers.heard(contact(number), elsewhere(number))
    carriers.heard(contact(6), b"")
    draws = [carriers.choose([contact(6), contact(2), contact(1)]) for _ in range(50)]
    assert {contact(2)} == {chosen for chosen, _, _ in draws}
    assert {contact(3), contact(4), contact(5)} == {other for _, *others in draws for other in others}
    carriers.failed(contact(5))
    carriers.heard(contact(4), b"")  # it stands here alone now
    assert [contact(2), contact(3), contact(1)] == carriers.choose([contact(2), contact(1)]), "all that are left"
    assert [Contact(contact(number).peer, (f"2a10:{number:x}::1", 4000)) for number in (1, 2, 3, 4, 5)] == met


def test_sybils_around_a_topic_are_one_of_its_carriers_at_most() -> None:
    carriers = Carriers(Random(1).randbytes, lambda _: None)
    honest, sybils = [contact(number) for number in range(1, 9)], [contact(number) for number in range(100, 120)]
    for each in (*honest, *sybils):
        carriers.heard(each, elsewhere(each.peer[0]))
    for _ in range(100):
        assert 2 == sum(each in honest for each in carriers.choose(sybils))


def test_who_was_met_is_told_once_for_each_address_and_nonsense_is_nobodys() -> None:
    met: list[Contact] = []
    carriers = Carriers(Random(1).randbytes, met.append)
    for said in (elsewhere(1), elsewhere(1), b"nonsense", elsewhere(2)):
        carriers.heard(contact(1), said)
    assert 2 == len(met)
    for number in range(limits.DHT_CARRIERS_KNOWN_MAX + 9):
        carriers.heard(Contact(PeerId(number.to_bytes(32, "big")), ("20.0.0.1", 1)), elsewhere(1))
    assert limits.DHT_CARRIERS_KNOWN_MAX == len(carriers._known)


def test_a_node_of_both_says_where_else_it_stands_and_takes_what_it_is_asked_to_carry() -> None:
    at = node()
    answer = asked(at, Command.FIND, b"")
    assert answer is not None
    assert pack_address(SIX) == answer.elsewhere
    data = record()
    assert "" == carried(at, data)
    assert [Carry(data)] == news(at)
    assert "" == carried(at, data)
    assert [] == news(at), "nothing is carried twice"


def test_what_a_store_would_refuse_is_not_carried() -> None:
    at = node()
    forged = record()[:-1] + bytes([record()[-1] ^ 1])
    for data, reason in (
        (forged, Reason.BAD_SIGNATURE),
        (record(expires=WALL - 10**9), Reason.EXPIRED),
        (record(topic=Digest(b"u" * 31 + b"\1")), Reason.MALFORMED),
        (b"", Reason.MALFORMED),
    ):
        assert reason.value == carried(at, data)
    assert Reason.UNSUPPORTED.value == carried(node(both=False), record())
    assert [] == news(at)


def test_a_record_is_carried_only_for_an_address_that_a_token_proves() -> None:
    at = node()
    at.receive(
        messages.write_query(b"12345678", Command.CARRY, TOPIC, codec.encode(Put(record())), None, None), ASKER, NOW
    )
    ((retry, _),) = at.outgoing(NOW)
    assert Kind.RETRY == messages.read(retry).kind
    assert [] == news(at)


def test_nobody_has_more_carried_than_its_share_and_all_together_no_more_than_one_node_can() -> None:
    freight = Freight(NOW, Scope.LOOPBACK)
    taken = 0

    def flood(source: Address, count: int) -> int:
        nonlocal taken
        before = taken
        for number in range(count):
            try:
                taken += freight.take(b"%d from %s" % (number, source[0].encode()), source, NOW)
            except OverQuota as refused:
                assert refused.retry_after
        return taken - before

    assert limits.DHT_CARRIED_PER_SUBNET_BURST == flood(ASKER, 100)
    assert 0 == flood(("203.0.113.8", 9), 100), "a /24 is one party"
    for number in range(50):
        flood((f"20.{number}.0.1", 4000), 100)
    assert limits.DHT_CARRIED_BURST == taken
    assert freight.take(b"later", ("99.0.0.1", 1), Instant(NOW + 10))


def test_what_is_carried_once_is_remembered_within_bounds_and_known_sites_share_one_bucket() -> None:
    freight = Freight(NOW, Scope.PRIVATE)
    for number in range(int(limits.DHT_CARRIED_BURST)):
        assert freight.take(b"%d" % number, ("10.0.0.1", 1), NOW), "a site's own addresses do not count by subnet"
    with pytest.raises(OverQuota):
        freight.take(b"one more", ("10.0.0.1", 1), NOW)


def test_a_carried_record_is_published_and_not_carried_back() -> None:
    at = node()
    at.crossed(Carry(record()), NOW)
    assert [] == list(at.outgoing(NOW)), "it knows nobody"
    assert [record()] == [held.evidence for held in at.store.get(TOPIC, WALL)], "and so is among the closest itself"
    at.crossed(Elsewhere(contact(1)), NOW)
    ((ping, to),) = at.outgoing(NOW)
    assert (Command.PING, contact(1).address) == (messages.read_query(messages.read(ping)).command, to)
    at.crossed(Carry(b"nonsense"), NOW)
    assert 1 == at.counters.dropped[Reason.MALFORMED]
