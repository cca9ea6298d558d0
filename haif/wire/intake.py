"""What comes in: each message is paid for whole when it begins, and its room given back when it was consumed.

A receiver so never holds more than a window and one message, whatever the peer sends. See `wire.flow` for the rule that
both sides keep, and why it cannot deadlock.
"""

from __future__ import annotations

from typing import Final

from haif.base import limits
from haif.base.errors import Malformed, Oversize, WrongState
from haif.wire.frames import SIZE, Kind, Outbox

OVERHEAD: Final = limits.MESSAGE_OVERHEAD_BYTES
_SIZE_BYTES: Final = SIZE.size


class Window:
    """What the peer may still begin, and what was consumed without the peer knowing yet."""

    __slots__ = ("_consumed", "_size", "left")

    def __init__(self, size: int) -> None:
        self._size = size
        self._consumed = 0
        self.left = size

    def take(self, cost: int) -> None:
        """A message begins. Raises `WrongState` if it had no credit to."""
        if self.left <= 0:
            raise WrongState("the peer began a message without credit")
        self.left -= cost

    def give(self, cost: int) -> int:
        """A message was consumed. How much credit to return now: 0 until half the window has gathered."""
        self._consumed += cost
        if self._consumed < self._size // 2:
            return 0
        granted, self._consumed = self._consumed, 0
        self.left += granted
        assert self.left <= self._size, "a message was consumed twice"
        return granted

    @property
    def whole(self) -> bool:
        """Whether nothing of it is held: all that came was consumed."""
        return self.left + self._consumed == self._size


class Partial:
    """A message of which pieces have come, and how many bytes are missing."""

    __slots__ = ("data", "missing", "size")

    def __init__(self, size: int, piece: bytes) -> None:
        self.size = size
        self.data = bytearray(piece)
        self.missing = size - len(piece)

    def add(self, piece: bytes) -> bool:
        """Take the next piece; whether the message is whole. Raises `Malformed`."""
        if not 0 < len(piece) <= self.missing:
            raise Malformed("a piece of a message is empty or longer than what is missing")
        self.data += piece
        self.missing -= len(piece)
        return self.missing == 0


class Intake:
    """The receiver's side of one session's credit."""

    def __init__(self, out: Outbox) -> None:
        self._out = out
        self.window = Window(limits.SESSION_CREDIT_BYTES)

    def expect(self, size: int, piece: bytes) -> None:
        """A message of `size` bytes begins with `piece`. Raises `Oversize`, `Malformed` or `WrongState` (no credit)."""
        if size > limits.MESSAGE_BYTES_MAX:
            raise Oversize(f"a message of {size} bytes is over the limit of {limits.MESSAGE_BYTES_MAX}")
        if len(piece) > size:
            raise Malformed("a message is longer than it said")
        self.window.take(size + OVERHEAD)

    def begin(self, data: bytes, start: int, end: int) -> tuple[int, bytes]:
        """The size and first piece of the message that begins in `data[start:end]`. Raises as `expect` does."""
        begin = start + _SIZE_BYTES
        if end < begin:
            raise Malformed("a message begins without its size")
        (size,) = SIZE.unpack_from(data, start)
        piece = data[begin:end]
        self.expect(size, piece)
        return size, piece

    def free(self, size: int, stream: int = 0, window: Window | None = None) -> None:
        """A message of `size` bytes was consumed: its room in the session, or in a stream's own window, is free."""
        granted = (window or self.window).give(size + OVERHEAD)
        if granted:
            self._out.add(Kind.CREDIT, stream, SIZE.pack(granted))
