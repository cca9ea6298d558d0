"""Our own tickets: where a record of ours waits for a place, and when to come back for it.

Only the newest record of a topic waits: it takes the place that an older one waited for.
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


@dataclass(frozen=True, slots=True)
class Told:
    """A node told us to come back with this ticket."""

    contact: Contact
    ticket: bytes
    due: Instant


class WaitingRoom:
    """At most `limits.TICKETS_HELD_MAX` tickets; the one told longest ago is forgotten first."""

    def __init__(self) -> None:
        self._told: OrderedDict[tuple[Digest, PeerId], Told] = OrderedDict()
        self._records: dict[Digest, bytes] = {}

    def wait(self, topic: Digest, record: bytes, told: Iterable[Told]) -> None:
        """A record waits where we were told."""
        for one in told:
            self._told.pop((topic, one.contact.peer), None)
            self._told[topic, one.contact.peer] = one
            self._records[topic] = record
        while len(self._told) > limits.TICKETS_HELD_MAX:
            (forgotten, _), _ = self._told.popitem(last=False)
            self._tidy(forgotten)

    def replace(self, topic: Digest, record: bytes) -> None:
        """A newer record is published: it waits instead, with the same tickets."""
        if topic in self._records:
            self._records[topic] = record

    def ticket(self, topic: Digest, peer: PeerId) -> bytes:
        """What to show to this node now; empty if it gave us none."""
        told = self._told.get((topic, peer))
        return told.ticket if told else b""

    def forget(self, topic: Digest) -> None:
        """Nothing waits at this topic any more."""
        for key in [key for key in self._told if key[0] == topic]:
            del self._told[key]
        self._records.pop(topic, None)

    def take(self, topic: Digest, peer: PeerId) -> None:
        """The wait at one node is over, in one way or the other."""
        if self._told.pop((topic, peer), None) is not None:
            self._tidy(topic)

    def due(self, now: Instant) -> tuple[Digest, bytes, tuple[Told, ...]] | None:
        """A topic, its record, and where it is time to come back with it; these are then on their way."""
        late = [(topic, told) for (topic, _), told in self._told.items() if told.due <= now]
        if not late:
            return None
        topic = late[0][0]
        leaving = tuple(told for at, told in late if at == topic)
        for told in leaving:
            self._told[topic, told.contact.peer] = replace(told, due=_NEVER)
        return topic, self._records[topic], leaving

    def came_back(self, topic: Digest, peer: PeerId, told: Told | None) -> None:
        """What came of it: told to wait again, or not. Whatever was withdrawn meanwhile waits no more."""
        if (topic, peer) in self._told:
            if told is None:
                self.take(topic, peer)
            else:
                self._told[topic, peer] = told

    def wake_at(self) -> Instant | None:
        """When it is next time to come back somewhere."""
        return min((told.due for told in self._told.values() if told.due != _NEVER), default=None)

    def __len__(self) -> int:
        return len(self._told)

    def _tidy(self, topic: Digest) -> None:
        if all(at != topic for at, _ in self._told):
            self._records.pop(topic, None)
