"""Our own tickets: where a record of ours waits for a place, and when to come back for it.

Only the newest record of an owner at a topic waits: it takes the place that an older one waited for.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from haif.base import limits
from haif.base.clock import Instant
from haif.base.ids import Digest, PeerId
from haif.dht.contact import Contact

_NEVER: Final = Instant(float("inf"))


Place = tuple[Digest, PeerId]
"""What is waited for: a topic, and the owner whose record is to be there."""


@dataclass(frozen=True, slots=True)
class Told:
    """A node told us to come back with this ticket."""

    contact: Contact
    ticket: bytes
    due: Instant


class WaitingRoom:
    """At most `limits.TICKETS_HELD_MAX` tickets; the one told longest ago is forgotten first."""

    def __init__(self) -> None:
        self._told: OrderedDict[tuple[Place, PeerId], Told] = OrderedDict()
        self._records: dict[Place, bytes] = {}

    def wait(self, place: Place, record: bytes, told: Iterable[Told]) -> None:
        """A record waits where we were told."""
        for one in told:
            self._told.pop((place, one.contact.peer), None)
            self._told[place, one.contact.peer] = one
            self._records[place] = record
        while len(self._told) > limits.TICKETS_HELD_MAX:
            (forgotten, _), _ = self._told.popitem(last=False)
            self._tidy(forgotten)

    def replace(self, place: Place, record: bytes) -> None:
        """A newer record is published: it waits instead, with the same tickets."""
        if place in self._records:
            self._records[place] = record

    def ticket(self, place: Place, peer: PeerId) -> bytes:
        """What to show to this node now; empty if it gave us none."""
        told = self._told.get((place, peer))
        return told.ticket if told else b""

    def forget(self, place: Place) -> None:
        """Wait for this place no more."""
        for key in [key for key in self._told if key[0] == place]:
            del self._told[key]
        self._records.pop(place, None)

    def take(self, place: Place, peer: PeerId) -> None:
        """The wait at one node is over, in one way or the other."""
        if self._told.pop((place, peer), None) is not None:
            self._tidy(place)

    def due(self, now: Instant) -> tuple[Place, bytes, tuple[Told, ...]] | None:
        """A place, its record, and where it is time to come back with it; these are then on their way."""
        late = [(place, told) for (place, _), told in self._told.items() if told.due <= now]
        if not late:
            return None
        place = late[0][0]
        leaving = tuple(told for at, told in late if at == place)
        for told in leaving:
            self._told[place, told.contact.peer] = replace(told, due=_NEVER)
        return place, self._records[place], leaving

    def came_back(self, place: Place, peer: PeerId, told: Told | None) -> None:
        """What came of it: told to wait again, or not. Whatever was withdrawn meanwhile waits no more."""
        if (place, peer) in self._told:
            if told is None:
                self.take(place, peer)
            else:
                self._told[place, peer] = told

    def wake_at(self) -> Instant | None:
        """When it is next time to come back somewhere."""
        if not self._told:
            return None
        return min((told.due for told in self._told.values() if told.due != _NEVER), default=None)

    def __len__(self) -> int:
        return len(self._told)

    def _tidy(self, place: Place) -> None:
        if all(at != place for at, _ in self._told):
            self._records.pop(place, None)
