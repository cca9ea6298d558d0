"""Credit: nobody sends more than the other side has room for, and what has begun can always be finished.

A message costs its bytes plus `limits.MESSAGE_OVERHEAD_BYTES`. It may begin while both its stream and the session have
credit left (more than zero), and is then paid for whole, so the credit may fall below zero by one message: a message
larger than a window can travel, and one under way never waits for credit again. The receiver returns credit when the
application has consumed the message. So no deadlock: each begun message completes, each complete one can be consumed,
and when everything was consumed at least half of every window is open. Memory is bounded by window plus one message.

What waits leaves by class: control, tokens, bulk share what can leave as `limits.TRAFFIC_WEIGHTS` say (deficit round
robin, Shreedhar and Varghese 1996), and the streams of one class take turns. Short messages of the first two leave at
once, and bulk then gets its share of that.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from haif.base import limits
from haif.base.errors import WrongState
from haif.base.traffic import Traffic
from haif.wire.frames import SIZE, Kind, Outbox
from haif.wire.intake import OVERHEAD

PIECE: Final = limits.FRAME_PAYLOAD_BYTES_SENT


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
        self._waiting: dict[int, deque[_Message]] = {}
        self._turns: tuple[deque[int], ...] = tuple(deque() for _ in Traffic)  # streams that wait, by class
        self._shares = [0 for _ in Traffic]  # bytes each class may move before the others had their turn
        self._overdraft = 0  # bytes moved beyond the last budget
        self._traffic: dict[int, Traffic] = {}  # of streams that are not control
        self._blocked: dict[int, deque[_Message]] = {}  # streams out of credit: not looked at until they get some

    def classify(self, stream: int, traffic: Traffic) -> None:
        """What `stream` carries from us; control unless said otherwise, before anything of it waits."""
        if traffic is not Traffic.CONTROL:
            self._traffic[stream] = traffic

    def begin(self, stream: int, kind: Kind, head: bytes, argument: bytes, traffic: Traffic = Traffic.CONTROL) -> None:
        """Send a REQ or OPEN. Requests begin in the order of their stream ids, the first piece at once."""
        if self._credit > 0 and not self._calls and len(head) + len(argument) <= PIECE:
            self._credit -= len(argument) + OVERHEAD
            self._out.add(kind, stream, head, argument)
        else:
            self.classify(stream, traffic)
            self._calls.append((stream, _Message(kind, head, argument)))

    def flow(self, stream: int) -> None:
        """From now on `stream` carries a stream of messages from us, with credit of its own."""
        self._streams[stream] = limits.STREAM_CREDIT_BYTES

    def send(self, stream: int, kind: Kind, body: bytes) -> None:
        """Send a RES, or a message of a stream; wait in line if there is no credit or the line is not empty."""
        credit = self._streams.get(stream, 1)
        direct = self._credit > 0 and credit > 0 and len(body) + SIZE.size <= PIECE and stream not in self._waiting
        if direct and self._traffic.get(stream) is not Traffic.BULK:
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
            self._over(stream)

    def forget(self, stream: int) -> bool:
        """Drop what waits on this stream. Whether its request had begun, so that the peer knows of it."""
        self._waiting.pop(stream, None)
        self._blocked.pop(stream, None)
        self._over(stream)
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
                self._turn(stream)

    def pump(self, budget: int) -> list[int]:
        """Move about `budget` bytes, less what leaves already, of what waits into frames, each class its share.

        Beside much that leaves already bulk keeps its weight. The streams whose FIN or RES has left whole.
        """
        self._begin_calls()
        direct = self._out.size
        left = max(budget - direct, direct * _BULK // _TOKENS) - self._overdraft
        self._shares[Traffic.TOKENS] = max(self._shares[Traffic.TOKENS] - direct, -_TOKENS * PIECE)
        ended: list[int] = []
        stuck: list[int] = []  # streams that wait for the session's credit
        while left > 0 and (traffic := self._next()) is not None:
            stream = self._turns[traffic].popleft()
            line = self._waiting.get(stream)
            if line is None:  # it was given up
                continue
            moved = self._piece(stream, line[0])
            left -= moved
            self._shares[traffic] -= moved
            if moved:
                self._moved(stream, line, ended)
            elif self._streams.get(stream, 1) <= 0:
                self._blocked[stream] = self._waiting.pop(stream)
            else:
                stuck.append(stream)
        self._overdraft = max(0, -left)
        for stream in stuck:
            self._turn(stream)
        return ended

    def _next(self) -> Traffic | None:
        """The class whose turn it is: the most urgent one that waits and has not had its share."""
        waiting = [traffic for traffic in Traffic if self._turns[traffic]]
        for traffic in waiting:
            if self._shares[traffic] > 0:
                return traffic
        for traffic in Traffic:  # everybody who waits has had a turn
            share = limits.TRAFFIC_WEIGHTS[traffic] * PIECE
            self._shares[traffic] = min(share, self._shares[traffic] + share)
        return waiting[0] if waiting else None

    def _moved(self, stream: int, line: deque[_Message], ended: list[int]) -> None:
        """A piece of this stream's first message has left."""
        if line[0].offset == len(line[0].body):
            message = line.popleft()
            if message.kind in _ENDINGS:
                self._over(stream)
                ended.append(stream)
        if line:
            self._turn(stream)
        else:
            del self._waiting[stream]
            if stream not in self._streams:  # it carries one message, which has left
                self._over(stream)

    def _turn(self, stream: int) -> None:
        """Have this stream wait for its turn, behind the others of its class."""
        self._turns[self._traffic.get(stream, Traffic.CONTROL)].append(stream)

    def _over(self, stream: int) -> None:
        """Nothing of this stream comes any more."""
        self._streams.pop(stream, None)
        self._traffic.pop(stream, None)

    def _begin_calls(self) -> None:
        while self._calls and self._credit > 0:
            stream, message = self._calls.popleft()
            self._piece(stream, message)
            if message.offset < len(message.body):
                self._line(stream).append(message)
            else:
                self._over(stream)

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
        line = self._blocked.get(stream) or self._waiting.get(stream)
        if line is None:
            line = self._waiting[stream] = deque()
            self._turn(stream)
        return line


_, _TOKENS, _BULK = limits.TRAFFIC_WEIGHTS
_ENDINGS: Final = frozenset({Kind.RES, Kind.FIN})


def _raised(credit: int, amount: int, most: int) -> int:
    if credit + amount > most:
        raise WrongState("the peer returned more credit than it took")
    return credit + amount
