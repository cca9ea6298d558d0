r"""A beacon: "a node of this network listens here", said to the local network, where nobody needs to be named first.

    beacon    = "HAIF" ‖ version u8 ‖ tag 8 ‖ peer 32 ‖ port u16 ‖ sent ms u64 ‖ signature 64              (big-endian)
    tag       = the first bytes of BLAKE3(network): whom it may concern
    signature = Ed25519(peer, "haif/lan-beacon/v1\0" ‖ network 32 ‖ all before it)

The address is where the beacon came from, with the port in it. All that a true beacon achieves is that the node there
is pinged, as whoever asks us something is; so that is all a forged or replayed one can cost. A source that is no
address of a local network is not believed: else whoever forges it could have a whole network ping a stranger.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from haif.base import limits
from haif.base.clock import WallTime
from haif.base.errors import Expired, Malformed, Unauthenticated
from haif.base.hashing import digest
from haif.base.ids import NetId, PeerId
from haif.base.machine import Address
from haif.dht.contact import Contact
from haif.dht.diversity import Scope, networks
from haif.identity import keys
from haif.identity.keys import SIGNATURE_BYTES, Identity

_FORM: Final = struct.Struct(">4sB8s32sHQ")
_MAGIC, _VERSION = b"HAIF", 1
_DOMAIN: Final = b"haif/lan-beacon/v1\0"
BEACON_BYTES: Final = _FORM.size + SIGNATURE_BYTES


@dataclass(frozen=True, slots=True)
class Beacon:
    """Who says that it listens at this port, and when it said so."""

    peer: PeerId
    port: int
    sent: WallTime


def sign_beacon(identity: Identity, net: NetId, port: int, now: WallTime) -> bytes:
    """The bytes that are said."""
    stated = _FORM.pack(_MAGIC, _VERSION, _tag(net), identity.peer, port, now)
    return stated + identity.sign(_DOMAIN + net + stated)


def concerns(data: bytes, net: NetId) -> bool:
    """Whether this looks like a beacon of our network: to be asked before anything is spent on it."""
    return len(data) == BEACON_BYTES and data[:4] == _MAGIC and data[4] == _VERSION and data[5:13] == _tag(net)


def open_beacon(data: bytes, source: Address, *, net: NetId, now: WallTime) -> Contact:
    """Whom to ping, once the signature holds. Raises `Malformed`, `Unauthenticated`, `Expired` or `BadSignature`."""
    if not concerns(data, net):
        raise Malformed("not a beacon of this network")
    if networks(source).scope is Scope.PUBLIC:
        raise Unauthenticated("a beacon from an address that is of no local network")
    *_, peer, port, sent = _FORM.unpack_from(data)
    signer = PeerId(peer)
    if port == 0:
        raise Malformed("a beacon without a port", signer)
    if abs(sent - now) > limits.CLOCK_SKEW_MS:
        raise Expired("a beacon of another time", signer)
    keys.verify(signer, _DOMAIN + net + data[: _FORM.size], data[_FORM.size :])
    return Contact(signer, (source[0], port))


def _tag(net: NetId) -> bytes:
    return digest("haif v1 lan", net)[:8]
