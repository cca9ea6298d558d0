"""What a hostile peer can send to the directory, and that none of it changes anything."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

import pytest

from haif.base import codec, limits
from haif.base.clock import Instant, WallTime
from haif.base.errors import Reason
from haif.base.ids import Digest, NetId, PeerId
from haif.base.machine import Address
from haif.dht import messages
from haif.dht.contact import Contact, node_id, pack_address, pack_contacts, unpack_contacts
from haif.dht.messages import Command, Kind, Put, Query, Reply
from haif.dht.node import Node
from haif.dht.operations import Found, Gathered, Stored
from haif.identity.keys import Identity
from haif.protocol.records import Record, RecordKind, sign_record

NET = NetId(b"n" * 32)
TOPIC = Digest(b"t" * 31 + b"\1")  # of offers
WALL = WallTime(1_700_000_000_000)
NOW = Instant(100.0)
ANNA: Address = ("10.1.0.1", 4000)
BERT: Address = ("10.2.0.1", 4000)
MALLORY: Address = ("10.66.0.1", 4000)


def identity(name: str) -> Identity:
    return Identity(name.encode().ljust(32, b"."))


def record(owner: Identity, *, sequence: int = 1, body: bytes | None = b"here", expires: int = WALL + 60_000) -> bytes:
    value = Record(
        kind=RecordKind.OFFER, topic=TOPIC, owner=owner.peer, sequence=sequence, expires=expires,
        tombstone=body is None, body=body or b"",
    )  # fmt: skip
    return sign_record(owner, NET, value)


@dataclass
class Victim:
    """A node and the datagrams between it and the attacker, who sees and sends what it likes."""

    node: Node
    sent: list[tuple[bytes, Address]] = field(default_factory=list)

    def hear(self, data: bytes, source: Address) -> list[tuple[bytes, Address]]:
        self.node.receive(data, source, NOW)
        return self.flush()

    def flush(self) -> list[tuple[bytes, Address]]:
        fresh = list(self.node.outgoing(NOW))
        self.sent += fresh
        return fresh

    @property
    def dropped(self) -> dict[Reason, int]:
        return dict(self.node.counters.dropped)


def victim(name: str = "anna") -> Victim:
    return Victim(Node(identity(name), NET, entropy=Random(name).randbytes, wall=lambda: WALL, now=NOW))


def introduce(one: Victim, address: Address, other: Identity, at: Address) -> None:
    """Let a node get to know a peer: it greets the peer's address and the peer answers honestly, knowing nobody."""
    one.node.join([at], NOW)
    todo = one.flush()
    while todo:
        data, to = todo.pop(0)
        assert to == at
        todo += one.hear(honest(other, data, address), at)
    while one.node.next_event():
        pass


def honest(
    responder: Identity, query: bytes, asker: Address, reply: Callable[[Reply], Reply] = lambda reply: reply
) -> bytes:
    bare = Reply(pack_address(asker), b"t" * 16)
    return messages.sign_reply(responder, NET, messages.read(query), reply(bare))


def token_for(one: Victim, requester: PeerId | None, source: Address, target: Digest = TOPIC) -> bytes:
    asked = messages.write_query(b"12345678", Command.FIND, target, b"", None, requester)
    data = next(data for data, to in one.hear(asked, source) if to == source and data[1] == Kind.REPLY)
    _, reply = messages.open_reply(messages.read(data), net=NET, query=asked)
    return reply.token


def put(one: Victim, data: bytes, token: bytes | None, requester: PeerId | None, source: Address) -> bytes:
    asked = messages.write_query(b"abcdefgh", Command.PUT, TOPIC, codec.encode(Put(data)), token, requester)
    return next(data for data, to in one.hear(asked, source) if to == source and data[1] != Kind.QUERY)


def refusal(one: Victim, data: bytes, token: bytes | None, requester: PeerId | None, source: Address) -> str:
    asked = messages.write_query(b"abcdefgh", Command.PUT, TOPIC, codec.encode(Put(data)), token, requester)
    _, reply = messages.open_reply(messages.read(put(one, data, token, requester, source)), net=NET, query=asked)
    return reply.refused


