"""Our open queries: which reply belongs to which, when to ask again and when to give up.

The timeout follows each address's round trips (RFC 6298: smoothed mean plus four deviations; Karn's rule: none is
measured on a query sent twice). Where an address has not said enough about itself, the others speak for it: one never
heard from is given the time within which nearly all of the last ones answered, and one heard from once deviates as the
others do. After one timeout the query is sent once more and its slot is free; after three it
has failed.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from heapq import heappop, heappush

from haif.base import limits
from haif.base.clock import Instant
from haif.base.machine import Address
from haif.dht.lookup import Ask
from haif.dht.messages import TID_BYTES
from haif.dht.operations import Find


@dataclass(slots=True)
class Open:
    """A query on its way. `operation` is whose it is, if anybody's."""

    tid: bytes
    ask: Ask
    data: bytes
    operation: Find | None
    sent: Instant
    rto: float
    resent: bool = False  # after a timeout
    retried: bool = False  # after a RETRY: a second one is not believed


class RoundTrips:
    """Smoothed round trips of the addresses we last heard from."""

    def __init__(self) -> None:
        self._known: OrderedDict[Address, tuple[float, float]] = OrderedDict()
        self._firsts: deque[float] = deque()
        self._ordered: list[float] = []  # the same
        self._deviation: float | None = None  # of those heard from before
        self._first = limits.DHT_RTO_SECONDS_FIRST

    def timeout(self, address: Address) -> float:
        """Seconds after which a query to this address is sent again."""
        known = self._known.get(address)
        return self._first if known is None else _bounded(known[0] + 4 * known[1])

    def measured(self, address: Address, seconds: float) -> None:
        """Learn from a round trip."""
        known = self._known.pop(address, None)
        if known is None:
            fresh = (seconds, seconds / 2 if self._deviation is None else self._deviation)
            self._compare(seconds)
        else:
            mean, deviation = known
            off = abs(mean - seconds)
            fresh = (0.875 * mean + 0.125 * seconds, 0.75 * deviation + 0.25 * off)
            self._deviation = off if self._deviation is None else 0.9 * self._deviation + 0.1 * off
        self._known[address] = fresh
        if len(self._known) > limits.DHT_ROUND_TRIPS_MAX:
            self._known.popitem(last=False)

    def forget(self, address: Address) -> None:
        """What was learned of an address no longer holds."""
        self._known.pop(address, None)

    def _compare(self, seconds: float) -> None:
        self._firsts.append(seconds)
        insort(self._ordered, seconds)
        if len(self._firsts) > limits.DHT_ROUND_TRIPS_COMPARED:
            del self._ordered[bisect_left(self._ordered, self._firsts.popleft())]
        if len(self._firsts) >= limits.DHT_ROUND_TRIPS_COMPARED // 4 and not len(self._firsts) % 4:
            slow = self._ordered[int(0.95 * len(self._ordered))]
            self._first = min(_bounded(1.25 * slow), limits.DHT_RTO_SECONDS_FIRST)


def _bounded(seconds: float) -> float:
    return min(max(seconds, limits.DHT_RTO_SECONDS_MIN), limits.DHT_RTO_SECONDS_MAX)


class Requests:
    """The open queries. Bounded by `limits.DHT_OPERATIONS_MAX` operations of `limits.LOOKUP_QUERIES_MAX` each."""

    def __init__(self, entropy: Callable[[int], bytes]) -> None:
        self._entropy = entropy
        self._open: dict[bytes, Open] = {}
        self._due: list[tuple[Instant, bytes]] = []
        self._trips = RoundTrips()

    def fresh_tid(self) -> bytes:
        """A tid no open query has."""
        while (tid := self._entropy(TID_BYTES)) in self._open:
            pass
        return tid

    def opened(
        self, tid: bytes, ask: Ask, data: bytes, operation: Find | None, now: Instant, *, retried: bool = False
    ) -> None:
        """Note that a query was sent."""
        rto = self._trips.timeout(ask.address)
        self._open[tid] = Open(tid, ask, data, operation, now, rto, retried=retried)
        heappush(self._due, (Instant(now + rto), tid))

    def get(self, tid: bytes) -> Open | None:
        """The open query with this tid."""
        return self._open.get(tid)

    def answered(self, query: Open, now: Instant) -> None:
        """Close a query that was answered, and learn its round trip."""
        del self._open[query.tid]
        if not query.resent:
            self._trips.measured(query.ask.address, now - query.sent)

    def failed(self, query: Open) -> None:
        """Close a query that nobody answered. Who became slower than its timeout gets a stranger's the next time."""
        del self._open[query.tid]
        self._trips.forget(query.ask.address)

    def closed(self, query: Open) -> None:
        """Close a query without learning anything."""
        del self._open[query.tid]

    def due(self, now: Instant) -> list[Open]:
        """Queries whose time came: to be sent again if not `resent`, else to be closed as failed."""
        found: list[Open] = []
        while self._due and self._due[0][0] <= now:
            query = self._open.get(heappop(self._due)[1])
            if query is not None:
                found.append(query)
        return found

    def again(self, query: Open) -> None:
        """Note that a query was sent again."""
        query.resent = True
        heappush(self._due, (Instant(query.sent + limits.DHT_DROP_RTOS * query.rto), query.tid))

    def wake_at(self) -> Instant | None:
        """When the next open query is due."""
        while self._due and self._due[0][1] not in self._open:
            heappop(self._due)
        return self._due[0][0] if self._due else None

    def __len__(self) -> int:
        return len(self._open)
