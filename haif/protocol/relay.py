"""Going through a relay, for peers that nobody can dial (as TURN does for TCP, RFC 6062).

    1. B → relay   `relay.reserve`: B keeps a session with the relay, which from then on is where B can be asked for
    2. A → relay   `relay.connect` B: a token for A, who dials the relay at once and shows it
    3. relay → B   `relay.incoming`: a token for B, who dials the relay too and shows it

       A and B → relay, each on a connection of its own   preamble with `wire.opening.CIRCUIT` ‖ token 16

    4. the relay joins the two connections; what A and B say from there on, handshake included, is theirs alone
    5. relay → all `relay.leaving`: it stops soon; reserve elsewhere and move

The relay dials nobody: it cannot be made to connect to an address. A token is good for one connection, of one circuit.
What the relay learns is who wants whom, when, and how many bytes; what it can do is refuse, delay and cut. Who is at
the other end is for the handshake through it to prove.
"""

from __future__ import annotations

from typing import Final

from haif.base import limits
from haif.base.clock import WallTime
from haif.base.codec import Message
from haif.base.errors import BadSignature, Expired
from haif.base.ids import NetId, Nonce, PeerId
from haif.base.machine import Address
from haif.identity.signing import Domain, Verified, open_sealed

RESERVE_METHOD: Final = "relay.reserve"
CONNECT_METHOD: Final = "relay.connect"
INCOMING_METHOD: Final = "relay.incoming"
LEAVING_METHOD: Final = "relay.leaving"


class RelayAt(Message, frozen=True):
    """A relay a peer holds a place at, and where that relay listens."""

    peer: PeerId
    host: str
    port: int

    @property
    def address(self) -> Address:
        """Where to dial it."""
        return self.host, self.port


class Reserve(Message, frozen=True):
    """Keep a place for me, or keep it for longer: whoever asks you for me may meet me through you."""


class Reserved(Message, frozen=True):
    """A sealed `Voucher`."""

    voucher: bytes


class Voucher(Message, frozen=True):
    """The relay's word, sealed under `Domain.VOUCHER`: until `expires` (ms) this peer is met through the signer.

    Each circuit may carry so many bytes, as many a second, for so many seconds. `host` and `port` are where the relay
    sees the peer's session come from.
    """

    net: NetId
    peer: PeerId
    expires: int
    circuit_bytes: int
    bytes_per_second: int
    circuit_seconds: int
    host: str
    port: int


class Connect(Message, frozen=True):
    """I want to meet this peer through you."""

    peer: PeerId


class Connected(Message, frozen=True):
    """The peer is being called: dial me and show this token."""

    token: Nonce


class Incoming(Message, frozen=True):
    """Somebody wants to meet you through me: dial me and show this token."""

    token: Nonce


class Leaving(Message, frozen=True):
    """The relay stops in so many seconds: what goes through it then ends."""

    seconds: int


class Noted(Message, frozen=True):
    """Understood."""


def read_voucher(evidence: bytes, *, net: NetId, relay: PeerId, peer: PeerId, now: WallTime) -> Verified[Voucher]:
    """What a relay promises this peer. Raises `Malformed`, `Oversize`, `BadSignature` or `Expired`."""
    voucher = open_sealed(Voucher, Domain.VOUCHER, evidence, signer=relay)
    if (voucher.payload.net, voucher.payload.peer) != (net, peer):
        raise BadSignature("the voucher is another peer's, or of another network", relay)
    if voucher.payload.expires <= now - limits.CLOCK_SKEW_MS:
        raise Expired("the voucher has expired", relay)
    return voucher
