r"""A beacon: "a node of this network listens here", said to the local network, where nobody needs to be named first.

    beacon    = "HAIF" ‖ version u8 ‖ tag 8 ‖ peer 32 ‖ port u16 ‖ sent ms u64 ‖ signature 64              (big-endian)
    tag       = the first bytes of BLAKE3(network): whom it may concern
    signature = Ed25519(peer, "haif/lan-beacon/v1\0" ‖ network 32 ‖ all before it)

The address is where the beacon came from, with the port in it. All that a true beacon achieves is that the node there
is pinged, as whoever asks us something is; so that is all a forged or replayed one can cost. A source that is no
address of a local network is not believed: else whoever forges it could have a whole network ping a stranger. A public
IPv6 address is of our local network where it shares our own one's /64; a link-local one means nothing to others.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
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
_LINK_BYTES: Final = 8  # the /64 that all addresses of one link share (RFC 4291, section 2.5.4)
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


def open_beacon(data: bytes, source: Address, *, own: str = "", net: NetId, now: WallTime) -> Contact:
    """Whom to ping, once the signature holds; `own` is our address in that network.

    Raises `Malformed`, `Unauthenticated`, `Expired` or `BadSignature`.
    """
    if not concerns(data, net):
        raise Malformed("not a beacon of this network")
    if not _is_local(source, own):
        raise Unauthenticated("a beacon from an address that is of no local network")
    *_, peer, port, sent = _FORM.unpack_from(data)
    signer = PeerId(peer)
    if port == 0:
        raise Malformed("a beacon without a port", signer)
    if abs(sent - now) > limits.CLOCK_SKEW_MS:
        raise Expired("a beacon of another time", signer)
    keys.verify(signer, _DOMAIN + net + data[: _FORM.size], data[_FORM.size :])
    return Contact(signer, (source[0], port))


def _is_local(source: Address, own: str) -> bool:
    host = ip_address(source[0].partition("%")[0])
    if isinstance(host, IPv4Address):
        return networks(source).scope is not Scope.PUBLIC
    if host.is_link_local:
        return False
    return networks(source).scope is not Scope.PUBLIC or _link(host) == _link(ip_address(own or "::"))


def _link(host: IPv4Address | IPv6Address) -> bytes:
    return host.packed[:_LINK_BYTES]


def _tag(net: NetId) -> bytes:
    return digest("haif v1 lan", net)[:8]