def held(one: Victim) -> list[bytes]:
    return [verified.evidence for verified in one.node.store.get(TOPIC, WALL)]


def test_an_unsigned_or_forged_reply_is_refused_and_the_query_stays_open() -> None:
    anna, bert, mallory = victim(), identity("bert"), identity("mallory")
    introduce(anna, ANNA, bert, BERT)
    anna.node.find(TOPIC, NOW)
    [(query, _)] = anna.flush()
    genuine = honest(bert, query, ANNA)
    unsigned = genuine[:10] + bytes(64) + genuine[74:]
    for forged in (unsigned, honest(mallory, query, ANNA), genuine[:-1] + bytes([genuine[-1] ^ 1])):
        anna.hear(forged, BERT)
    assert anna.dropped == {Reason.BAD_SIGNATURE: 3}
    assert anna.node.busy == 1
    anna.hear(genuine, BERT)
    assert anna.node.busy == 0


def test_a_reply_to_another_query_or_of_another_network_is_refused() -> None:
    anna, bert = victim(), identity("bert")
    introduce(anna, ANNA, bert, BERT)
    anna.node.find(TOPIC, NOW)
    [(query, _)] = anna.flush()
    other = query[:-1] + bytes([query[-1] ^ 1])  # the same tid, another question
    anna.hear(honest(bert, other, ANNA), BERT)
    foreign = messages.sign_reply(bert, NetId(b"x" * 32), messages.read(query), Reply(pack_address(ANNA), b"t" * 16))
    anna.hear(foreign, BERT)
    assert anna.dropped == {Reason.BAD_SIGNATURE: 2}


def test_a_reply_from_another_address_than_the_one_asked_is_refused() -> None:
    anna, bert = victim(), identity("bert")
    introduce(anna, ANNA, bert, BERT)
    anna.node.find(TOPIC, NOW)
    [(query, _)] = anna.flush()
    anna.hear(honest(bert, query, ANNA), MALLORY)
    anna.hear(honest(bert, query, ANNA), (BERT[0], BERT[1] + 1))
    assert anna.dropped == {Reason.UNAUTHENTICATED: 2}
    assert anna.node.busy == 1


def test_a_replayed_reply_is_refused() -> None:
    anna, bert = victim(), identity("bert")
    introduce(anna, ANNA, bert, BERT)
    anna.node.find(TOPIC, NOW)
    [(query, _)] = anna.flush()
    genuine = honest(bert, query, ANNA)
    anna.hear(genuine, BERT)
    anna.hear(genuine, BERT)
    assert anna.dropped == {Reason.WRONG_STATE: 1}


def test_a_retry_or_an_error_from_a_stranger_ends_no_query() -> None:
    anna, bert = victim(), identity("bert")
    introduce(anna, ANNA, bert, BERT)
    anna.node.find(TOPIC, NOW)
    [(query, _)] = anna.flush()
    tid = query[2:10]
    anna.hear(messages.write(Kind.ERROR, tid, b"\2"), MALLORY)
    anna.hear(messages.write(Kind.RETRY, tid, b"t" * 16), MALLORY)
    anna.hear(messages.write(Kind.ERROR, b"guessed!", b"\2"), BERT)
    assert anna.dropped == {Reason.UNAUTHENTICATED: 2, Reason.WRONG_STATE: 1}
    assert anna.node.busy == 1


def test_a_peer_that_only_claims_to_be_somewhere_does_not_enter_the_table() -> None:
    anna, bert, mallory = victim(), identity("bert"), identity("mallory")
    lie = messages.write_query(b"12345678", Command.FIND, TOPIC, b"", None, bert.peer)
    sent = anna.hear(lie, MALLORY)
    [challenge] = [data for data, to in sent if data[1] == Kind.QUERY]
    anna.hear(honest(mallory, challenge, ANNA), MALLORY)
    assert bert.peer not in anna.node.table
    assert mallory.peer not in anna.node.table
    assert anna.dropped == {Reason.BAD_SIGNATURE: 1}


