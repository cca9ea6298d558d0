"""The memory that refuses a message heard before.

Per sender, session and boot: a sliding window over sequence numbers (as IPsec's, RFC 4303 §3.4.3), so that messages may
overtake one another but none counts twice. A new session knows no earlier boot, and nothing of an earlier session can
come in it: whoever crashed and came back with its clock set back is heard at once. Within one session, and among what
belongs to none, a new boot is accepted only if it was sent after everything heard from the last one.
Memory is bounded: what was heard from least recently is forgotten first, which cannot reopen a window, because messages
expire (`limits.LIVE_MESSAGE_TTL_MS`) long before 65,536 come round. A process that ends in order exports what it heard;
after one that did not, what belongs to no session counts only if it was sent since the start.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from dataclasses import dataclass

from haif.base import limits
from haif.base.clock import WallTime
from haif.base.errors import Expired, Malformed, Replayed
from haif.base.ids import BootId, Digest, PeerId
from haif.identity.signing import NO_SCOPE, Header


@dataclass(slots=True)
class _Window:
    boot: BootId
    highest: int
    seen: int  # bit i set: sequence `highest - i` was heard
    latest: WallTime


_WIDTH = struct.Struct(">I")
_ROW = struct.Struct(">32s32s8sQQ")


class ReplayGuard:
    """Accepts each (sender, session, boot, sequence) once."""

    def __init__(
        self,
        senders_max: int = limits.NONCE_WINDOW_SENDERS,
        width: int = limits.NONCE_WINDOW_MESSAGES,
        *,
        floor: WallTime | None = None,
    ) -> None:
        """`floor`: what a process before this one heard by then is not known."""
        self._windows: OrderedDict[tuple[PeerId, Digest], _Window] = OrderedDict()
        self._senders_max = senders_max
        self._width = width
        self._floor = floor or WallTime(0)

    def export(self) -> bytes:
        """What was heard, for the next process: `restored` makes a guard of it that refuses what this one would."""
        size = self._width // 8
        rows = (
            _ROW.pack(sender, scope, window.boot, window.highest, window.latest) + window.seen.to_bytes(size, "big")
            for (sender, scope), window in self._windows.items()
        )
        return _WIDTH.pack(self._width) + b"".join(rows)

    @classmethod
    def restored(cls, state: bytes, senders_max: int = limits.NONCE_WINDOW_SENDERS) -> ReplayGuard:
        """The guard whose `export` this is. Raises `Malformed`."""
        if len(state) < _WIDTH.size:
            raise Malformed("the memory of what was heard is cut")
        (width,) = _WIDTH.unpack_from(state)
        size = _ROW.size + width // 8
        rows = state[_WIDTH.size :]
        if not 0 < width <= limits.NONCE_WINDOW_MESSAGES or len(rows) % size or len(rows) > size * senders_max:
            raise Malformed("the memory of what was heard has no such length")
        guard = cls(senders_max, width)
        for start in range(0, len(rows), size):
            sender, scope, boot, highest, latest = _ROW.unpack_from(rows, start)
            seen = int.from_bytes(rows[start + _ROW.size : start + size], "big")
            window = _Window(BootId(boot), highest, seen, WallTime(latest))
            guard._windows[PeerId(sender), Digest(scope)] = window
        return guard

    def accept(self, header: Header) -> None:
        """Remember this message; raise `Replayed` if it, or one so old that we cannot tell, was heard before.

        What belongs to no session and was sent before the floor is such; what belongs to a session is of this process.
        """
        if header.scope == NO_SCOPE and header.sent < self._floor:
            raise Replayed("a message from before this process, which may have been heard then", header.sender)
        key = header.sender, header.scope
        window = self._windows.get(key)
        if window is None:
            self._windows[key] = _Window(header.boot, header.sequence, 1, header.sent)
            if len(self._windows) > self._senders_max:
                self._windows.popitem(last=False)
            return
        if header.boot != window.boot:
            if header.sent <= window.latest:
                raise Replayed("a message from before the sender's latest start", header.sender)
            self._windows[key] = _Window(header.boot, header.sequence, 1, header.sent)
        else:
            self._advance(window, header)
            window.latest = max(window.latest, header.sent)
        self._windows.move_to_end(key)

    def _advance(self, window: _Window, header: Header) -> None:
        ahead = header.sequence - window.highest
        if ahead > 0:
            kept = window.seen << ahead if ahead < self._width else 0
            window.seen = (kept | 1) & ((1 << self._width) - 1)
            window.highest = header.sequence
            return
        if -ahead >= self._width:
            raise Replayed("a message too old to tell whether it was heard before", header.sender)
        bit = 1 << -ahead
        if window.seen & bit:
            raise Replayed("a message that was heard before", header.sender)
        window.seen |= bit

    def __len__(self) -> int:
        return len(self._windows)


class HandshakeTimes:
    """Accepts each initiator's first handshake messages only in the order in which they were made (as WireGuard does).

    A message carries the time at which it was made, in microseconds. Refused is what is not later than the latest one
    accepted from that initiator, what is further from our clock than two honest clocks may be apart, and what was made
    before `floor`, the time at which this process began: so nothing is accepted twice, not even across a restart. The
    bounded memory cannot forget what is still within the skew: fewer handshakes fit into that time.
    """

    def __init__(self, floor: WallTime, peers_max: int = limits.HANDSHAKE_TIMES_REMEMBERED) -> None:
        self._floor_us = floor * 1000
        self._peers_max = peers_max
        self._latest: OrderedDict[PeerId, int] = OrderedDict()

    def accept(self, peer: PeerId, made_us: int, now: WallTime) -> None:
        """Remember this one. Raises `Expired` or `Replayed`; an honest peer then shakes hands without the shortcut."""
        if abs(made_us - now * 1000) > limits.CLOCK_SKEW_MS * 1000:
            raise Expired("the handshake was not begun just now; check both clocks", peer)
        if made_us < self._floor_us:
            raise Replayed("the handshake was begun before this node was", peer)
        if made_us <= self._latest.get(peer, 0):
            raise Replayed("a first handshake message that was heard before, or overtaken by a later one", peer)
        self._latest[peer] = made_us
        self._latest.move_to_end(peer)
        if len(self._latest) > self._peers_max:
            self._latest.popitem(last=False)

    def __len__(self) -> int:
        return len(self._latest)
