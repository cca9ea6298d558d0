"""Records: golden bytes, a rule for each kind, and arbitrary input."""

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from haif.base import codec, limits
from haif.base.clock import WallTime
from haif.base.errors import BadSignature, Expired, Malformed, Oversize, PeerFault
from haif.base.ids import Digest, ModelDigest, NetId, PeerId
from haif.identity.keys import Identity
from haif.protocol.records import (
    RECORD_BYTES_MAX,
    Record,
    RecordKind,
    Value,
    immutable_topic,
    mutable_topic,
    offer_topic,
    open_record,
    presence_topic,
    sign_record,
    topic_at,
)

NET = NetId(b"n" * 32)
ANNA = Identity(b"a" * 32)
BERT = Identity(b"b" * 32)
NOW = WallTime(1_700_000_000_000)
DAY = limits.VALUE_TTL_MS_MAX


def record(**changes: Any) -> Record:
    """An announcement, changed."""
    topic = offer_topic(NET, ModelDigest(b"m" * 32))
    return structs.replace(Record(RecordKind.OFFER, topic, ANNA.peer, 1, NOW + 60_000, False, b"here"), **changes)


def mutable(salt: bytes = b"home", value: bytes = b"v", **changes: Any) -> Record:
    """A mutable value, changed."""
    topic = mutable_topic(NET, ANNA.peer, salt)
    body = codec.encode(Value(salt, value))
    return record(**{"kind": RecordKind.MUTABLE, "topic": topic, "body": body, "expires": NOW + DAY} | changes)


def immutable(value: bytes = b"forever", **changes: Any) -> Record:
    """An immutable value, changed."""
    topic = immutable_topic(NET, value)
    return record(**{"kind": RecordKind.IMMUTABLE, "topic": topic, "body": value, "expires": NOW + DAY} | changes)


def opened(value: Record, signer: Identity = ANNA) -> Record:
    return open_record(sign_record(signer, NET, value), net=NET, now=NOW).payload


def test_topics_have_these_bytes() -> None:
    assert [
        topic.short
        for topic in (
            offer_topic(NET, ModelDigest(b"m" * 32)),
            presence_topic(NET, ANNA.peer),
            mutable_topic(NET, ANNA.peer, b"home"),
            immutable_topic(NET, b"forever"),
        )
    ] == ["95edd99d", "776dd0fc", "181a85b0", "1ee4044e"]


def test_a_topic_is_of_one_kind_and_near_its_point() -> None:
    point = Digest(bytes(range(32)))
    assert [topic_at(kind, point)[:-1] for kind in RecordKind] == [point[:-1]] * 4
    assert [topic_at(kind, point)[-1] for kind in RecordKind] == list(RecordKind)


def test_a_mutable_value_has_these_bytes() -> None:
    data = sign_record(ANNA, NET, mutable())
    heads = (
        b"\x97\x03\xc4\x20" + mutable().topic + b"\xc4\x20" + ANNA.peer + b"\x01\xcf" + (NOW + DAY).to_bytes(8, "big")
    )
    assert data[64:] == heads + b"\xc2\xc4\x0a\x92\xc4\x04home\xc4\x01v"
    assert data[:8].hex() == "1b68944be6dc4734"


def test_an_immutable_value_has_these_bytes() -> None:
    data = sign_record(ANNA, NET, immutable())
    assert data[64:66] == b"\x97\x04"
    assert data[66 + 34 :].endswith(b"\xc2\xc4\x07forever")


