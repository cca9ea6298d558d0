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

Each peer is caller and callee at once: `wire.caller` holds what happens to the calls we make, `wire.callee` to those we
serve, `wire.calls` what both share.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from haif.base.clock import Instant
from haif.base.errors import HaifError, Malformed, WrongState
from haif.wire.callee import Callee
from haif.wire.caller import Caller
from haif.wire.calls import Shared, check_empty
from haif.wire.events import Event, GoingAway
from haif.wire.frames import SIZE, Kind

_DATA: Final = int(Kind.DATA)
_PUMP_BYTES: Final = 64 << 10  # what one turn of the loop moves of long messages


class Rpc:
    """The calls of one session, in both directions. What happens is told in `events`.

    What the peer does wrong is raised as a `PeerFault`; the session then ends.
    """

    def __init__(self, events: deque[Event], *, initiator: bool) -> None:
        first = 1 if initiator else 2
        self._shared = shared = Shared(events)
        self._caller = caller = Caller(shared, first)
        self._callee = callee = Callee(shared, first % 2)
        self._parity = first % 2  # of the streams we open
        self._events = events
        self.out = shared.out
        # What applications do, without a detour:
        self.call, self.cancel, self.consumed = caller.call, caller.cancel, caller.consumed
        self.accept, self.reply, self.send, self.finish = callee.accept, callee.reply, callee.send, callee.finish
        self.fail, self.writable, self.drain = callee.fail, callee.writable, callee.drain
        self._on: dict[int, Callable[[int, bytes, int, int], None]] = {
            Kind.RES: caller.on_result, Kind.ERR: caller.on_error, Kind.FIN: caller.on_end, Kind.RST: caller.on_reset,
            Kind.CANCEL: callee.on_cancel,
        }  # fmt: skip

    @property
    def going_away(self) -> bool:
        """Whether the peer takes no new calls."""
        return self._caller.going_away

    @property
    def calls_made(self) -> int:
        """Calls of ours that are open."""
        return len(self._shared.made)

    @property
    def calls_served(self) -> int:
        """Calls of the peer that are open."""
        return len(self._shared.served)

    def quiet(self) -> bool:
        """Whether no call is open in either direction."""
        return not self._shared.made and not self._shared.served

    # --- what the session does ----------------------------------------------------------------------------------------

    def receive(self, kind: int, stream: int, data: bytes, start: int, end: int, now: Instant) -> None:
        """A frame came, its payload `data[start:end]`."""
        if kind == _DATA:
            (self._caller if stream % 2 == self._parity else self._callee).on_data(stream, data, start, end)
        elif kind == Kind.REQ or kind == Kind.OPEN:  # noqa: PLR1714  # twice as fast as a set, and on the hot path
            self._callee.on_request(stream, data, start, end, now, streaming=kind == Kind.OPEN)
        elif kind == Kind.CREDIT:
            self._on_credit(stream, data, start, end)
        elif kind == Kind.GOAWAY:
            self._on_going_away(stream, start, end)
        else:
            self._on[kind](stream, data, start, end)

    def take(self) -> list[bytes]:
        """Plaintexts that may leave now."""
        sender = self._shared.sender
        self._callee.left([] if sender.idle() else sender.pump(_PUMP_BYTES))
        return self.out.take()

    def wake_at(self) -> Instant | None:
        """When the next deadline passes."""
        return self._shared.deadlines.next()

    def wake(self, now: Instant) -> None:
        """Act on the deadlines that have passed."""
        while (stream := self._shared.deadlines.passed(now)) is not None:
            if stream in self._shared.made:
                self._caller.expire(stream, now)
            else:
                self._callee.expire(stream)

    def lost(self, error: HaifError) -> None:
        """The session is over: every open call of ours fails with `error`, every handler is stopped."""
        self._caller.lost(error)
        self._callee.lost()

    # --- frames that are not for one direction alone ------------------------------------------------------------------

    def _on_credit(self, stream: int, data: bytes, start: int, end: int) -> None:
        if end - start != SIZE.size:
            raise Malformed("a CREDIT frame holds four bytes")
        if stream:
            self._callee.known(stream)
        (amount,) = SIZE.unpack_from(data, start)
        if amount == 0:
            raise Malformed("a CREDIT frame returns nothing")
        self._shared.sender.granted(stream, amount)

    def _on_going_away(self, stream: int, start: int, end: int) -> None:
        check_empty(start, end)
        if stream:
            raise WrongState("GOAWAY speaks for the session, not for a stream")
        if not self._caller.going_away:
            self._caller.going_away = True
            self._events.append(GoingAway())
