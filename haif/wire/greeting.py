"""What a connection says before it has keys: preamble and first message, a puzzle or a refusal, the handshake.

It may also turn out to be no session at all, but a further path of one or an end of a circuit; events say so.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from haif.base.clock import Instant
from haif.base.errors import HaifError, Overloaded, WrongState
from haif.wire.events import Arrived, Event, Knocked
from haif.wire.frames import Kind, failure, frame
from haif.wire.handshake import Handshake
from haif.wire.noise import Sealer
from haif.wire.opening import (
    CIRCUIT,
    FURTHER_PATH,
    LENGTH,
    PREAMBLE,
    TOKEN_BYTES,
    control_begins,
    for_strangers,
    message_length,
    read_control,
    read_first,
    rejection,
    retry,
)  # fmt: skip
from haif.wire.path import ARRIVAL, Arrival
from haif.wire.puzzle import Puzzle


class Greeting:
    """Feed it with `take` until its handshake is over. What the peer does wrong is raised, and final."""

    def __init__(self, handshake: Handshake, events: deque[Event], now: Instant) -> None:
        self.puzzle: Puzzle | None = None  # what the listener we dialled asks to be solved first
        self._handshake = handshake
        self._events = events
        self._since = now
        self._bytes = handshake.begin() if handshake.initiator else b""
        self._preamble = b""
        self._retry = b""
        self._phase: Callable[[Greeting, bytes, int, Instant], int]  # not bound, so that nothing keeps itself alive
        self._phase = Greeting._handshake_phase if handshake.initiator else Greeting._preamble_phase

    def take(self, data: bytes, offset: int, now: Instant) -> int:
        """Take from `data[offset:]` what can be taken; how much that was."""
        return self._phase(self, data, offset, now)

    @property
    def let_in(self) -> bool:
        """Whether the gate has let the dialler in: it knows whom it dialled, and is within its budget or has paid."""
        return self._phase == Greeting._handshake_phase

    def outgoing(self) -> bytes:
        """Bytes that may leave now."""
        data, self._bytes = self._bytes, b""
        return data

    def last_word(self, error: HaifError) -> bytes:
        """What a dialler hears instead of a session: in the clear before our answer, sealed once there are keys.

        A further path and an end of a circuit hear nothing: neither what there is nor how far a forger came.
        """
        if self._handshake.initiator or self._phase in (Greeting._path_phase, Greeting._circuit_phase):
            return b""
        if self._phase != Greeting._handshake_phase:
            return self._retry or rejection(error)
        channel, reason = self._handshake.channel, for_strangers(error)
        if channel is None or reason is None:
            return b""
        sealed = Sealer(channel.sending, self._since).seal(frame(Kind.REJECT, 0, failure(reason)))
        return LENGTH.pack(len(sealed)) + sealed

    # --- phases: each takes from data[offset:] what it can and says how much that was ---------------------------------

    def _preamble_phase(self, data: bytes, offset: int, now: Instant) -> int:  # noqa: ARG002  # all phases look alike
        if len(data) - offset < PREAMBLE.size:
            return 0
        self._preamble = data[offset : offset + PREAMBLE.size]
        self._handshake.preamble(self._preamble)
        other = {FURTHER_PATH: Greeting._path_phase, CIRCUIT: Greeting._circuit_phase}
        self._phase = other.get(self._preamble[6], Greeting._first_phase)
        return PREAMBLE.size

    def _path_phase(self, data: bytes, offset: int, now: Instant) -> int:  # noqa: ARG002
        """No session of its own, but a path of another; nothing may follow before that one has answered."""
        if len(data) - offset < ARRIVAL.size:
            return 0
        if len(data) - offset > ARRIVAL.size:
            raise WrongState("a further path goes on before it was answered")
        self._events.append(Arrived(Arrival.read(self._preamble, data, offset)))
        return ARRIVAL.size

    def _circuit_phase(self, data: bytes, offset: int, now: Instant) -> int:  # noqa: ARG002
        """No session either, but an end of a circuit: from here on it is a relay's."""
        start = offset + TOKEN_BYTES
        if len(data) < start:
            return 0
        self._events.append(Knocked(data[offset:start], data[start:]))
        return len(data) - offset

    def _first_phase(self, data: bytes, offset: int, now: Instant) -> int:
        whole = read_first(self._preamble, data, offset)
        if whole is None:
            return 0
        first, taken = whole
        answer = self._handshake.first(first, now)
        if isinstance(answer, Puzzle):
            self._retry = retry(answer)
            raise Overloaded(f"over its budget of handshakes; asked for {answer.bits} bits of work")
        self._bytes += answer
        self._phase = Greeting._handshake_phase
        return taken

    def _handshake_phase(self, data: bytes, offset: int, now: Instant) -> int:  # noqa: ARG002
        if self._handshake.initiator:
            said = read_control(data, offset)
            if isinstance(said, Puzzle):
                self.puzzle = said
                raise Overloaded(f"the peer has no room for strangers now and asks for {said.bits} bits of work")
            if said is not None:
                raise said
        start = offset + LENGTH.size
        if len(data) < start or (self._handshake.initiator and control_begins(data, offset)):
            return 0
        length = message_length(data, offset)
        if len(data) < start + length:
            return 0
        self._bytes += self._handshake.message(data[start : start + length])
        return LENGTH.size + length
