"""How much of what we know may come from one network: whoever owns a /24 owns its 256 addresses, and all their ports.

A contact belongs to a narrow network (the /24 of an IPv4 address, the /48 of an IPv6 one) and to a wide one (/16, /32).
An IPv4 address inside an IPv6 one (mapped, or 6to4) belongs to the networks of the IPv4 address.
"""

from __future__ import annotations

from collections import Counter
from enum import IntEnum
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple

from haif.base import limits
from haif.base.machine import Address


class Scope(IntEnum):
    """How far an address reaches. As an exemption: addresses of this scope or a narrower one are not counted."""

    PUBLIC = 0
    PRIVATE = 1  # also link-local
    LOOPBACK = 2
    NOTHING = 3  # exempts nobody


class Networks(NamedTuple):
    """The networks of an address, and its scope."""

    narrow: bytes
    wide: bytes
    scope: Scope


@lru_cache(maxsize=limits.DHT_IDS_CACHED)
def networks(address: Address) -> Networks:
    """Where an address belongs. The host must be a literal IP address."""
    ip = ip_address(address[0].partition("%")[0])
    if isinstance(ip, IPv6Address):
        ip = ip.ipv4_mapped or ip.sixtofour or ip
    narrow, wide = (3, 2) if isinstance(ip, IPv4Address) else (6, 4)
    family = bytes((ip.version,))
    return Networks(family + ip.packed[:narrow], family + ip.packed[:wide], _scope(ip))


def _scope(ip: IPv4Address | IPv6Address) -> Scope:
    if ip.is_loopback:
        return Scope.LOOPBACK
    return Scope.PRIVATE if ip.is_private else Scope.PUBLIC


class Census:
    """Counts a routing table's contacts by network and says who may still enter. `exempt`: who is not counted."""

    def __init__(self, exempt: Scope) -> None:
        self._exempt = exempt
        self._table: Counter[bytes] = Counter()
        self._buckets: Counter[tuple[int, bytes]] = Counter()

    def admits(self, bucket: int, address: Address) -> bool:
        """Whether one more contact of this address's networks may enter that bucket."""
        narrow, wide, scope = networks(address)
        return scope >= self._exempt or (
            self._table.get(narrow, 0) < limits.DHT_PER_NARROW_NETWORK_MAX
            and self._buckets.get((bucket, narrow), 0) < limits.DHT_PER_NARROW_NETWORK_AND_BUCKET_MAX
            and self._buckets.get((bucket, wide), 0) < limits.DHT_PER_WIDE_NETWORK_AND_BUCKET_MAX
        )

    def counts(self, address: Address) -> bool:
        """Whether contacts at this address are counted at all."""
        return networks(address).scope < self._exempt

    def enter(self, bucket: int, address: Address) -> None:
        """A contact entered."""
        self._add(bucket, address, 1)

    def leave(self, bucket: int, address: Address) -> None:
        """A contact left."""
        self._add(bucket, address, -1)

    def _add(self, bucket: int, address: Address, count: int) -> None:
        narrow, wide, scope = networks(address)
        if scope >= self._exempt:
            return
        self._table[narrow] += count
        if not self._table[narrow]:
            del self._table[narrow]
        for network in (narrow, wide):
            self._buckets[bucket, network] += count
            if not self._buckets[bucket, network]:
                del self._buckets[bucket, network]
