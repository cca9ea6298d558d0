"""One session as a machine: bytes and time in; bytes, events and a wish to be woken out.

It goes through phases: the greeting (`wire.greeting`: preamble, first message, handshake), at the dialler's the wait to
be welcomed, then the open channel (`wire.channel`), which lives as long as `wire.life` says. Whatever the peer does
wrong closes it with one `Closed` event that says why; the peer is told the reason too, as far as that is safe, and
nothing leaves after that.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from haif.base import limits
from haif.base.clock import Instant
from haif.base.errors import ConnectionLost, HaifError, PeerFault, Refusal, Timeout
from haif.wire.channel import Channel
from haif.wire.events import Closed, Established, Event, Stayed
from haif.wire.greeting import Greeting
from haif.wire.handshake import Handshake
from haif.wire.opening import FURTHER_PATH, preamble
from haif.wire.path import Arrival, Paths
from haif.wire.puzzle import Puzzle
from haif.wire.rpc import Rpc


class SessionMachine:
    """Drive it with `receive`, `outgoing`, `next_event`, `wake_at` and `wake`; call through `rpc` once established.

    What `outgoing` gives is for the path that `paths.writing` named before; `move`, `joined`, `stay` and `lost` are for
    driving it over more than one.
    """

    def __init__(self, handshake: Handshake, now: Instant) -> None:
        self._handshake = handshake
        self._events: deque[Event] = deque()  # of the calls too, so that events keep their order
        self._rest = b""
        self._bytes = b""  # what the greeting left to be said
        self._greeting = Greeting(handshake, self._events, now)
        self._channel: Channel  # once established
        self._phase: Callable[[bytes, int, Instant], int] = self._greet
        self._give_up_at = Instant(now + limits.HANDSHAKE_SECONDS)
        self.rpc = Rpc(self._events, initiator=handshake.initiator)
        self.paths: Paths  # once established
        self.established: Established | None = None
        self.closed: HaifError | None = None
        self._last = b""  # said after the end, and then nothing more
        self._told = False  # why it ended

    @property
    def puzzle(self) -> Puzzle | None:
        """What the listener we dialled asks to be solved first."""
        return self._greeting.puzzle

    @property
    def initiator(self) -> bool:
        """Whether we dialled."""
        return self._handshake.initiator

    @property
    def let_in(self) -> bool:
        """Whether the gate has let the dialler in, or there is none: we dialled."""
        return self._greeting.let_in

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
        if self.established is not None and self._channel.held is not None:
            held, self._channel.held = self._channel.held, None
            self.receive(held, now, self.paths.reading)

    def outgoing(self, now: Instant) -> bytes:
        """Bytes that may leave now, about 64 KiB at most beyond what is small; empty when there are none."""
        if self.closed is not None:
            return self._last_word(now)
        if self.established is None:
            return self._greeting.outgoing()
        first, self._bytes = self._bytes, b""
        return self._channel.outgoing(first, now)

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
        probe, deadline = self._channel.wake_at(), self.rpc.wake_at()
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
            self._channel.wake(now)
            self.rpc.wake(now)
            late = self.paths.expired(now)
        except HaifError as error:
            self.close(error)
        else:
            if late is not None:
                self._events.append(Stayed(late, Timeout("the new path was not taken in time")))

    def close(self, error: HaifError) -> None:
        """End the session because of `error`; open calls of ours fail with `ConnectionLost`.

        The peer is told a fault of its own or a refusal of ours, in what `outgoing` gives next.
        """
        if self.closed is not None:
            return
        self._last = self._greeting.last_word(error) if self.established is None else self._bytes
        self.closed = error.with_traceback(None)  # what it refers to, and the next line, would keep this object alive
        self._phase = _deaf
        self._rest = self._bytes = b""
        self.rpc.lost(error if isinstance(error, ConnectionLost) else ConnectionLost(f"session closed: {error}"))
        self._events.append(Closed(error))

    def _greet(self, data: bytes, offset: int, now: Instant) -> int:
        """The phase before the handshake is over."""
        taken = self._greeting.take(data, offset, now)
        if self._handshake.established is not None:
            self._open(self._handshake.established, now)
        return taken

    def _open(self, established: Established, now: Instant) -> None:
        """The handshake is over. Whether there is a session is for the responder to say, in its first word."""
        split = self._handshake.split
        assert split is not None
        self._channel = Channel(split, self.rpc, self._events, now, initiator=self._handshake.initiator)
        self.paths = self._channel.paths
        if self.initiator:
            self._phase = self._await_welcome
            return
        self._bytes = self._greeting.outgoing()
        self._channel.pong_due = True
        self._phase = self._channel.take
        self.established = established
        self._events.append(established)

    def _await_welcome(self, data: bytes, offset: int, now: Instant) -> int:
        """The phase before the responder's first word; a REJECT is raised, and there never was a session."""
        taken = self._channel.take(data, offset, now)
        if taken:
            assert self._handshake.established is not None
            self._phase = self._channel.take
            self.established = self._handshake.established
            self._events.appendleft(self.established)  # before what came behind the first word
        return taken

    def _last_word(self, now: Instant) -> bytes:
        """Why the session ended, if the peer is to know; once, and behind what it needs to read it."""
        last, self._last = self._last, b""
        if self.established is None:
            return last
        if self._told or not isinstance(self.closed, PeerFault | Refusal):
            return b""
        self._told = True
        return last + self._channel.last_word(self.closed, now)

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


def _deaf(_data: bytes, _offset: int, _now: Instant) -> int:
    """The phase after the end."""
    return 0
