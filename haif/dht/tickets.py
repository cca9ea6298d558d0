r"""How long a record waits for a place in a store that fills up, and the ticket that says since when it has waited.

    w      = E / (1 - o)^10 * (s + i + 10^-7)          TopDisc, as in discv5 and DISC-NG (ICDCS 2024)
             E lifetime of an announcement; o how full what is given away against tickets is; s share of the records
             that are of this topic; i similarity of the publisher's address to those that hold places
    ticket = since u64 ‖ due u64 ‖ MAC 16              (ms of this node's monotonic clock, big-endian)
    MAC    = BLAKE2s-128(key, since ‖ due ‖ IP ‖ topic ‖ owner)

A store's first half is given away at once. Beyond it, `o` runs from 0 at half full to 1 at full: a rare topic and a new
network wait next to nothing, a flood of one topic or one network waits as long as its records would live, and longer.
(With `o` of the whole store, as TopDisc has it, there is no free half; and the tenth worker of a model would wait 25
minutes as soon as a flood has filled the first half.)

Nothing is stored for those who wait. A ticket is honoured for its topic, owner and IP address alone, from `due` on and
for `limits.TICKET_WINDOW_SECONDS`: who does not come back in time begins anew, so waiting cannot be saved up. Before
`due` it is worth what it was. Shown again it buys nothing more: the one place that it is for is its bearer's.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2s
from hmac import compare_digest
from typing import Final

from haif.base import limits
from haif.base.clock import Instant
from haif.base.ids import Digest, PeerId
from haif.base.machine import Address
from haif.dht.contact import pack_address
from haif.dht.messages import TICKET_BYTES

_TIMES: Final = struct.Struct(">QQ")
_MAC_BYTES: Final = 16
_KEY_BYTES: Final = 32
_EXPONENT: Final = 10  # how steeply the wait grows: 1,000 times longer at half of what is given away against tickets
_FLOOR: Final = 1e-7  # even a new topic from a new network waits, ever longer, so that a store is never quite full


def occupancy(held: int, places: int) -> float:
    """How full the ticketed half of so many places is: 0 at half of them, 1 at all; below 0 nobody waits."""
    return 2 * held / places - 1


def waiting_seconds(*, occupied: float, share: float, similarity: float) -> float:
    """How long a record must wait in all, for the state of the store as it is now; infinite if that is full."""
    if occupied < 0:
        return 0.0
    if occupied >= 1:
        return math.inf
    return limits.RECORD_TTL_MS_MAX / 1000 / (1 - occupied) ** _EXPONENT * (share + similarity + _FLOOR)


@dataclass(frozen=True, slots=True)
class Claim:
    """Whose place is waited for, and where: what a ticket is bound to."""

    topic: Digest
    owner: PeerId
    source: Address


@dataclass(frozen=True, slots=True)
class Wait:
    """How long the bearer of a ticket has waited, and until when it was told to."""

    since: Instant
    due: Instant


class TicketOffice:
    """Gives tickets, and knows its own again. One key for its whole life: a restarted node has an empty store."""

    def __init__(self, entropy: Callable[[int], bytes]) -> None:
        self._key = entropy(_KEY_BYTES)
        self.given = 0
        self.redeemed = 0  # shown again in time
        self.void = 0  # shown, and forged, of another claim, or too late

    def issue(self, claim: Claim, wait: Wait) -> bytes:
        """A ticket that says so."""
        self.given += 1
        times = _TIMES.pack(_milliseconds(wait.since), _milliseconds(wait.due))
        return times + self._mac(times, claim)

    def read(self, ticket: bytes, claim: Claim, now: Instant) -> Wait | None:
        """What one of our tickets says, while it is honoured; None for what is no such ticket."""
        wait = self._opened(ticket, claim)
        if wait is None or now > wait.due + limits.TICKET_WINDOW_SECONDS:
            self.void += bool(ticket)
            return None
        self.redeemed += now >= wait.due
        return wait

    def _opened(self, ticket: bytes, claim: Claim) -> Wait | None:
        times, mac = ticket[: _TIMES.size], ticket[_TIMES.size :]
        if len(ticket) != TICKET_BYTES or not compare_digest(mac, self._mac(times, claim)):
            return None
        since, due = _TIMES.unpack(times)
        return Wait(Instant(since / 1000), Instant(due / 1000))

    def _mac(self, times: bytes, claim: Claim) -> bytes:
        host = pack_address(claim.source)[:-2]  # a NAT may give the next datagram another port
        message = times + bytes([len(host)]) + host + claim.topic + claim.owner
        return blake2s(message, key=self._key, digest_size=_MAC_BYTES, person=b"ticket").digest()


def _milliseconds(at: Instant) -> int:
    return math.ceil(at * 1000)
