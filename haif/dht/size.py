"""How many nodes the network has, judged by how close the closest ones are; and the region that follows from it.

With N ids spread evenly, the k-th closest to any point lies at about k/N of the key space; (k - 1) / distance is the
unbiased estimate of N from it (order statistics of the uniform distribution). Whoever makes us believe in too many
nodes shrinks the region we search; whoever makes us believe in too few only costs us queries. So:

1. only lookups of targets that we drew ourselves count: ids ground against a key, or against us, are not near those
2. a network counts for the first peer that it showed within two hours: ids invented while a lookup is on its way cost
   no more than their hashes, but the addresses at which they answer are soon used up
3. the median of the last two hours decides, once there are five lookups; before, the lowest of what there is
4. our own neighbourhood in the table, where newcomers never displace the old, bounds it: at most twice what that shows
5. it grows at most twofold an hour, beyond the first `limits.NETWORK_NODES_UNCLAMPED`; it falls at once
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence
from math import inf
from statistics import median

from haif.base import limits
from haif.base.clock import Instant
from haif.base.ids import PeerId
from haif.dht.contact import Contact
from haif.dht.diversity import Scope, networks

KEY_SPACE = 1 << 256
_DOUBTFUL = 3  # times fewer nodes is more than chance does: both show the number to a quarter, and some are dead
_COUNTED_MIN = limits.DHT_K // 2
_NETWORKS_MAX = limits.NETWORK_SAMPLES_MAX * limits.DHT_K


def nodes_from(distances: Sequence[int]) -> float:
    """The number of nodes that explains these distances of the closest, nearest first."""
    return (len(distances) - 1) * KEY_SPACE / max(distances[-1], 1)


def region(nodes: float) -> int:
    """The distance within which `limits.DHT_REGION_FACTOR` times k nodes are expected."""
    return min(KEY_SPACE, int(limits.DHT_REGION_FACTOR * limits.DHT_K / max(nodes, 1.0) * KEY_SPACE))


class NetworkSize:
    """The estimate. Bounded by `limits.NETWORK_SAMPLES_MAX` samples of k contacts. `exempt`: who needs no network."""

    def __init__(self, *, exempt: Scope = Scope.NOTHING) -> None:
        self._exempt = exempt
        self._samples: deque[tuple[Instant, float]] = deque(maxlen=limits.NETWORK_SAMPLES_MAX)
        self._shown: OrderedDict[bytes, tuple[PeerId, Instant]] = OrderedDict()  # by each network, and since when
        self._accepted: tuple[Instant, float] | None = None
        self._verdict: float | None = None

    def sampled(self, found: Sequence[tuple[int, Contact]], now: Instant) -> None:
        """A lookup of a target that we drew ourselves found these closest to it, nearest first, at these distances.

        It says nothing if half of them or more are of networks that have shown another peer before.
        """
        self._verdict = None
        counted = [distance for distance, contact in found if self._is_first(contact, now)]
        if len(found) < limits.DHT_K:
            self._samples.append((now, len(found) + 1.0))  # they are all
        elif len(counted) >= _COUNTED_MIN:
            self._samples.append((now, nodes_from(counted)))

    def needs_samples(self, now: Instant) -> bool:
        """Whether there are too few lookups to go without another."""
        return self._lately(now) < limits.NETWORK_SAMPLES_SOUGHT

    def _lately(self, now: Instant) -> int:
        """How many lookups there are to judge by."""
        since = now - limits.NETWORK_SAMPLE_SECONDS
        while self._samples and self._samples[0][0] < since:
            self._samples.popleft()
            self._verdict = None
        return len(self._samples)

    def is_doubtful(self, around: float, now: Instant) -> bool:
        """Whether few samples show far fewer nodes than our neighbourhood does: perhaps there were, when they were new.

        To believe them costs queries, and is safe; so others should be taken soon.
        """
        return self._lately(now) < limits.NETWORK_SAMPLES_MIN and self._among(few=True) < around / _DOUBTFUL

    def nodes(self, around: float, now: Instant) -> float:
        """The estimate now, given what our own neighbourhood shows (`around`)."""
        few = self._lately(now) < limits.NETWORK_SAMPLES_MIN
        value = min(self._among(few=few), around if few else 2 * around)
        if self._accepted is not None:
            at, before = self._accepted
            value = min(value, max(before * 2 ** ((now - at) / 3600), limits.NETWORK_NODES_UNCLAMPED))
        if not few:
            self._accepted = now, value
        return value

    def around(self, neighbours: Sequence[tuple[int, Contact]]) -> float:
        """What the contacts in our table that are closest to ourselves show, given nearest first with distances."""
        one_each = {self._network(contact): distance for distance, contact in reversed(neighbours)}
        if len(one_each) < limits.DHT_K:
            return len(one_each) + 1.0
        return nodes_from(sorted(one_each.values())[: limits.DHT_K])

    def _among(self, *, few: bool) -> float:
        """The lowest of few samples, the median of many; worked out when they have changed."""
        if self._verdict is None:
            samples = [nodes for _, nodes in self._samples]
            self._verdict = min(samples, default=inf) if few else median(samples)
        return self._verdict

    def _is_first(self, contact: Contact, now: Instant) -> bool:
        """Whether this peer is the first that its network has shown lately."""
        network = self._network(contact)
        peer, since = self._shown.pop(network, (contact.peer, now))
        if now - since > limits.NETWORK_SAMPLE_SECONDS:
            peer, since = contact.peer, now
        self._shown[network] = peer, since
        if len(self._shown) > _NETWORKS_MAX:
            self._shown.popitem(last=False)
        return peer == contact.peer

    def _network(self, contact: Contact) -> bytes:
        narrow, _, scope = networks(contact.address)
        return narrow if scope < self._exempt else contact.peer
