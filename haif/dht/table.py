"""The routing table: 256 buckets of k contacts, one per length of the prefix shared with our own id; near us of more.

Only a peer that has just answered a query of ours under its own signature enters, and only so many of one network
(`diversity`): ids are cheap, addresses in many networks are not. Old contacts that still answer are
never displaced by newer ones (Kademlia, Maymounkov and Mazieres 2002, section 2.2): a newcomer to a full bucket waits
in its replacement cache, and the longest silent contact is pinged.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator
from typing import Final

from haif.base import limits
from haif.base.clock import Instant
from haif.base.ids import Digest, PeerId
from haif.dht.bucket import BRANCH_BITS, Bucket, Entry
from haif.dht.contact import Contact, node_id, shared
from haif.dht.diversity import Census, Scope, networks

ID_BITS: Final = 256
NEAR_MAX: Final = 1 << (ID_BITS - 2)  # whoever is farther from us is in a bucket of at most k
_LOT_BITS = 64
_KNOWS_MANY = 4 * limits.DHT_K  # contacts, from which on half a bucket will do


class RoutingTable:
    """Whom we know. Bounded by 256 buckets of `limits.DHT_K` and `limits.DHT_REPLACEMENTS_MAX` waiting.

    `exempt` says whose networks are not counted; by default everybody's are. `changes` counts who came and went.
    """

    def __init__(self, own: PeerId, *, exempt: Scope = Scope.NOTHING, salt: bytes = b"") -> None:
        self.changes = 0
        self._own = own
        self._own_id = node_id(own)
        self._buckets: dict[int, Bucket] = {}
        self._prefixes: list[int] = []  # of the buckets, in order
        self._census = Census(exempt)
        self._entries = 0
        self._size = 0
        self._factor = int.from_bytes(salt, "big") | 1
        self._near = 0  # the distance within which everybody is kept

    def widen(self, near: int) -> None:
        """From now on keep up to `limits.DHT_SIBLINGS_MAX` in each bucket that reaches closer to us than `near`."""
        self._near = near

    def heard(self, contact: Contact, now: Instant) -> Contact | None:
        """Note a valid signed reply to our own query. Returns a silent contact that should be pinged, if any.

        A known peer keeps its address until that one has failed: a relayed reply cannot move it.
        """
        if contact.peer == self._own:
            return None
        prefix = self._prefix(contact.peer)
        bucket = self._buckets.get(prefix) or self._begun(prefix, now)
        entry = bucket.entries.get(contact.peer)
        if entry is not None:
            if entry.failures and entry.contact != contact:
                self._move(prefix, bucket, entry, contact)
            if entry.contact == contact:
                bucket.heard(entry, now)
            return None
        if not self._census.admits(prefix, contact.address):
            return None
        if self._has_room(prefix, bucket):
            bucket.forget_waiting(contact.peer)
            self._enter(prefix, bucket, self._entry(prefix, shared(contact), now))
            return None
        entry = self._entry(prefix, contact, now)
        if (displaced := bucket.displaced(entry)) is not None:
            self._leave(prefix, bucket, displaced.contact.peer)
            self._enter(prefix, bucket, entry)
            entry = displaced
        bucket.wait(entry)
        return bucket.silent(now)

    def failed(self, contact: Contact) -> bool:
        """Note an unanswered query; after `limits.DHT_FAILURES_MAX` in a row the latest waiting contact takes over.

        Whether the contact has left.
        """
        bucket = self._buckets.get(self._prefix(contact.peer))
        entry = bucket.entries.get(contact.peer) if bucket else None
        if bucket is None or entry is None or entry.contact != contact:
            return False
        if bucket.failed(entry) < limits.DHT_FAILURES_MAX:
            return False
        self.drop(contact.peer)
        return True

    def drop(self, peer: PeerId) -> None:
        """Forget a peer; the latest waiting contact that still may takes its place."""
        prefix = self._prefix(peer)
        bucket = self._buckets.get(prefix)
        if bucket is None:
            return
        bucket.forget_waiting(peer)
        if peer not in bucket.entries:
            return
        self._leave(prefix, bucket, peer)
        while self._has_room(prefix, bucket) and (replacement := bucket.next_waiting()) is not None:
            if self._census.admits(prefix, replacement.contact.address):
                self._enter(prefix, bucket, replacement)

    def bar(self, culprit: PeerId | Contact) -> None:
        """Forget a peer, or a peer at one address only."""
        if not isinstance(culprit, Contact):
            self.drop(culprit)
            return
        bucket = self._buckets.get(self._prefix(culprit.peer))
        if bucket is None:
            return
        bucket.forget_waiting(culprit)
        if (entry := bucket.entries.get(culprit.peer)) is not None and entry.contact == culprit:
            self.drop(culprit.peer)

    def wants(self, contact: Contact) -> bool:
        """Whether there is room for a peer that is not here yet."""
        prefix = self._prefix(contact.peer)
        bucket = self._buckets.get(prefix)
        if not self._may_enter(prefix, bucket, contact):
            return False
        return bucket is None or self._has_room(prefix, bucket) or self._would_displace(prefix, bucket, contact)

    def invites(self, stranger: Contact) -> bool:
        """Whether to ping somebody who asked us something: of those who would find half a bucket filled, a few.

        It is filled, and once full drawn anew, soon enough so; a ping for each would be a quarter of all datagrams.
        Near us everybody is wanted, and by a table that knows few.
        """
        prefix = self._prefix(stranger.peer)
        bucket = self._buckets.get(prefix)
        if not self._may_enter(prefix, bucket, stranger):
            return False
        if bucket is None:
            return True
        if self._has_room(prefix, bucket):
            if len(bucket.entries) < limits.DHT_K // 2 or self._is_near(prefix) or len(self) < _KNOWS_MANY:
                return True
        elif not self._would_displace(prefix, bucket, stranger):
            return False
        bucket.passed_over = (bucket.passed_over + 1) % limits.DHT_DRAWN_OF
        return bucket.passed_over == 0

    def closest(self, target: int, count: int, *, since: Instant | None = None) -> list[Contact]:
        """Up to `count` contacts closest to the target, nearest first.

        With `since`, only what may be passed on: heard at that time or later, and no query unanswered since.
        """
        found: list[Contact] = []
        for bucket in self._outwards(target):
            view = bucket.everybody() if since is None else bucket.passing(since)
            found += view.nearest(target)
            if len(found) >= count:
                break
        return found[:count]

    def from_each_bucket(self, count: int) -> list[Contact]:
        """Up to `count` of each bucket, those that came first."""
        return [entry.contact for prefix in self._prefixes for entry in self._buckets[prefix].elders()[:count]]

    def touch(self, target: int, now: Instant) -> None:
        """Note that a lookup went into the target's bucket."""
        if bucket := self._buckets.get(ID_BITS - (self._own_id ^ target).bit_length()):
            bucket.refreshed = now

    def idle(self, now: Instant, seconds: float) -> list[int]:
        """The buckets outside our neighbourhood into which no lookup went for so long."""
        due = [prefix for prefix, bucket in sorted(self._buckets.items()) if bucket.refreshed <= now - seconds]
        edge = self._edge() if due else None
        for prefix in due:
            if edge is None or prefix > edge:  # the lookup of our own id looks after these
                self._buckets[prefix].refreshed = now
        return [prefix for prefix in due if edge is not None and prefix <= edge]

    def unfilled(self) -> list[int]:
        """The buckets outside our neighbourhood not half full: looked up after joining (section 2.3 of the paper).

        The neighbourhood is the k contacts closest to us, which the lookup of our own id has found.
        """
        edge = self._edge()
        return [] if edge is None else [prefix for prefix in range(edge + 1) if self.count(prefix) < limits.DHT_K // 2]

    def count(self, prefix: int) -> int:
        """How many contacts a bucket has."""
        return len(self._buckets[prefix].entries) if prefix in self._buckets else 0

    def target_in(self, prefix: int, entropy: Callable[[int], bytes]) -> Digest:
        """A random target that shares exactly `prefix` bits with our id."""
        below = ID_BITS - 1 - prefix
        noise = int.from_bytes(entropy(Digest.size), "big") & ((1 << below) - 1)
        flipped = ((self._own_id >> below) ^ 1) << below
        return Digest((flipped | noise).to_bytes(Digest.size, "big"))

    def __len__(self) -> int:
        return self._size

    def __contains__(self, peer: PeerId) -> bool:
        bucket = self._buckets.get(self._prefix(peer))
        return bucket is not None and peer in bucket.entries

    def _outwards(self, target: int) -> Iterator[Bucket]:
        """The buckets by distance from a target: everything in one is closer to it than anything in the next.

        With p bits shared by target and us, bucket p shares more than p bits with the target, those beyond p share p,
        and each below p shares its own number. Of those beyond p, bucket q lies before all deeper ones if the target
        differs from us in bit q, as the contacts in q do, and behind them if it does not.
        """
        difference, buckets = self._own_id ^ target, self._buckets
        shared = ID_BITS - difference.bit_length()
        if shared in buckets:
            yield buckets[shared]
        beyond = bisect_left(self._prefixes, shared + 1)
        behind = self._prefixes[: beyond - (shared in buckets)]
        for prefix in self._prefixes[beyond:]:
            if difference >> (ID_BITS - 1 - prefix) & 1:
                yield buckets[prefix]
            else:
                behind.append(prefix)
        for prefix in reversed(behind):
            yield buckets[prefix]

    def _edge(self) -> int | None:
        """The last bucket that is not all neighbourhood; None if we know everybody."""
        near = self.closest(self._own_id, limits.DHT_K)
        return self._prefix(near[-1].peer) if len(near) == limits.DHT_K else None

    def _prefix(self, peer: PeerId) -> int:
        return ID_BITS - (self._own_id ^ node_id(peer)).bit_length()

    # --- who comes and goes -------------------------------------------------------------------------------------------

    def _begun(self, prefix: int, now: Instant) -> Bucket:
        insort(self._prefixes, prefix)
        bucket = self._buckets[prefix] = Bucket(now)
        return bucket

    def _has_room(self, prefix: int, bucket: Bucket) -> bool:
        return len(bucket.entries) < (limits.DHT_SIBLINGS_MAX if self._is_near(prefix) else limits.DHT_K)

    def _is_near(self, prefix: int) -> bool:
        return 1 << (ID_BITS - 1 - prefix) < self._near

    def _may_enter(self, prefix: int, bucket: Bucket | None, contact: Contact) -> bool:
        is_here = contact.peer == self._own or (bucket is not None and contact.peer in bucket.entries)
        return not is_here and self._census.admits(prefix, contact.address)

    def _would_displace(self, prefix: int, bucket: Bucket, stranger: Contact) -> bool:
        return bucket.outdrawn(_branch(prefix, stranger.peer), self._lot(self._whose(stranger))) is not None

    def _enter(self, prefix: int, bucket: Bucket, entry: Entry) -> None:
        self._entries += 1
        self._size += 1
        self.changes += 1
        bucket.enter(entry, self._entries)
        self._census.enter(prefix, entry.contact.address)

    def _leave(self, prefix: int, bucket: Bucket, peer: PeerId) -> None:
        self._size -= 1
        self.changes += 1
        self._census.leave(prefix, bucket.leave(peer).contact.address)

    def _move(self, prefix: int, bucket: Bucket, entry: Entry, contact: Contact) -> None:
        """A peer that had failed answers from another address, which counts like any other."""
        self._census.leave(prefix, entry.contact.address)
        if self._census.admits(prefix, contact.address):
            self.changes += 1
            bucket.move(entry, contact, self._whose(contact))
        self._census.enter(prefix, entry.contact.address)

    def _entry(self, prefix: int, contact: Contact, now: Instant) -> Entry:
        whose = self._whose(contact)
        return Entry(contact, now, node_id(contact.peer), _branch(prefix, contact.peer), whose, self._lot(whose))

    def _whose(self, contact: Contact) -> bytes:
        return networks(contact.address).narrow if self._census.counts(contact.address) else contact.peer

    def _lot(self, whose: bytes) -> int:
        return (int.from_bytes(whose, "big") * self._factor >> _LOT_BITS) & ((1 << _LOT_BITS) - 1)


def _branch(prefix: int, peer: PeerId) -> int:
    below = ID_BITS - 1 - prefix  # bits after the one in which the bucket differs from us
    return node_id(peer) >> max(below - BRANCH_BITS, 0) & ((1 << min(BRANCH_BITS, below)) - 1)
