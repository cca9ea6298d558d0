"""A round-trip token proves that its bearer receives what is sent to its address: a keyed hash, nothing stored.

It is bound to IP, port, requester and target, and honoured for one to two rotations of the secret.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2s
from hmac import compare_digest

from haif.base import limits
from haif.base.clock import Instant
from haif.base.ids import Digest, PeerId
from haif.base.machine import Address
from haif.dht.contact import pack_address
from haif.dht.messages import TOKEN_BYTES

_SECRET_BYTES = 32


class TokenMint:
    """Makes tokens and recognises its own."""

    def __init__(self, entropy: Callable[[int], bytes], now: Instant) -> None:
        self._entropy = entropy
        self._rotated = now
        self._current = entropy(_SECRET_BYTES)
        self._previous = self._current

    def mint(self, source: Address, requester: PeerId | None, target: Digest, now: Instant) -> bytes:
        """The token for this requester, at this address, for this target."""
        self._rotate(now)
        return _token(self._current, source, requester, target)

    def recognises(
        self, token: bytes | None, source: Address, requester: PeerId | None, target: Digest, now: Instant
    ) -> bool:
        """Whether the token was minted here for exactly these, under one of the last two secrets."""
        if token is None:
            return False
        self._rotate(now)
        current = compare_digest(token, _token(self._current, source, requester, target))
        return current or compare_digest(token, _token(self._previous, source, requester, target))

    def _rotate(self, now: Instant) -> None:
        age = now - self._rotated
        if age < limits.DHT_TOKEN_SECONDS:
            return
        fresh = self._entropy(_SECRET_BYTES)
        self._previous = self._current if age < 2 * limits.DHT_TOKEN_SECONDS else fresh
        self._current, self._rotated = fresh, now


def _token(secret: bytes, source: Address, requester: PeerId | None, target: Digest) -> bytes:
    claimed = bytes(PeerId.size) if requester is None else requester
    return blake2s(pack_address(source) + claimed + target, key=secret, digest_size=TOKEN_BYTES).digest()
