"""Who wants to be told when something is stored here: registrations that lapse, and how often each may be told.

A registration needs a round-trip token, so notices go only where somebody asked for them from; it lapses by itself.
A notice is one datagram for one record that was accepted. Each watcher has a token bucket: a flood of changes ends
here, and its watcher reads what it missed. So nobody can be made to receive more than `limits.NOTICES_PER_SECOND`
datagrams from here, whoever stores what.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass

from haif.base import limits
from haif.base.clock import Instant
from haif.base.ids import Digest
from haif.base.machine import Address
from haif.dht.contact import subnet
from haif.dht.diversity import Scope, networks
from haif.policy.bucket import Bucket


@dataclass(slots=True)
class _Registration:
    handle: bytes
    lapses: Instant
    bucket: Bucket


class Watchers:
    """Registrations, bounded in all, per subnet, per topic, and per both. `exempt`: whose subnets are not counted."""

    def __init__(self, exempt: Scope = Scope.NOTHING) -> None:
        self._exempt = exempt
        self._topics: dict[Digest, dict[Address, _Registration]] = {}
        self._order: OrderedDict[tuple[Digest, Address], None] = OrderedDict()  # who lapses first is first
        self._subnets: Counter[bytes] = Counter()

    def register(self, topic: Digest, handle: bytes, watcher: Address, now: Instant) -> bool:
        """Tell this address of changes from now on, for `limits.WATCH_REGISTRATION_SECONDS`; False where none fits."""
        self.forget_lapsed(now)
        here = self._topics.get(topic, {})
        known = here.get(watcher)
        if known is None:
            if not self._has_room(here, watcher):
                return False
            self._subnets[subnet(watcher)] += 1
        bucket = known.bucket if known else _full(now)
        lapses = Instant(now + limits.WATCH_REGISTRATION_SECONDS)
        self._topics.setdefault(topic, {})[watcher] = _Registration(handle, lapses, bucket)
        self._order[topic, watcher] = None
        self._order.move_to_end((topic, watcher))
        return True

    def tell(self, topic: Digest, now: Instant) -> list[tuple[bytes, Address]]:
        """Whom to tell of a change now: the handle each chose, and where it is."""
        told: list[tuple[bytes, Address]] = []
        for watcher, registration in self._topics.get(topic, {}).items():
            if registration.lapses > now:
                registration.bucket, answer = registration.bucket.take(1, now)
                if answer.allowed:
                    told.append((registration.handle, watcher))
        return told

    def forget_lapsed(self, now: Instant) -> None:
        """Drop what has lapsed."""
        while self._order:
            topic, watcher = next(iter(self._order))
            if self._topics[topic][watcher].lapses > now:
                return
            self._forget(topic, watcher)

    def __len__(self) -> int:
        return len(self._order)

    def _has_room(self, here: dict[Address, _Registration], watcher: Address) -> bool:
        if len(self) >= limits.WATCHERS_MAX or len(here) >= limits.WATCHERS_PER_TOPIC_MAX:
            return False
        mine = subnet(watcher)
        return networks(watcher).scope >= self._exempt or (
            self._subnets[mine] < limits.WATCHERS_PER_SUBNET_MAX
            and sum(subnet(other) == mine for other in here) < limits.WATCHERS_PER_TOPIC_AND_SUBNET_MAX
        )

    def _forget(self, topic: Digest, watcher: Address) -> None:
        here, theirs = self._topics[topic], subnet(watcher)
        del self._order[topic, watcher], here[watcher]
        self._subnets[theirs] -= 1
        if not self._subnets[theirs]:
            del self._subnets[theirs]
        if not here:
            del self._topics[topic]


def _full(now: Instant) -> Bucket:
    return Bucket.full(capacity=limits.NOTICES_BURST, rate=limits.NOTICES_PER_SECOND, now=now)
