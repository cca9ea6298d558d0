"""Who is asked outside a region about those inside: some at each doubling of the distance, drawn by lot.

Whoever stands just outside a region knows everybody in it (`table`), and whoever fills the region does not therefore
fill its surroundings. Those that a lookup meets on its way do not count: an attacker can see to it that they are its
own, by standing a little closer than the others.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from haif.base import limits
from haif.dht.contact import Contact


@dataclass(slots=True)
class _Shell:
    known: list[tuple[int, Contact]] = field(default_factory=list)  # not asked yet, the lowest lot first
    pending: dict[Contact, None] = field(default_factory=dict)
    late: set[Contact] = field(default_factory=set)  # of these; another is drawn in its stead
    answered: int = 0
    failed: int = 0


class Witnesses:
    """The contacts of one lookup outside its region, in shells of equal `int.bit_length` of the distance."""

    def __init__(self) -> None:
        self._shells: dict[int, _Shell] = {}
        self._of: dict[Contact, _Shell] = {}

    def add(self, distance: int, contact: Contact, lot: int) -> None:
        """A contact outside the region became known."""
        shell = self._of[contact] = self._shells.setdefault(distance.bit_length(), _Shell())
        insort(shell.known, (lot, contact))

    def drawn(self, wanted: Callable[[int], int], doubt: Callable[[Contact], tuple[bool, int]]) -> Iterator[Contact]:
        """Who is still to answer, so that as many of each shell have as are `wanted` at its inner edge.

        Those whom nobody reliable named come last, and after `limits.DHT_WITNESSES_MAX` that did not answer, none.
        """
        for number, shell in self._shells.items():
            missing = wanted(1 << (number - 1)) - shell.answered - len(shell.pending) + len(shell.late)
            if missing > 0 and shell.known and shell.failed < limits.DHT_WITNESSES_MAX:
                for lot, contact in sorted(shell.known, key=lambda each: doubt(each[1]))[:missing]:
                    shell.known.remove((lot, contact))
                    shell.pending[contact] = None
            yield from shell.pending

    def slow(self, contact: Contact) -> None:
        """A contact is past its timeout."""
        shell = self._of.get(contact)
        if shell is not None and contact in shell.pending:
            shell.late.add(contact)

    def answered(self, contact: Contact) -> None:
        """A contact answered, drawn or not."""
        if (shell := self._settled(contact)) is not None:
            shell.answered += 1

    def failed(self, contact: Contact) -> None:
        """A contact did not answer."""
        if (shell := self._settled(contact)) is not None:
            shell.failed += 1

    def met(self, contact: Contact, lot: int) -> None:
        """A contact is being asked; if it was not drawn, it will not be."""
        shell = self._of.get(contact)
        if shell is not None and (lot, contact) in shell.known:
            shell.known.remove((lot, contact))

    def _settled(self, contact: Contact) -> _Shell | None:
        shell = self._of.get(contact)
        if shell is None or contact not in shell.pending:
            return None
        del shell.pending[contact]
        shell.late.discard(contact)
        return shell
