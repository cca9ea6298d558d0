"""The calls we serve in one session, from the peer's request until our end of it has left."""

from __future__ import annotations

from haif.base import limits
from haif.base.clock import Deadline, Instant
from haif.base.errors import HaifError, Misuse, Oversize, Timeout, WrongState
from haif.base.traffic import Traffic
from haif.wire.calls import Served, Shared, check_empty
from haif.wire.events import Called, Stopped
from haif.wire.frames import Kind, RequestHead, failure
from haif.wire.intake import Partial


class Callee:
    """Streams of `parity` are ours to open, the others the peer's. What it does wrong is raised as a `PeerFault`."""

    def __init__(self, shared: Shared, parity: int) -> None:
        self._events = shared.events
        self._out = shared.out
        self._sender = shared.sender
        self._intake = shared.intake
        self._deadlines = shared.deadlines
        self._served = shared.served
        self._parity = parity
        self._highest = 0  # stream the peer opened last
        self._ends_unsent = 0  # ends of served calls that are in `out`
        self.draining = False  # we take no new calls

    # --- what the application does ------------------------------------------------------------------------------------

    def accept(self, stream: int, traffic: Traffic, deadline: Deadline) -> None:
        """What a call carries back (control, if nothing is said), and by when it must be over."""
        served = self._served.get(stream)
        if served is None:
            return
        self._sender.classify(stream, traffic)
        if deadline < served.deadline:
            served.deadline = deadline
            self._deadlines.add(deadline, stream)

    def reply(self, stream: int, result: bytes) -> None:
        """Answer a call. Does nothing if nobody wants the answer any more. Raises `Misuse` if it is too long."""
        if stream not in self._served:
            return
        _check_own(result)
        self._sender.send(stream, Kind.RES, result)
        self._end_if_sent(stream)

    def send(self, stream: int, message: bytes) -> None:
        """Send the next message of a stream; ask `writable` before the one after it. Raises `Misuse` if too long."""
        if stream in self._served:
            _check_own(message)
            self._sender.send(stream, Kind.DATA, message)

    def finish(self, stream: int) -> None:
        """End a stream well, after the messages sent so far."""
        if stream not in self._served:
            return
        self._sender.finish(stream)
        self._end_if_sent(stream)

    def fail(self, stream: int, error: HaifError) -> None:
        """End a call or stream with an error; messages not yet sent are dropped."""
        if stream in self._served:
            self._sender.forget(stream)
            self._out.add(Kind.ERR, stream, failure(error))
            self._end(stream)

    def writable(self, stream: int) -> bool:
        """Whether the next message of this stream would not have to wait behind the last ones."""
        return self._out.size < limits.OUTGOING_BYTES_HIGH and not self._sender.waits(stream)

    def drain(self) -> None:
        """Take no new calls from now on, and tell the peer."""
        if not self.draining:
            self.draining = True
            self._out.add(Kind.GOAWAY, 0)

    # --- what the session does ----------------------------------------------------------------------------------------

    def left(self, streams: list[int]) -> None:
        """The ends of these calls, and all that were in the outbox, leave now."""
        for stream in streams:
            self._end(stream)
        self._ends_unsent = 0

    def expire(self, stream: int) -> None:
        """The deadline of a call has passed."""
        self._stop(stream, self._served[stream])
        self.fail(stream, Timeout("the call's deadline passed before it was answered"))

    def lost(self) -> None:
        """The session is over: every handler is stopped."""
        self._events.extend(Stopped(stream) for stream, served in self._served.items() if served.partial is None)
        self._served.clear()

    def known(self, stream: int) -> Served | None:
        """A call the peer made, or None if it ended already. Raises `WrongState` if there never was one."""
        if stream > self._highest or stream % 2 == self._parity:
            raise WrongState("the peer speaks of a call that it never made")
        return self._served.get(stream)

    # --- frames of the caller -----------------------------------------------------------------------------------------

    def on_request(self, stream: int, data: bytes, start: int, end: int, now: Instant, *, streaming: bool) -> None:
        """REQ or OPEN: a call begins."""
        if stream <= self._highest or stream % 2 == self._parity:
            raise WrongState("the peer used a stream id again, or one of ours")
        if len(self._served) + self._ends_unsent >= limits.STREAMS_PER_SESSION_MAX:
            raise Oversize(f"the peer has more than {limits.STREAMS_PER_SESSION_MAX} calls open")
        head = RequestHead(data, start, end)
        piece = data[head.piece : end]
        self._intake.expect(head.size, piece)
        self._highest = stream
        deadline = Deadline.after(min(head.timeout_ms / 1000, limits.CALL_SECONDS_MAX), now)
        served = self._served[stream] = Served(deadline, head, streaming=streaming)
        self._deadlines.add(deadline, stream)
        if len(piece) == head.size:
            self._dispatch(stream, served, piece)
        else:
            served.partial = Partial(head.size, piece)

    def on_data(self, stream: int, data: bytes, start: int, end: int) -> None:
        """DATA: the next piece of an argument."""
        served = self.known(stream)
        if served is None:
            return
        if served.partial is None:
            raise WrongState("the argument of this call was already whole")
        if served.partial.add(data[start:end]):
            self._dispatch(stream, served, bytes(served.partial.data))

    def on_cancel(self, stream: int, _data: bytes, start: int, end: int) -> None:
        """CANCEL: nobody wants the answer any more."""
        check_empty(start, end)
        served = self.known(stream)
        if served is not None:
            self._stop(stream, served)
            self._reset(stream)

    # --- helpers ------------------------------------------------------------------------------------------------------

    def _dispatch(self, stream: int, served: Served, argument: bytes) -> None:
        """The argument is whole: hand the call over. From here its memory is the handler's."""
        served.partial = None
        self._intake.free(len(argument))
        if self.draining:
            self._reset(stream)
            return
        if served.streaming:
            self._sender.flow(stream)
        head = served.head
        self._events.append(Called(stream, head.method, argument, head.metadata, served.deadline, served.streaming))

    def _stop(self, stream: int, served: Served) -> None:
        """Free what an unfinished argument holds, or stop the handler."""
        if served.partial is not None:
            self._intake.free(served.partial.size)
        else:
            self._events.append(Stopped(stream))

    def _reset(self, stream: int) -> None:
        self._sender.forget(stream)
        self._out.add(Kind.RST, stream)
        self._end(stream)

    def _end_if_sent(self, stream: int) -> None:
        if not self._sender.waits(stream):
            self._end(stream)

    def _end(self, stream: int) -> None:
        if self._served.pop(stream, None) is not None:
            self._ends_unsent += 1


def _check_own(message: bytes) -> None:
    if len(message) > limits.MESSAGE_BYTES_MAX:
        raise Misuse(f"a message of {len(message)} bytes is over the limit of {limits.MESSAGE_BYTES_MAX}")