@pytest.mark.parametrize("value", [record(), mutable(), immutable(), mutable(value=b"", tombstone=True)])
def test_what_holds_is_opened(value: Record) -> None:
    assert opened(value) == value


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (record(kind=9), Malformed),
        (record(topic=presence_topic(NET, ANNA.peer)), Malformed),
        (record(topic=immutable_topic(NET, b"here")), Malformed),
        (record(kind=RecordKind.PRESENCE), Malformed),
        (record(kind=RecordKind.PRESENCE, topic=presence_topic(NET, BERT.peer)), Malformed),
        (record(body=bytes(limits.RECORD_BODY_BYTES_MAX + 1)), Oversize),
        (record(sequence=-1), Malformed),
        (record(sequence=limits.SEQUENCE_MAX + 1), Malformed),
        (record(expires=NOW - limits.CLOCK_SKEW_MS), Expired),
        (record(expires=NOW + limits.RECORD_TTL_MS_MAX + limits.CLOCK_SKEW_MS + 1), Expired),
        (mutable(expires=NOW + DAY + limits.CLOCK_SKEW_MS + 1), Expired),
        (mutable(topic=Digest(b"t" * 32)), Malformed),
        (mutable(topic=mutable_topic(NET, BERT.peer, b"home")), Malformed),
        (mutable(topic=mutable_topic(NetId(bytes(32)), ANNA.peer, b"home")), Malformed),
        (mutable(body=b"no value"), Malformed),
        (mutable(salt=bytes(65)), Oversize),
        (mutable(salt=b"", value=bytes(limits.VALUE_BYTES_MAX + 1)), Oversize),
        (mutable(value=b"still here", tombstone=True), Malformed),
        (immutable(topic=Digest(b"t" * 32)), Malformed),
        (immutable(body=b"another"), Malformed),
        (immutable(value=b"", tombstone=True), Malformed),
        (immutable(value=bytes(limits.VALUE_BYTES_MAX + 1)), Oversize),
    ],
)
def test_what_does_not_hold_is_refused(value: Record, error: type[PeerFault]) -> None:
    with pytest.raises(error):
        opened(value)


def test_nobody_puts_a_mutable_value_where_anothers_is() -> None:
    """Bert signs, in his own name, for the place that Anna's salt gives."""
    with pytest.raises(Malformed):
        opened(mutable(owner=BERT.peer), signer=BERT)


def test_whoever_puts_an_immutable_value_puts_the_right_one() -> None:
    assert opened(immutable(owner=BERT.peer), signer=BERT).body == b"forever"


def test_the_longest_records_are_within_the_limit() -> None:
    longest = (
        record(body=bytes(limits.RECORD_BODY_BYTES_MAX), expires=NOW + limits.RECORD_TTL_MS_MAX),
        mutable(bytes(limits.VALUE_SALT_BYTES_MAX), bytes(limits.VALUE_BYTES_MAX), sequence=(1 << 63) - 1),
        immutable(bytes(limits.VALUE_BYTES_MAX)),
    )
    for value in longest:
        assert opened(value) == value
        assert len(sign_record(ANNA, NET, value)) <= RECORD_BYTES_MAX


@given(st.sampled_from([record(), mutable(), immutable()]), st.integers(0, 2**16))
def test_a_record_with_any_bit_changed_is_refused(value: Record, position: int) -> None:
    data = bytearray(sign_record(ANNA, NET, value))
    data[position % len(data)] ^= 1 << position % 8
    with pytest.raises(PeerFault):
        open_record(bytes(data), net=NET, now=NOW)


@given(st.binary(max_size=400), st.integers(0, 12), st.binary(max_size=80))
def test_any_bytes_are_a_record_or_a_peers_fault(data: bytes, kind: int, body: bytes) -> None:
    signed = sign_record(ANNA, NET, record(kind=kind, body=body))
    for attempt in (data, signed, signed[:64] + data):
        with contextlib.suppress(PeerFault):
            open_record(attempt, net=NET, now=NOW)


def test_a_record_of_another_network_is_refused() -> None:
    with pytest.raises(BadSignature):
        open_record(sign_record(ANNA, NET, record()), net=NetId(bytes(32)), now=NOW)


def test_a_record_in_anothers_name_is_refused() -> None:
    data = sign_record(ANNA, NET, record())
    forged = data[:64] + data[64:].replace(bytes(ANNA.peer), bytes(PeerId(bytes(BERT.peer))))
    with pytest.raises(BadSignature):
        open_record(forged, net=NET, now=NOW)
