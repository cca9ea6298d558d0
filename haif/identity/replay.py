"""The memory that refuses a message heard before.

Per sender and boot: a sliding window over sequence numbers (as IPsec's, RFC 4303 §3.4.3), so that messages may overtake
one another but none counts twice. A new boot is accepted only if it was sent after everything heard from the last one.
Memory is bounded: the least recently heard sender is forgotten first, which cannot reopen a window, because messages
expire (`limits.LIVE_MESSAGE_TTL_MS`) long before 65,536 senders come round.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from haif.base import limits
from haif.base.clock import WallTime
from haif.base.errors import Replayed
from haif.base.ids import BootId, PeerId
from haif.identity.signing import Header


@dataclass(slots=True)
class _Window:
    boot: BootId
    highest: int
    seen: int  # bit i set: sequence `highest - i` was heard
    latest: WallTime


class ReplayGuard:
    """Accepts each (sender, boot, sequence) once."""

    def __init__(
        self, senders_max: int = limits.NONCE_WINDOW_SENDERS, width: int = limits.NONCE_WINDOW_MESSAGES
    ) -> None:
        self._windows: OrderedDict[PeerId, _Window] = OrderedDict()
        self._senders_max = senders_max
        self._width = width

    def accept(self, header: Header) -> None:
        """Remember this message; raise `Replayed` if it, or one so old that we cannot tell, was heard before."""
        window = self._windows.get(header.sender)
        if window is None:
            self._windows[header.sender] = _Window(header.boot, header.sequence, 1, header.sent)
            if len(self._windows) > self._senders_max:
                self._windows.popitem(last=False)
            return
        if header.boot != window.boot:
            if header.sent <= window.latest:
                raise Replayed("a message from before the sender's latest start", header.sender)
            self._windows[header.sender] = _Window(header.boot, header.sequence, 1, header.sent)
        else:
            self._advance(window, header)
            window.latest = max(window.latest, header.sent)
        self._windows.move_to_end(header.sender)

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