def test_ten_thousand_claimed_identities_are_answered_with_at_most_ten_pings() -> None:
    anna, random = victim(), Random(1)
    for _ in range(10_000):
        anna.hear(messages.write_query(b"12345678", Command.PING, TOPIC, b"", None, PeerId(random.randbytes(32))), BERT)
    assert sum(data[1] == Kind.QUERY for data, _ in anna.sent) == 10
    assert len(anna.node.table) == 0


def test_a_record_that_its_owner_did_not_sign_is_not_stored() -> None:
    anna, bert = victim(), identity("bert")
    token = token_for(anna, bert.peer, BERT)
    genuine = record(bert)
    forged = bytes(64) + genuine[64:]
    assert refusal(anna, forged, token, bert.peer, BERT) == Reason.BAD_SIGNATURE
    assert refusal(anna, genuine[:-1] + b"!", token, bert.peer, BERT) == Reason.BAD_SIGNATURE
    assert held(anna) == []
    assert anna.dropped == {Reason.BAD_SIGNATURE: 2}


def test_a_stranger_cannot_overwrite_anothers_record() -> None:
    anna, bert, mallory = victim(), identity("bert"), identity("mallory")
    genuine = record(bert)
    assert refusal(anna, genuine, token_for(anna, bert.peer, BERT), bert.peer, BERT) == ""
    token = token_for(anna, mallory.peer, MALLORY)
    claimed = Record(RecordKind.OFFER, TOPIC, bert.peer, 9, WALL + 60_000, False, b"mine now")
    encoded = messages.codec.encode(claimed)
    stolen = mallory.sign(b"haif/record/v1\0" + NET + encoded) + encoded
    assert refusal(anna, stolen, token, mallory.peer, MALLORY) == Reason.BAD_SIGNATURE
    assert refusal(anna, record(mallory), token, mallory.peer, MALLORY) == ""
    assert genuine in held(anna)


@pytest.mark.parametrize(
    ("source", "name", "target"),
    [
        (MALLORY, "bert", TOPIC),
        ((BERT[0], BERT[1] + 1), "bert", TOPIC),
        (BERT, "mallory", TOPIC),
        (BERT, "bert", Digest(b"u" * 32)),
    ],
    ids=["another ip", "another port", "another requester", "another target"],
)
def test_a_token_is_worth_nothing_from_another_address_requester_or_target(
    source: Address, name: str, target: Digest
) -> None:
    anna, bert = victim(), identity("bert")
    token = token_for(anna, bert.peer, BERT, target)
    answer = put(anna, record(bert), token, identity(name).peer, source)
    assert answer[1] == Kind.RETRY
    assert held(anna) == []
    assert anna.dropped == {Reason.UNAUTHENTICATED: 1}


def test_a_replayed_older_record_does_not_come_back_after_a_tombstone() -> None:
    anna, bert = victim(), identity("bert")
    old, tombstone = record(bert, sequence=1), record(bert, sequence=2, body=None)
    token = token_for(anna, bert.peer, BERT)
    assert refusal(anna, old, token, bert.peer, BERT) == ""
    assert refusal(anna, tombstone, token, bert.peer, BERT) == ""
    replayer = token_for(anna, identity("mallory").peer, MALLORY)
    assert refusal(anna, old, replayer, identity("mallory").peer, MALLORY) == Reason.REPLAYED
    assert held(anna) == [tombstone]
    assert anna.dropped == {Reason.REPLAYED: 1}


def test_an_expired_record_or_one_that_claims_to_live_for_ever_is_refused() -> None:
    anna, bert = victim(), identity("bert")
    token = token_for(anna, bert.peer, BERT)
    for expires in (WALL - 60_000, WALL + 10_000_000):
        assert refusal(anna, record(bert, expires=expires), token, bert.peer, BERT) == Reason.EXPIRED
    assert held(anna) == []


