"""Notices: nobody can make a watcher believe what is not so, nor make a node send datagrams where nobody asked."""

from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haif.base import codec, limits
from haif.base.clock import Instant, WallTime
from haif.base.errors import Reason
from haif.base.ids import Digest, NetId
from haif.base.machine import Address
from haif.dht import messages
from haif.dht.contact import Contact, pack_address
from haif.dht.messages import Command, Kind, Put, Reply
from haif.dht.node import Node
from haif.dht.operations import Changed
from haif.identity.keys import Identity
from haif.protocol.records import Record, RecordKind, sign_record

NET = NetId(b"n" * 32)
TOPIC = Digest(b"t" * 31 + b"\1")  # of offers
WALL = WallTime(1_700_000_000_000)
NOW = Instant(100.0)
ANNA: Address = ("20.1.0.1", 4000)
BERT: Address = ("20.2.0.1", 4000)
MALLORY: Address = ("66.6.6.6", 4000)


def identity(name: str) -> Identity:
    return Identity(name.encode().ljust(32, b"."))


def record(name: str = "owner", *, topic: Digest = TOPIC, sequence: int = 1, body: bytes | None = b"here") -> bytes:
    owner = identity(name)
    value = Record(RecordKind.OFFER, topic, owner.peer, sequence, WALL + 60_000, body is None, body or b"")
    return sign_record(owner, NET, value)


@dataclass
class Watcher:
    """A node that watches a topic of which Bert, the only one it knows, has promised to tell it."""

    node: Node = field(init=False)
    handle: bytes = b""

    def __post_init__(self) -> None:
        self.node = Node(identity("anna"), NET, entropy=Random("anna").randbytes, wall=lambda: WALL, now=NOW)
        self.node.table.heard(Contact(identity("bert").peer, BERT), NOW)
        self.node.watch(TOPIC, NOW)
        answered = True
        while answered:
            answered = False
            for data, to in list(self.node.outgoing(NOW)):
                query = messages.read_query(messages.read(data))
                if to == BERT:
                    answered = True
                    if query.command == Command.WATCH:
                        self.handle = query.argument[:8]
                    reply = Reply(pack_address(ANNA), b"t" * 16)
                    self.node.receive(messages.sign_reply(identity("bert"), NET, messages.read(data), reply), BERT, NOW)
        assert self.handle
        self.events()

    def events(self) -> list[object]:
        found = []
        while (event := self.node.next_event()) is not None:
            found.append(event)
        return found

    def hear(self, data: bytes, source: Address) -> None:
        self.node.receive(data, source, NOW)

    def notice(self, name: str, data: bytes, *, source: Address = BERT, handle: bytes | None = None) -> None:
        self.hear(messages.sign_notice(identity(name), NET, handle or self.handle, TOPIC, data), source)

    @property
    def dropped(self) -> dict[Reason, int]:
        return dict(self.node.counters.dropped)

    @property
    def live(self) -> set[bytes]:
        return {live.payload.body for live in self.node.live(TOPIC).values()}


def test_a_notice_of_whoever_promised_one_is_heard() -> None:
    anna = Watcher()
    anna.notice("bert", record())
    assert anna.events() == [Changed(TOPIC)]
    assert anna.live == {b"here"}
    anna.notice("bert", record(sequence=2, body=None))
    assert anna.live == set()


def test_a_notice_from_elsewhere_of_another_or_of_nothing_watched_is_refused() -> None:
    anna = Watcher()
    anna.notice("bert", record(), source=MALLORY)
    anna.notice("mallory", record())
    anna.notice("mallory", record(), source=MALLORY)
    assert anna.dropped == {Reason.UNAUTHENTICATED: 3}
    anna.notice("bert", record(), handle=b"guessed!")
    assert anna.dropped[Reason.WRONG_STATE] == 1
    assert anna.live == set()


def test_a_forged_notice_is_refused() -> None:
    anna = Watcher()
    genuine = messages.sign_notice(identity("bert"), NET, anna.handle, TOPIC, record())
    anna.hear(genuine[:10] + bytes(64) + genuine[74:], BERT)
    anna.hear(genuine[:-1] + bytes([genuine[-1] ^ 1]), BERT)
    elsewhere = messages.sign_notice(identity("bert"), NetId(bytes(32)), anna.handle, TOPIC, record())
    anna.hear(elsewhere, BERT)
    assert anna.dropped == {Reason.BAD_SIGNATURE: 3}
    assert anna.live == set()


def test_a_holder_cannot_tell_of_what_its_owner_did_not_sign_nor_of_another_topic_nor_of_the_past() -> None:
    anna = Watcher()
    anna.notice("bert", bytes(64) + record()[64:])
    anna.notice("bert", record(topic=Digest(b"u" * 31 + b"\1")))
    assert anna.dropped == {Reason.BAD_SIGNATURE: 1, Reason.MALFORMED: 1}
    anna.notice("bert", record(sequence=5, body=None))
    anna.notice("bert", record(sequence=4))
    assert anna.live == set(), "what was withdrawn does not come back by a replayed notice"


def test_a_notice_after_the_last_listener_left_is_refused() -> None:
    anna = Watcher()
    anna.node.attention.unwatch(TOPIC)
    anna.notice("bert", record())
    assert anna.dropped == {Reason.WRONG_STATE: 1}


ANYBODY = Watcher()


