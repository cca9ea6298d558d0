"""Who is silent: for the moment (`Silence`), or for so long that it left the table (`Lost`).

Of those that we knew and lost, a few are asked again from time to time, for perhaps it was the network that failed.
When a network has been cut in two for longer than contacts are kept, nobody on one side knows anybody on the other, and
only a bootstrap address, if that is reachable again, would bring them together. One answer from a peer that was lost is
enough: it names the peers on its side that are closest to us.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable

from haif.base import limits
from haif.base.clock import Instant
from haif.base.ids import PeerId
from haif.dht.contact import Contact

_LOT_BYTES = 8


class Lost:
    """At most `limits.DHT_LOST_MAX` contacts, each for at most `limits.DHT_LOST_SECONDS`; the latest stay."""

    def __init__(self) -> None:
        self._contacts: OrderedDict[PeerId, tuple[Contact, Instant]] = OrderedDict()

    def add(self, contacts: Iterable[Contact], now: Instant) -> None:
        """These fell silent, or were known in a former life."""
        for contact in contacts:
            self._contacts[contact.peer] = contact, now
            self._contacts.move_to_end(contact.peer)
            if len(self._contacts) > limits.DHT_LOST_MAX:
                self._contacts.popitem(last=False)

    def found(self, peer: PeerId) -> bool:
        """A peer has answered; whether it was lost."""
        return self._contacts.pop(peer, None) is not None

    def everybody(self, now: Instant) -> list[Contact]:
        """All that are not forgotten, the latest first."""
        while self._contacts and now - next(iter(self._contacts.values()))[1] >= limits.DHT_LOST_SECONDS:
            self._contacts.popitem(last=False)
        return [contact for contact, _ in reversed(self._contacts.values())]

    def some(self, now: Instant, entropy: Callable[[int], bytes]) -> list[Contact]:
        """`limits.DHT_LOST_ASKED` of them, drawn by lot."""
        lots = sorted((entropy(_LOT_BYTES), contact) for contact in self.everybody(now))
        return [contact for _, contact in lots[: limits.DHT_LOST_ASKED]]

    def __contains__(self, contact: Contact) -> bool:
        known = self._contacts.get(contact.peer)
        return known is not None and known[0] == contact

    def __len__(self) -> int:
        return len(self._contacts)


class Silence:
    """Who has not answered while others did: not asked again for `limits.DHT_SILENT_SECONDS` where nobody waits for it.

    At most `limits.DHT_SILENT_MAX` contacts; the latest stay.
    """

    def __init__(self) -> None:
        self._since: OrderedDict[Contact, Instant] = OrderedDict()

    def add(self, contact: Contact, now: Instant) -> None:
        """A contact has not answered."""
        self._since.pop(contact, None)
        self._since[contact] = now
        if len(self._since) > limits.DHT_SILENT_MAX:
            self._since.popitem(last=False)

    def forget(self, contact: Contact) -> None:
        """A contact has answered after all."""
        self._since.pop(contact, None)

    def holds(self, contact: Contact, now: Instant) -> bool:
        """Whether a contact is to be left alone."""
        since = self._since.get(contact)
        return since is not None and now - since < limits.DHT_SILENT_SECONDS
