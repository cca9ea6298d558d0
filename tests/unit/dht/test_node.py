"""Nodes back to back, and one node against everything a network can deliver."""

from itertools import count
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haif.base import codec, limits
from haif.base.clock import Instant, WallTime
from haif.base.errors import Dropped, Overloaded, Reason
from haif.base.ids import Digest, PeerId
from haif.dht import messages
from haif.dht.contact import Contact, pack_address
from haif.dht.diversity import networks
from haif.dht.messages import Command, Kind, Query
from haif.dht.node import Node
from haif.dht.operations import Found
from haif.dht.sightings import Sightings
from haif.identity.keys import Identity
from haif.testing.directory import NET, Directory
from haif.testing.net import Conditions
from haif.testing.world import World

TOPIC = Digest(b"t" * 31 + b"\1")  # of offers
WALL = WallTime(1_700_000_000_000)
NOW = Instant(0.0)
STRANGER = ("10.66.0.1", 4000)


def pair(conditions: Conditions | None = None) -> Directory:
    directory = Directory(World(seed=1, conditions=conditions))
    directory.grow(2)
    return directory


def alone(seed: int = 1) -> Node:
    return Node(Identity(b"a" * 32), NET, entropy=Random(seed).randbytes, wall=lambda: WALL, now=NOW)


def test_two_nodes_know_each_other_after_one_has_joined_the_other() -> None:
    directory = pair()
    (a, first), (b, second) = directory.nodes.items()
    assert first.table.closest(0, 9) == [Contact(second.peer, b)]
    assert second.table.closest(0, 9) == [Contact(first.peer, a)]


def test_what_one_publishes_the_other_stores_and_reads() -> None:
    directory = pair()
    a, b = directory.nodes
    data = directory.record(a, TOPIC)
    assert directory.publish(a, data).by == (directory.nodes[b].peer,)
    assert [verified.evidence for verified in directory.nodes[b].store.get(TOPIC, directory.world.wall())] == [data]
    assert [verified.evidence for verified in directory.gather(b, TOPIC).records] == [data]


def test_a_tombstone_is_read_as_the_newest_word_of_its_owner_even_where_an_old_copy_is_held() -> None:
    directory = Directory(World(seed=2))
    a, b, c = directory.grow(3)
    old, gone = directory.record(a, TOPIC, sequence=1), directory.record(a, TOPIC, sequence=2, body=None)
    directory.publish(a, old)
    directory.nodes[b].store = type(directory.nodes[b].store)()  # b forgets; then hears only the tombstone
    directory.publish(a, gone)
    for reader in (a, b, c):
        assert [verified.payload.tombstone for verified in directory.gather(reader, TOPIC).records] == [True]


def test_half_a_topic_of_records_is_read_completely_though_two_fit_into_a_datagram() -> None:
    directory = Directory(World(seed=3))
    addresses = directory.grow(64)
    for address in addresses[:32]:
        directory.publish(address, directory.record(address, TOPIC, body=bytes(400)))
    gathered = directory.gather(addresses[-1], TOPIC)
    assert len({verified.signer for verified in gathered.records}) == 32
    assert gathered.queries <= 2 * limits.LOOKUP_QUERIES_MAX


def test_an_answer_too_long_for_an_unproven_address_is_fetched_with_the_token_of_a_retry() -> None:
    directory = pair()
    node = next(iter(directory.nodes.values()))
    for number in range(20):
        node.table.heard(Contact(PeerId(bytes([number]) * 32), (f"10.9.0.{number + 1}", 4)), directory.world.now())
    asked = messages.write(
        Kind.QUERY, b"12345678", messages.codec.encode(Query(Command.FIND, TOPIC, b"", None, None, b""))
    )
    node.receive(asked, STRANGER, directory.world.now())
    [(retry, _)] = node.outgoing(directory.world.now())
    assert retry[:2] == b"\xa1\x02"
    again = messages.write_query(b"12345679", Command.FIND, TOPIC, b"", retry[10:], None)
    node.receive(again, STRANGER, directory.world.now())
    [(reply, _)] = node.outgoing(directory.world.now())
    assert reply[:2] == b"\xa1\x01"


def test_a_retry_is_followed_once_with_its_token() -> None:
    node = alone()
    node.join([STRANGER], NOW)
    [(first, _)] = node.outgoing(NOW)
    node.receive(messages.write(Kind.RETRY, first[2:10], b"k" * 16), STRANGER, NOW)
    [(second, to)] = node.outgoing(NOW)
    assert to == STRANGER
    assert messages.read_query(messages.read(second)).token == b"k" * 16
    node.receive(messages.write(Kind.RETRY, second[2:10], b"l" * 16), STRANGER, NOW)
    assert list(node.outgoing(NOW)) == []
    assert node.counters.dropped == {Reason.WRONG_STATE: 1}


def test_an_error_ends_its_query_and_is_reported() -> None:
    node = alone()
    node.join([STRANGER], NOW)
    [(query, _)] = node.outgoing(NOW)
    node.receive(messages.write(Kind.ERROR, query[2:10], b"\x02"), STRANGER, NOW)
    events = list(iter(node.next_event, None))
    assert [type(event) for event in events] == [Dropped, Found]
    assert node.counters.dropped == {Reason.OVERLOADED: 1}


