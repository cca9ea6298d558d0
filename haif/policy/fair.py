"""A line in which tenants take turns by tokens and weight, and classes of service do, so that no crowd holds up others.

Start-time fair queueing (Goyal, Vin, Cheng 1996), once between classes and once between the tenants of each: whoever
begins to wait starts at the virtual time, the latest start that was served, or where its own last turn ended if that is
later; the earliest start is served, and its next one is its cost over its weight later. So who asks seldom is next
whatever the others have waiting, who asks all the time gets its weight's share, and nobody waits for ever.

With one change: who begins to wait may start up to `credit` before the virtual time, if its last turn ended by then. So
what was not used of a share lately can be used at once: requests come in bursts, and who stays below its share in the
mean is not held up by who is above.

Promised of any tenant or class that keeps waiting beside another: what they were served of, each over its weight,
differs by no more than the largest cost of each over its weight (their theorem 1), and by the credit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import Final, Generic, TypeVar

from haif.base.errors import Overloaded

K = TypeVar("K", bound=Hashable)
_IDLE_KEPT: Final = 64  # ends of turns that are looked through only when there are more


class Turns(Generic[K]):
    """Whose turn it is among those who wait. Charges and `credit` are costs over weights."""

    def __init__(self, credit: float) -> None:
        self._credit = credit
        self._now = 0.0  # the latest start that was served
        self._starts: dict[K, float] = {}  # of those who wait
        self._ends: dict[
            K, float
        ] = {}  # of the last turns of those who do not, where that is less than the credit before `_now`
        self._ends_max = _IDLE_KEPT
        self._order: list[tuple[float, int, K]] = []  # a heap; entries that are not a start any more are passed over
        self._put_count = 0

    def wait(self, key: K) -> None:
        """From now on it waits."""
        self._put(key, max(self._now - self._credit, self._ends.pop(key, 0.0)))

    def leave(self, key: K) -> None:
        """It waits no longer, and was not served."""
        self._remember(key, self._starts.pop(key))

    def first(self) -> K:
        """Whose turn it is. Somebody must wait."""
        while self._starts.get(self._order[0][2]) != self._order[0][0]:
            heappop(self._order)
        return self._order[0][2]

    def served(self, key: K, charge: float, *, more: bool) -> None:
        """It had its turn; `more`: it goes on waiting, for the next."""
        start = self._starts.pop(key)
        self._now = max(self._now, start)
        if more:
            self._put(key, start + charge)
        else:
            self._remember(key, start + charge)

    def refund(self, key: K, charge: float) -> None:
        """It used less than it was charged for. No more than the credit can be saved up."""
        if key in self._starts:
            start = self._starts[key]
            self._put(key, max(min(start, self._now - self._credit), start - charge))
        elif key in self._ends:
            self._ends[key] -= charge

    def _put(self, key: K, start: float) -> None:
        self._starts[key] = start
        self._put_count += 1
        heappush(self._order, (start, self._put_count, key))
        if len(self._order) > 2 * len(self._starts) + _IDLE_KEPT:
            self._order = [entry for entry in self._order if self._starts.get(entry[2]) == entry[0]]
            heapify(self._order)

    def _remember(self, key: K, end: float) -> None:
        self._ends[key] = end
        if len(self._ends) > self._ends_max:
            self._ends = {each: end for each, end in self._ends.items() if end > self._now - self._credit}
            self._ends_max = 2 * len(self._ends) + _IDLE_KEPT


@dataclass(eq=False, slots=True)
class Place:
    """Somebody in the line: of which class (its rank), whose, of what weight, and what serving it costs in tokens."""

    rank: int
    tenant: str
    weight: int
    cost: int


class Line:
    """Those who wait, by class and tenant, each tenant's in the order they came.

    `shares`: the weight of each class; `credit`, in tokens of a tenant of weight 1: what can be saved up. At most
    `places_max` wait; when there are more, one of the tenant with most gives way, so that a crowd only ever crowds out
    itself.
    """

    def __init__(self, shares: Sequence[int], *, places_max: int, credit: float) -> None:
        self._shares = tuple(shares)
        self._places_max = places_max
        self._ranks = Turns[int](credit)
        self._tenants = [Turns[str](credit) for _ in shares]
        self._waiting: list[dict[str, deque[Place]]] = [{} for _ in shares]
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def join(self, place: Place) -> Place | None:
        """Wait. Returns who gave way for it, if somebody had to; raises `Overloaded` where it would be itself."""
        out = self._crowded_out(place) if self._length >= self._places_max else None
        waiting = self._waiting[place.rank]
        if not waiting:
            self._ranks.wait(place.rank)
        if place.tenant not in waiting:
            self._tenants[place.rank].wait(place.tenant)
        waiting.setdefault(place.tenant, deque()).append(place)
        self._length += 1
        return out

    def leave(self, place: Place) -> None:
        """Wait no longer."""
        waiting, places = self._waiting[place.rank], self._waiting[place.rank][place.tenant]
        places.remove(place)
        self._length -= 1
        if not places:
            del waiting[place.tenant]
            self._tenants[place.rank].leave(place.tenant)
        if not waiting:
            self._ranks.leave(place.rank)

    def call(self) -> Place:
        """Whose turn it is: it waits no longer. Somebody must wait."""
        rank = self._ranks.first()
        waiting, tenants = self._waiting[rank], self._tenants[rank]
        tenant = tenants.first()
        place = waiting[tenant].popleft()
        more = bool(waiting[tenant])
        if not more:
            del waiting[tenant]
        self._length -= 1
        tenants.served(tenant, place.cost / place.weight, more=more)
        self._ranks.served(rank, place.cost / self._shares[rank], more=bool(waiting))
        return place

    def settle(self, place: Place, used: int) -> None:
        """Serving it took so many tokens; what it was charged for beyond that is its tenant's again."""
        spare = max(0, place.cost - used)
        self._tenants[place.rank].refund(place.tenant, spare / place.weight)
        self._ranks.refund(place.rank, spare / self._shares[place.rank])

    def ahead(self, place: Place) -> int:
        """How many will about be served before one that joins now, were all of one cost."""
        waiting = self._waiting[place.rank]
        mine = len(waiting.get(place.tenant, ()))
        rounds = (mine + 1) / place.weight
        before = mine + sum(
            min(len(places), int(rounds * places[-1].weight))
            for tenant, places in waiting.items()
            if tenant != place.tenant
        )
        share = self._shares[place.rank]
        others = sum(
            min(sum(map(len, self._waiting[rank].values())), int((before + 1) * weight / share))
            for rank, weight in enumerate(self._shares)
            if rank != place.rank
        )
        return before + others

    def _crowded_out(self, place: Place) -> Place:
        """The last of the tenant that has most waiting for its weight. Raises `Overloaded` if that is who comes."""
        mine = len(self._waiting[place.rank].get(place.tenant, ()))
        most = max(
            (places for waiting in self._waiting for places in waiting.values()),
            key=lambda places: len(places) / places[-1].weight,
        )
        if (mine + 1) / place.weight >= len(most) / most[-1].weight:
            raise Overloaded(f"{self._length} requests wait for this model, as many as may")
        out = most[-1]
        self.leave(out)
        return out
