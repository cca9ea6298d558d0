"""Datagrams: golden bytes, limits, signatures, and arbitrary input."""

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haif.base import codec
from haif.base.errors import BadSignature, Malformed, Oversize, PeerFault
from haif.base.ids import Digest, NetId, PeerId
from haif.dht import messages
from haif.dht.messages import Command, Kind, Put, Query, Reply
from haif.identity.keys import Identity
from haif.protocol.records import RECORD_BYTES_MAX

NET = NetId(b"n" * 32)
TARGET = Digest(b"t" * 32)
PEER = PeerId(b"p" * 32)
TID = b"12345678"
HANDLE = b"watching"
ANNA = Identity(b"a" * 32)


def test_a_ping_has_these_bytes() -> None:
    data = messages.write_query(TID, Command.PING, TARGET, b"", None, PEER)
    assert data == b"\xa1\x00" + TID + b"\x96\x00\xc4\x20" + TARGET + b"\xc4\x00\xc0\xc4\x20" + PEER + b"\xc4\x00"
    query = messages.read_query(messages.read(data))
    assert query == Query(Command.PING, TARGET, b"", None, PEER, b"")


def test_a_reply_has_these_bytes() -> None:
    asked = messages.write_query(TID, Command.PING, TARGET, b"", None, PEER)
    data = messages.sign_reply(ANNA, NET, messages.read(asked), Reply(b"\x04\x7f\0\0\1\x0f\xa0", b"k" * 16))
    assert data[:10] == b"\xa1\x01" + TID
    assert data[74:] == ANNA.peer + b"\x9a\xc4\x07\x04\x7f\0\0\1\x0f\xa0\xc4\x10" + b"k" * 16 + bytes.fromhex(
        "c400 00 90 c2 a0 c400 00 c400"
    )
    assert len(data) == messages.reply_bytes(Reply(b"\x04\x7f\0\0\1\x0f\xa0", b"k" * 16))


def test_a_put_has_these_bytes() -> None:
    argument = codec.encode(Put(b"record", b"t" * 32, 7))
    assert argument == b"\x93\xc4\x06record\xc4\x20" + b"t" * 32 + b"\x07"
    assert codec.encode(Put(b"record")) == b"\x93\xc4\x06record\xc4\x00\xc0"
    data = messages.write_query(TID, Command.PUT, TARGET, argument, b"k" * 16, PEER)
    assert data == (
        b"\xa1\x00" + TID + b"\x96\x03\xc4\x20" + TARGET + b"\xc4\x2c" + argument
        + b"\xc4\x10" + b"k" * 16 + b"\xc4\x20" + PEER + b"\xc4\x00"
    )  # fmt: skip
    assert messages.read_put(messages.read_query(messages.read(data))) == Put(b"record", b"t" * 32, 7)


def test_a_reply_that_tells_to_wait_has_these_bytes() -> None:
    reply = Reply(b"", b"k" * 16, refused="must_wait", ticket=b"t" * 32, wait_ms=1500)
    expected = b"\x9a\xc4\x00\xc4\x10" + b"k" * 16 + b"\xc4\x00\x00\x90\xc2\xa9must_wait\xc4\x20" + b"t" * 32
    assert codec.encode(reply) == expected + b"\xcd\x05\xdc\xc4\x00"


def test_a_find_around_a_point_has_these_bytes() -> None:
    point = b"p" * 32
    data = messages.write_query(TID, Command.FIND, TARGET, point, b"k" * 16, PEER)
    assert data == (
        b"\xa1\x00" + TID + b"\x96\x01\xc4\x20" + TARGET + b"\xc4\x20" + point
        + b"\xc4\x10" + b"k" * 16 + b"\xc4\x20" + PEER + b"\xc4\x00"
    )  # fmt: skip
    assert messages.read_query(messages.read(data)).argument == point


@pytest.mark.parametrize("length", [1, 8, 31, 33, 64])
def test_a_point_has_thirty_two_bytes(length: int) -> None:
    data = messages.write_query(TID, Command.FIND, TARGET, bytes(length), None, PEER)
    with pytest.raises(Malformed, match="32 bytes"):
        messages.read_query(messages.read(data))


