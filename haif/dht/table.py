"""The routing table: 256 buckets of at most k contacts, one per length of the prefix shared with our own id.

Only a peer that has just answered a query of ours under its own signature enters, and only so many of one network
(`diversity`): ids are cheap, addresses in many networks are not. Old contacts that still answer are
never displaced by newer ones (Kademlia, Maymounkov and Mazieres 2002, section 2.2): a newcomer to a full bucket waits
in its replacement cache, and the longest silent contact is pinged.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from haif.base import limits
from haif.base.clock import Instant
from haif.base.ids import Digest, PeerId
from haif.dht.contact import Contact, node_id, shared
from haif.dht.diversity import Census, Scope, networks

ID_BITS = 256
_BRANCH_BITS = 3
_LOT_BITS = 64


@dataclass(slots=True)
class _Entry:
    contact: Contact
    seen: Instant
    id: int
    lot: int
    entered: int = 0  # when, counted in entries
    failures: int = 0


@dataclass(slots=True)
class _Bucket:
    refreshed: Instant
    entries: OrderedDict[PeerId, _Entry] = field(default_factory=OrderedDict)  # the longest silent first
    waiting: OrderedDict[PeerId, _Entry] = field(default_factory=OrderedDict)
    branches: list[int] = field(default_factory=lambda: [0] * (1 << _BRANCH_BITS))  # entries in each
    passed_over: int = 0  # strangers who would only take another's place, since one of them was pinged


class RoutingTable:
    """Whom we know. Bounded by 256 buckets of `limits.DHT_K` and `limits.DHT_REPLACEMENTS_MAX` waiting.

    `exempt` says whose networks are not counted; by default everybody's are.
    """

    def __init__(self, own: PeerId, *, exempt: Scope = Scope.NOTHING, salt: bytes = b"") -> None:
        self._own = own
        self._own_id = node_id(own)
        self._buckets: dict[int, _Bucket] = {}
        self._census = Census(exempt)
        self._entries = 0
        self._factor = int.from_bytes(salt, "big") | 1
        self._near = 0  # the distance within which everybody is kept

    def widen(self, near: int) -> None:
        """From now on keep up to `limits.DHT_SIBLINGS_MAX` in each bucket that reaches closer to us than `near`."""
        self._near = near

    def _room(self, prefix: int) -> int:
        return limits.DHT_SIBLINGS_MAX if 1 << (ID_BITS - 1 - prefix) < self._near else limits.DHT_K

    def heard(self, contact: Contact, now: Instant) -> Contact | None:
        """Note a valid signed reply to our own query. Returns a silent contact that should be pinged, if any.

        A known peer keeps its address until that one has failed: a relayed reply cannot move it.
        """
        if contact.peer == self._own:
            return None
        prefix = self._prefix(contact.peer)
        bucket = self._buckets.setdefault(prefix, _Bucket(now))
        entry = bucket.entries.get(contact.peer)
        if entry is not None:
            if entry.failures and entry.contact != contact:
                self._move(prefix, entry, contact)
            if entry.contact == contact:
                entry.seen, entry.failures = now, 0
                bucket.entries.move_to_end(contact.peer)
            return None
        if not self._census.admits(prefix, contact.address):
            return None
        if len(bucket.entries) < self._room(prefix):
            bucket.waiting.pop(contact.peer, None)
            self._enter(prefix, bucket, self._entry(shared(contact), now))
            return None
        entry = self._entry(contact, now)
        if (displaced := self._displaced(prefix, bucket, entry)) is not None:
            self._leave(prefix, bucket, displaced.contact.peer)
            self._enter(prefix, bucket, entry)
            entry = displaced
        self._wait(bucket, entry)
        oldest = next(iter(bucket.entries.values()))
        return oldest.contact if now - oldest.seen > limits.DHT_SELF_LOOKUP_SECONDS else None

    def failed(self, contact: Contact) -> bool:
        """Note an unanswered query; after `limits.DHT_FAILURES_MAX` in a row the latest waiting contact takes over.

        Whether the contact has left.
        """
        bucket = self._buckets.get(self._prefix(contact.peer))
        entry = bucket.entries.get(contact.peer) if bucket else None
        if entry is None or entry.contact != contact:
            return False
        entry.failures += 1
        if entry.failures < limits.DHT_FAILURES_MAX:
            return False
        self.drop(contact.peer)
        return True

    def drop(self, peer: PeerId) -> None:
        """Forget a peer; the latest waiting contact that still may takes its place."""
        prefix = self._prefix(peer)
        bucket = self._buckets.get(prefix)
        if bucket is None:
            return
        bucket.waiting.pop(peer, None)
        if peer not in bucket.entries:
            return
        self._leave(prefix, bucket, peer)
        while bucket.waiting and len(bucket.entries) < self._room(prefix):
            _, replacement = bucket.waiting.popitem(last=True)
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
        if (entry := bucket.waiting.get(culprit.peer)) is not None and entry.contact == culprit:
            del bucket.waiting[culprit.peer]
        if (entry := bucket.entries.get(culprit.peer)) is not None and entry.contact == culprit:
            self.drop(culprit.peer)

    def wants(self, contact: Contact) -> bool:
        """Whether there is room for a peer that is not here yet."""
        prefix = self._prefix(contact.peer)
        bucket = self._buckets.get(prefix)
        if contact.peer == self._own or not self._census.admits(prefix, contact.address):
            return False
        if bucket is None:
            return True
        if contact.peer in bucket.entries:
            return False
        if len(bucket.entries) < self._room(prefix):
            return True
        return self._outdrawn(prefix, bucket, contact.peer, self._lot(contact)) is not None

    def invites(self, stranger: Contact) -> bool:
        """Whether to ping somebody who asked us something: of those who would only take another's place, a few.

        A full bucket is drawn anew slowly enough so; a ping for each would be a quarter of all datagrams.
        """
        if not self.wants(stranger):
            return False
        prefix = self._prefix(stranger.peer)
        bucket = self._buckets.get(prefix)
        if bucket is None or len(bucket.entries) < self._room(prefix):
            return True
        bucket.passed_over = (bucket.passed_over + 1) % limits.DHT_DRAWN_OF
        return bucket.passed_over == 0

    def closest(self, target: int, count: int, *, since: Instant | None = None) -> list[Contact]:
        """Up to `count` contacts closest to the target, nearest first.

        With `since`, only what may be passed on: heard at that time or later, and no query unanswered since.
        """
        found: list[Contact] = []
        for bucket in self._outwards(target):
            inside = [
                (entry.id ^ target, entry.contact)
                for entry in bucket.entries.values()
                if since is None or (entry.seen >= since and not entry.failures)
            ]
            inside.sort()
            found += [contact for _, contact in inside]
            if len(found) >= count:
                break
        return found[:count]

    def from_each_bucket(self, count: int) -> list[Contact]:
        """Up to `count` of each bucket, those that came first."""
        return [
            entry.contact
            for _, bucket in sorted(self._buckets.items())
            for entry in sorted(bucket.entries.values(), key=lambda entry: entry.entered)[:count]
        ]

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
        """The buckets with room outside our neighbourhood: to be looked up after joining (section 2.3 of the paper).

        The neighbourhood is the k contacts closest to us, which the lookup of our own id has found.
        """
        edge = self._edge()
        return (
            []
            if edge is None
            else [n for n in range(edge + 1) if n not in self._buckets or len(self._buckets[n].entries) < limits.DHT_K]
        )

    def target_in(self, prefix: int, entropy: Callable[[int], bytes]) -> Digest:
        """A random target that shares exactly `prefix` bits with our id."""
        below = ID_BITS - 1 - prefix
        noise = int.from_bytes(entropy(Digest.size), "big") & ((1 << below) - 1)
        flipped = ((self._own_id >> below) ^ 1) << below
        return Digest((flipped | noise).to_bytes(Digest.size, "big"))

    def __len__(self) -> int:
        return sum(len(bucket.entries) for bucket in self._buckets.values())

    def __contains__(self, peer: PeerId) -> bool:
        bucket = self._buckets.get(self._prefix(peer))
        return bucket is not None and peer in bucket.entries

    def _outwards(self, target: int) -> Iterator[_Bucket]:
        """The buckets by distance from a target: everything in one is closer to it than anything in the next.

        With p bits shared by target and us, bucket p shares more than p bits with the target, those beyond p share p,
        and each below p shares its own number. Of those beyond p, bucket q lies before all deeper ones if the target
        differs from us in bit q, as the contacts in q do, and behind them if it does not.
        """
        difference = self._own_id ^ target
        shared = ID_BITS - difference.bit_length()
        before: list[int] = []
        behind: list[int] = []
        for prefix in sorted(self._buckets):
            if prefix > shared and difference >> (ID_BITS - 1 - prefix) & 1:
                before.append(prefix)
            elif prefix != shared:
                behind.append(prefix)
        if shared in self._buckets:
            yield self._buckets[shared]
        for prefix in before:
            yield self._buckets[prefix]
        for prefix in reversed(behind):
            yield self._buckets[prefix]

    def _edge(self) -> int | None:
        """The last bucket that is not all neighbourhood; None if we know everybody."""
        near = self.closest(self._own_id, limits.DHT_K)
        return self._prefix(near[-1].peer) if len(near) == limits.DHT_K else None

    def _prefix(self, peer: PeerId) -> int:
        return ID_BITS - (self._own_id ^ node_id(peer)).bit_length()

    def _enter(self, prefix: int, bucket: _Bucket, entry: _Entry) -> None:
        self._entries += 1
        entry.entered = self._entries
        bucket.entries[entry.contact.peer] = entry
        bucket.branches[self._branch(prefix, entry.contact.peer)] += 1
        self._census.enter(prefix, entry.contact.address)

    def _leave(self, prefix: int, bucket: _Bucket, peer: PeerId) -> None:
        entry = bucket.entries.pop(peer)
        bucket.branches[self._branch(prefix, peer)] -= 1
        self._census.leave(prefix, entry.contact.address)

    def _displaced(self, prefix: int, bucket: _Bucket, newcomer: _Entry) -> _Entry | None:
        """Whose place a newcomer to a full bucket takes.

        Half of a bucket belongs to whoever came first; the other half is drawn by lot among the networks of everybody
        who ever answered (min-wise sampling, as in Brahms, Bortnikov et al. 2009). So whoever is older than all others
        gets no more of it than its share of the networks, and whoever comes again and again gets no more either.
        """
        peer = newcomer.contact.peer
        return self._surplus(prefix, bucket, peer) or self._outdrawn(prefix, bucket, peer, newcomer.lot)

    def _outdrawn(self, prefix: int, bucket: _Bucket, newcomer: PeerId, lot: int) -> _Entry | None:
        """The last of the drawn half whose branch is at least as full, if the newcomer's lot is lower than its."""
        least = bucket.branches[self._branch(prefix, newcomer)]
        drawn = sorted(bucket.entries.values(), key=lambda entry: entry.entered)[limits.DHT_K // 2 :]
        outdrawn = [entry for entry in drawn if entry.lot > lot]
        return max(
            (entry for entry in outdrawn if bucket.branches[self._branch(prefix, entry.contact.peer)] >= least),
            key=lambda entry: entry.lot,
            default=None,
        )

    def _entry(self, contact: Contact, now: Instant) -> _Entry:
        return _Entry(contact, now, node_id(contact.peer), self._lot(contact))

    def _lot(self, contact: Contact) -> int:
        """The same for all of a network, and nobody's but ours to know."""
        whose = networks(contact.address).narrow if self._census.counts(contact.address) else contact.peer
        return (int.from_bytes(whose, "big") * self._factor >> _LOT_BITS) & ((1 << _LOT_BITS) - 1)

    def _surplus(self, prefix: int, bucket: _Bucket, newcomer: PeerId) -> _Entry | None:
        """Whose place a newcomer to a full bucket takes: the last to enter the fullest branch, if fuller by two.

        Branches are the next three bits of the ids. Ids ground against one key are all in one branch, so however early
        they came and however long they live, they do not get more of a bucket than the others leave them.
        """
        count = max(bucket.branches)
        if count < bucket.branches[self._branch(prefix, newcomer)] + 2:
            return None
        fullest = bucket.branches.index(count)
        inside = [entry for peer, entry in bucket.entries.items() if self._branch(prefix, peer) == fullest]
        return max(inside, key=lambda entry: entry.entered)

    def _branch(self, prefix: int, peer: PeerId) -> int:
        below = ID_BITS - 1 - prefix  # bits after the one in which the bucket differs from us
        return node_id(peer) >> max(below - _BRANCH_BITS, 0) & ((1 << min(_BRANCH_BITS, below)) - 1)

    def _move(self, prefix: int, entry: _Entry, contact: Contact) -> None:
        """A peer that had failed answers from another address, which counts like any other."""
        self._census.leave(prefix, entry.contact.address)
        if self._census.admits(prefix, contact.address):
            entry.contact = contact
        self._census.enter(prefix, entry.contact.address)

    def _wait(self, bucket: _Bucket, entry: _Entry) -> None:
        """A verified contact waits for a place; one of each network, so that nobody crowds out the others."""
        address = entry.contact.address
        if self._census.counts(address):
            narrow = networks(address).narrow
            for peer in [p for p, e in bucket.waiting.items() if networks(e.contact.address).narrow == narrow]:
                del bucket.waiting[peer]
        bucket.waiting[entry.contact.peer] = entry
        bucket.waiting.move_to_end(entry.contact.peer)
        if len(bucket.waiting) > limits.DHT_REPLACEMENTS_MAX:
            bucket.waiting.popitem(last=False)
