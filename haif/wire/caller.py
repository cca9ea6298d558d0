"""The calls we make in one session, from the request to the peer's end of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from haif.base import limits
from haif.base.clock import Deadline, Instant
from haif.base.errors import ConnectionLost, HaifError, Misuse, Overloaded, Timeout, WrongState
from haif.base.traffic import Traffic
from haif.wire.calls import Made, Shared, check_empty
from haif.wire.events import Answered, Ended, Failed, Received
from haif.wire.frames import Kind, read_failure, request_head
from haif.wire.intake import OVERHEAD, Partial

_STREAM_MAX: Final = 2**32 - 1


class Caller:
    """Opens streams `first`, `first + 2`, … What the peer does wrong is raised as a `PeerFault`."""

    def __init__(self, shared: Shared, first: int) -> None:
        self._events = shared.events
        self._out = shared.out
        self._sender = shared.sender
        self._intake = shared.intake
        self._deadlines = shared.deadlines
        self._made = shared.made
        self._next = first
        self.going_away = False  # the peer takes no new calls

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
        self._out.add(Kind.CANCEL, stream)
        made.cancelled = True
        made.deadline = Deadline.after(limits.SESSION_SILENCE_SECONDS, now)
        self._deadlines.add(made.deadline, stream)

    def consumed(self, stream: int, message: bytes) -> None:
        """The application has taken a `Received` message, or will never: its room is free again."""
        self._intake.free(len(message))
        made = self._made.get(stream)
        if made is not None and made.window is not None and not made.cancelled:
            self._intake.free(len(message), stream, made.window)

    # --- what the session does ----------------------------------------------------------------------------------------

    def expire(self, stream: int, now: Instant) -> None:
        """The deadline of a call has passed. Raises `ConnectionLost` if the peer would not even end it."""
        if self._made[stream].cancelled:
            raise ConnectionLost("the peer does not end a call that was cancelled")
        self._events.append(Failed(stream, Timeout("the peer did not answer in time")))
        self.cancel(stream, now)

    def lost(self, error: HaifError) -> None:
        """The session is over: every open call fails with `error`."""
        self._events.extend(
            Failed(stream, ConnectionLost(error.message)) for stream, made in self._made.items() if not made.cancelled
        )
        self._made.clear()

    # --- frames of the callee -----------------------------------------------------------------------------------------

    def on_result(self, stream: int, data: bytes, start: int, end: int) -> None:
        """RES: the answer of a call, or its first piece."""
        made = self._known(stream)
        if made.streaming or made.partial is not None:
            raise WrongState("an answer came where none was due")
        size, piece = self._intake.begin(data, start, end)
        if len(piece) == size:
            self._answer(stream, made, piece)
        else:
            made.partial = Partial(size, piece)

    def on_data(self, stream: int, data: bytes, start: int, end: int) -> None:
        """DATA: the next piece of what is under way, or a message of a stream."""
        made = self._known(stream)
        if made.partial is not None:
            self._continue(stream, made, made.partial, data[start:end])
            return
        window = made.window
        if window is None:
            raise WrongState("a stream's message came for a call")
        size, piece = self._intake.begin(data, start, end)
        window.take(size + OVERHEAD)
        if len(piece) != size:
            made.partial = Partial(size, piece)
        elif made.cancelled:
            self._intake.free(size)
        else:
            self._events.append(Received(stream, piece))

    def on_end(self, stream: int, _data: bytes, start: int, end: int) -> None:
        """FIN: the stream ends well."""
        check_empty(start, end)
        made = self._known(stream)
        if not made.streaming or made.partial is not None:
            raise WrongState("an end came in the middle of a message, or for a call")
        del self._made[stream]
        if not made.cancelled:
            self._events.append(Ended(stream))

    def on_error(self, stream: int, data: bytes, start: int, end: int) -> None:
        """ERR: the call ends with an error."""
        self._give_up(stream, read_failure(data[start:end]))

    def on_reset(self, stream: int, _data: bytes, start: int, end: int) -> None:
        """RST: the call ends without an answer."""
        check_empty(start, end)
        self._give_up(stream, ConnectionLost("the peer is closing and did not begin this call; ask elsewhere"))

    # --- helpers ------------------------------------------------------------------------------------------------------

    def _continue(self, stream: int, made: Made, partial: Partial, piece: bytes) -> None:
        if not partial.add(piece):
            return
        made.partial = None
        if made.streaming:
            self._deliver(stream, made, bytes(partial.data))
        else:
            self._answer(stream, made, bytes(partial.data))

    def _answer(self, stream: int, made: Made, result: bytes) -> None:
        self._intake.free(len(result))
        del self._made[stream]
        if not made.cancelled:
            self._events.append(Answered(stream, result))

    def _deliver(self, stream: int, made: Made, message: bytes) -> None:
        if made.cancelled:
            self._intake.free(len(message))
        else:
            self._events.append(Received(stream, message))

    def _give_up(self, stream: int, error: HaifError) -> None:
        made = self._known(stream)
        if made.partial is not None:
            self._intake.free(made.partial.size)
        self._sender.forget(stream)
        del self._made[stream]
        if not made.cancelled:
            self._events.append(Failed(stream, error))

    def _known(self, stream: int) -> Made:
        made = self._made.get(stream)
        if made is None:
            raise WrongState("the peer answers a call that is not open")
        return made
