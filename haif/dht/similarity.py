"""How much an address resembles those that are there already: addresses of one network cost their owner little.

The measure is that of TopDisc (DISC-NG, ICDCS 2024): go down the address bit by bit; a prefix under which more
addresses stand than an even spread would put there counts one. All prefixes counting is 1, none is 0. Here, "more" is
two more than four times as many: honest addresses are no even spread either, and two of one network are no flood. An
IPv4 address has 32 prefixes, an IPv6 one 64: whoever has a /64 has all of it. They are counted in a sorted list rather
than in a tree: two bisections each, and eight bytes an address.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from ipaddress import IPv6Address, ip_address
from typing import Final

from haif.base.machine import Address

_BITS: Final = {4: 32, 6: 64}
_CROWDED: Final = 4  # times as many as an even spread would put there
_NO_CROWD: Final = 2  # that many anywhere are none


class Crowd:
    """Addresses that hold a place each. An address may hold several."""

    def __init__(self) -> None:
        self._families: dict[int, list[int]] = {4: [], 6: []}

    def add(self, address: Address) -> None:
        """One more place is held from this address."""
        family, number = _number(address)
        insort(self._families[family], number)

    def remove(self, address: Address) -> None:
        """One place less is; there must have been one."""
        family, number = _number(address)
        held = self._families[family]
        at = bisect_left(held, number)
        assert held[at] == number, "whoever leaves had entered"
        del held[at]

    def similarity(self, address: Address) -> float:
        """0 for an address from where the fewest are, 1 for one more of the only address there is."""
        family, number = _number(address)
        held, bits = self._families[family], _BITS[family]
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


def _number(address: Address) -> tuple[int, int]:
    """The family of an address and what counts of it. An IPv4 address inside an IPv6 one is an IPv4 address."""
    ip = ip_address(address[0].partition("%")[0])
    if isinstance(ip, IPv6Address):
        ip = ip.ipv4_mapped or ip.sixtofour or ip
    return ip.version, int(ip) >> (64 if ip.version == 6 else 0)
