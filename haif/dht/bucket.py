"""One k-bucket: who is in it, who waits for a place, and whose place a newcomer takes once it is full.

Half of a bucket belongs to whoever came first; the other half is drawn by lot among the networks of everybody who ever
answered (min-wise sampling, as in Brahms, Bortnikov et al. 2009). So whoever is older than all others gets no more of
it than its share of the networks, and whoever comes again and again gets no more either.

What is asked for with every datagram (who is closest, who would be displaced) is kept in order until the bucket
changes, which it does far more rarely.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from math import inf
from typing import Final

from haif.base import limits
from haif.base.clock import Instant
from haif.base.ids import PeerId
from haif.dht.contact import Contact

BRANCH_BITS: Final = 3


@dataclass(slots=True)
class Entry:
    """A verified contact. `whose` is the network it counts for, or itself; `branch` the next three bits of its id."""

    contact: Contact
    seen: Instant
    id: int
    branch: int
    whose: bytes
    lot: int  # the same for all of a network, and nobody's but ours to know
    entered: int = 0  # when, counted in entries
    failures: int = 0


class View:
    """Contacts of a bucket to choose the closest from: everybody, or those heard since `since` that are not failing."""

    __slots__ = ("_ids", "contacts", "oldest", "since")

    def __init__(self, entries: list[Entry], since: float = -inf) -> None:
        self.contacts = {entry.id: entry.contact for entry in entries}
        self._ids = list(self.contacts)
        self.since = since
        self.oldest = min([entry.seen for entry in entries], default=inf)

    def nearest(self, target: int) -> list[Contact]:
        """All of them, the closest to the target first."""
        contacts = self.contacts
        return [contacts[id_] for id_ in sorted(self._ids, key=target.__xor__)]


class Bucket:
    """At most as many entries as its table lets in, and `limits.DHT_REPLACEMENTS_MAX` waiting."""

    __slots__ = (
        "_drawn",
        "_elders",
        "_everybody",
        "_passing",
        "_waiting",
        "branches",
        "entries",
        "passed_over",
        "refreshed",
    )

    def __init__(self, now: Instant) -> None:
        self.refreshed = now
        self.entries: OrderedDict[PeerId, Entry] = OrderedDict()  # the longest silent first
        self.branches = [0] * (1 << BRANCH_BITS)  # entries in each
        self.passed_over = 0  # strangers who would only take another's place, since one of them was pinged
        self._waiting: OrderedDict[bytes, Entry] = OrderedDict()  # one of each network: nobody crowds out the others
        self._elders: list[Entry] | None = None  # what follows from the entries, until they change
        self._drawn: list[Entry] | None = None
        self._everybody: View | None = None
        self._passing: View | None = None

    # --- who is in it -------------------------------------------------------------------------------------------------

    def enter(self, entry: Entry, number: int) -> None:
        """A contact takes a place."""
        entry.entered = number
        self.entries[entry.contact.peer] = entry
        self.branches[entry.branch] += 1
        self._changed()

    def leave(self, peer: PeerId) -> Entry:
        """A contact gives up its place."""
        entry = self.entries.pop(peer)
        self.branches[entry.branch] -= 1
        self._changed()
        return entry

    def heard(self, entry: Entry, now: Instant) -> None:
        """A contact has answered."""
        entry.seen, entry.failures = now, 0
        self.entries.move_to_end(entry.contact.peer)
        if self._passing is not None and entry.id not in self._passing.contacts:
            self._passing = None

    def failed(self, entry: Entry) -> int:
        """A contact has not; how often in a row now."""
        entry.failures += 1
        self._passing = None
        return entry.failures

    def move(self, entry: Entry, contact: Contact, whose: bytes) -> None:
        """A contact has another address."""
        entry.contact, entry.whose = contact, whose
        self._everybody = self._passing = None

    def silent(self, now: Instant) -> Contact | None:
        """The longest silent contact, if it has been so for a while."""
        oldest = next(iter(self.entries.values()))
        return oldest.contact if now - oldest.seen > limits.DHT_SELF_LOOKUP_SECONDS else None

    def elders(self) -> list[Entry]:
        """The entries in the order in which they came."""
        if self._elders is None:
            self._elders = sorted(self.entries.values(), key=lambda entry: entry.entered)
        return self._elders

    def everybody(self) -> View:
        """All contacts."""
        if self._everybody is None:
            self._everybody = View(list(self.entries.values()))
        return self._everybody

    def passing(self, since: Instant) -> View:
        """The contacts that may be passed on: heard at that time or later, and no query unanswered since."""
        view = self._passing
        if view is None or not view.since <= since <= view.oldest:
            fresh = [entry for entry in self.entries.values() if entry.seen >= since and not entry.failures]
            view = self._passing = View(fresh, since)
        return view

    # --- whose place a newcomer takes ---------------------------------------------------------------------------------

    def displaced(self, newcomer: Entry) -> Entry | None:
        """Whose place a newcomer to a full bucket takes."""
        return self._surplus(newcomer.branch) or self.outdrawn(newcomer.branch, newcomer.lot)

    def outdrawn(self, branch: int, lot: int) -> Entry | None:
        """The last of the drawn half whose branch is at least as full, if the newcomer's lot is lower than its."""
        if self._drawn is None:
            self._drawn = sorted(self.elders()[limits.DHT_K // 2 :], key=lambda entry: -entry.lot)
        least = self.branches[branch]
        for entry in self._drawn:
            if entry.lot <= lot:
                return None
            if self.branches[entry.branch] >= least:
                return entry
        return None

    def _surplus(self, branch: int) -> Entry | None:
        """The last to enter the fullest branch, if that is fuller by two than the newcomer's.

        Ids ground against one key are all in one branch, so however early they came and however long they live, they
        do not get more of a bucket than the others leave them.
        """
        count = max(self.branches)
        if count < self.branches[branch] + 2:
            return None
        fullest = self.branches.index(count)
        return next(entry for entry in reversed(self.elders()) if entry.branch == fullest)

    # --- who waits for a place ----------------------------------------------------------------------------------------

    def wait(self, entry: Entry) -> None:
        """A verified contact waits for a place, instead of whoever of its network did."""
        self._waiting[entry.whose] = entry
        self._waiting.move_to_end(entry.whose)
        if len(self._waiting) > limits.DHT_REPLACEMENTS_MAX:
            self._waiting.popitem(last=False)

    def next_waiting(self) -> Entry | None:
        """The latest that waits and is not here yet; it waits no more."""
        while self._waiting:
            _, entry = self._waiting.popitem()
            if entry.contact.peer not in self.entries:
                return entry
        return None

    def forget_waiting(self, culprit: PeerId | Contact) -> None:
        """A peer, or a peer at one address, waits no more."""
        for whose, entry in list(self._waiting.items()):
            if culprit in {entry.contact.peer, entry.contact}:
                del self._waiting[whose]

    def _changed(self) -> None:
        self._elders = self._drawn = self._everybody = self._passing = None
