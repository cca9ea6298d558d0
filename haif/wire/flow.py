"""Credit: nobody sends more than the other side has room for, and what has begun can always be finished.

A message costs its bytes plus `limits.MESSAGE_OVERHEAD_BYTES`. It may begin while both its stream and the session have
credit left (more than zero), and is then paid for whole, so the credit may fall below zero by one message: a message
larger than a window can travel, and one under way never waits for credit again. The receiver returns credit when the
application has consumed the message. So no deadlock: each begun message completes, each complete one can be consumed,
and when everything was consumed at least half of every window is open. Memory is bounded by window plus one message.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Final

from haif.base import limits
from haif.base.errors import WrongState
from haif.wire.frames import SIZE, Kind, Outbox

OVERHEAD: Final = limits.MESSAGE_OVERHEAD_BYTES
PIECE: Final = limits.FRAME_PAYLOAD_BYTES_SENT


class Window:
    """The receiver's side: what the peer may still begin, and what was consumed without the peer knowing yet."""

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


class _Message:
    """A message on its way out: what of its first frame stands before the body, and how far the body has got."""

    __slots__ = ("body", "head", "kind", "offset", "started")

    def __init__(self, kind: Kind, head: bytes, body: bytes) -> None:
        self.kind = kind
        self.head = head
        self.body = body
        self.offset = 0
        self.started = False


class Sender:
    """The sender's side: puts messages into frames as credit allows, streams taking turns piece by piece."""

    def __init__(self, out: Outbox) -> None:
        self._out = out
        self._credit = limits.SESSION_CREDIT_BYTES
        self._streams: dict[int, int] = {}  # credit of each stream of messages we send
        self._calls: deque[tuple[int, _Message]] = deque()  # requests that must begin in the order of their ids
        self._waiting: OrderedDict[int, deque[_Message]] = OrderedDict()
        self._blocked: dict[int, deque[_Message]] = {}  # streams out of credit: not looked at until they get some

    def begin(self, stream: int, kind: Kind, head: bytes, argument: bytes) -> None:
        """Send a REQ or OPEN. Requests begin in the order of their stream ids."""
        if self._credit > 0 and not self._calls and len(head) + len(argument) <= PIECE:
            self._credit -= len(argument) + OVERHEAD
            self._out.add(kind, stream, head, argument)
        else:
            self._calls.append((stream, _Message(kind, head, argument)))

    def flow(self, stream: int) -> None:
        """From now on `stream` carries a stream of messages from us, with credit of its own."""
        self._streams[stream] = limits.STREAM_CREDIT_BYTES

    def send(self, stream: int, kind: Kind, body: bytes) -> None:
        """Send a RES, or a message of a stream; wait in line if there is no credit or the line is not empty."""
        credit = self._streams.get(stream, 1)
        if self._credit > 0 and credit > 0 and len(body) + SIZE.size <= PIECE and stream not in self._waiting:
            cost = len(body) + OVERHEAD
            self._credit -= cost
            if stream in self._streams:
                self._streams[stream] = credit - cost
            self._out.add(kind, stream, SIZE.pack(len(body)), body)
        else:
            self._line(stream).append(_Message(kind, SIZE.pack(len(body)), body))

    def finish(self, stream: int) -> None:
        """Send FIN after everything that waits on this stream."""
        if self.waits(stream):
            self._line(stream).append(_Message(Kind.FIN, b"", b""))
        else:
            self._out.add(Kind.FIN, stream)
            self._streams.pop(stream, None)

    def forget(self, stream: int) -> bool:
        """Drop what waits on this stream. Whether its request had begun, so that the peer knows of it."""
        self._waiting.pop(stream, None)
        self._blocked.pop(stream, None)
        self._streams.pop(stream, None)
        unsent = [call for call in self._calls if call[0] == stream]
        for call in unsent:
            self._calls.remove(call)
        return not unsent

    def waits(self, stream: int) -> bool:
        """Whether something of this stream still waits for credit or for its turn."""
        return stream in self._waiting or stream in self._blocked

    def idle(self) -> bool:
        """Whether nothing waits that `pump` could move."""
        return not self._waiting and not self._calls

    def granted(self, stream: int, amount: int) -> None:
        """The peer returns credit. Raises `WrongState` if that is more than it ever took."""
        if stream == 0:
            self._credit = _raised(self._credit, amount, limits.SESSION_CREDIT_BYTES)
        elif stream in self._streams:
            self._streams[stream] = _raised(self._streams[stream], amount, limits.STREAM_CREDIT_BYTES)
            if stream in self._blocked:
                self._waiting[stream] = self._blocked.pop(stream)

    def pump(self, budget: int) -> list[int]:
        """Move about `budget` bytes of what waits into frames. The streams whose FIN or RES has left whole."""
        self._begin_calls()
        ended: list[int] = []
        stuck = 0
        while budget > 0 and stuck < len(self._waiting):
            stream, line = self._waiting.popitem(last=False)
            moved = self._piece(stream, line[0])
            budget -= moved
            stuck = 0 if moved else stuck + 1
            if moved and line[0].offset == len(line[0].body):
                message = line.popleft()
                if message.kind in _ENDINGS:
                    self._streams.pop(stream, None)
                    ended.append(stream)
            if line and not moved and self._streams.get(stream, 1) <= 0:
                self._blocked[stream] = line
                stuck -= 1
            elif line:
                self._waiting[stream] = line
        return ended

    def _begin_calls(self) -> None:
        while self._calls and self._credit > 0:
            stream, message = self._calls.popleft()
            self._piece(stream, message)
            if message.offset < len(message.body):
                self._line(stream).append(message)

    def _piece(self, stream: int, message: _Message) -> int:
        """Send the next piece of a message, if it may; how many bytes that was."""
        if message.started:
            head, kind = b"", Kind.DATA
        elif self._start(stream, message):
            head, kind = message.head, message.kind
        else:
            return 0
        piece = memoryview(message.body)[message.offset : message.offset + PIECE - len(head)]
        message.offset += len(piece)
        self._out.add(kind, stream, head, piece)
        return len(head) + len(piece) + 1  # an empty FIN counts as progress too

    def _start(self, stream: int, message: _Message) -> bool:
        message.started = True
        if message.kind is Kind.FIN:
            return True
        message.started = self._credit > 0 and self._streams.get(stream, 1) > 0
        if message.started:
            cost = len(message.body) + OVERHEAD
            self._credit -= cost
            if stream in self._streams:
                self._streams[stream] -= cost
        return message.started

    def _line(self, stream: int) -> deque[_Message]:
        blocked = self._blocked.get(stream)
        return self._waiting.setdefault(stream, deque()) if blocked is None else blocked


_ENDINGS: Final = frozenset({Kind.RES, Kind.FIN})


def _raised(credit: int, amount: int, most: int) -> int:
    if credit + amount > most:
        raise WrongState("the peer returned more credit than it took")
    return credit + amount
