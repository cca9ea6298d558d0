r"""DHT records: end-to-end signed statements that any node may keep and nobody else may change.

    record    = signature (64) ‖ msgpack of Record
    signature = Ed25519(owner, "haif/record/v1\0" ‖ network 32 ‖ msgpack of Record)
    topic     = BLAKE3(kind, network, subject)[:31] ‖ kind u8: where in the DHT the record lives

A topic says of which kind the records there are: whoever keeps or reads one sees at a glance that it is no other's, and
nobody's offers can take the places that a topic has for presences or values.

*Offers* are of many owners at one topic. A *presence* has a topic that follows from its owner, a *mutable value* one
that follows from its owner and a salt. The topic of an *immutable value* follows from its bytes, so whoever finds it
there has the right one; its owner is no more than who put it there, against whose quota it counts.

A newer sequence replaces an older one; a tombstone is a newer record that says "gone" and is kept until it expires, so
that an old copy cannot come back. An immutable value has none: it expires.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from msgspec import structs

from haif.base import codec, limits
from haif.base.clock import WallTime
from haif.base.codec import Message
from haif.base.errors import BadSignature, Expired, Malformed, Oversize
from haif.base.hashing import digest
from haif.base.ids import Digest, ModelDigest, NetId, PeerId
from haif.identity import keys
from haif.identity.keys import SIGNATURE_BYTES, Identity, Verify
from haif.identity.signing import Verified

_DOMAIN: Final = b"haif/record/v1\0"


class RecordKind(IntEnum):
    """What a record announces. Unknown kinds are refused."""

    OFFER = 1  # a worker offers a model; the body is `protocol.offers.Offer`
    PRESENCE = 2  # a peer says where it is reached; the body is `protocol.offers.Presence`
    MUTABLE = 3  # a value that its owner may replace; the body is `Value`
    IMMUTABLE = 4  # a value that names itself; the body is the value


class Record(Message, frozen=True):
    """One announcement. `expires` in ms since the epoch; `body` is a message of the kind's own type, or empty."""

    kind: int
    topic: Digest
    owner: PeerId
    sequence: int
    expires: int
    tombstone: bool
    body: bytes


class Value(Message, frozen=True):
    """The body of a mutable value, its tombstone's included: the salt proves that the record is at its own topic."""

    salt: bytes
    value: bytes


def topic_at(kind: RecordKind, point: Digest) -> Digest:
    """The topic for records of this kind at a point of the key space: the point, but for its last byte."""
    return Digest(point[:-1] + bytes((kind,)))


def offer_topic(net: NetId, model: ModelDigest) -> Digest:
    """Where offers of a model are kept. Only offers can be there."""
    return topic_at(RecordKind.OFFER, digest("haif v1 topic offer", net, model))


def presence_topic(net: NetId, peer: PeerId) -> Digest:
    """Where a peer says how to reach it. Only that peer's record can be there."""
    return topic_at(RecordKind.PRESENCE, digest("haif v1 topic presence", net, peer))


def mutable_topic(net: NetId, owner: PeerId, salt: bytes) -> Digest:
    """Where an owner keeps the value of this salt. Only that owner's record can be there."""
    return topic_at(RecordKind.MUTABLE, digest("haif v1 topic mutable", net, owner, salt))


def immutable_topic(net: NetId, value: bytes) -> Digest:
    """Where a value is kept that never changes. Only that value can be there."""
    return topic_at(RecordKind.IMMUTABLE, digest("haif v1 topic immutable", net, value))


def sign_record(identity: Identity, net: NetId, record: Record) -> bytes:
    """The bytes that travel. `record.owner` must be the identity's peer."""
    assert record.owner == identity.peer, "a peer announces only in its own name"
    encoded = codec.encode(record)
    return identity.sign(_DOMAIN + net + encoded) + encoded