def test_a_reader_believes_only_records_whose_owners_signed_them() -> None:
    anna, bert, carol = victim(), identity("bert"), identity("carol")
    introduce(anna, ANNA, bert, BERT)
    anna.node.gather(TOPIC, NOW)
    [(find, _)] = anna.flush()
    [(get, _)] = anna.hear(honest(bert, find, ANNA, lambda r: Reply(r.observed, r.token, held=9)), BERT)
    genuine, forged = record(carol), bytes(64) + record(identity("dora"))[64:]
    elsewhere = sign_record(
        bert, NET, Record(RecordKind.OFFER, Digest(b"u" * 31 + b"\1"), bert.peer, 1, WALL + 60_000, False, b"")
    )
    stale = record(identity("emil"), expires=WALL - 60_000)
    first, second = (forged, genuine, elsewhere), (stale, forged)

    def page(records: tuple[bytes, ...]) -> Callable[[Reply], Reply]:
        return lambda bare: Reply(bare.observed, bare.token, records=records, more=True)

    [(more, _)] = anna.hear(honest(bert, get, ANNA, page(first)), BERT)
    assert anna.hear(honest(bert, more, ANNA, page(second)), BERT) == []  # a page without anything new is the last
    events = [event for event in iter(anna.node.next_event, None) if isinstance(event, Gathered)]
    assert [[verified.evidence for verified in event.records] for event in events] == [[genuine]]
    assert anna.dropped == {Reason.BAD_SIGNATURE: 2, Reason.MALFORMED: 1, Reason.EXPIRED: 1}


def test_a_liar_who_names_a_wrong_address_for_a_true_peer_does_not_hide_it() -> None:
    anna, bert, carol = victim(), identity("bert"), identity("carol")
    introduce(anna, ANNA, bert, BERT)
    anna.node.find(TOPIC, NOW)
    [(query, _)] = anna.flush()
    true, false = Contact(carol.peer, ("10.3.0.1", 4000)), Contact(carol.peer, ("10.3.0.9", 9))
    contacts = pack_contacts([false, true], 500)
    sent = anna.hear(honest(bert, query, ANNA, lambda r: Reply(r.observed, r.token, contacts=contacts)), BERT)
    [to_true] = [data for data, to in sent if to == true.address]
    anna.hear(honest(carol, to_true, ANNA), true.address)
    events = [event for event in iter(anna.node.next_event, None) if isinstance(event, Found)]
    assert [set(event.contacts) for event in events] == [{Contact(bert.peer, BERT), true}]


def test_no_reply_to_an_unproven_address_is_longer_than_three_times_its_query() -> None:
    anna, random = victim(), Random(2)
    for number in range(40):
        contact = Contact(PeerId(random.randbytes(32)), (f"{20 + number}.9.0.1", 4000))
        anna.node.table.heard(contact, NOW)
    for length in (0, 100, 200, 300, 399):
        query = Query(Command.FIND, TOPIC, b"", None, None, bytes(length))
        asked = messages.write(Kind.QUERY, b"12345678", messages.codec.encode(query))
        [(answer, _)] = anna.hear(asked, MALLORY)
        assert len(answer) <= 3 * len(asked)
        assert answer[1] == (Kind.REPLY if len(asked) >= 310 else Kind.RETRY)


def test_a_source_that_asks_too_much_gets_an_error_instead_of_signatures_and_others_are_served() -> None:
    anna = victim()
    token = token_for(anna, None, MALLORY)
    answers = [
        anna.hear(messages.write_query(b"12345678", Command.PING, TOPIC, b"", token, None), MALLORY)[0][0]
        for _ in range(300)
    ]
    assert [answer[1] for answer in answers] == [Kind.REPLY] * 199 + [Kind.ERROR] * 101
    assert anna.dropped == {Reason.OVERLOADED: 101}
    [(answer, _)] = anna.hear(messages.write_query(b"12345678", Command.PING, TOPIC, b"", None, None), BERT)
    assert answer[1] == Kind.REPLY


