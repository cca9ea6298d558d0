"""A peer's keys: Ed25519 to sign (RFC 8032), X25519 for Noise (RFC 7748)."""

from __future__ import annotations

from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from nacl.bindings import crypto_sign, crypto_sign_open
from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey

from haif.base.errors import BadSignature
from haif.base.ids import NoisePublicKey, PeerId

SIGNATURE_BYTES = 64
Verify = Callable[[PeerId, bytes, bytes], None]
"""Returns if a signature (last) is the peer's over these bytes; raises `BadSignature` otherwise."""
SEED_BYTES = 32


class Identity:
    """An Ed25519 key pair. `peer` is who it is; the secret never leaves and never shows in a repr."""

    __slots__ = ("_secret", "_seed", "peer")

    def __init__(self, seed: bytes) -> None:
        """From the 32-byte seed. Raises `ValueError` for any other length."""
        if len(seed) != SEED_BYTES:
            raise ValueError(f"an Ed25519 seed has {SEED_BYTES} bytes, got {len(seed)}")
        key = SigningKey(seed)
        self._seed = seed
        self._secret = seed + bytes(key.verify_key)  # libsodium's form of the secret key
        self.peer = PeerId(bytes(key.verify_key))

    def sign(self, data: bytes) -> bytes:
        """The 64-byte signature over exactly these bytes. Callers put a domain in front: see `identity.signing`."""
        return bytes(crypto_sign(data, self._secret)[:SIGNATURE_BYTES])

    def seed(self) -> bytes:
        """The secret, for the keyring that stores it."""
        return self._seed

    def __repr__(self) -> str:
        return f"Identity({self.peer.short}…)"


def verify(peer: PeerId, data: bytes, signature: bytes) -> None:
    """Return if `signature` is the peer's over `data`; raise `BadSignature` otherwise."""
    try:
        good = len(signature) == SIGNATURE_BYTES and crypto_sign_open(signature + data, peer) is not None
    except (BadSignatureError, ValueError, TypeError):
        good = False
    if not good:
        raise BadSignature(f"the signature is not {peer.short}…'s over these bytes", peer)


class NoiseKey:
    """An X25519 key pair: the static key of Noise handshakes, bound to an identity by a certificate."""

    __slots__ = ("key", "public")

    def __init__(self, private: bytes) -> None:
        """From 32 random bytes."""
        self.key = X25519PrivateKey.from_private_bytes(private)  # expanded once: each handshake needs it
        self.public = NoisePublicKey(self.key.public_key().public_bytes_raw())

    def __repr__(self) -> str:
        return f"NoiseKey({self.public.short}…)"