def test_a_watch_and_its_notice_have_these_bytes() -> None:
    asked = messages.write_query(TID, Command.WATCH, TARGET, HANDLE + b"recorded", b"k" * 16, PEER)
    assert asked[10:12] == b"\x96\x04"
    assert messages.read_query(messages.read(asked)).argument == HANDLE + b"recorded"
    notice = messages.sign_notice(ANNA, NET, HANDLE, TARGET, b"a record")
    assert notice[:10] == b"\xa1\x05" + HANDLE
    assert notice[74:] == ANNA.peer + b"a record"
    assert notice[10:18].hex() == "073a808347c4dc9e"
    assert messages.open_notice(messages.read(notice), net=NET, topic=TARGET) == (ANNA.peer, b"a record")


@given(st.integers(0, 2**32))
def test_a_notice_with_any_bit_changed_is_refused(position: int) -> None:
    data = bytearray(messages.sign_notice(ANNA, NET, HANDLE, TARGET, b"a record"))
    bit = 16 + position % (len(data) * 8 - 16)
    data[bit // 8] ^= 1 << bit % 8
    with pytest.raises(BadSignature):
        messages.open_notice(messages.read(bytes(data)), net=NET, topic=TARGET)


def test_a_notice_is_bound_to_network_handle_and_topic_and_is_no_reply() -> None:
    notice = messages.sign_notice(ANNA, NET, HANDLE, TARGET, b"a record")
    with pytest.raises(BadSignature):
        messages.open_notice(messages.read(notice), net=NetId(bytes(32)), topic=TARGET)
    with pytest.raises(BadSignature):
        messages.open_notice(messages.read(notice), net=NET, topic=Digest(b"u" * 32))
    with pytest.raises(BadSignature):
        messages.open_reply(messages.read(b"\xa1\x01" + notice[2:]), net=NET, query=b"\xa1\x00" + HANDLE)


@pytest.mark.parametrize("changes", [{"ticket": b"short"}, {"wait_ms": -1}, {"wait_ms": 1_200_001}])
def test_a_ticket_or_a_wait_that_no_node_gives_is_refused(changes: dict[str, Any]) -> None:
    asked = messages.write_query(TID, Command.PING, TARGET, b"", None, PEER)
    data = messages.sign_reply(ANNA, NET, messages.read(asked), Reply(bytes(7), b"k" * 16, **changes))
    with pytest.raises(Malformed):
        messages.open_reply(messages.read(data), net=NET, query=asked)


def test_a_dial_back_is_asked_for_and_comes_with_these_bytes() -> None:
    argument = messages.write_dialback(0x1234, b"n" * 16)
    data = messages.write_query(TID, Command.DIALBACK, TARGET, argument, b"k" * 16, None)
    assert data == b"\xa1\x00" + TID + b"\x96\x05\xc4\x20" + TARGET + b"\xc4\x12\x12\x34" + b"n" * 16 + (
        b"\xc4\x10" + b"k" * 16 + b"\xc0\xc4\x00"
    )
    assert messages.read_dialback(messages.read_query(messages.read(data))) == (0x1234, b"n" * 16)
    assert messages.write(Kind.DIALBACK, TID, b"n" * 16) == b"\xa1\x04" + TID + b"n" * 16


@pytest.mark.parametrize("argument", [b"", b"\x12\x34" + bytes(15), b"\x12\x34" + bytes(17), b"\0\x35" + bytes(16)])
def test_a_dial_back_of_another_length_or_to_a_port_of_the_system_is_refused(argument: bytes) -> None:
    with pytest.raises(Malformed):
        messages.read_dialback(Query(Command.DIALBACK, TARGET, argument, None, None, b""))


def test_a_first_query_is_padded_and_one_with_a_token_is_not() -> None:
    assert len(messages.write_query(TID, Command.FIND, TARGET, b"", None, PEER)) in range(400, 404)
    assert len(messages.write_query(TID, Command.FIND, TARGET, b"", b"k" * 16, PEER)) < 120
    assert len(messages.write_query(TID, Command.PING, TARGET, b"", None, PEER)) < 100


def test_the_longest_record_fits_into_a_put_and_into_an_answer() -> None:
    record = bytes(RECORD_BYTES_MAX)
    put = codec.encode(Put(record, bytes(32), 2**63 - 1))
    assert len(messages.write_query(TID, Command.PUT, TARGET, put, b"k" * 16, PEER)) <= messages.BYTES_MAX
    assert messages.reply_bytes(Reply(bytes(19), b"k" * 16)) + 16 + 3 + len(record) <= messages.BYTES_MAX
    assert len(messages.sign_notice(ANNA, NET, HANDLE, TARGET, record)) <= messages.BYTES_MAX


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", Malformed),
        (b"\xa1\x00" + TID, Malformed),
        (b"\xa2\x00" + TID + b"\x90", Malformed),
        (b"\xa1\x06" + TID + b"\x90", Malformed),
        (b"\xa1\x00" + bytes(1199), Oversize),
    ],
    ids=["empty", "header only", "another version", "another kind", "too long"],
)
def test_what_is_no_datagram_is_refused(data: bytes, error: type[PeerFault]) -> None:
    with pytest.raises(error):
        messages.read(data)