def open_record(data: bytes, *, net: NetId, now: WallTime, verify: Verify = keys.verify) -> Verified[Record]:
    """A record whose size, kind, expiry and owner's signature hold.

    Raises `Oversize`, `Malformed`, `Expired` or `BadSignature`. What an announcement's body says is its reader's to
    judge; a record must be at a topic of its kind, and a presence or a value at the topic that is its own.
    """
    if len(data) > RECORD_BYTES_MAX:
        raise Oversize(f"a record of {len(data)} bytes is over the limit of {RECORD_BYTES_MAX}")
    signature, encoded = data[:SIGNATURE_BYTES], data[SIGNATURE_BYTES:]
    # The owner is inside what it signed, so the record is decoded (bounded) before the signature can be checked.
    record = codec.decode_flat(Record, encoded, size_max=limits.DATAGRAM_BYTES_MAX)
    try:
        verify(record.owner, _DOMAIN + net + encoded, signature)
    except BadSignature:
        raise BadSignature("a record that its owner did not sign for this network", record.owner) from None
    if record.kind not in RecordKind._value2member_map_:
        raise Malformed(f"record kind {record.kind} is unknown", record.owner)
    if record.topic[-1] != record.kind:
        raise Malformed("a record at a topic of another kind", record.owner)
    rule = RULES[RecordKind(record.kind)]
    if len(record.body) > rule.body_bytes_max:
        raise Oversize(f"a record body of {len(record.body)} bytes is over the limit", record.owner)
    if not 0 <= record.sequence <= limits.SEQUENCE_MAX:
        raise Malformed("a sequence has 0 to 63 bits", record.owner)
    if record.expires <= now - limits.CLOCK_SKEW_MS:
        raise Expired("the record has expired", record.owner)
    if record.expires > now + rule.ttl_ms_max + limits.CLOCK_SKEW_MS:
        raise Expired("the record claims to live too long", record.owner)
    if rule.place is not None and rule.place(net, record) != record.topic:
        raise Malformed("a value at a topic that is not its own", record.owner)
    return Verified(record, record.owner, data)


def says_the_same(one: Record, other: Record) -> bool:
    """Whether two records differ in nothing but how long they live."""
    return structs.replace(one, expires=other.expires) == other


def contradict(one: Record, other: Record) -> bool:
    """Whether their owner gave one sequence to two records that say different things. Both are of one topic."""
    return one.sequence == other.sequence and not says_the_same(one, other)


# --- a rule for each kind ---------------------------------------------------------------------------------------------

_SALT_HEAD_BYTES: Final = 1 + 2 + 3  # msgpack heads of a `Value` and its two fields
_VALUE_BODY_BYTES_MAX: Final = limits.VALUE_BYTES_MAX + limits.VALUE_SALT_BYTES_MAX + _SALT_HEAD_BYTES
RECORD_BYTES_MAX: Final = SIGNATURE_BYTES + 128 + max(limits.RECORD_BODY_BYTES_MAX, _VALUE_BODY_BYTES_MAX)


@dataclass(frozen=True, slots=True)
class Rule:
    """What holds for the records of a kind. `place`, where there is one, says which topic a record must be at.

    Then nobody else can have a record there.
    """

    body_bytes_max: int
    ttl_ms_max: int
    place: Callable[[NetId, Record], Digest] | None = None


def _presence_place(net: NetId, record: Record) -> Digest:
    return presence_topic(net, record.owner)


def _mutable_place(net: NetId, record: Record) -> Digest:
    value = codec.decode(Value, record.body, size_max=_VALUE_BODY_BYTES_MAX)
    if len(value.salt) > limits.VALUE_SALT_BYTES_MAX or len(value.value) > limits.VALUE_BYTES_MAX:
        raise Oversize("a salt or a value is over its limit", record.owner)
    if record.tombstone and value.value:
        raise Malformed("a tombstone with a value", record.owner)
    return mutable_topic(net, record.owner, value.salt)


def _immutable_place(net: NetId, record: Record) -> Digest:
    if record.tombstone:
        raise Malformed("what never changes cannot be withdrawn; it expires", record.owner)
    return immutable_topic(net, record.body)


RULES: Final = {
    RecordKind.OFFER: Rule(limits.RECORD_BODY_BYTES_MAX, limits.RECORD_TTL_MS_MAX),
    RecordKind.PRESENCE: Rule(limits.RECORD_BODY_BYTES_MAX, limits.RECORD_TTL_MS_MAX, _presence_place),
    RecordKind.MUTABLE: Rule(_VALUE_BODY_BYTES_MAX, limits.VALUE_TTL_MS_MAX, _mutable_place),
    RecordKind.IMMUTABLE: Rule(limits.VALUE_BYTES_MAX, limits.VALUE_TTL_MS_MAX, _immutable_place),
}
