"""The gate: who may have a handshake now, decided before any public-key work and before any memory is kept.

    1. mac1          the dialler knows whom it dials, or is refused             about a microsecond
    2. budgets       of its address, of its subnet, of everybody: within all three it comes in
    3. beyond them   it is asked to solve a puzzle, whose price rises as the reserve for those who paid empties
    4. a ticket      solved, ours, fresh, not spent and worth today's price: it comes in from the reserve

Programs on the same machine share its loopback address, so there only everybody's budget counts.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import OrderedDict
from typing import Final

from haif.base import limits
from haif.base.clock import Instant
from haif.base.errors import BadSignature, Overloaded
from haif.base.ids import NetId, PeerId
from haif.policy.bucket import Bucket
from haif.wire.crowd import origin
from haif.wire.opening import First, known, mac_key
from haif.wire.puzzle import COOKIE_BYTES, PUZZLE_BYTES, Puzzle, solved

_PRICE_SLACK_BITS: Final = 2  # a ticket counts while the price has not risen by more than this


class Shares:
    """A token bucket for each of many keys. Memory is bounded: the least recent key is forgotten first."""

    def __init__(self, per_second: float, burst: float) -> None:
        self._per_second = per_second
        self._burst = burst
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def take(self, key: str, now: Instant) -> bool:
        """Take one from this key's bucket, or refuse."""
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = Bucket.full(capacity=self._burst, rate=self._per_second, now=now)
            if len(self._buckets) >= limits.GATE_SOURCES_MAX:
                self._buckets.popitem(last=False)
        self._buckets[key], answer = bucket.take(1, now)
        self._buckets.move_to_end(key)
        return answer.allowed

    def __len__(self) -> int:
        return len(self._buckets)


class Gate:
    """One per listener. `secret` (32 random bytes) keys the cookies of this process."""

    def __init__(self, net: NetId, peer: PeerId, secret: bytes, now: Instant) -> None:
        self._mac_key = mac_key(net, peer)
        self._secret = secret
        self._sources = Shares(limits.GATE_SOURCE_PER_SECOND, limits.GATE_SOURCE_BURST)
        self._subnets = Shares(limits.GATE_SUBNET_PER_SECOND, limits.GATE_SUBNET_BURST)
        self._total = Bucket.full(capacity=limits.GATE_TOTAL_BURST, rate=limits.GATE_TOTAL_PER_SECOND, now=now)
        self._paid = Bucket.full(capacity=limits.GATE_PAID_BURST, rate=limits.GATE_PAID_PER_SECOND, now=now)
        self._spent: OrderedDict[int, int] = OrderedDict()  # number of the puzzle: when it was minted
        self._number = 0

    def judge(self, first: First, source: str, now: Instant) -> Puzzle | None:
        """None: it comes in. A puzzle: it has to solve this first. `source` is the dialler's IP address.

        Raises `BadSignature` (knows not whom it dials) or `Overloaded` (a bad ticket, or no reserve left).
        """
        if not known(self._mac_key, first):
            raise BadSignature("the dialler does not know whom it dials: a scanner, or this node changed its key")
        if first.ticket:
            return self._redeem(first.ticket, source, now)
        return None if self._within(source, now) else self._ask(source, now)

    def price(self, now: Instant) -> int:
        """The bits a puzzle has now: none while the reserve is full, all of them when it is empty."""
        _, answer = self._paid.take(0, now)
        return round(limits.PUZZLE_BITS_MAX * (1 - answer.remaining / limits.GATE_PAID_BURST))

    def _within(self, source: str, now: Instant) -> bool:
        at = origin(source)
        if not at.here and not (self._sources.take(at.address, now) and self._subnets.take(at.subnet, now)):
            return False
        self._total, answer = self._total.take(1, now)
        return answer.allowed

    def _ask(self, source: str, now: Instant) -> Puzzle:
        self._number += 1
        minted, number, bits = int(now), self._number, self.price(now)
        return Puzzle(minted, number, bits, self._cookie(minted, number, bits, source))

    def _redeem(self, ticket: bytes, source: str, now: Instant) -> Puzzle | None:
        puzzle = Puzzle.unpack(ticket[:PUZZLE_BYTES])
        cookie = self._cookie(puzzle.minted, puzzle.number, puzzle.bits, source)
        if not hmac.compare_digest(puzzle.cookie, cookie):
            raise Overloaded("the ticket is not one of ours for this address")
        self._forget(now)
        if now - puzzle.minted > limits.PUZZLE_SECONDS or puzzle.number in self._spent:
            raise Overloaded("the ticket is too old, or was redeemed before")
        if not solved(ticket):
            raise Overloaded("the ticket does not solve its puzzle")
        if puzzle.bits + _PRICE_SLACK_BITS < self.price(now):
            return self._ask(source, now)
        self._paid, answer = self._paid.take(1, now)
        if not answer.allowed or len(self._spent) >= limits.PUZZLES_SPENT_MAX:
            raise Overloaded("too many handshakes are under way, even paid ones", retry_after=answer.retry_after)
        self._spent[puzzle.number] = puzzle.minted
        return None

    def _forget(self, now: Instant) -> None:
        """Let go of spent puzzles that are too old to come again."""
        spent = self._spent
        while spent and now - next(iter(spent.values())) > limits.PUZZLE_SECONDS:
            spent.popitem(last=False)

    def _cookie(self, minted: int, number: int, bits: int, source: str) -> bytes:
        what = f"{minted} {number} {bits} {source}".encode()
        return hashlib.blake2s(what, key=self._secret, digest_size=COOKIE_BYTES).digest()
