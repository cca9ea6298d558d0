"""Between the directory over IPv4 and the one over IPv6: who stands in both carries records over for who does not.

The two know nothing of each other (as in BEP 32): a table, a store and an estimate of the size each, one key. Nobody is
told of addresses that it cannot reach, and no flood of one family's addresses reaches the other's table. So that those
who have one family meet those who have the other:

1. a node of both says in each answer where it stands in the other directory (`elsewhere`)
2. who has one family asks three of those, with each record it publishes, to CARRY it over: the closest to the topic
   that it met on its way, and two drawn by lot from those it heard of elsewhere, so that Sybils around a topic are
   never all of its carriers
3. a carrier checks the record as a store does, and publishes it over there once; nothing is carried twice
4. a node of both that knows few in one directory pings there whom it meets in the other

All that a false `elsewhere` achieves is a ping, and a record asked to be carried that is not; the others carry it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from haif.base import limits
from haif.base.clock import Instant
from haif.base.errors import Malformed, OverQuota
from haif.base.hashing import digest
from haif.base.machine import Address
from haif.dht.contact import Contact, subnet, unpack_address
from haif.dht.diversity import Scope, networks
from haif.dht.messages import short
from haif.policy.bucket import Bucket

_SALT_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Carry:
    """A record that a peer of this family asks us to publish in the directory of the other."""

    record: bytes
    replaces: int | None = None


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """A peer of this directory says that it stands in the other one, at this address."""

    contact: Contact


class Carriers:
    """Who said that it stands in both: the last `limits.DHT_CARRIERS_KNOWN_MAX`. `on_met` hears of each once."""

    def __init__(self, entropy: Callable[[int], bytes], on_met: Callable[[Contact], None]) -> None:
        self._entropy = entropy
        self._known: OrderedDict[Contact, bytes] = OrderedDict()
        self._on_met = on_met

    def heard(self, contact: Contact, elsewhere: bytes) -> None:
        """A peer has answered; empty: it stands here alone. What is no address of anybody is nobody's word."""
        known = self._known.pop(contact, None)
        if not elsewhere:
            return
        if known != elsewhere:
            with suppress(Malformed):
                self._on_met(Contact(contact.peer, unpack_address(elsewhere)))
        self._known[contact] = elsewhere
        if len(self._known) > limits.DHT_CARRIERS_KNOWN_MAX:
            self._known.popitem(last=False)

    def failed(self, contact: Contact) -> None:
        """A peer is gone."""
        self._known.pop(contact, None)

    def choose(self, met: Iterable[Contact]) -> list[Contact]:
        """Whom to ask to carry a record: the first of those met, then others by lot, then the rest of those met."""
        near = [contact for contact in met if contact in self._known]
        salt = self._entropy(_SALT_BYTES) if self._known else b""
        others = sorted(
            self._known.keys() - near, key=lambda contact: digest("haif v1 dht carriers", salt, contact.peer)
        )
        return [*near[:1], *others, *near[1:]][: limits.DHT_CARRIERS]


class Freight:
    """What we carry over for others, in how much time: a bucket for each subnet and one for all; nothing twice.

    `exempt`: whose networks do not count, as their owner is everybody's.
    """

    def __init__(self, now: Instant, exempt: Scope) -> None:
        self._exempt = exempt
        self._all = Bucket.full(capacity=limits.DHT_CARRIED_BURST, rate=limits.DHT_CARRIED_PER_SECOND, now=now)
        self._subnets: OrderedDict[bytes, Bucket] = OrderedDict()
        self._carried: OrderedDict[bytes, None] = OrderedDict()

    def take(self, record: bytes, source: Address, now: Instant) -> bool:
        """Take a record of a peer there; False if we did before. Raises `OverQuota`, and takes nothing then."""
        name = short(record)
        if name in self._carried:
            return False
        self._pay(source, now)
        self._carried[name] = None
        if len(self._carried) > limits.DHT_CARRIED_REMEMBERED_MAX:
            self._carried.popitem(last=False)
        return True

    def _pay(self, source: Address, now: Instant) -> None:
        counted = networks(source).scope < self._exempt
        capacity, rate = limits.DHT_CARRIED_PER_SUBNET_BURST, limits.DHT_CARRIED_PER_SUBNET_PER_SECOND
        own = self._subnets.get(subnet(source)) or Bucket.full(capacity=capacity, rate=rate, now=now)
        spent, answer = own.take(1, now)
        if answer.allowed or not counted:
            self._all, answer = self._all.take(1, now)
        if not answer.allowed:
            raise OverQuota(
                "too many records are to be carried, for this subnet or in all", retry_after=answer.retry_after
            )
        if counted:
            self._subnets[subnet(source)] = spent
            self._subnets.move_to_end(subnet(source))
            if len(self._subnets) > limits.DHT_SUBNETS_MAX:
                self._subnets.popitem(last=False)