def test_a_flood_from_forged_addresses_leaves_signatures_for_who_proved_its_own() -> None:
    anna = victim()
    token = token_for(anna, None, BERT)

    def ask(source: Address, token: bytes | None = None) -> bytes:
        asked = messages.write_query(b"12345678", Command.FIND, TOPIC, b"", token, None)
        [(answer, _)] = anna.hear(asked, source)
        assert token or len(answer) <= len(asked), "a flood is not made larger"
        return answer

    forged = [(f"{20 + (n >> 16)}.{n >> 8 & 255}.{n & 255}.1", 4000) for n in range(6_000)]
    in_its_name = [(f"{BERT[0][:-1]}{n % 200 + 2}", 4000 + n) for n in range(300)]
    kinds = Counter(ask(source)[1] for source in in_its_name + forged)
    assert kinds == {Kind.REPLY: 4_999, Kind.RETRY: 1_301}
    assert ask(BERT, token)[1] == Kind.REPLY
    retry = ask(("99.1.1.1", 4000))
    assert retry[1] == Kind.RETRY
    assert ask(("99.1.1.1", 4000), retry[10:])[1] == Kind.REPLY, "one more round trip, and a stranger is served"


def test_a_point_of_the_wrong_length_is_refused_and_a_point_changes_whom_we_name_and_nothing_else() -> None:
    anna, random = victim(), Random(6)
    known = [Contact(PeerId(random.randbytes(32)), (f"{20 + n}.9.0.1", 4000)) for n in range(60)]
    for contact in known:
        anna.node.table.heard(contact, NOW)
    for point in (b"", bytes(32), b"\xff" * 32):
        asked = messages.write_query(b"abcdefgh", Command.FIND, TOPIC, point, None, None)
        [(data, _)] = anna.hear(asked, BERT)
        _, reply = messages.open_reply(messages.read(data), net=NET, query=asked)
        around = int.from_bytes(point or TOPIC, "big")
        assert unpack_contacts(reply.contacts) == anna.node.table.closest(around, limits.DHT_K)
        put(anna, record(identity("bert")), reply.token, None, BERT)  # the token is for the target
    assert len(held(anna)) == 1
    anna.hear(messages.write_query(b"abcdefgh", Command.FIND, TOPIC, b"a point", None, None), BERT)
    assert anna.dropped == {Reason.MALFORMED: 1}


def test_one_signer_cannot_fill_a_store() -> None:
    anna, mallory = victim(), identity("mallory")
    refused = []
    for number in range(limits.RECORDS_PER_SIGNER_MAX + 4):
        topic = Digest(bytes([number]) * 31 + b"\1")
        unproven = messages.write_query(b"12345678", Command.PUT, topic, b"", None, mallory.peer)
        token = next(data for data, _ in anna.hear(unproven, MALLORY) if data[1] == Kind.RETRY)[10:]
        value = Record(RecordKind.OFFER, topic, mallory.peer, 1, WALL + 60_000, False, b"")
        asked = messages.write_query(
            b"abcdefgh", Command.PUT, topic, codec.encode(Put(sign_record(mallory, NET, value))), token, mallory.peer
        )
        data = next(data for data, _ in anna.hear(asked, MALLORY) if data[1] == Kind.REPLY)
        refused.append(messages.open_reply(messages.read(data), net=NET, query=asked)[1].refused)
    assert refused == [""] * limits.RECORDS_PER_SIGNER_MAX + [Reason.OVER_QUOTA] * 4
    assert len(anna.node.store) == limits.RECORDS_PER_SIGNER_MAX


def test_a_publisher_learns_that_nobody_took_its_record() -> None:
    anna, bert = victim(), identity("bert")
    introduce(anna, ANNA, bert, BERT)
    anna.node.publish(record(identity("anna")), NOW)
    [(find, _)] = anna.flush()
    [(store, _)] = anna.hear(honest(bert, find, ANNA), BERT)
    anna.hear(honest(bert, store, ANNA, lambda r: Reply(r.observed, r.token, refused="over_quota")), BERT)
    events = [event for event in iter(anna.node.next_event, None) if isinstance(event, Stored)]
    assert [(event.by, event.refused) for event in events] == [((), ("over_quota",))]


