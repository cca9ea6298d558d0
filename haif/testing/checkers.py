"""What must be true of a simulated network after anything: each checker names what is broken, or nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from haif.base import codec, limits
from haif.base.clock import WallTime
from haif.base.ids import PeerId
from haif.dht.contact import node_id
from haif.dht.node import Node
from haif.dht.table import ID_BITS, NEAR_MAX
from haif.identity.keys import SIGNATURE_BYTES
from haif.protocol.records import Record
from haif.testing.directory import Directory

_CLOCKS_BEHIND_MS = 24 * 3600 * 1000  # no simulated clock is further behind
_EVERYBODY = ID_BITS * limits.DHT_K


def nothing_unsigned(directory: Directory, read: Iterable[bytes] = ()) -> Iterator[str]:
    """Every record that a node keeps, or a reader was given, is to the last byte one that its owner signed here."""
    signed = {record for records in directory.published.values() for record in records}
    for record in read:
        if record not in signed:
            yield "a reader was given a record that nobody signed"
    topics = sorted({payload.topic for payload in _current(directory)})
    for address, node in directory.nodes.items():
        wall = directory.world.wall_at(address)()
        held = [record.evidence for topic in topics for record in node.store.get(topic, wall)]
        if not signed.issuperset(held) or len(node.store) > len(held):
            yield f"{address[0]} keeps a record that nobody signed"


def tables_bounded(directory: Directory) -> Iterator[str]:
    """No bucket holds more than it may, k where it does not reach near us; and nobody is known who never was."""
    real = {identity.peer for identity in directory.identities.values()}
    for address, node in directory.nodes.items():
        buckets = Counter(_bucket(node, contact.peer) for contact in node.table.closest(0, _EVERYBODY))
        for bucket, size in buckets.items():
            allowed = limits.DHT_SIBLINGS_MAX if 1 << (ID_BITS - 1 - bucket) < NEAR_MAX else limits.DHT_K
            if size > allowed:
                yield f"{address[0]} has a bucket of {size} contacts, over {allowed}"
        for contact in node.table.closest(0, _EVERYBODY):
            if contact.peer not in real:
                yield f"{address[0]} knows {contact.peer.short}, who never was"


def memory_bounded(directory: Directory) -> Iterator[str]:
    """No node holds more records or operations than its limits allow."""
    for address, node in directory.nodes.items():
        for held, allowed, what in (
            (len(node.store), limits.RECORDS_STORED_MAX, "records"),
            (node.busy, limits.DHT_OPERATIONS_MAX, "operations in progress"),
            (len(node.table), _EVERYBODY, "contacts"),
        ):
            if held > allowed:
                yield f"{address[0]} holds {held} {what}, over {allowed}"


def _current(directory: Directory) -> Iterator[Record]:
    """The records signed here that some node may still keep."""
    earliest = WallTime(directory.world.wall() - _CLOCKS_BEHIND_MS)
    for records in directory.published.values():
        for data in records:
            record = codec.decode(Record, data[SIGNATURE_BYTES:], size_max=limits.DATAGRAM_BYTES_MAX)
            if record.expires > earliest:
                yield record


def _bucket(node: Node, peer: PeerId) -> int:
    return ID_BITS - (node_id(node.peer) ^ node_id(peer)).bit_length()
