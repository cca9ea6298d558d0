"""What the Noise library computes with: the same functions as its own, from where they cost least.

BLAKE2s and HMAC come from the standard library (a third of the price of making an OpenSSL context for each), X25519 and
ChaCha20-Poly1305 from OpenSSL. A static key pair is expanded once in its life, not once for each handshake.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Any, Final

from noise.backends.default.ciphers import ChaCha20Cipher
from noise.backends.default.diffie_hellmans import ED25519
from noise.backends.default.keypairs import KeyPair25519
from noise.backends.noise_backend import NoiseBackend
from noise.functions.hash import Hash

from haif.identity.keys import NoiseKey


class _Blake2s(Hash):  # type: ignore[misc]  # the library has no types
    fn = hashlib.blake2s
    hashlen = 32
    blocklen = 64

    def hash(self, data: bytes) -> bytes:
        return hashlib.blake2s(data).digest()


def _hmac(key: bytes, data: bytes, algorithm: Any) -> bytes:
    return hmac.digest(key, data, algorithm)


class _Backend(NoiseBackend):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.diffie_hellmans = {"25519": ED25519}
        self.ciphers = {"ChaChaPoly": ChaCha20Cipher}
        self.hashes = {"BLAKE2s": _Blake2s}
        self.keypairs = {"25519": KeyPair25519}
        self.hmac = _hmac


BACKEND: Final = _Backend()


def static_pair(key: NoiseKey) -> Any:
    """The library's form of a static key."""
    return KeyPair25519(private=key.key, public=key.key.public_key(), public_bytes=bytes(key.public))
