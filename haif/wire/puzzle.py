r"""Puzzles: what a dialler works on when a listener is over its budget (Juels and Brainard 1999).

    puzzle   = minted u32 ‖ number u64 ‖ bits u8 ‖ cookie 16                                         (big-endian)
    ticket   = puzzle ‖ solution u64
    solved   = SHA-256("haif puzzle v1\0" ‖ ticket) begins with `bits` zero bits

The cookie is keyed by the listener's secret over the rest and the dialler's address: the listener keeps nothing until
a ticket is redeemed, and a ticket is worth nothing from another address, after `limits.PUZZLE_SECONDS`, or twice.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from typing import Final

from haif.base import limits
from haif.base.errors import Overloaded

_PUZZLE: Final = struct.Struct(">IQB16s")
_SOLUTION: Final = struct.Struct(">Q")
_DOMAIN: Final = b"haif puzzle v1\0"
COOKIE_BYTES: Final = 16
PUZZLE_BYTES: Final = _PUZZLE.size
TICKET_BYTES: Final = PUZZLE_BYTES + _SOLUTION.size


@dataclass(frozen=True, slots=True)
class Puzzle:
    """What the listener asks: `minted` in seconds of its own clock, `number` its own count."""

    minted: int
    number: int
    bits: int
    cookie: bytes

    def pack(self) -> bytes:
        """The 29 bytes that travel."""
        return _PUZZLE.pack(self.minted, self.number, self.bits, self.cookie)

    @classmethod
    def unpack(cls, data: bytes) -> Puzzle:
        """From exactly `PUZZLE_BYTES`."""
        return cls(*_PUZZLE.unpack(data))


def solved(ticket: bytes) -> bool:
    """Whether a ticket of `TICKET_BYTES` solves the puzzle it begins with."""
    bits = Puzzle.unpack(ticket[:PUZZLE_BYTES]).bits
    return int.from_bytes(hashlib.sha256(_DOMAIN + ticket).digest()[:4]) >> (32 - bits) == 0


class Search:
    """The dialler's search for a solution, a slice at a time, so that whoever drives it stays responsive.

    Raises `Overloaded` for more than `limits.PUZZLE_BITS_MAX` bits, before any work.
    """

    def __init__(self, puzzle: Puzzle) -> None:
        if puzzle.bits > limits.PUZZLE_BITS_MAX:
            raise Overloaded(f"the peer asks for {puzzle.bits} bits of work, more than anybody should do")
        self._front = puzzle.pack()
        self._state = hashlib.sha256(_DOMAIN + self._front)
        self._shift = 32 - puzzle.bits
        self._next = 0

    def ticket(self) -> bytes | None:
        """The ticket, or None after `limits.PUZZLE_TRIES_AT_ONCE` tries: ask again.

        Raises `Overloaded` after `limits.PUZZLE_TRIES_MAX` tries altogether.
        """
        if self._next >= limits.PUZZLE_TRIES_MAX:
            raise Overloaded("the peer's puzzle was not solved with a reasonable amount of work")
        state, shift, pack = self._state, self._shift, _SOLUTION.pack
        for number in range(self._next, self._next + limits.PUZZLE_TRIES_AT_ONCE):
            attempt = state.copy()
            attempt.update(pack(number))
            if int.from_bytes(attempt.digest()[:4]) >> shift == 0:
                return self._front + pack(number)
        self._next += limits.PUZZLE_TRIES_AT_ONCE
        return None
