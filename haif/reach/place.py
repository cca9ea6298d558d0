"""Where we say that we can be reached: what we listen at, what others saw, what a router gave, and our relays."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from itertools import zip_longest

from haif.base import codec, limits
from haif.base.machine import Address
from haif.protocol.reach import Place
from haif.protocol.relay import RelayAt
from haif.reach.classify import Mapping, Verdict


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known. `own` are this machine's addresses; `mapped` what a router says leads to our port.

    We listen at an address, or at one of each family; how peers see us is judged of each.
    """

    listening: tuple[Address, ...]
    own: tuple[str, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    mapped: tuple[Address, ...] = ()
    relays: tuple[RelayAt, ...] = ()

    def place(self) -> Place:
        """What to announce, within `limits.PLACE_BYTES_MAX`: those addresses first that strangers can dial.

        An address outside is announced where peers got through to us there, or where a router gave us a port and peers
        see us at the address the router claims; a router's word alone is not enough.
        """
        port = self.listening[0][1]
        outside = [(verdict.host, port) for verdict in self.verdicts if verdict.mapping is Mapping.OPEN]
        given = [address for address in self.mapped if address[0] in {verdict.host for verdict in self.verdicts}]
        inside = [(host, port) for host in self._hosts()]
        return _fitting(list(dict.fromkeys([*outside, *given, *inside]))[: limits.CANDIDATES_MAX], list(self.relays))

    def _hosts(self) -> list[str]:
        """Those of each family in turn: whoever has one of them only is to have something to dial."""
        hosts = [self._hosts_at(host) for host, _ in self.listening]
        return [host for each in zip_longest(*hosts) for host in each if host is not None]

    def _hosts_at(self, host: str) -> list[str]:
        if not ip_address(host).is_unspecified:
            return [host]
        return [own for own in self.own if (":" in own) == (":" in host)]


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