@pytest.mark.parametrize("host", ["66.6.6.{low}", "2a10:6:6:{number:x}::{low}"], ids=["a /24", "a /48"])
def test_ten_thousand_identities_of_one_network_get_two_places_a_bucket_and_eight_in_the_table(host: str) -> None:
    anna, random = victim(), Random(10)
    for number in range(10_000):
        mallory = Identity(random.randbytes(32))
        source = host.format(low=number % 256, number=number), 4000 + number // 256
        asked = messages.write_query(b"12345678", Command.PING, TOPIC, b"", None, mallory.peer)
        for data, to in anna.hear(asked, source):
            if data[1] == Kind.QUERY:
                anna.hear(honest(mallory, data, ANNA), to)
    places = [prefix_of(anna, contact.peer) for contact in anna.node.table.closest(0, 10_000)]
    assert len(places) == 8
    assert max(map(places.count, places)) == 2


def prefix_of(one: Victim, peer: PeerId) -> int:
    return 256 - (int.from_bytes(one.node.id, "big") ^ node_id(peer)).bit_length()


def test_a_peer_that_passes_on_three_invalid_records_is_left_alone() -> None:
    anna, bert = victim(), identity("bert")
    introduce(anna, ANNA, bert, BERT)
    forged = tuple(bytes([n]) * 64 + record(identity("carol"))[64:] for n in range(3))
    anna.node.gather(TOPIC, NOW)
    [(find, _)] = anna.flush()
    [(get, _)] = anna.hear(honest(bert, find, ANNA, lambda r: Reply(r.observed, r.token, held=3)), BERT)
    assert bert.peer in anna.node.table
    anna.hear(honest(bert, get, ANNA, lambda r: Reply(r.observed, r.token, records=forged)), BERT)
    assert anna.dropped == {Reason.BAD_SIGNATURE: 3}
    assert bert.peer not in anna.node.table
    anna.node.find(TOPIC, NOW)
    assert anna.flush() == []
    sent = anna.hear(messages.write_query(b"12345678", Command.PING, TOPIC, b"", None, bert.peer), BERT)
    assert [data[1] for data, _ in sent] == [Kind.REPLY]  # it is answered, and not pinged


def test_a_holder_whose_clock_is_behind_is_not_barred_for_expired_records() -> None:
    anna, bert = victim(), identity("bert")
    introduce(anna, ANNA, bert, BERT)
    stale = tuple(record(identity(f"owner {n}"), expires=WALL - 60_000) for n in range(3))
    anna.node.gather(TOPIC, NOW)
    [(find, _)] = anna.flush()
    [(get, _)] = anna.hear(honest(bert, find, ANNA, lambda r: Reply(r.observed, r.token, held=3)), BERT)
    anna.hear(honest(bert, get, ANNA, lambda r: Reply(r.observed, r.token, records=stale)), BERT)
    assert anna.dropped == {Reason.EXPIRED: 3}
    assert bert.peer in anna.node.table


def test_whoever_gives_a_false_address_for_a_true_peer_cannot_have_it_barred() -> None:
    anna, bert, carol, mallory = victim(), identity("bert"), identity("carol"), identity("mallory")
    introduce(anna, ANNA, bert, BERT)
    anna.node.table.heard(Contact(carol.peer, ("10.3.0.1", 4000)), NOW)
    false = pack_contacts([Contact(carol.peer, MALLORY)], 500)
    anna.node.find(TOPIC, NOW)
    queries = {to: data for data, to in anna.flush()}
    sent = anna.hear(honest(bert, queries[BERT], ANNA, lambda r: Reply(r.observed, r.token, contacts=false)), BERT)
    [asked] = [data for data, to in sent if to == MALLORY]
    for _ in range(3):
        anna.hear(honest(mallory, asked, ANNA), MALLORY)
    assert anna.dropped == {Reason.BAD_SIGNATURE: 3}
    assert carol.peer in anna.node.table
    anna.node.find(TOPIC, NOW)
    assert ("10.3.0.1", 4000) in [to for _, to in anna.flush()]