def test_a_token_of_another_length_and_a_broken_list_are_refused() -> None:
    for query in (
        Query(Command.FIND, TARGET, b"", b"short", None, b""),
        Query(Command.GET, TARGET, b"1234567", None, None, b""),
        Query(Command.WATCH, TARGET, b"1234567", None, None, b""),
        Query(Command.WATCH, TARGET, b"", None, None, b""),
    ):
        with pytest.raises(Malformed):
            messages.read_query(messages.read(messages.write(Kind.QUERY, TID, codec.encode(query))))


@given(st.integers(0, 2**32))
def test_a_reply_with_any_bit_changed_is_refused(position: int) -> None:
    asked = messages.write_query(TID, Command.PING, TARGET, b"", None, PEER)
    data = bytearray(messages.sign_reply(ANNA, NET, messages.read(asked), Reply(bytes(7), b"k" * 16)))
    bit = 80 + position % (len(data) * 8 - 80)  # behind the header: version, kind and tid find the query
    data[bit // 8] ^= 1 << bit % 8
    with pytest.raises(BadSignature):
        messages.open_reply(messages.read(bytes(data)), net=NET, query=asked)


def test_a_reply_is_bound_to_network_query_and_tid() -> None:
    asked = messages.write_query(TID, Command.PING, TARGET, b"", None, PEER)
    data = messages.read(messages.sign_reply(ANNA, NET, messages.read(asked), Reply(bytes(7), b"k" * 16)))
    assert messages.open_reply(data, net=NET, query=asked) == (ANNA.peer, Reply(bytes(7), b"k" * 16))
    other_tid = messages.write_query(b"87654321", Command.PING, TARGET, b"", None, PEER)
    other_query = messages.write_query(TID, Command.FIND, TARGET, b"", None, PEER)
    for net, query in ((NetId(bytes(32)), asked), (NET, other_tid), (NET, other_query)):
        with pytest.raises(BadSignature):
            messages.open_reply(data, net=net, query=query)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_datagram_or_a_peers_fault(rest: bytes) -> None:
    for kind in Kind:
        try:
            datagram = messages.read(b"\xa1" + bytes([kind]) + TID + rest)
            messages.read_query(datagram)
            messages.open_reply(datagram, net=NET, query=bytes(20))
        except PeerFault:
            pass


@given(st.binary(max_size=300))
def test_any_bytes_are_a_put_or_a_notice_or_a_peers_fault(data: bytes) -> None:
    with contextlib.suppress(PeerFault):
        messages.read_put(Query(Command.PUT, TARGET, data, None, None, b""))
    with contextlib.suppress(PeerFault):
        messages.open_notice(messages.read(b"\xa1\x05" + HANDLE + data), net=NET, topic=TARGET)


def test_a_ticket_of_another_length_is_refused() -> None:
    for ticket in (b"short", bytes(33)):
        with pytest.raises(Malformed):
            messages.read_put(Query(Command.PUT, TARGET, codec.encode(Put(b"", ticket)), None, None, b""))
