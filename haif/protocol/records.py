r"""DHT records: end-to-end signed announcements that any node may keep and nobody else may change.

    record    = signature (64) ‖ msgpack of Record
    signature = Ed25519(owner, "haif/record/v1\0" ‖ network 32 ‖ msgpack of Record)
    topic     = BLAKE3(kind, network, subject): where in the DHT the record lives

A newer sequence replaces an older one; a tombstone is a newer record that says "gone" and is kept until it expires, so
that an old copy cannot come back.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

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


class Record(Message, frozen=True):
    """One announcement. `expires` in ms since the epoch; `body` is a message of the kind's own type, or empty."""

    kind: int
    topic: Digest
    owner: PeerId
    sequence: int
    expires: int
    tombstone: bool
    body: bytes


def offer_topic(net: NetId, model: ModelDigest) -> Digest:
    """Where offers of a model are kept."""
    return digest("haif v1 topic offer", net, model)


def presence_topic(net: NetId, peer: PeerId) -> Digest:
    """Where a peer says how to reach it. Only that peer's record is of interest there."""
    return digest("haif v1 topic presence", net, peer)


def sign_record(identity: Identity, net: NetId, record: Record) -> bytes:
    """The bytes that travel. `record.owner` must be the identity's peer."""
    assert record.owner == identity.peer, "a peer announces only in its own name"
    encoded = codec.encode(record)
    return identity.sign(_DOMAIN + net + encoded) + encoded


def open_record(data: bytes, *, net: NetId, now: WallTime, verify: Verify = keys.verify) -> Verified[Record]:
    """A record whose size, kind, expiry and owner's signature hold.

    Raises `Oversize`, `Malformed`, `Expired` or `BadSignature`. What the body says is for the kind's own rule.
    """
    if len(data) > SIGNATURE_BYTES + limits.RECORD_BODY_BYTES_MAX + 128:
        raise Oversize(f"a record of {len(data)} bytes is over the limit")
    signature, encoded = data[:SIGNATURE_BYTES], data[SIGNATURE_BYTES:]
    # The owner is inside what it signed, so the record is decoded (bounded) before the signature can be checked.
    record = codec.decode(Record, encoded, size_max=limits.DATAGRAM_BYTES_MAX)
    try:
        verify(record.owner, _DOMAIN + net + encoded, signature)
    except BadSignature:
        raise BadSignature("a record that its owner did not sign for this network", record.owner) from None
    if record.kind not in RecordKind._value2member_map_:
        raise Malformed(f"record kind {record.kind} is unknown", record.owner)
    if len(record.body) > limits.RECORD_BODY_BYTES_MAX:
        raise Oversize(f"a record body of {len(record.body)} bytes is over the limit", record.owner)
    if record.expires <= now - limits.CLOCK_SKEW_MS:
        raise Expired("the record has expired", record.owner)
    if record.expires > now + limits.RECORD_TTL_MS_MAX + limits.CLOCK_SKEW_MS:
        raise Expired("the record claims to live too long", record.owner)
    return Verified(record, record.owner, data)
