"""Where we say that we can be reached: what we listen at, what others saw, what a router gave, and our relays."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from itertools import zip_longest

from haif.base import codec, limits
from haif.base.machine import Address
from haif.protocol.reach import Place
from haif.protocol.relay import RelayAt
from haif.reach.classify import UNKNOWN, Mapping, Verdict


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known. `own` are this machine's addresses; `mapped` what a router says leads to our port."""

    listening: Address
    own: tuple[str, ...] = ()
    verdict: Verdict = UNKNOWN
    mapped: tuple[Address, ...] = ()
    relays: tuple[RelayAt, ...] = ()

    def place(self) -> Place:
        """What to announce, within `limits.PLACE_BYTES_MAX`: those addresses first that strangers can dial.

        An address outside is announced where peers got through to us there, or where a router gave us a port and peers
        see us at the address the router claims; a router's word alone is not enough.
        """
        port = self.listening[1]
        outside = [(self.verdict.host, port)] if self.verdict.mapping is Mapping.OPEN else []
        given = [address for address in self.mapped if address[0] == self.verdict.host]
        inside = [(host, port) for host in self._hosts()]
        return _fitting(list(dict.fromkeys([*outside, *given, *inside]))[: limits.CANDIDATES_MAX], list(self.relays))

    def _hosts(self) -> tuple[str, ...]:
        host = self.listening[0]
        return self.own if ip_address(host).is_unspecified else (host,)


def _fitting(addresses: list[Address], relays: list[RelayAt]) -> Place:
    """As many of both as a record has room for, in turn, beginning with an address."""
    place = Place(())
    for address, relay in zip_longest(addresses, relays):
        if address is not None:
            place = _if_small(Place((*place.addresses, address), place.relays), place)
        if relay is not None:
            place = _if_small(Place(place.addresses, (*place.relays, relay)), place)
    return place


def _if_small(fuller: Place, place: Place) -> Place:
    return fuller if len(codec.encode(fuller)) <= limits.PLACE_BYTES_MAX else place
