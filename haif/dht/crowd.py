"""Whom to ask in a region that holds far more names than it should: a sample that whoever crowds it cannot foresee.

Asking the closest first is what an attacker who grinds ids counts on, and asking everybody is what it can make dear. So
where there are more than `limits.DHT_CROWD` names, each is asked or not by a hash under a secret of this one lookup:
the share is so large that one of k honest holders is nearly always among the chosen, however many the others are.

Names cost nothing to invent, answers cost an address. So once there is a crowd, nobody inside the region is asked who
else there is: only witnesses outside are believed, each as long as no more of its names were silent than one answer
holds in the sample, beyond those that answered. It may be honest, and silent Sybils among those it knows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil

from haif.base import limits
from haif.base.hashing import digest
from haif.dht.contact import Contact, node_id

SALT_BYTES = 16
_HALF = 64
_MASK = (1 << _HALF) - 1


@dataclass(slots=True, eq=False)
class _Namer:
    is_inside: bool
    answered: int = 0  # of its names
    silent: int = 0


@dataclass(slots=True)
class _Name:
    is_inside: bool
    namers: list[_Namer] = field(default_factory=list)
    is_known: bool = False  # from our own table
    is_vouched: bool = False  # by somebody farther out
    is_asked: bool = False
    is_silent: bool = False


class Crowd:
    """The names that one lookup was given. `everybody`: a write or a join leaves out only what it cannot pay for."""

    def __init__(self, salt: bytes, *, everybody: bool, possible: bool = True) -> None:
        self._salt, self._everybody, self._possible = salt, everybody, possible
        self._factor = int.from_bytes(salt, "big") | 1
        self._names: dict[Contact, _Name] = {}
        self._namers: dict[Contact, _Namer] = {}
        self._inside: list[_Name] = []
        self._points = 0
        self._silent = 0
        self.is_there = False  # once there, it does not go away
        self.share = 1.0
        self._size = 0

    def named(self, contact: Contact, namer: Contact | None, *, inside: bool, by_insider: bool, inwards: bool) -> bool:
        """Somebody inside the region or outside named a contact; without a namer: our own table did.

        `inwards`: the namer stands farther out than the contact. Whether the name may be believed at all.
        """
        if self.is_there and by_insider:
            return False
        name = self._names.get(contact)
        if name is None:
            name = self._names[contact] = _Name(inside)
            if inside:
                self._inside.append(name)
        name.is_vouched = name.is_vouched or inwards
        if namer is None:
            name.is_known = True
        else:
            by = self._namers.get(namer)
            if by is None:
                by = self._namers[namer] = _Namer(by_insider)
            if by not in name.namers:
                name.namers.append(by)
        return True

    def asked(self, contact: Contact) -> None:
        """A contact is being asked."""
        self._names[contact].is_asked = True

    def silent(self, contact: Contact) -> None:
        """An asked contact is past its timeout."""
        name = self._names[contact]
        if not name.is_silent:
            name.is_silent = True
            self._silent += name.is_inside
            for namer in name.namers:
                namer.silent += 1

    def answered(self, contact: Contact) -> None:
        """An asked contact answered, perhaps late."""
        name = self._names[contact]
        self._silent -= name.is_silent and name.is_inside
        for namer in name.namers:
            namer.silent -= name.is_silent
            namer.answered += 1
        name.is_silent = False

    def measure(self) -> None:
        """Count the names inside anew, and from them the share to be asked."""
        self._size = len(self._inside)
        self.is_there = self.is_there or (self._possible and self._size > limits.DHT_CROWD)
        if not self.is_there:
            return
        self._size = sum(map(self._counts, self._inside))
        payable = limits.DHT_CROWD_WRITE_MAX if self._everybody else limits.DHT_CROWD
        least = 0.0 if self._everybody else limits.DHT_CROWD_SHARE
        self.share = min(1.0, max(least, payable / max(self._size, 1)))

    def noticed(self) -> bool:
        """The answers are too dense. Whether that changes anything."""
        if self.is_there or not self._possible:
            return False
        self.is_there = True
        self.measure()
        return True

    @property
    def witnesses(self) -> int:
        """How many to ask at each doubling of the distance outside: together they name nearly everybody inside."""
        if not self.is_there:
            return limits.DHT_SHELL_CONTACTS
        if self._everybody:
            return limits.DHT_WITNESSES_MAX  # what a write leaves out, no reader finds
        return min(
            max(limits.DHT_WITNESSES_MIN, self._size // limits.DHT_CROWD_NAMES_PER_WITNESS), limits.DHT_WITNESSES_MAX
        )

    def wants(self, contact: Contact) -> bool:
        """Whether a contact inside is to be asked: everybody, or who is in the sample and named by a good witness."""
        return not self.is_there or (self.lot(contact) < self.share * _MASK and self._counts(self._names[contact]))

    def lot(self, contact: Contact) -> int:
        """A number that only this lookup can know: who has a low one is chosen first."""
        return (node_id(contact.peer) * self._factor >> _HALF) & _MASK

    def doubt(self, contact: Contact) -> tuple[bool, int]:
        """Whom to believe last: who was only named from no farther out, then who has the less reliable namers."""
        name = self._names[contact]
        if name.is_known:
            return False, 0
        return not name.is_vouched, max(0, min(namer.silent - namer.answered for namer in name.namers))

    def point(self, region: int) -> int:
        """A distance inside the region, another each time: around it those who are asked shall name contacts."""
        self._points += 1
        drawn = digest("haif v1 dht point", self._salt, self._points.to_bytes(4, "big"))
        return int.from_bytes(drawn, "big") % max(region, 1)

    def _counts(self, name: _Name) -> bool:
        if name.is_asked or name.is_known:
            return True
        allowed = ceil(limits.DHT_K * self.share) if self._silent < limits.DHT_NAMES_SILENT_MAX else 0
        return any(not namer.is_inside and namer.silent <= namer.answered + allowed for namer in name.namers)
