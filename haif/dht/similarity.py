"""How much an address resembles those that are there already: addresses of one network cost their owner little.

The measure is that of TopDisc (DISC-NG, ICDCS 2024): go down the address bit by bit; a prefix under which more
addresses stand than an even spread would put there counts one. All prefixes counting is 1, none is 0. Here, "more" is
two more than four times as many: honest addresses are no even spread either, and two of one network are no flood. An
IPv4 address has 32 prefixes. An IPv6 one has 52, from the /13 to the /64: whoever has a /64 has all of it, and a /12 is
what IANA gives to a part of the world at once, so that half of all honest addresses may have theirs in common; each is
measured by itself. Addresses stand in sorted lists rather than in trees: two bisections each, and eight bytes.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from ipaddress import IPv6Address, ip_address
from typing import Final

from haif.base.machine import Address

_BITS: Final = {4: 32, 6: 52}
_CROWDED: Final = 4  # times as many as an even spread would put there
_NO_CROWD: Final = 2  # that many anywhere are none
_Family = tuple[int, int]  # the protocol's version, and of IPv6 the /12


class Crowd:
    """Addresses that hold a place each. An address may hold several."""

    def __init__(self) -> None:
        self._families: dict[_Family, list[int]] = {}

    def add(self, address: Address) -> None:
        """One more place is held from this address."""
        family, number = _number(address)
        insort(self._families.setdefault(family, []), number)

    def remove(self, address: Address) -> None:
        """One place less is; there must have been one."""
        family, number = _number(address)
        held = self._families.get(family, [])
        at = bisect_left(held, number)
        assert held[at : at + 1] == [number], "whoever leaves had entered"
        del held[at]
        if not held:
            del self._families[family]

    def similarity(self, address: Address) -> float:
        """0 for an address from where the fewest are, 1 for one more of the only address there is."""
        family, number = _number(address)
        held, bits = self._families.get(family, []), _BITS[family[0]]
        crowded = 0
        for depth in range(1, bits + 1):
            below = bits - depth
            first = number >> below << below
            count = bisect_left(held, first + (1 << below)) - bisect_left(held, first)
            if not count:
                break
            crowded += (count - _NO_CROWD) << depth > _CROWDED * len(held)
        return crowded / bits

    def __len__(self) -> int:
        return sum(len(held) for held in self._families.values())


def _number(address: Address) -> tuple[_Family, int]:
    """The family of an address and what counts of it. An IPv4 address inside an IPv6 one is an IPv4 address."""
    ip = ip_address(address[0].partition("%")[0])
    if isinstance(ip, IPv6Address):
        ip = ip.ipv4_mapped or ip.sixtofour or ip
    if ip.version == 4:
        return (4, 0), int(ip)
    region, rest = divmod(int(ip) >> 64, 1 << _BITS[6])
    return (6, region), rest
