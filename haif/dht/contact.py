"""A contact is a peer and the address it answered at; its place in the key space follows from its key alone.

    contact = peer 32 ‖ address
    address = family 1 (4 or 6) ‖ IP 4 or 16 ‖ port 2

An address that no single peer can have (port 0, multicast, unspecified) is refused where it is read.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, NamedTuple

from haif.base import limits
from haif.base.errors import Malformed
from haif.base.hashing import digest
from haif.base.ids import PeerId
from haif.base.machine import Address

_ADDRESS_BYTES: Final = {4: 7, 6: 19}
_IPV4_BYTES: Final = PeerId.size + _ADDRESS_BYTES[4]
_LOOPBACK_6: Final = b"\x06" + IPv6Address("::1").packed


class Contact(NamedTuple):
    """A peer and where it is reached."""

    peer: PeerId
    address: Address


@lru_cache(maxsize=limits.DHT_IDS_CACHED)
def node_id(peer: PeerId) -> int:
    """Where a peer stands in the 256-bit key space. Always computed by the receiver, never taken from a message."""
    return int.from_bytes(digest("haif v1 dht node id", peer), "big")


@lru_cache(maxsize=limits.DHT_IDS_CACHED)
def shared(contact: Contact) -> Contact:
    """The same contact, one object for all who keep it: found faster in every cache, and kept once."""
    return contact


@lru_cache(maxsize=limits.DHT_IDS_CACHED)
def pack_address(address: Address) -> bytes:
    """The bytes of an address. Raises `Malformed` if the host is no literal IP address."""
    try:
        ip = ip_address(address[0])
    except ValueError:
        raise Malformed(f"{address[0]!r} is not an IP address") from None
    return bytes([ip.version]) + ip.packed + address[1].to_bytes(2, "big")


def unpack_address(data: bytes) -> Address:
    """The address in these bytes. Raises `Malformed` for one that no single peer can have."""
    if not data or len(data) != _ADDRESS_BYTES.get(data[0]):
        raise Malformed("not a packed address")
    ip = IPv4Address(data[1:5]) if data[0] == 4 else IPv6Address(data[1:17])
    port = int.from_bytes(data[-2:], "big")
    if port == 0 or ip.is_multicast or ip.is_unspecified or (isinstance(ip, IPv4Address) and ip.is_reserved):
        raise Malformed(f"nobody can be reached at {ip}, port {port}")
    return str(ip), port


@lru_cache(maxsize=limits.DHT_IDS_CACHED)
def subnet(address: Address) -> bytes:
    """What one party is likely to own: the /24 of an IPv4 address, the /48 of an IPv6 one, one port of this machine."""
    packed = pack_address(address)
    if packed[:2] == b"\x04\x7f" or packed[:17] == _LOOPBACK_6:
        return packed
    return packed[: 1 + (3 if packed[0] == 4 else 6)]


def pack_contacts(contacts: Iterable[Contact], bytes_max: int) -> bytes:
    """As many contacts as fit, in the order given."""
    pieces = list(map(_pack, contacts))
    while len(packed := b"".join(pieces)) > bytes_max:
        pieces.pop()
    return packed


def unpack_contacts(data: bytes, count_max: int = limits.DHT_K) -> list[Contact]:
    """The contacts in these bytes. Raises `Malformed` for bytes left over, a bad address or more than `count_max`."""
    if len(data) <= count_max * _IPV4_BYTES and data[PeerId.size :: _IPV4_BYTES].count(4) * _IPV4_BYTES == len(data):
        return [_unpack(data[at : at + _IPV4_BYTES]) for at in range(0, len(data), _IPV4_BYTES)]  # all of one length
    contacts: list[Contact] = []
    at, family_at = 0, PeerId.size
    while at < len(data):
        if len(contacts) == count_max:
            raise Malformed(f"more than {count_max} contacts")
        end = family_at + (_ADDRESS_BYTES.get(data[family_at], 0) if family_at < len(data) else 0)
        contacts.append(_unpack(data[at:end]))  # refuses one cut short
        at, family_at = end, end + PeerId.size
    return contacts


@lru_cache(maxsize=limits.DHT_IDS_CACHED)
def _pack(contact: Contact) -> bytes:
    return contact.peer + pack_address(contact.address)


@lru_cache(maxsize=limits.DHT_IDS_CACHED)
def _unpack(data: bytes) -> Contact:
    address = unpack_address(data[PeerId.size :])
    return Contact(PeerId(data[: PeerId.size]), address)
