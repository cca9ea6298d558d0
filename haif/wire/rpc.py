"""Calls and streams inside one session: deadlines, cancellation, credit. Frames in; frames and events out.

    caller                                      callee
    1. REQ or OPEN, DATA… (the argument)  →
    2.                                       ←  RES, DATA… (the answer)   or, for OPEN, DATA… (messages) and FIN
                                                or ERR at any time
    3. CANCEL (any time)                  →
    4.                                       ←  RST, unless the end was already on its way
       CREDIT, as messages are consumed   →

A call is open at the caller until its end arrives and at the callee until its end leaves, so the caller never counts
fewer than the callee, and a peer with more than `limits.STREAMS_PER_SESSION_MAX` open calls is at fault. Frames that
crossed with an end we sent are passed over; every other frame that does not fit ends the session.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final

from haif.base import limits
from haif.base.clock import Deadline, Instant
from haif.base.errors import ConnectionLost, HaifError, Malformed, Misuse, Overloaded, Oversize, Timeout, WrongState
from haif.base.traffic import Traffic
from haif.wire.calls import Deadlines, Made, Partial, Served
from haif.wire.events import Answered, Called, Ended, Event, Failed, GoingAway, Received, Stopped
from haif.wire.flow import OVERHEAD, Sender, Window
from haif.wire.frames import SIZE, Kind, Outbox, RequestHead, failure, read_failure, request_head

_STREAM_MAX: Final = 2**32 - 1
_PUMP_BYTES: Final = 64 << 10  # what one turn of the loop moves of long messages


class Rpc:
    """The calls of one session. What the peer does wrong is raised as a `PeerFault`; the session then ends."""

    def __init__(self, *, initiator: bool) -> None:
        self.out = Outbox()
        self.events: deque[Event] = deque()
        self.going_away = False  # the peer takes no new calls
        self.draining = False  # we take no new calls
        self._sender = Sender(self.out)
        self._window = Window(limits.SESSION_CREDIT_BYTES)
        self._next = 1 if initiator else 2
        self._parity = self._next % 2  # of the streams we open
        self._highest = 0  # stream the peer opened last
        self._made: dict[int, Made] = {}
        self._served: dict[int, Served] = {}
        self._ends_unsent = 0  # ends of served calls that are in `out`
        self._deadlines = Deadlines(self._made, self._served)
        self._on: dict[int, Callable[[int, bytes, int, int], None]] = {
            Kind.RES: self._on_result, Kind.ERR: self._on_error, Kind.CANCEL: self._on_cancel,
            Kind.DATA: self._on_data, Kind.FIN: self._on_end, Kind.RST: self._on_reset,
            Kind.CREDIT: self._on_credit, Kind.GOAWAY: self._on_going_away,
        }  # fmt: skip

    # --- what the application does ------------------------------------------------------------------------------------

    def call(
        self,
        method: str,
        argument: bytes,
        deadline: Deadline,
        now: Instant,
        *,
        metadata: Mapping[str, str] | None = None,
        streaming: bool = False,
        traffic: Traffic = Traffic.CONTROL,
    ) -> int:
        """Begin a call; its stream id. A deadline beyond `limits.CALL_SECONDS_MAX` is shrunk to that.

        Raises `Timeout` (no time left), `ConnectionLost` (the peer takes no new calls), `Overloaded` (too many open) or
        `Misuse` (method, metadata or argument against our own limits).
        """
        self._may_call(argument)
        remaining = deadline.remaining(now)
        if remaining <= 0:
            raise Timeout("no time was left to make the call")
        if remaining > limits.CALL_SECONDS_MAX:
            remaining = limits.CALL_SECONDS_MAX
            deadline = Deadline.after(remaining, now)
        timeout_ms = math.ceil(remaining * 1000)
        head = request_head(len(argument), timeout_ms, method, metadata)
        stream = self._next
        self._next += 2
        self._made[stream] = Made(deadline, streaming=streaming)
        self._deadlines.add(deadline, stream)
        self._sender.begin(stream, Kind.OPEN if streaming else Kind.REQ, head, argument, traffic)
        return stream

    def _may_call(self, argument: bytes) -> None:
        if self.going_away or self._next > _STREAM_MAX:
            raise ConnectionLost("the peer is closing this session and takes no new calls; connect again")
        if len(self._made) >= limits.STREAMS_PER_SESSION_MAX:
            raise Overloaded(f"{limits.STREAMS_PER_SESSION_MAX} calls to this peer are open; wait for one to end")
        if len(argument) > limits.MESSAGE_BYTES_MAX:
            raise Misuse(f"an argument of {len(argument)} bytes is over the limit of {limits.MESSAGE_BYTES_MAX}")

    def cancel(self, stream: int, now: Instant) -> None:
        """Give up on a call of ours. No event comes for it any more."""
        made = self._made.get(stream)
        if made is None or made.cancelled:
            return
        if not self._sender.forget(stream):
            del self._made[stream]
            return
        self.out.add(Kind.CANCEL, stream)
        made.cancelled = True
        made.deadline = Deadline.after(limits.SESSION_SILENCE_SECONDS, now)
        self._deadlines.add(made.deadline, stream)

    def accept(self, stream: int, traffic: Traffic, deadline: Deadline) -> None:
        """What a call that we serve carries back (control, if nothing is said), and by when it must be over."""
        served = self._served.get(stream)
        if served is None:
            return
        self._sender.classify(stream, traffic)
        if deadline < served.deadline:
            served.deadline = deadline
            self._deadlines.add(deadline, stream)

    def consumed(self, stream: int, message: bytes) -> None:
        """The application has taken a `Received` message, or will never: its room is free again."""
        cost = len(message) + OVERHEAD
        self._return(0, self._window, cost)
        made = self._made.get(stream)
        if made is not None and made.window is not None and not made.cancelled:
            self._return(stream, made.window, cost)

    def reply(self, stream: int, result: bytes) -> None:
        """Answer a call. Does nothing if nobody wants the answer any more. Raises `Misuse` if it is too long."""
        served = self._served.get(stream)
        if served is None:
            return
        _check_own(result)
        self._sender.send(stream, Kind.RES, result)
        if self._sender.waits(stream):
            served.answered = True
        else:
            self._end_served(stream)

    def send(self, stream: int, message: bytes) -> None:
        """Send the next message of a stream; ask `writable` before the one after it. Raises `Misuse` if too long."""
        if stream in self._served:
            _check_own(message)
            self._sender.send(stream, Kind.DATA, message)

    def finish(self, stream: int) -> None:
        """End a stream well, after the messages sent so far."""
        served = self._served.get(stream)
        if served is None:
            return
        self._sender.finish(stream)
        if self._sender.waits(stream):
            served.answered = True
        else:
            self._end_served(stream)

    def fail(self, stream: int, error: HaifError) -> None:
        """End a call or stream with an error; messages not yet sent are dropped."""
        if stream in self._served:
            self._sender.forget(stream)
            self.out.add(Kind.ERR, stream, failure(error))
            self._end_served(stream)

    def writable(self, stream: int) -> bool:
        """Whether the next message of this stream would not have to wait behind the last ones."""
        return self.out.size < limits.OUTGOING_BYTES_HIGH and not self._sender.waits(stream)

    def drain(self) -> None:
        """Take no new calls from now on, and tell the peer."""
        if not self.draining:
            self.draining = True
            self.out.add(Kind.GOAWAY, 0)

    @property
    def calls_made(self) -> int:
        """Calls of ours that are open."""
        return len(self._made)

    @property
    def calls_served(self) -> int:
        """Calls of the peer that are open."""
        return len(self._served)

    def quiet(self) -> bool:
        """Whether no call is open in either direction."""
        return not self._made and not self._served

    # --- what the session does ----------------------------------------------------------------------------------------

    def receive(self, kind: int, stream: int, data: bytes, start: int, end: int, now: Instant) -> None:
        """A frame came, its payload `data[start:end]`."""
        if kind == Kind.REQ or kind == Kind.OPEN:  # noqa: PLR1714  # twice as fast as a set, and on the hot path
            self._on_request(stream, data, start, end, now, streaming=kind == Kind.OPEN)
        else:
            self._on[kind](stream, data, start, end)

    def take(self) -> list[bytes]:
        """Plaintexts that may leave now."""
        if not self._sender.idle():
            for stream in self._sender.pump(_PUMP_BYTES):
                self._end_served(stream)
        self._ends_unsent = 0
        return self.out.take()

    def wake_at(self) -> Instant | None:
        """When the next deadline passes."""
        return self._deadlines.next()

    def wake(self, now: Instant) -> None:
        """Act on the deadlines that have passed."""
        while (stream := self._deadlines.passed(now)) is not None:
            if stream in self._made:
                self._expire_made(stream, now)
            else:
                self._expire_served(stream)

    def lost(self, error: HaifError) -> None:
        """The session is over: every open call of ours fails with `error`, every handler is stopped."""
        self.events.extend(
            Failed(stream, ConnectionLost(error.message)) for stream, made in self._made.items() if not made.cancelled
        )
        self.events.extend(Stopped(stream) for stream, served in self._served.items() if served.partial is None)
        self._made.clear()
        self._served.clear()

    # --- frames of a caller -------------------------------------------------------------------------------------------

    def _on_request(self, stream: int, data: bytes, start: int, end: int, now: Instant, *, streaming: bool) -> None:
        if stream <= self._highest or stream % 2 == self._parity:
            raise WrongState("the peer used a stream id again, or one of ours")
        if len(self._served) + self._ends_unsent >= limits.STREAMS_PER_SESSION_MAX:
            raise Oversize(f"the peer has more than {limits.STREAMS_PER_SESSION_MAX} calls open")
        head = RequestHead(data, start, end)
        piece = data[head.piece : end]
        self._check_size(head.size, piece)
        self._window.take(head.size + OVERHEAD)
        self._highest = stream
        deadline = Deadline.after(min(head.timeout_ms / 1000, limits.CALL_SECONDS_MAX), now)
        served = self._served[stream] = Served(deadline, head, streaming=streaming)
        self._deadlines.add(deadline, stream)
        if len(piece) == head.size:
            self._dispatch(stream, served, piece)
        else:
            served.partial = Partial(head.size, piece)

    def _dispatch(self, stream: int, served: Served, argument: bytes) -> None:
        """The argument is whole: hand the call over. From here its memory is the handler's."""
        served.partial = None
        self._return(0, self._window, len(argument) + OVERHEAD)
        if self.draining:
            self._reset(stream)
            return
        if served.streaming:
            self._sender.flow(stream)
        head = served.head
        self.events.append(Called(stream, head.method, argument, head.metadata, served.deadline, served.streaming))

    def _on_cancel(self, stream: int, _data: bytes, start: int, end: int) -> None:
        _empty(start, end)
        served = self._known_served(stream)
        if served is not None:
            self._stop(stream, served)
            self._reset(stream)

    def _on_credit(self, stream: int, data: bytes, start: int, end: int) -> None:
        if end - start != SIZE.size:
            raise Malformed("a CREDIT frame holds four bytes")
        if stream:
            self._known_served(stream)
        (amount,) = SIZE.unpack_from(data, start)
        if amount == 0:
            raise Malformed("a CREDIT frame returns nothing")
        self._sender.granted(stream, amount)

    def _on_going_away(self, stream: int, _data: bytes, start: int, end: int) -> None:
        _empty(start, end)
        if stream:
            raise WrongState("GOAWAY speaks for the session, not for a stream")
        if not self.going_away:
            self.going_away = True
            self.events.append(GoingAway())

    def _known_served(self, stream: int) -> Served | None:
        """A call the peer made, or None if it ended already. Raises `WrongState` if there never was one."""
        if stream > self._highest or stream % 2 == self._parity:
            raise WrongState("the peer speaks of a call that it never made")
        return self._served.get(stream)

    # --- frames of a callee -------------------------------------------------------------------------------------------

    def _on_result(self, stream: int, data: bytes, start: int, end: int) -> None:
        made = self._known_made(stream)
        if made.streaming or made.partial is not None:
            raise WrongState("an answer came where none was due")
        size, piece = self._begin(data, start, end)
        if len(piece) == size:
            self._answer(stream, made, piece)
        else:
            made.partial = Partial(size, piece)

    def _on_data(self, stream: int, data: bytes, start: int, end: int) -> None:
        if stream % 2 != self._parity:
            served = self._known_served(stream)
            if served is not None:
                self._continue_argument(stream, served, data[start:end])
            return
        made = self._known_made(stream)
        if made.partial is not None:
            self._continue_message(stream, made, made.partial, data[start:end])
            return
        if made.window is None:
            raise WrongState("a stream's message came for a call")
        size, piece = self._begin(data, start, end)
        made.window.take(size + OVERHEAD)
        if len(piece) == size:
            self._deliver(stream, made, piece)
        else:
            made.partial = Partial(size, piece)

    def _continue_argument(self, stream: int, served: Served, piece: bytes) -> None:
        if served.partial is None:
            raise WrongState("the argument of this call was already whole")
        if served.partial.add(piece):
            self._dispatch(stream, served, bytes(served.partial.data))

    def _continue_message(self, stream: int, made: Made, partial: Partial, piece: bytes) -> None:
        if not partial.add(piece):
            return
        made.partial = None
        if made.streaming:
            self._deliver(stream, made, bytes(partial.data))
        else:
            self._answer(stream, made, bytes(partial.data))

    def _begin(self, data: bytes, start: int, end: int) -> tuple[int, bytes]:
        """A message begins: its size and first piece, paid for."""
        if end - start < SIZE.size:
            raise Malformed("a message begins without its size")
        (size,) = SIZE.unpack_from(data, start)
        piece = data[start + SIZE.size : end]
        self._check_size(size, piece)
        self._window.take(size + OVERHEAD)
        return size, piece

    def _answer(self, stream: int, made: Made, result: bytes) -> None:
        self._return(0, self._window, len(result) + OVERHEAD)
        del self._made[stream]
        if not made.cancelled:
            self.events.append(Answered(stream, result))

    def _deliver(self, stream: int, made: Made, message: bytes) -> None:
        if made.cancelled:
            self._return(0, self._window, len(message) + OVERHEAD)
        else:
            self.events.append(Received(stream, message))

    def _on_end(self, stream: int, _data: bytes, start: int, end: int) -> None:
        _empty(start, end)
        made = self._known_made(stream)
        if not made.streaming or made.partial is not None:
            raise WrongState("an end came in the middle of a message, or for a call")
        del self._made[stream]
        if not made.cancelled:
            self.events.append(Ended(stream))

    def _on_error(self, stream: int, data: bytes, start: int, end: int) -> None:
        self._give_up(stream, read_failure(data[start:end]))

    def _on_reset(self, stream: int, _data: bytes, start: int, end: int) -> None:
        _empty(start, end)
        self._give_up(stream, ConnectionLost("the peer is closing and did not begin this call; ask elsewhere"))

    def _give_up(self, stream: int, error: HaifError) -> None:
        made = self._known_made(stream)
        if made.partial is not None:
            self._return(0, self._window, made.partial.size + OVERHEAD)
        self._sender.forget(stream)
        del self._made[stream]
        if not made.cancelled:
            self.events.append(Failed(stream, error))

    def _known_made(self, stream: int) -> Made:
        made = self._made.get(stream)
        if made is None:
            raise WrongState("the peer answers a call that is not open")
        return made

    # --- helpers ------------------------------------------------------------------------------------------------------

    def _check_size(self, size: int, piece: bytes) -> None:
        if size > limits.MESSAGE_BYTES_MAX:
            raise Oversize(f"a message of {size} bytes is over the limit of {limits.MESSAGE_BYTES_MAX}")
        if len(piece) > size:
            raise Malformed("a message is longer than it said")

    def _return(self, stream: int, window: Window, cost: int) -> None:
        granted = window.give(cost)
        if granted:
            self.out.add(Kind.CREDIT, stream, SIZE.pack(granted))

    def _reset(self, stream: int) -> None:
        self._sender.forget(stream)
        self.out.add(Kind.RST, stream)
        self._end_served(stream)

    def _end_served(self, stream: int) -> None:
        if self._served.pop(stream, None) is not None:
            self._ends_unsent += 1

    def _stop(self, stream: int, served: Served) -> None:
        """Free what an unfinished argument holds, or stop the handler."""
        if served.partial is not None:
            self._return(0, self._window, served.partial.size + OVERHEAD)
        else:
            self.events.append(Stopped(stream))

    def _expire_made(self, stream: int, now: Instant) -> None:
        if self._made[stream].cancelled:
            raise ConnectionLost("the peer does not end a call that was cancelled")
        self.events.append(Failed(stream, Timeout("the peer did not answer in time")))
        self.cancel(stream, now)

    def _expire_served(self, stream: int) -> None:
        self._stop(stream, self._served[stream])
        self.fail(stream, Timeout("the call's deadline passed before it was answered"))


def _empty(start: int, end: int) -> None:
    if start != end:
        raise Malformed("a frame that must be empty is not")


def _check_own(message: bytes) -> None:
    if len(message) > limits.MESSAGE_BYTES_MAX:
        raise Misuse(f"a message of {len(message)} bytes is over the limit of {limits.MESSAGE_BYTES_MAX}")