def test_a_silent_address_is_asked_twice_and_then_given_up() -> None:
    directory = Directory(World(seed=1))
    [only] = directory.grow(1)
    node = directory.nodes[only]
    number = directory.world.do(only, lambda now: node.join([STRANGER], now))
    directory.world.run(seconds=1.3)
    assert directory.world.events_of(only) == [Found(number, (), 0)]
    assert (node.counters.datagrams_out, node.counters.queries_resent, node.counters.queries_failed) == (2, 1, 1)


def test_who_was_silent_while_others_answered_is_not_asked_of_our_own_accord_for_a_while() -> None:
    directory = Directory(World(seed=1))
    first, second, third = directory.grow(3)
    directory.world.kill(third)
    node, target = directory.nodes[first], directory.nodes[third].id
    assert directory.find(first, target).contacts == (Contact(directory.nodes[second].peer, second),)
    directory.world.do(first, node.gauge)
    directory.world.run(seconds=5)
    assert node.counters.queries_failed == 1
    directory.find(first, target)
    assert node.counters.queries_failed == 2, "our owner waits"


def test_where_nobody_answers_nobody_is_held_to_be_silent() -> None:
    directory = pair()
    here, there = directory.nodes
    target = directory.nodes[there].id
    directory.world.kill(there)
    node = directory.nodes[here]
    directory.find(here, target)
    directory.world.do(here, node.gauge)
    directory.world.run(seconds=5)
    assert node.counters.queries_failed == 2


def test_an_unknown_command_is_answered_with_an_error_and_counted() -> None:
    node = alone()
    query = Query(99, TOPIC, b"", None, None, b"")
    node.receive(messages.write(Kind.QUERY, b"12345678", messages.codec.encode(query)), STRANGER, NOW)
    assert list(node.outgoing(NOW)) == [(b"\xa1\x0312345678\x01", STRANGER)]
    assert node.counters.dropped == {Reason.UNSUPPORTED: 1}


def test_oversize_truncated_and_foreign_datagrams_are_counted_by_reason_and_not_answered() -> None:
    node = alone()
    ping = messages.write_query(b"12345678", Command.PING, TOPIC, b"", None, None)
    node.receive(ping + bytes(1200), STRANGER, NOW)
    node.receive(ping[:-3], STRANGER, NOW)
    node.receive(b"\x00" + ping[1:], STRANGER, NOW)
    node.receive(ping + b"\x00", STRANGER, NOW)
    assert node.counters.dropped == {Reason.OVERSIZE: 1, Reason.MALFORMED: 3}
    assert list(node.outgoing(NOW)) == []


def test_our_own_reply_reflected_to_us_is_refused() -> None:
    node = alone()
    node.join([STRANGER], NOW)
    [(query, _)] = node.outgoing(NOW)
    node.receive(query, STRANGER, NOW)
    reply = next(data for data, _ in node.outgoing(NOW) if data[1] == Kind.REPLY)
    node.receive(reply, STRANGER, NOW)
    assert node.counters.dropped == {Reason.WRONG_STATE: 1}
    assert len(node.table) == 0


def test_a_node_has_a_bounded_number_of_lookups_in_progress() -> None:
    directory = pair(Conditions())
    node = next(iter(directory.nodes.values()))
    for _ in range(limits.DHT_OPERATIONS_MAX):
        node.find(TOPIC, directory.world.now())
    with pytest.raises(Overloaded):
        node.find(TOPIC, directory.world.now())


def test_events_that_nobody_fetches_are_bounded_and_still_counted() -> None:
    node = alone()
    for _ in range(limits.DHT_EVENTS_MAX + 100):
        node.receive(b"", STRANGER, NOW)
    assert sum(1 for _ in iter(node.next_event, None)) == limits.DHT_EVENTS_MAX
    assert node.counters.dropped[Reason.MALFORMED] == limits.DHT_EVENTS_MAX + 100


FUZZED = pair()
SECONDS = count(1)  # between two datagrams, so that the budget of signatures hides nothing


def real_datagrams() -> list[bytes]:
    """One of each kind, as a node really sends them."""
    node = alone(2)
    node.join([STRANGER], NOW)
    queries = [
        messages.write_query(b"12345678", command, TOPIC, b"12345678", token, PeerId(b"p" * 32))
        for command in Command
        for token in (None, b"k" * 16)
    ]
    for query in queries:
        node.receive(query, ("10.7.0.1", 4000), NOW)
    return [data for data, _ in node.outgoing(NOW)] + queries


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=1300),
        st.builds(
            lambda data, cut, position, value: bytes(data[:position] + bytes([value]) + data[position + 1 : cut]),
            st.sampled_from(real_datagrams()),
            st.integers(1, 1300),
            st.integers(0, 500),
            st.integers(0, 255),
        ),
        st.builds(
            lambda kind, tid, rest: b"\xa1" + bytes([kind]) + tid + rest,
            st.integers(0, len(Kind)),
            st.binary(min_size=8, max_size=8),
            st.binary(max_size=400),
        ),
    )
)
def test_nothing_received_escapes_as_an_exception_or_changes_table_or_store(data: bytes) -> None:
    (address, node), now = next(iter(FUZZED.nodes.items())), Instant(FUZZED.world.now() + next(SECONDS))
    before = (len(node.table), len(node.store), node.busy)
    node.receive(data, STRANGER, now)
    for answer, to in node.outgoing(now):
        assert to == STRANGER
        assert len(answer) <= messages.BYTES_MAX
        assert len(answer) <= 3 * len(data) or answer[1] == Kind.QUERY
    while node.next_event():
        pass
    assert (len(node.table), len(node.store), node.busy) == before, address


