"""One session as a machine: bytes and time in; bytes, events and a wish to be woken out.

It goes through phases: preamble and first message (responder only), handshake, open. Whatever the peer does wrong
closes it with one `Closed` event that says why; the peer is told the reason too, as far as that is safe, and nothing
leaves after that. A session that hears nothing asks with PING and, without
an answer, is lost: a dead peer is never waited for longer than `limits.SESSION_SILENCE_SECONDS`. No session outlives
`limits.SESSION_SECONDS_MAX`, so keys of one handshake never protect more than that; who dialled is told in time to dial
anew.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from haif.base import limits
from haif.base.clock import Instant
from haif.base.errors import (
    ConnectionLost,
    Expired,
    HaifError,
    Malformed,
    Overloaded,
    PeerFault,
    Refusal,
    Timeout,
    WrongState,
)  # fmt: skip
from haif.wire.events import Aged, Arrived, Closed, Established, Event, Knocked, Moved, Stayed
from haif.wire.frames import IGNORABLE, SESSION_KINDS, Kind, failure, frame, parse
from haif.wire.handshake import Handshake
from haif.wire.noise import Opener, Sealer
from haif.wire.opening import (
    CIRCUIT,
    FURTHER_PATH,
    LENGTH,
    PREAMBLE,
    TOKEN_BYTES,
    control_begins,
    for_strangers,
    message_length,
    preamble,
    read_control,
    read_first,
    rejection,
    retry,
    told,
)  # fmt: skip
from haif.wire.path import ARRIVAL, Arrival, Paths
from haif.wire.puzzle import Puzzle
from haif.wire.rpc import Rpc

_PATIENCE_SECONDS: Final = limits.SESSION_SILENCE_SECONDS - limits.KEEPALIVE_SECONDS  # from PING to giving up
_REKEY: Final = frame(Kind.REKEY, 0)
_KINDS: Final = frozenset(Kind)


class SessionMachine:
    """Drive it with `receive`, `outgoing`, `next_event`, `wake_at` and `wake`; call through `rpc` once established.

    What `outgoing` gives is for the path that `paths.writing` named before; `move`, `joined`, `stay` and `lost` are for
    driving it over more than one.
    """

    def __init__(self, handshake: Handshake, now: Instant) -> None:
        self._handshake = handshake
        self._events: deque[Event] = deque()  # of the calls too, so that events keep their order
        self._rest = b""
        self._bytes = handshake.begin() if handshake.initiator else b""
        self._phase: Callable[[bytes, int, Instant], int]
        self._phase = self._handshake_phase if handshake.initiator else self._preamble_phase
        self._give_up_at = Instant(now + limits.HANDSHAKE_SECONDS)
        self._heard = self._opened = self._age_at = now
        self._pinged: Instant | None = None
        self._pong_due = False
        self.rpc = Rpc(self._events, initiator=handshake.initiator)
        self.paths: Paths  # once established
        self.established: Established | None = None
        self.closed: HaifError | None = None
        self.puzzle: Puzzle | None = None  # what the listener we dialled asks to be solved first
        self._held: bytes | None = None  # came early on the path that is read from now on
        self._last = b""  # said after the end, and then nothing more
        self._refused = False  # by the peer

    @property
    def certificate(self) -> bytes:
        """The peer's, once it was checked."""
        return self._handshake.certificate

    @property
    def admission(self) -> bytes:
        """The peer's certificate of admission, once it was checked; empty where none was shown."""
        return self._handshake.admission

    # --- the machine --------------------------------------------------------------------------------------------------

    def receive(self, data: bytes, now: Instant, path: int = 0) -> None:
        """Bytes came on a path."""
        if self.closed is not None:
            return
        if self.established is not None and path != self.paths.reading:
            self._early(path, data, now)
            return
        if self._rest:
            data = self._rest + data
        offset = 0
        try:
            while self.closed is None and (taken := self._phase(data, offset, now)):
                offset += taken
        except HaifError as error:
            self.close(error)
            return
        self._rest = data[offset:]
        if self._held is not None:
            held, self._held = self._held, None
            self.receive(held, now, self.paths.reading)

    def outgoing(self, now: Instant) -> bytes:
        """Bytes that may leave now, about 64 KiB at most beyond what is small; empty when there are none."""
        if self.closed is not None:
            return self._last_word(now)
        if self.established is None:
            data, self._bytes = self._bytes, b""
            return data
        parts = [self._bytes]
        self._bytes = b""
        if self._pong_due:
            self._pong_due = False
            self.rpc.out.add(Kind.PONG, 0)
        for plaintext in self.rpc.take():
            sealed = self._seal(plaintext, now)
            parts.append(LENGTH.pack(len(sealed)))
            parts.append(sealed)
        if self.paths.new is not None and self.paths.due:
            sealed = self._seal(frame(Kind.PATH, 0, self.paths.leave()), now)
            parts += (LENGTH.pack(len(sealed)), sealed)
            self._pong_due = True  # the first word on the new path, so that the other side sees who is there
            self._settle()
        return b"".join(parts)

    def next_event(self) -> Event | None:
        """What happened next, oldest first; None when nothing is left to tell."""
        if self._events:
            return self._events.popleft()
        return None

    def wake_at(self) -> Instant | None:
        """When to call `wake`, at the latest."""
        if self.closed is not None:
            return None
        if self.established is None:
            return self._give_up_at
        if self._pinged is None:
            probe = Instant(self._heard + limits.KEEPALIVE_SECONDS)
        else:
            probe = Instant(self._pinged + _PATIENCE_SECONDS)
        deadline = self.rpc.wake_at()
        probe = min(probe, self._age_at)
        if self.paths.new is not None:
            probe = min(probe, self.paths.new.until)
        return probe if deadline is None else min(probe, deadline)

    def wake(self, now: Instant) -> None:
        """Time has passed. Calling it too early is harmless."""
        if self.closed is not None:
            return
        if self.established is None:
            if now >= self._give_up_at:
                self.close(Timeout(f"the handshake was not finished within {limits.HANDSHAKE_SECONDS:g} s"))
            return
        try:
            self._grow_old(now)
            self._probe(now)
            self.rpc.wake(now)
            late = self.paths.expired(now)
        except HaifError as error:
            self.close(error)
        else:
            if late is not None:
                self._events.append(Stayed(late, Timeout("the new path was not taken in time")))

    # --- more than one path -------------------------------------------------------------------------------------------

    def move(self, now: Instant) -> tuple[int, bytes]:
        """Move to a new path: its number, and what to send on it first. `Moved` or `Stayed` tells how it went.

        Raises `ConnectionLost` (there is no session) or `Overloaded` (it is moving already).
        """
        if self.established is None or self.closed is not None:
            raise ConnectionLost("the session is not open and cannot move; connect again")
        return self.paths.ask(preamble(self._handshake.net, pattern=FURTHER_PATH), now)

    def joined(self, arrival: Arrival, now: Instant) -> tuple[int, bytes]:
        """A new path whose preamble names this session: its number, and the answer to send on it.

        Raises `BadSignature`, `Replayed`, `WrongState` or `Overloaded`; the session goes on all the same.
        """
        number, answer, replaced = self.paths.take(arrival, now)
        if replaced is not None:
            self._events.append(Stayed(replaced, ConnectionLost("a newer path took this one's place")))
        return number, answer

    def lost(self, path: int, error: HaifError) -> None:
        """A path broke. Without it the session ends, unless it was only about to be used or not used any more."""
        self.stay(path, error)
        if self.established is None or path in (self.paths.reading, self.paths.writing):
            self.close(error)

    def stay(self, path: int, error: HaifError) -> bool:
        """Give a new path up, if nobody has moved to it yet; whether that was so."""
        if self.established is None or self.closed is not None or not self.paths.spared(path):
            return False
        self._events.append(Stayed(path, error))
        return True

    def _early(self, path: int, data: bytes, now: Instant) -> None:
        """Bytes on a path that is not read."""
        try:
            self.paths.early(path, data, now)
        except HaifError as error:
            if not self.stay(path, error):
                self.close(error)

    def _settle(self) -> None:
        path = self.paths.settled()
        if path is not None:
            self._events.append(Moved(path))

    def close(self, error: HaifError) -> None:
        """End the session because of `error`; open calls of ours fail with `ConnectionLost`.

        The peer is told a fault of its own or a refusal of ours, in what `outgoing` gives next.
        """
        if self.closed is not None:
            return
        if self.established is None and not self._handshake.initiator and not self._last:
            self._last = self._turned_away(error)
        self.closed = error.with_traceback(None)  # what it refers to, and the next line, would keep this object alive
        self._phase = _deaf
        self._rest = self._bytes = b""
        self.rpc.lost(error if isinstance(error, ConnectionLost) else ConnectionLost(f"session closed: {error}"))
        self._events.append(Closed(error))

    # --- phases: each takes from data[offset:] what it can and says how much that was ---------------------------------

    def _preamble_phase(self, data: bytes, offset: int, now: Instant) -> int:  # noqa: ARG002  # all phases look alike
        if len(data) - offset < PREAMBLE.size:
            return 0
        self._preamble = data[offset : offset + PREAMBLE.size]
        self._handshake.preamble(self._preamble)
        other = {FURTHER_PATH: self._path_phase, CIRCUIT: self._circuit_phase}
        self._phase = other.get(self._preamble[6], self._first_phase)
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
            self._last = retry(answer)
            raise Overloaded(f"over its budget of handshakes; asked for {answer.bits} bits of work")
        self._bytes += answer
        self._phase = self._handshake_phase
        self._conclude(now)
        return taken

    def _handshake_phase(self, data: bytes, offset: int, now: Instant) -> int:
        if self._handshake.initiator:
            said = read_control(data, offset)
            if isinstance(said, Puzzle):
                self.puzzle = said
                raise Overloaded(f"the peer has no room for strangers now and asks for {said.bits} bits of work")
            if said is not None:
                self._refused = True
                raise said
        start = offset + LENGTH.size
        if len(data) < start or (self._handshake.initiator and control_begins(data, offset)):
            return 0
        length = message_length(data, offset)
        if len(data) < start + length:
            return 0
        self._bytes += self._handshake.message(data[start : start + length])
        self._conclude(now)
        return LENGTH.size + length

    def _open_phase(self, data: bytes, offset: int, now: Instant) -> int:
        if now >= self._age_at:
            self._grow_old(now)
        view, total, begin = memoryview(data), len(data), offset
        while total - offset >= LENGTH.size:
            (length,) = LENGTH.unpack_from(data, offset)
            start = offset + LENGTH.size
            if total < start + length:
                break
            offset = start + length
            plaintext = self._opener.open(view[start:offset])
            if self.paths.new is not None:
                self.paths.opened()
            self._frames(plaintext, now)
            if self._held is not None and total > offset:
                raise WrongState("more came on a path that the peer had left")
        if offset > begin:
            self._heard = now
            self._pinged = None
        return offset - begin

    def _conclude(self, now: Instant) -> None:
        """If the handshake is over, open the session."""
        established, split = self._handshake.established, self._handshake.split
        if established is None:
            return
        assert split is not None
        self._sealer = Sealer(split.sending, now)
        self._opener = Opener(split.receiving)
        self._heard = self._opened = now
        self._age_at = self._ages(limits.SESSION_RENEW_SECONDS if self._handshake.initiator else None)
        self._phase = self._open_phase
        self.paths = Paths(split, initiator=self._handshake.initiator, now=now)
        self.established = established
        self._events.append(established)

    # --- frames -------------------------------------------------------------------------------------------------------

    def _frames(self, plaintext: bytes, now: Instant) -> None:
        receive = self.rpc.receive
        for kind, stream, start, end in parse(plaintext):
            if kind in SESSION_KINDS and kind != Kind.GOAWAY:
                self._session_frame(kind, stream, plaintext[start:end], last=end == len(plaintext))
            elif kind in _KINDS:
                receive(kind, stream, plaintext, start, end, now)
            elif kind < IGNORABLE:
                raise Malformed(f"frame kind {kind} is unknown")

    def _session_frame(self, kind: int, stream: int, payload: bytes, *, last: bool) -> None:
        if kind == Kind.REJECT and not stream:
            error = told(payload)
            self._refused = True
            raise error
        if kind == Kind.PATH and not stream:
            self._held = self.paths.left(payload)
            self._settle()
            return
        if stream or payload:
            raise Malformed(f"{Kind(kind).name} speaks for the session and is empty")
        if kind == Kind.PING:
            self._pong_due = True  # however many came since the last answer: one is enough, and bounded
        elif kind == Kind.REKEY:
            if not last:
                raise WrongState("a frame follows REKEY under the old key")
            self._opener.rekey()

    def _seal(self, plaintext: bytes, now: Instant) -> bytes:
        if not self._sealer.due(now):
            return self._sealer.seal(plaintext)
        sealed = self._sealer.seal(plaintext + _REKEY)
        self._sealer.rekey_at(now)
        return sealed

    def _turned_away(self, error: HaifError) -> bytes:
        """What a dialler hears instead of a session: in the clear before our answer, sealed once there are keys.

        A further path and an end of a circuit hear nothing: neither what there is nor how far a forger came.
        """
        if self._phase in (self._path_phase, self._circuit_phase):
            return b""
        if self._phase != self._handshake_phase:
            return rejection(error)
        channel, reason = self._handshake.channel, for_strangers(error)
        if channel is None or reason is None:
            return b""
        sealed = Sealer(channel.sending, self._heard).seal(frame(Kind.REJECT, 0, failure(reason)))
        return LENGTH.pack(len(sealed)) + sealed

    def _last_word(self, now: Instant) -> bytes:
        """Why the session ended, if the peer is to know; once."""
        last, self._last = self._last, b""
        if self.established is None or self._refused or not isinstance(self.closed, PeerFault | Refusal):
            return last
        self._refused = True
        sealed = self._seal(frame(Kind.REJECT, 0, failure(self.closed)), now)
        return LENGTH.pack(len(sealed)) + sealed

    def _grow_old(self, now: Instant) -> None:
        """Say once that it is time for a new session; raise `Expired` when it is too late."""
        if now - self._opened >= limits.SESSION_SECONDS_MAX:
            raise Expired(f"the session is older than {limits.SESSION_SECONDS_MAX:g} s; connect again")
        if now >= self._age_at:
            self._age_at = self._ages(None)
            self._events.append(Aged())

    def _ages(self, seconds: float | None) -> Instant:
        """When its age matters next: after so many seconds, or at its end."""
        return Instant(self._opened + (limits.SESSION_SECONDS_MAX if seconds is None else seconds))

    def _probe(self, now: Instant) -> None:
        if self._pinged is not None:
            if now >= self._pinged + _PATIENCE_SECONDS:  # the very sum of `wake_at`: a difference may round below it
                raise ConnectionLost(f"the peer was silent for {limits.SESSION_SILENCE_SECONDS:g} s")
        elif now >= self._heard + limits.KEEPALIVE_SECONDS:
            self._pinged = now
            self.rpc.out.add(Kind.PING, 0)


def _deaf(_data: bytes, _offset: int, _now: Instant) -> int:
    """The phase after the end."""
    return 0