@given(st.binary(max_size=300))
def test_any_bytes_after_a_true_handle_change_nothing(data: bytes) -> None:
    before = sum(ANYBODY.dropped.values())
    ANYBODY.hear(b"\xa1\x05" + ANYBODY.handle + data, BERT)
    assert ANYBODY.live == set()
    assert sum(ANYBODY.dropped.values()) == before + 1


# --- the side that tells ----------------------------------------------------------------------------------------------


@dataclass
class Holder:
    """A node that others store at and watch."""

    now: Instant = NOW
    node: Node = field(init=False)

    def __post_init__(self) -> None:
        self.node = Node(identity("bert"), NET, entropy=Random("bert").randbytes, wall=lambda: WALL, now=self.now)

    def ask(
        self, command: Command, argument: bytes, token: bytes | None, source: Address, topic: Digest = TOPIC
    ) -> list[tuple[bytes, Address]]:
        asked = messages.write_query(b"12345678", command, topic, argument, token, None)
        self.node.receive(asked, source, self.now)
        return list(self.node.outgoing(self.now))

    def token(self, source: Address, topic: Digest = TOPIC) -> bytes:
        [(retry, _)] = self.ask(Command.PUT, b"", None, source, topic)
        return retry[10:]

    def watch(self, source: Address, topic: Digest = TOPIC) -> bytes:
        [(answer, to)] = self.ask(Command.WATCH, b"handle 1", self.token(source, topic), source, topic)
        assert to == source
        return answer

    def put(self, number: int, source: Address) -> list[tuple[bytes, Address]]:
        """What is sent to others than the publisher when it stores a record."""
        argument = codec.encode(Put(record(sequence=number)))
        return [(data, to) for data, to in self.ask(Command.PUT, argument, self.token(source), source) if to != source]


def test_nobody_can_have_notices_sent_to_an_address_that_has_not_asked_for_them() -> None:
    """Mallory forges Anna's address: what comes back is a RETRY of 26 bytes, to Anna, and no registration."""
    bert = Holder()
    for token in (None, bytes(16), bert.token(MALLORY)):
        [(answer, to)] = bert.ask(Command.WATCH, b"handle 1", token, ANNA)
        assert (answer[1], len(answer), to) == (Kind.RETRY, 26, ANNA)
    assert len(bert.node.answerer.watchers) == 0
    assert bert.put(1, BERT) == []


def test_a_stored_record_is_one_datagram_to_each_watcher_and_none_to_its_publisher_twice() -> None:
    bert = Holder()
    bert.watch(ANNA)
    [(notice, to)] = bert.put(1, MALLORY)
    assert to == ANNA
    assert messages.open_notice(messages.read(notice), net=NET, topic=TOPIC) == (identity("bert").peer, record())
    assert bert.put(1, MALLORY) == [], "the same bytes again are no change"


def test_a_flood_of_changes_is_no_flood_of_notices() -> None:
    bert = Holder()
    bert.watch(ANNA)
    sent = 0
    for number in range(1, 400):
        bert.now = Instant(bert.now + 0.05)  # as fast as its subnet may have answers signed
        sent += len(bert.put(number, MALLORY))
    seconds = 400 * 0.05
    assert sent <= limits.NOTICES_BURST + limits.NOTICES_PER_SECOND * seconds + 1


def test_one_network_cannot_take_all_places_of_those_who_are_told() -> None:
    bert = Holder()
    for port in range(40):
        bert.now = Instant(bert.now + 1)
        bert.watch((MALLORY[0], 4000 + port))
    bert.watch(ANNA)
    assert ANNA in {to for _, to in bert.put(1, BERT)}
    assert len(bert.node.answerer.watchers) == limits.WATCHERS_PER_TOPIC_AND_SUBNET_MAX + 1


def test_one_host_cannot_be_the_one_who_is_told_at_all_topics() -> None:
    bert = Holder()
    for number in range(2 * limits.WATCHERS_PER_SUBNET_MAX):
        bert.now = Instant(bert.now + 0.05)
        bert.watch(MALLORY, Digest(number.to_bytes(32, "big")))
    assert len(bert.node.answerer.watchers) == limits.WATCHERS_PER_SUBNET_MAX
    bert.watch(ANNA)
    assert ANNA in {to for _, to in bert.put(1, BERT)}


def test_whoever_cannot_be_told_is_told_so_and_still_reads() -> None:
    bert = Holder()
    bert.put(1, BERT)
    replies = []
    for port in range(limits.WATCHERS_PER_TOPIC_AND_SUBNET_MAX + 1):
        source = (MALLORY[0], 4000 + port)
        asked = messages.write_query(b"12345678", Command.WATCH, TOPIC, b"handle 1", bert.token(source), None)
        bert.node.receive(asked, source, bert.now)
        [(answer, _)] = bert.node.outgoing(bert.now)
        replies.append(messages.open_reply(messages.read(answer), net=NET, query=asked)[1])
    assert [reply.refused for reply in replies] == [""] * 4 + [Reason.OVER_QUOTA]
    assert all(reply.records == (record(),) for reply in replies)


@pytest.mark.parametrize("argument", [b"", b"short", b"handle 1+"])
def test_a_watch_that_is_malformed_registers_nobody(argument: bytes) -> None:
    bert = Holder()
    assert bert.ask(Command.WATCH, argument, bert.token(ANNA), ANNA) == []
    assert bert.node.counters.dropped[Reason.MALFORMED] == 1
    assert len(bert.node.answerer.watchers) == 0
