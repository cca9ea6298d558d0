"""What others see of us: every signed reply says which address our query came from.

Kept is the newest word of each network (/16, /32), so that whoever owns many addresses of one has one voice.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from haif.base import limits
from haif.base.clock import Instant
from haif.base.errors import Malformed
from haif.base.ids import PeerId
from haif.base.machine import Address
from haif.dht.contact import unpack_address
from haif.dht.diversity import networks


class Sighting(NamedTuple):
    """An observer's word, under its signature or over its session, for where we are. `network`: where it stands."""

    observer: PeerId
    network: bytes
    seen: Address


class Sightings:
    """The newest sighting of each network; `limits.SIGHTINGS_MAX` of them, for `limits.SIGHTING_SECONDS`."""

    def __init__(self) -> None:
        self._newest: OrderedDict[bytes, tuple[PeerId, bytes, Instant]] = OrderedDict()

    def note(self, observer: PeerId, where: Address, observed: bytes, now: Instant) -> None:
        """A reply came from `where`. The address in it is read when somebody wants it."""
        network = networks(where).wide
        self._newest[network] = observer, observed, now
        self._newest.move_to_end(network)
        if len(self._newest) > limits.SIGHTINGS_MAX:
            self._newest.popitem(last=False)

    def recent(self, now: Instant) -> tuple[Sighting, ...]:
        """Those that still count. What is no address of anybody is nobody's word."""
        found: list[Sighting] = []
        for network, (observer, observed, at) in self._newest.items():
            if now - at <= limits.SIGHTING_SECONDS:
                try:
                    found.append(Sighting(observer, network, unpack_address(observed)))
                except Malformed:
                    continue
        return tuple(found)

    def forget(self) -> None:
        """Our own address changed: nothing that was seen before counts."""
        self._newest.clear()
