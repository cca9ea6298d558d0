r"""A session moves to another byte stream while calls go on: make before break, decided here, carried by the session.

    mover → other     new path   preamble ‖ name 16 ‖ counter u32 ‖ proof 16
    mover ← other     new path   answer 16
    mover → other     old path   a Noise message with the frame PATH counter: the mover's last there
    mover → other     new path   Noise messages go on: same keys, next nonce
    mover ← other     old path   a Noise message with PATH counter: the last there, after the first one came on the new
    mover ← other     new path   Noise messages go on

    key     = BLAKE2s(key = responder's first key, "haifpath", initiator's first key ‖ handshake hash)
    name    = BLAKE2s-128(key, "pathname")                 which session it is
    proof   = BLAKE2s-128(key, "path ask", preamble ‖ mover is the initiator u8 ‖ counter)
    answer  = BLAKE2s-128(key, "path yes", the same)       (the quoted words are BLAKE2s' personalisation)

The preamble is that of `wire.opening`, with the pattern `FURTHER_PATH`. The handshake hash alone would not do: whoever
carried the handshake, a relay above all, can compute it. Nothing is sent again, so nothing may be lost: each side reads
the new path only from where the other left the old one, which the nonces prove, and what comes early waits, bounded. A
side that has not yet left the old path can let the new one go and nothing happened. A counter is accepted once and only
ever rises; a fresh one takes the place of a path nobody has moved to, so whoever copies a preamble gains nothing. The
proof says only who asks: bytes of the session itself, opened in order, are what the other side follows.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from dataclasses import dataclass
from typing import Final

from haif.base import limits
from haif.base.clock import Instant
from haif.base.errors import BadSignature, ConnectionLost, Overloaded, Oversize, Replayed, Timeout, WrongState
from haif.policy.bucket import Bucket
from haif.wire.noise import Split

ARRIVAL: Final = struct.Struct(">16sI16s")
ANSWER_BYTES: Final = 16
_ABOUT: Final = struct.Struct(">BI")
_COUNTER_MAX: Final = 2**32 - 1


@dataclass(frozen=True, slots=True)
class Arrival:
    """What a further path of some session begins with."""

    preamble: bytes
    name: bytes
    counter: int
    proof: bytes

    @classmethod
    def read(cls, preamble: bytes, data: bytes, offset: int) -> Arrival:
        """From what follows the preamble."""
        return cls(preamble, *ARRIVAL.unpack_from(data, offset))


class Candidate:
    """The path a session is about to move to."""

    __slots__ = ("counter", "expected", "held", "number", "ours", "ready", "until")

    def __init__(self, number: int, counter: int, expected: bytes, until: Instant) -> None:
        self.number = number
        self.counter = counter
        self.ours = bool(expected)  # whether we are the mover
        self.expected = expected  # the answer that must come, if we are
        self.held = bytearray()  # what came on it too early to be read
        self.ready = False  # the other side is there: what we say may go this way
        self.until = until


class Paths:
    """Which path a session reads and which it writes, numbered in the order in which this side came to know them."""

    def __init__(self, split: Split, *, initiator: bool, now: Instant) -> None:
        first, second = (split.sending, split.receiving) if initiator else (split.receiving, split.sending)
        self._key = hashlib.blake2s(first + split.hash, key=second, person=b"haifpath").digest()
        self.name = _digest(self._key, b"pathname", b"")
        self.reading = self.writing = 0
        self._initiator = initiator
        self.new: Candidate | None = None  # where a move under way leads
        self._numbers = self._asked = self._taken = self._followed = 0
        self._budget = Bucket.full(capacity=limits.PATHS_PER_MINUTE_MAX, rate=limits.PATHS_PER_MINUTE_MAX / 60, now=now)

    # --- beginning ----------------------------------------------------------------------------------------------------

    def ask(self, preamble: bytes, now: Instant) -> tuple[int, bytes]:
        """Begin a move: the new path's number, and the first bytes to send on it. Raises `Overloaded`."""
        if self.new is not None:
            raise Overloaded("this session is moving already; wait until that is over", retry_after=limits.PATH_SECONDS)
        if self._asked == _COUNTER_MAX:
            raise Overloaded("this session has moved too often; connect again")
        self._asked += 1
        about = preamble + _ABOUT.pack(self._initiator, self._asked)
        answer = _digest(self._key, b"path yes", about)
        number = self._begin(self._asked, answer, Instant(now + limits.PATH_SECONDS))
        return number, preamble + ARRIVAL.pack(self.name, self._asked, _digest(self._key, b"path ask", about))

    def take(self, arrival: Arrival, now: Instant) -> tuple[int, bytes, int | None]:
        """The other side asks: the new path's number, our answer, and the number of a path this one replaces.

        Raises `BadSignature`, `Replayed`, `WrongState` (we are moving ourselves) or `Overloaded`.
        """
        about = arrival.preamble + _ABOUT.pack(not self._initiator, arrival.counter)
        if not hmac.compare_digest(_digest(self._key, b"path ask", about), arrival.proof):
            raise BadSignature("a further path that does not prove which session it belongs to")
        if arrival.counter <= self._taken:
            raise Replayed("a further path was asked for with a counter that was used before")
        self._budget, answer = self._budget.take(1, now)
        if not answer.allowed:
            raise Overloaded("the session moves too often", retry_after=answer.retry_after)
        replaced = self._give_way()
        self._taken = arrival.counter
        number = self._begin(arrival.counter, b"", Instant(now + limits.PATH_FINISH_SECONDS))
        return number, _digest(self._key, b"path yes", about), replaced

    def _give_way(self) -> int | None:
        """Let go of a path nobody has moved to. Where both sides ask at once, the session's initiator goes first."""
        new = self.new
        if new is None:
            return None
        if self._committed(new) or (new.ours and self._initiator):
            raise WrongState("this session is moving already")
        self.new = None
        return new.number

    def _begin(self, counter: int, expected: bytes, until: Instant) -> int:
        self._numbers += 1
        self.new = Candidate(self._numbers, counter, expected, until)
        return self._numbers

    # --- what comes ---------------------------------------------------------------------------------------------------

    def early(self, number: int, data: bytes, now: Instant) -> None:
        """Bytes came on a path we do not read. Raises `BadSignature`, `Oversize` or `WrongState`."""
        new = self.new
        if new is None or number != new.number:
            if number < self.reading:
                raise WrongState("bytes came on a path that the peer had left")
            return  # a path that was given up
        new.held += data
        if len(new.held) > limits.PATH_HELD_BYTES_MAX:
            raise Oversize("too much came on a new path before the old one was left")
        if new.ours and not new.ready and len(new.held) >= ANSWER_BYTES:
            if not hmac.compare_digest(new.expected, bytes(new.held[:ANSWER_BYTES])):
                raise BadSignature("whoever answered on the new path does not know the session")
            del new.held[:ANSWER_BYTES]
            new.ready = True
            new.until = Instant(now + limits.PATH_FINISH_SECONDS)

    def left(self, payload: bytes) -> bytes:
        """The other side has left the old path: what came on the new one until now.

        Raises `WrongState`, or `ConnectionLost` where the new path broke at our end meanwhile.
        """
        new = self.new
        if new is None and self._followed < self._taken and payload == _COUNTER.pack(self._taken):
            raise ConnectionLost("the new path broke while the peer moved to it")
        if new is None or payload != _COUNTER.pack(new.counter) or self.reading == new.number:
            raise WrongState("the peer moves to a path that is not there")
        if new.ours and self.writing != new.number:
            raise WrongState("the peer moved before we did")
        if not new.ours:
            self._followed = new.counter
        self.reading = new.number
        held, new.held = bytes(new.held), bytearray()
        return held

    def opened(self) -> None:
        """A message of the session was opened on the path we read."""
        new = self.new
        if new is not None and not new.ours and self.reading == new.number:
            new.ready = True

    # --- what leaves --------------------------------------------------------------------------------------------------

    @property
    def due(self) -> bool:
        """Whether the next Noise message is to be our last on the old path."""
        new = self.new
        return new is not None and new.ready and self.writing != new.number

    def leave(self) -> bytes:
        """We leave the old path: the payload of the PATH frame that says so."""
        new = self.new
        assert new is not None
        self.writing = new.number
        return _COUNTER.pack(new.counter)

    def settled(self) -> int | None:
        """The path both directions have moved to, told once."""
        new = self.new
        if new is None or not self.reading == self.writing == new.number:
            return None
        self.new = None
        return new.number

    # --- what goes wrong ----------------------------------------------------------------------------------------------

    def spared(self, number: int) -> bool:
        """Let go of a path that turned out bad, if nobody has moved to it yet; whether that was so."""
        new = self.new
        if new is None or number != new.number or self._committed(new):
            return False
        self.new = None
        return True

    def expired(self, now: Instant) -> int | None:
        """The number of a path that is given up. Raises `Timeout` if one side has moved and the other did not."""
        new = self.new
        if new is None or now < new.until:
            return None
        if self._committed(new):
            raise Timeout(f"a move to another path was not finished within {limits.PATH_FINISH_SECONDS:g} s")
        self.new = None
        return new.number

    def _committed(self, new: Candidate) -> bool:
        """Whether one direction has moved, so that there is no way back."""
        return new.number in (self.reading, self.writing)


_COUNTER: Final = struct.Struct("<I")


def _digest(key: bytes, purpose: bytes, about: bytes) -> bytes:
    return hashlib.blake2s(about, key=key, person=purpose, digest_size=16).digest()