def test_a_dial_back_goes_only_to_the_address_that_a_token_proves() -> None:
    node = alone()
    argument = messages.write_dialback(5000, b"n" * 16)
    bare = messages.write_query(b"12345678", Command.DIALBACK, TOPIC, argument, None, None)
    node.receive(bare, STRANGER, NOW)
    ((retry, _),) = node.outgoing(NOW)
    assert Kind.RETRY == messages.read(retry).kind
    proven = messages.write_query(b"12345678", Command.DIALBACK, TOPIC, argument, messages.read(retry).rest, None)
    node.receive(proven, STRANGER, NOW)
    (reply, source), (aside, where) = node.outgoing(NOW)
    assert (Kind.REPLY, STRANGER) == (messages.read(reply).kind, source)
    assert (b"\xa1\x04" + b"12345678" + b"n" * 16, (STRANGER[0], 5000)) == (aside, where)
    assert len(reply) + len(aside) <= limits.DHT_AMPLIFICATION_MAX * len(proven)
    node.receive(proven, ("10.66.0.2", 4000), NOW)
    ((refused, _),) = node.outgoing(NOW)
    assert Kind.RETRY == messages.read(refused).kind, "a token is good for its own address"


def test_a_dial_back_to_a_port_of_the_system_is_refused_and_sends_nothing() -> None:
    node = alone()
    node.receive(messages.write_query(b"12345678", Command.PING, TOPIC, b"", None, None), STRANGER, NOW)
    ((reply, _),) = node.outgoing(NOW)
    answered = messages.write_query(
        b"12345678", Command.DIALBACK, TOPIC, messages.write_dialback(53, bytes(16)), token_of(reply), None
    )
    node.receive(answered, STRANGER, NOW)
    assert [] == list(node.outgoing(NOW))
    assert 1 == node.counters.dropped[Reason.MALFORMED]


def token_of(reply: bytes) -> bytes:
    return codec.decode(messages.Reply, messages.read(reply).rest[96:]).token


def test_a_dial_back_that_nobody_waits_for_is_refused() -> None:
    node = alone()
    node.receive(messages.write(Kind.DIALBACK, b"12345678", bytes(16)), STRANGER, NOW)
    assert 1 == node.counters.dropped[Reason.WRONG_STATE]
    assert [] == list(node.outgoing(NOW))


def test_a_survey_asks_one_contact_of_each_network_and_every_reply_is_a_sighting() -> None:
    directory = Directory(World(seed=7))
    addresses = directory.grow(12)
    asker = directory.nodes[addresses[-1]]
    asker.sightings.forget()
    asked = directory.world.do(addresses[-1], lambda now: asker.survey(5000, b"n" * 16, now))
    directory.world.run(seconds=2)
    networks_asked = {networks(contact.address).wide for contact in asked}
    assert len(asked) == len(networks_asked) <= limits.SURVEY_CONTACTS
    heard = asker.sightings.recent(directory.world.now())
    assert networks_asked <= {sighting.network for sighting in heard}
    assert {addresses[-1]} == {sighting.seen for sighting in heard}
    later = Instant(directory.world.now() + limits.SIGHTING_SECONDS + 1)
    assert () == asker.sightings.recent(later)


def test_sightings_are_bounded_and_what_is_no_address_is_nobodys_word() -> None:
    sightings = Sightings()
    for number in range(limits.SIGHTINGS_MAX + 10):
        where = (f"11.{number}.0.1", 4000)
        sightings.note(PeerId(bytes([number]) * 32), where, pack_address(STRANGER) if number % 2 else b"junk", NOW)
    assert limits.SIGHTINGS_MAX // 2 == len(sightings.recent(NOW))


def test_an_ephemeral_node_finds_everybody_and_is_in_nobodys_table() -> None:
    directory = Directory(World(seed=6))
    addresses = directory.grow(8)
    visitor, here = Identity(b"v" * 32), ("120.0.0.1", 4000)
    entropy, world = directory.world.entropy("visitor"), directory.world
    node = Node(visitor, NET, entropy=entropy, wall=world.wall, now=world.now(), ephemeral=True)
    world.add(here, node)
    world.do(here, lambda now: node.join(addresses[:1], now))
    world.run(seconds=10)
    assert len(node.table) == 8
    assert not any(visitor.peer in other.table for other in directory.nodes.values())
