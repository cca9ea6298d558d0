"""What a session remembers of open calls, when they run out of time, and what both of its sides share."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Mapping
from typing import Final

from haif.base import limits
from haif.base.clock import Deadline, Instant
from haif.base.errors import Malformed
from haif.wire.events import Event
from haif.wire.flow import Sender
from haif.wire.frames import Outbox, RequestHead
from haif.wire.intake import Intake, Partial, Window

_STALE_MAX: Final = 1024


class Made:
    """A call we made: open until the peer ends it, cancelled or not."""

    __slots__ = ("cancelled", "deadline", "partial", "streaming", "window")

    def __init__(self, deadline: Deadline, *, streaming: bool) -> None:
        self.deadline = deadline
        self.streaming = streaming
        self.window = Window(limits.STREAM_CREDIT_BYTES) if streaming else None
        self.partial: Partial | None = None
        self.cancelled = False


class Served:
    """A call the peer made: open until our end of it has left."""

    __slots__ = ("deadline", "head", "partial", "streaming")

    def __init__(self, deadline: Deadline, head: RequestHead, *, streaming: bool) -> None:
        self.deadline = deadline
        self.head = head
        self.streaming = streaming
        self.partial: Partial | None = None


class Deadlines:
    """When the next open call runs out of time. Calls that ended are passed over, and swept out before they pile up."""

    def __init__(self, made: Mapping[int, Made], served: Mapping[int, Served]) -> None:
        self._made = made
        self._served = served
        self._heap: list[tuple[Instant, int]] = []

    def add(self, deadline: Deadline, stream: int) -> None:
        """Expect the call on `stream` to end by then."""
        heapq.heappush(self._heap, (deadline.at, stream))
        if len(self._heap) > 2 * (len(self._made) + len(self._served)) + _STALE_MAX:
            self._heap = [entry for entry in self._heap if self._open(*entry)]
            heapq.heapify(self._heap)

    def next(self) -> Instant | None:
        """The next deadline of an open call."""
        while self._heap and not self._open(*self._heap[0]):
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def passed(self, now: Instant) -> int | None:
        """The stream of an open call whose deadline has passed; it is told once."""
        at = self.next()
        return heapq.heappop(self._heap)[1] if at is not None and at <= now else None

    def __len__(self) -> int:
        return len(self._heap)

    def _open(self, at: Instant, stream: int) -> bool:
        call = self._made.get(stream) or self._served.get(stream)
        return call is not None and call.deadline.at == at


class Shared:
    """What the calls of both directions of a session share."""

    def __init__(self, events: deque[Event]) -> None:
        self.events = events
        self.out = Outbox()
        self.sender = Sender(self.out)
        self.intake = Intake(self.out)
        self.made: dict[int, Made] = {}
        self.served: dict[int, Served] = {}
        self.deadlines = Deadlines(self.made, self.served)


def check_empty(start: int, end: int) -> None:
    """Raises `Malformed` if there is a payload in a frame that has none."""
    if start != end:
        raise Malformed("a frame that must be empty is not")
