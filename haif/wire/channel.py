"""An open session's channel: sealed messages in and out, the frames that speak for the session, keys that change."""

from __future__ import annotations

from collections import deque
from typing import Final

from haif.base.clock import Instant
from haif.base.errors import HaifError, Malformed, WrongState
from haif.wire.events import Aged, Event, Moved
from haif.wire.frames import IGNORABLE, SESSION_KINDS, Kind, failure, frame, parse
from haif.wire.life import Life
from haif.wire.noise import Opener, Sealer, Split
from haif.wire.opening import LENGTH, told
from haif.wire.path import Paths
from haif.wire.rpc import Rpc

_REKEY: Final = frame(Kind.REKEY, 0)
_KINDS: Final = frozenset(Kind)
_DATA: Final = int(Kind.DATA)  # nearly every frame is one


class Channel:
    """Seals what the calls of a session say and opens what the peer's say. What the peer does wrong is raised.

    `held` is what came early on a path that is read from now on: whoever finds it there takes it and has it read.
    """

    def __init__(self, split: Split, rpc: Rpc, events: deque[Event], now: Instant, *, initiator: bool) -> None:
        self.sealer = Sealer(split.sending, now)
        self.opener = Opener(split.receiving)
        self.paths = Paths(split, initiator=initiator, now=now)
        self.life = Life(now, renews=initiator)
        self.held: bytes | None = None
        self.pong_due = False
        self._rpc = rpc
        self._events = events
        self._refused = False  # by the peer

    def take(self, data: bytes, offset: int, now: Instant) -> int:
        """Take from `data[offset:]` the messages that are whole; how many bytes that was."""
        if now >= self.life.age_at:
            self._grow_old(now)
        view, total, begin = memoryview(data), len(data), offset
        while total - offset >= LENGTH.size:
            (length,) = LENGTH.unpack_from(data, offset)
            start = offset + LENGTH.size
            if total < start + length:
                break
            offset = start + length
            plaintext = self.opener.open(view[start:offset])
            if self.paths.new is not None:
                self.paths.opened()
            self._frames(plaintext, now)
            if self.held is not None and total > offset:
                raise WrongState("more came on a path that the peer had left")
        if offset > begin:
            self.life.hear(now)
        return offset - begin

    def outgoing(self, first: bytes, now: Instant) -> bytes:
        """Bytes that may leave now, after those that come `first`."""
        parts = [first]
        if self.pong_due:
            self.pong_due = False
            self._rpc.out.add(Kind.PONG, 0)
        for plaintext in self._rpc.take():
            sealed = self._seal(plaintext, now)
            parts.append(LENGTH.pack(len(sealed)))
            parts.append(sealed)
        if self.paths.new is not None and self.paths.due:
            sealed = self._seal(frame(Kind.PATH, 0, self.paths.leave()), now)
            parts += (LENGTH.pack(len(sealed)), sealed)
            self.pong_due = True  # the first word on the new path, so that the other side sees who is there
            self._settle()
        return b"".join(parts)

    def last_word(self, error: HaifError, now: Instant) -> bytes:
        """What the peer is told when we end the session because of it; nothing, if it was the peer that ended it."""
        if self._refused:
            return b""
        sealed = self._seal(frame(Kind.REJECT, 0, failure(error)), now)
        return LENGTH.pack(len(sealed)) + sealed

    def wake_at(self) -> Instant:
        """When to call `wake`, at the latest, but for the calls."""
        at, new = self.life.wake_at(), self.paths.new
        return at if new is None else min(at, new.until)

    def wake(self, now: Instant) -> None:
        """Time has passed: say that we are old, or ask whether the peer is there."""
        self._grow_old(now)
        if self.life.silent(now):
            self._rpc.out.add(Kind.PING, 0)

    def _grow_old(self, now: Instant) -> None:
        if self.life.aged(now):
            self._events.append(Aged())

    def _settle(self) -> None:
        path = self.paths.settled()
        if path is not None:
            self._events.append(Moved(path))

    def _seal(self, plaintext: bytes, now: Instant) -> bytes:
        if not self.sealer.due(now):
            return self.sealer.seal(plaintext)
        sealed = self.sealer.seal(plaintext + _REKEY)
        self.sealer.rekey_at(now)
        return sealed

    # --- frames -------------------------------------------------------------------------------------------------------

    def _frames(self, plaintext: bytes, now: Instant) -> None:
        receive = self._rpc.receive
        for kind, stream, start, end in parse(plaintext):
            if kind == _DATA:
                receive(kind, stream, plaintext, start, end, now)
            elif kind in SESSION_KINDS and kind != Kind.GOAWAY:
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
            self.held = self.paths.left(payload)
            self._settle()
            return
        if stream or payload:
            raise Malformed(f"{Kind(kind).name} speaks for the session and is empty")
        if kind == Kind.PING:
            self.pong_due = True  # however many came since the last answer: one is enough, and bounded
        elif kind == Kind.REKEY:
            if not last:
                raise WrongState("a frame follows REKEY under the old key")
            self.opener.rekey()
