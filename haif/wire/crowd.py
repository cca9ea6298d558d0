"""Who gives way when a house is full: somebody from where most of those inside came from.

Connections and keys cost nobody anything, addresses do. So a full house is shared among networks: a flooder of one
network only ever pushes itself out, and whoever comes from elsewhere finds room.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import TypeVar

from haif.base import limits

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where somebody dialled from: an IPv4 address in its /24, or an IPv6 /64 in its /48. `here`: this very machine."""

    address: str
    subnet: str
    here: bool


@lru_cache(maxsize=limits.GATE_SOURCES_MAX)
def origin(source: str) -> Origin:
    """The origin of an IP address."""
    address = ip_address(source.partition("%")[0])
    if address.version == 6 and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if address.version == 4:
        return Origin(str(address), str(ip_network((address, 24), strict=False)), address.is_loopback)
    own, subnet = (str(ip_network((address, bits), strict=False)) for bits in (64, 48))
    return Origin(own, subnet, address.is_loopback)


def thickest(inside: Mapping[T, Origin]) -> list[T]:
    """Those of the most crowded address in the most crowded subnet, in the order they came. Somebody is inside."""
    subnet = _most(Counter(each.subnet for each in inside.values()))
    address = _most(Counter(each.address for each in inside.values() if each.subnet == subnet))
    return [one for one, each in inside.items() if each.address == address]


def yielding(inside: Mapping[T, Origin], newcomer: Origin, share: int) -> list[T]:
    """Those of whom one is to make room for a newcomer to a full house; nobody, if the newcomer is to stay outside.

    No subnet has to fall below its `share` of places, and nobody makes room for a subnet, or within a subnet for an
    address, that would then have as many places: two crowds do not push each other out in turn.
    """
    crowd = thickest(inside)
    most = inside[crowd[0]]
    held = sum(each.subnet == most.subnet for each in inside.values())
    own = sum(each.subnet == newcomer.subnet for each in inside.values())
    if newcomer.subnet == most.subnet:
        held, own = len(crowd), sum(each.address == newcomer.address for each in inside.values())
    elif held <= share:
        return []
    return crowd if own + 1 < held else []


def _most(counts: Counter[str]) -> str:
    return max(counts, key=counts.__getitem__)
