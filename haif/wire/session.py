"""One session as a machine: bytes and time in; bytes, events and a wish to be woken out.

It goes through three phases: preamble (responder only), handshake, open. Whatever the peer does wrong closes it with
one `Closed` event that says why; nothing leaves afterwards. A session that hears nothing asks with PING and, without
an answer, is lost: a dead peer is never waited for longer than `limits.SESSION_SILENCE_SECONDS`.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from haif.base import limits
from haif.base.clock import Instant
from haif.base.errors import ConnectionLost, HaifError, Malformed, Oversize, Timeout, WrongState
from haif.wire.events import Closed, Established, Event
from haif.wire.frames import IGNORABLE, SESSION_KINDS, Kind, frame, parse
from haif.wire.handshake import LENGTH, PREAMBLE, Handshake
from haif.wire.noise import HANDSHAKE_MESSAGE_BYTES_MAX, Opener, Sealer
from haif.wire.rpc import Rpc

_PATIENCE_SECONDS: Final = limits.SESSION_SILENCE_SECONDS - limits.KEEPALIVE_SECONDS  # from PING to giving up
_REKEY: Final = frame(Kind.REKEY, 0)
_KINDS: Final = frozenset(Kind)


class SessionMachine:
    """Drive it with `receive`, `outgoing`, `next_event`, `wake_at` and `wake`; call through `rpc` once established."""

    def __init__(self, handshake: Handshake, now: Instant) -> None:
        self._handshake = handshake
        self._events: deque[Event] = deque()
        self._rest = b""
        self._bytes = handshake.begin() if handshake.initiator else b""
        self._phase = self._handshake_phase if handshake.initiator else self._preamble_phase
        self._give_up_at = Instant(now + limits.HANDSHAKE_SECONDS)
        self._heard = now
        self._pinged: Instant | None = None
        self._pong_due = False
        self.rpc = Rpc(initiator=handshake.initiator)
        self.established: Established | None = None
        self.closed: HaifError | None = None

    # --- the machine --------------------------------------------------------------------------------------------------

    def receive(self, data: bytes, now: Instant) -> None:
        """Bytes came."""
        if self.closed is not None:
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

    def outgoing(self, now: Instant) -> bytes:
        """Bytes that may leave now, about 64 KiB at most beyond what is small; empty when there are none."""
        if self.established is None or self.closed is not None:
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
            self._probe(now)
            self.rpc.wake(now)
        except HaifError as error:
            self.close(error)

    def close(self, error: HaifError) -> None:
        """End the session because of `error`; open calls of ours fail with `ConnectionLost`."""
        if self.closed is not None:
            return
        self.closed = error
        self._rest = self._bytes = b""
        self.rpc.lost(error if isinstance(error, ConnectionLost) else ConnectionLost(f"session closed: {error}"))
        self._events.append(Closed(error))

    # --- phases: each takes from data[offset:] what it can and says how much that was ---------------------------------

    def _preamble_phase(self, data: bytes, offset: int, now: Instant) -> int:  # noqa: ARG002  # all phases look alike
        if len(data) - offset < PREAMBLE.size:
            return 0
        self._handshake.preamble(data[offset : offset + PREAMBLE.size])
        self._phase = self._handshake_phase
        return PREAMBLE.size

    def _handshake_phase(self, data: bytes, offset: int, now: Instant) -> int:
        start = offset + LENGTH.size
        if len(data) < start:
            return 0
        length: int = LENGTH.unpack_from(data, offset)[0]
        if length > HANDSHAKE_MESSAGE_BYTES_MAX:
            raise Oversize(f"a handshake message of {length} bytes is over {HANDSHAKE_MESSAGE_BYTES_MAX}")
        if len(data) < start + length:
            return 0
        self._bytes += self._handshake.message(data[start : start + length])
        if self._handshake.established is not None:
            self._open(now)
        return LENGTH.size + length

    def _open_phase(self, data: bytes, offset: int, now: Instant) -> int:
        view, total, begin = memoryview(data), len(data), offset
        while total - offset >= LENGTH.size:
            (length,) = LENGTH.unpack_from(data, offset)
            start = offset + LENGTH.size
            if total < start + length:
                break
            offset = start + length
            self._frames(self._opener.open(view[start:offset]), now)
        if offset > begin:
            self._heard = now
            self._pinged = None
        return offset - begin

    def _open(self, now: Instant) -> None:
        established, split = self._handshake.established, self._handshake.split
        assert established is not None
        assert split is not None
        self._sealer = Sealer(split.sending, now)
        self._opener = Opener(split.receiving)
        self._heard = now
        self._phase = self._open_phase
        self.established = established
        self._events.append(established)
        self.rpc.events = self._events  # one queue, so that events keep their order

    # --- frames -------------------------------------------------------------------------------------------------------

    def _frames(self, plaintext: bytes, now: Instant) -> None:
        receive = self.rpc.receive
        for kind, stream, start, end in parse(plaintext):
            if kind in SESSION_KINDS and kind != Kind.GOAWAY:
                self._session_frame(kind, stream, end - start, last=end == len(plaintext))
            elif kind in _KINDS:
                receive(kind, stream, plaintext, start, end, now)
            elif kind < IGNORABLE:
                raise Malformed(f"frame kind {kind} is unknown")

    def _session_frame(self, kind: int, stream: int, length: int, *, last: bool) -> None:
        if stream or length:
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

    def _probe(self, now: Instant) -> None:
        if self._pinged is not None:
            if now >= self._pinged + _PATIENCE_SECONDS:  # the very sum of `wake_at`: a difference may round below it
                raise ConnectionLost(f"the peer was silent for {limits.SESSION_SILENCE_SECONDS:g} s")
        elif now >= self._heard + limits.KEEPALIVE_SECONDS:
            self._pinged = now
            self.rpc.out.add(Kind.PING, 0)
