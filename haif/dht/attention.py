"""The topics watched here, kept true: by what is stored at this very node, by notices, and by reading.

1. a watch begins with a read of the whole closest set, in which some of its holders promise notices
2. the promises are renewed before they lapse; where too few hold, the set is read again
3. a notice counts only from where a promise came, under that holder's signature, with a record that itself holds
4. whatever brings news says so once, and what is there now is asked for by whoever listens
"""

from __future__ import annotations

from collections.abc import Callable

from haif.base import limits
from haif.base.clock import Instant, WallTime
from haif.base.errors import Malformed, Overloaded, Unauthenticated, WrongState
from haif.base.ids import Digest, NetId, PeerId
from haif.base.machine import Address
from haif.dht import messages
from haif.dht.messages import Datagram
from haif.dht.reading import Observe, Renew
from haif.dht.watch import Watch
from haif.identity.keys import Verify
from haif.identity.signing import Verified
from haif.protocol.records import Record, open_record

Begin = Callable[[Watch, bool, Instant], bool]
"""Begins to read a topic, or (True) only to renew what its holders promised; False while there is too much to do."""

_BUSY_SECONDS = 1.0  # until what could not begin is tried again


class Attention:
    """The watches of a node."""

    def __init__(
        self,
        net: NetId,
        entropy: Callable[[int], bytes],
        wall: Callable[[], WallTime],
        *,
        verify: Verify,
        begin: Begin,
        changed: Callable[[Digest], None],
    ) -> None:
        self._net, self._entropy, self._wall, self._verify = net, entropy, wall, verify
        self._begin, self._changed = begin, changed
        self._topics: dict[Digest, Watch] = {}
        self._handles: dict[bytes, Watch] = {}
        self._lead = 0.0  # what the monotonic clock shows more than the time of day, in seconds
        self.notices = 0  # that brought news
        self.missed = 0  # records that a read brought and no notice had

    def watch(self, topic: Digest, now: Instant) -> None:
        """Keep this topic known from now on. Raises `Overloaded` for more than `limits.WATCHES_MAX`."""
        if topic in self._topics:
            return
        if len(self) >= limits.WATCHES_MAX:
            raise Overloaded(f"this node watches {limits.WATCHES_MAX} topics; that is all it may")
        watch = Watch(topic, self._entropy(messages.HANDLE_BYTES), now)
        self._topics[topic] = self._handles[watch.handle] = watch
        self.wake(now)

    def unwatch(self, topic: Digest) -> None:
        """Let it go. What its holders promised lapses by itself."""
        watch = self._topics.pop(topic, None)
        if watch is not None:
            del self._handles[watch.handle]

    def held(self, topic: Digest) -> dict[PeerId, Verified[Record]]:
        """The newest word of each owner, as far as we know, that it withdrew what it said included."""
        watch = self._topics.get(topic)
        return watch.held(self._wall()) if watch else {}

    def hurry(self, topic: Digest, now: Instant) -> None:
        """Somebody has reason to believe that we miss something there."""
        if topic in self._topics:
            self._topics[topic].pace.hurry(now)

    def stored(self, record: Verified[Record]) -> None:
        """A record was stored at this node."""
        watch = self._topics.get(record.payload.topic)
        if watch is not None and watch.consider(record, self._wall()):
            self._changed(watch.topic)

    def noticed(self, datagram: Datagram, source: Address) -> None:
        """A notice came. Raises a `PeerFault` or `Refusal` for what is wrong with it."""
        watch = self._handles.get(datagram.tid)
        if watch is None:
            raise WrongState("a notice of nothing that is watched here")
        promised = watch.holder_at(source)
        if promised is None:
            raise Unauthenticated("a notice from where nobody has promised one")
        holder, data = messages.open_notice(datagram, net=self._net, topic=watch.topic, verify=self._verify)
        if holder != promised:
            raise Unauthenticated("a notice by another peer than has promised one")
        record = open_record(data, net=self._net, now=self._wall(), verify=self._verify)
        if record.payload.topic != watch.topic:
            raise Malformed("a notice of a record of another topic", holder)
        if watch.consider(record, self._wall()):
            self.notices += 1
            self._changed(watch.topic)

    def ended(self, observed: Observe, now: Instant) -> None:
        """A read or a renewal has ended."""
        watch, is_first = observed.watch, not observed.watch.was_read
        missed = sum([watch.consider(record, self._wall()) for record in observed.records])
        watch.holders = observed.promised
        if not is_first:
            self.missed += missed
        chance = int.from_bytes(self._entropy(2), "big") / 65535
        if not isinstance(observed, Renew):
            watch.was_read = True
            watch.pace.read(now, chance, missed=bool(missed) and not is_first, notified=bool(watch.holders))
        elif len(watch.holders) > limits.WATCH_HOLDERS // 2 and not missed:
            watch.pace.renewed(now, chance)
        else:
            watch.pace.hurry(now)
        if missed or is_first:
            self._changed(watch.topic)

    def wake_at(self) -> Instant | None:
        """When something is due."""
        return min(map(self._due, self._topics.values())) if self._topics else None

    def wake(self, now: Instant) -> None:
        """Read what is due to be read, and tell of what has expired."""
        wall = self._wall()
        self._lead = now - wall / 1000
        for watch in list(self._topics.values()):
            if watch.expired(wall):
                self._changed(watch.topic)
            if watch.pace.read_at <= now:
                watch.pace.reading(now)
                if not self._begin(watch, False, now):
                    watch.pace.read_at = Instant(now + _BUSY_SECONDS)
            elif watch.pace.renew_at <= now:
                watch.pace.renewing()
                if not self._begin(watch, True, now):
                    watch.pace.renew_at = Instant(now + _BUSY_SECONDS)

    def __len__(self) -> int:
        return len(self._topics)

    def _due(self, watch: Watch) -> Instant:
        due = min(watch.pace.read_at, watch.pace.renew_at)
        return due if watch.gone_at is None else Instant(min(due, watch.gone_at / 1000 + self._lead))
