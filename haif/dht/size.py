"""How many nodes the network has, judged by how close the closest ones are; and the region that follows from it.

With N ids spread evenly, the k-th closest to any point lies at about k/N of the key space; (k - 1) / distance is the
unbiased estimate of N from it (order statistics of the uniform distribution). Whoever makes us believe in too many
nodes shrinks the region we search; whoever makes us believe in too few only costs us queries. So:

1. only lookups of targets that we drew ourselves count: ids ground against a key, or against us, are not near those
2. one contact of each narrow network counts, as everywhere
3. the median of the last two hours decides, once there are five lookups; before, the lowest of what there is
4. our own neighbourhood in the table, where newcomers never displace the old, bounds it: at most twice what that
   shows, so that ids invented on the way of a lookup are not enough
5. it grows at most twofold an hour, beyond the first `limits.NETWORK_NODES_UNCLAMPED`; it falls at once
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from statistics import median

from haif.base import limits
from haif.base.clock import Instant

KEY_SPACE = 1 << 256


def nodes_from(distances: Iterable[int]) -> float:
    """The number of nodes that explains these distances of the k closest, nearest first; too few: they are all."""
    known = list(distances)[: limits.DHT_K]
    if len(known) < limits.DHT_K:
        return len(known) + 1.0
    return (len(known) - 1) * KEY_SPACE / max(known[-1], 1)


def region(nodes: float) -> int:
    """The distance within which `limits.DHT_REGION_FACTOR` times k nodes are expected."""
    return min(KEY_SPACE, int(limits.DHT_REGION_FACTOR * limits.DHT_K / max(nodes, 1.0) * KEY_SPACE))


class NetworkSize:
    """The estimate. Bounded by `limits.NETWORK_SAMPLES_MAX` samples."""

    def __init__(self) -> None:
        self._samples: deque[tuple[Instant, float]] = deque(maxlen=limits.NETWORK_SAMPLES_MAX)
        self._accepted: tuple[Instant, float] | None = None

    def sampled(self, distances: Iterable[int], now: Instant) -> None:
        """A lookup of a target that we drew ourselves ended with these distances."""
        self._samples.append((now, nodes_from(distances)))

    def needs_samples(self, now: Instant) -> bool:
        """Whether there are too few lookups to judge by."""
        since = now - limits.NETWORK_SAMPLE_SECONDS
        while self._samples and self._samples[0][0] < since:
            self._samples.popleft()
        return len(self._samples) < limits.NETWORK_SAMPLES_MIN

    def nodes(self, neighbourhood: Iterable[int], now: Instant) -> float:
        """The estimate now, given the distances of the contacts in our table closest to ourselves, nearest first."""
        around = nodes_from(neighbourhood)
        few = self.needs_samples(now)
        samples = [nodes for _, nodes in self._samples]
        if few:
            return min([around, *samples])
        value = min(median(samples), 2 * around)
        if self._accepted is not None:
            at, before = self._accepted
            value = min(value, max(before * 2 ** ((now - at) / 3600), limits.NETWORK_NODES_UNCLAMPED))
        self._accepted = now, value
        return value
