"""How peers learn where they are seen, and meet directly: `reach.look`, then `reach.meet` and `reach.sync`.

    1. both     open a port each and ask the relay between them, from that port, `reach.look`: a signed `Sighting`
    2. A → B    `reach.meet` with A's sighting;  B → A  B's                         (over the relayed session)
    3. A → B    `reach.sync`: B dials A's address now, A dials B's half a round trip later; up to three times

A (who dialled the relayed session) then moves the session to the connection that came of it. The order is that of DCUtR
(libp2p). Nobody is dialled on a peer's word alone: the address must be one that the relay has signed for that peer.
"""

from __future__ import annotations

from typing import Final

from haif.base import limits
from haif.base.clock import WallTime
from haif.base.codec import Message
from haif.base.errors import BadSignature, Expired
from haif.base.ids import NetId, PeerId
from haif.base.machine import Address
from haif.identity.signing import Domain, open_sealed
from haif.protocol.relay import RelayAt

LOOK_METHOD: Final = "reach.look"
MEET_METHOD: Final = "reach.meet"
SYNC_METHOD: Final = "reach.sync"


class Place(Message, frozen=True):
    """Where a peer's wire can be reached, as the peer says: at these addresses, and through these relays."""

    addresses: tuple[Address, ...]
    relays: tuple[RelayAt, ...] = ()


class Look(Message, frozen=True):
    """From where does this session come, as you see it?"""


class Seen(Message, frozen=True):
    """A sealed `Sighting` of who asked."""

    sighting: bytes


class Sighting(Message, frozen=True):
    """The signer's statement, sealed under `Domain.SIGHTING`: this peer was at this address, at this time (ms)."""

    net: NetId
    peer: PeerId
    host: str
    port: int
    at: int


class Meet(Message, frozen=True):
    """Let us meet directly: this is where the relay between us saw the port I opened for it."""

    sighting: bytes


class Sync(Message, frozen=True):
    """Dial now. The attempts count from 1; attempt 0 dials nothing and only measures the round trip."""

    attempt: int


class Synced(Message, frozen=True):
    """Dialling."""


def check_sighting(evidence: bytes, *, net: NetId, observer: PeerId, peer: PeerId, now: WallTime) -> Address:
    """Where `observer` saw `peer`, of late. Raises `Malformed`, `Oversize`, `BadSignature` or `Expired`."""
    seen = open_sealed(Sighting, Domain.SIGHTING, evidence, signer=observer).payload
    if (seen.net, seen.peer) != (net, peer):
        raise BadSignature("the sighting is of another peer or another network", peer)
    if abs(now - seen.at) > limits.CLOCK_SKEW_MS:
        raise Expired("the sighting is too old", peer)
    return seen.host, seen.port
