"""A network worse than life: what happens to a datagram between two addresses, all of it values, all of it from a seed.

`Conditions` say how a link behaves, a `Fault` says where and when other conditions hold, and `Links` draws each
datagram's fate. A link keeps its delay (drawn once, alike in both directions); jitter comes on top of it. Bursts are a
Gilbert-Elliott channel in continuous time (Gilbert 1960, Elliott 1963): a link is good or bad for exponential times.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import exp, inf
from random import Random
from zlib import crc32

from haif.base.clock import Instant
from haif.base.machine import Address

_BURSTS_REMEMBERED = 1 << 18  # links whose state is kept; beyond it all begin anew
_HASH_SPAN = 1 << 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Bursts:
    """Mean seconds a link is good and bad, and what it loses (0 to 1) while it is bad."""

    good_seconds: float = 20.0
    bad_seconds: float = 1.0
    loss: float = 0.5

    @property
    def bad_share(self) -> float:
        """The share of time a link is bad."""
        return self.bad_seconds / (self.good_seconds + self.bad_seconds)

    def bad_after(self, was_bad: bool, seconds: float) -> float:
        """The probability of being bad so long after a known state (the two-state Markov chain, solved)."""
        fading = exp(-seconds * (1 / self.good_seconds + 1 / self.bad_seconds))
        return self.bad_share + (was_bad - self.bad_share) * fading


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What happens to a datagram. Probabilities from 0 to 1, times in seconds."""

    delay_min: float = 0.005
    delay_max: float = 0.085
    jitter: float = 0.002  # mean of the exponential time that comes on top of the link's delay
    loss: float = 0.0
    bursts: Bursts | None = None
    duplication: float = 0.0
    reordering: float = 0.0  # datagrams held back by up to `held_back_max`, so that later ones overtake them
    held_back_max: float = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Other conditions on some links for some time. `sources` or `destinations` None: everybody.

    `crossing` instead matches what goes into or out of a group, whoever joins later included. A clogged link holds
    everything until the fault ends, and then delivers it all. Of several faults that match, the last one holds.
    """

    sources: frozenset[Address] | None = None
    destinations: frozenset[Address] | None = None
    crossing: frozenset[Address] | None = None
    begins: float = 0.0
    ends: float = inf
    conditions: Conditions | None = None  # None: as without the fault
    clogged: bool = False

    def matches(self, source: Address, destination: Address, now: Instant) -> bool:
        """Whether a datagram sent now meets this fault."""
        return (
            self.begins <= now < self.ends
            and (self.sources is None or source in self.sources)
            and (self.destinations is None or destination in self.destinations)
            and (self.crossing is None or (source in self.crossing) != (destination in self.crossing))
        )


def partition(group: Iterable[Address], *, begins: float, ends: float = inf) -> Fault:
    """A group is cut off from everybody else, both ways, until the network heals."""
    return Fault(crossing=frozenset(group), begins=begins, ends=ends, conditions=Conditions(loss=1.0))


def one_way(sources: Iterable[Address], conditions: Conditions, *, begins: float = 0.0, ends: float = inf) -> Fault:
    """What some send meets these conditions; what they receive does not: an asymmetric link."""
    return Fault(sources=frozenset(sources), begins=begins, ends=ends, conditions=conditions)


def clog(group: Iterable[Address], *, begins: float, ends: float) -> Fault:
    """Whatever goes into or out of a group waits, and arrives after the end."""
    return Fault(crossing=frozenset(group), begins=begins, ends=ends, clogged=True)


@dataclass(slots=True)
class Links:
    """Draws the fate of each datagram. The state of bursts is the only thing it remembers."""

    random: Random
    salt: str = ""  # another one: other delays for the same addresses
    conditions: Conditions = field(default_factory=Conditions)
    faults: list[Fault] = field(default_factory=list)
    _places: dict[Address, float] = field(default_factory=dict)
    _bad: dict[tuple[Address, Address], tuple[bool, Instant]] = field(default_factory=dict)

    def arrivals(self, source: Address, destination: Address, now: Instant) -> list[Instant]:
        """When each copy of a datagram sent now arrives; empty when it is lost."""
        conditions, leaves = self.conditions, now
        for fault in self.faults:
            if fault.matches(source, destination, now):
                conditions = fault.conditions or conditions
                leaves = Instant(max(leaves, fault.ends)) if fault.clogged else leaves
        random = self.random
        if conditions.loss and random.random() < conditions.loss:
            return []
        if conditions.bursts is not None and self._burst(conditions.bursts, source, destination, now):
            return []
        delay = self._delay(conditions, source, destination)
        if conditions.duplication and random.random() < conditions.duplication:
            return [Instant(leaves + delay + self._extra(conditions)) for _ in range(2)]
        return [Instant(leaves + delay + self._extra(conditions))]

    def _delay(self, conditions: Conditions, source: Address, destination: Address) -> float:
        """Uniform over links, because the sum of two uniform places modulo 1 is."""
        share = (self._place(source) + self._place(destination)) % 1.0
        return conditions.delay_min + (conditions.delay_max - conditions.delay_min) * share

    def _extra(self, conditions: Conditions) -> float:
        extra = self.random.expovariate(1 / conditions.jitter) if conditions.jitter else 0.0
        if conditions.reordering and self.random.random() < conditions.reordering:
            extra += self.random.uniform(0, conditions.held_back_max)
        return extra

    def _burst(self, bursts: Bursts, source: Address, destination: Address, now: Instant) -> bool:
        """Whether a burst takes this datagram."""
        link = source, destination
        known = self._bad.get(link)
        chance = bursts.bad_share if known is None else bursts.bad_after(known[0], now - known[1])
        bad = self.random.random() < chance
        if len(self._bad) >= _BURSTS_REMEMBERED:
            self._bad.clear()
        self._bad[link] = bad, now
        return bad and self.random.random() < bursts.loss

    def _place(self, address: Address) -> float:
        place = self._places.get(address)
        if place is None:
            place = self._places[address] = crc32(f"{self.salt} {address[0]} {address[1]}".encode()) / _HASH_SPAN
        return place
