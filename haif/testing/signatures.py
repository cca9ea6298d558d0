"""How the peers of a simulated network sign: with Ed25519 as in life, or with a keyed hash that costs a fiftieth of it.

The keyed hash is no signature outside a simulation: whoever checks it could also make it. Inside, the keys are the
network's, not the peers': a hostile peer has its own identity and nobody else's, so what it forges, replays or changes
is refused just as in life.
"""

from __future__ import annotations

from hashlib import blake2b
from hmac import compare_digest
from typing import Protocol

from haif.base.errors import BadSignature
from haif.base.ids import PeerId
from haif.identity import keys
from haif.identity.keys import SIGNATURE_BYTES, Identity


class Signatures(Protocol):
    """Makes identities and checks what they sign."""

    def identity(self, seed: bytes) -> Identity:
        """The identity of this seed."""
        ...

    def verify(self, peer: PeerId, data: bytes, signature: bytes) -> None:
        """Return if the signature is the peer's; raise `BadSignature` otherwise."""
        ...


class Ed25519:
    """As in life."""

    def identity(self, seed: bytes) -> Identity:
        """The identity of this seed."""
        return Identity(seed)

    def verify(self, peer: PeerId, data: bytes, signature: bytes) -> None:
        """Return if the signature is the peer's; raise `BadSignature` otherwise."""
        keys.verify(peer, data, signature)


class KeyedHashes:
    """BLAKE2b under each peer's seed. Only peers whose identity was made here can sign."""

    def __init__(self) -> None:
        self._seeds: dict[bytes, bytes] = {}

    def identity(self, seed: bytes) -> Identity:
        """The identity of this seed."""
        identity = _Hashing(seed)
        self._seeds[identity.peer] = seed
        return identity

    def verify(self, peer: PeerId, data: bytes, signature: bytes) -> None:
        """Return if the signature is the peer's; raise `BadSignature` otherwise."""
        seed = self._seeds.get(peer)
        if seed is None or not compare_digest(signature, _signature(seed, data)):
            raise BadSignature(f"the signature is not {peer.short}…'s over these bytes", peer)


class _Hashing(Identity):
    __slots__ = ()

    def __init__(self, seed: bytes) -> None:
        self._seed = seed
        self.peer = PeerId(blake2b(seed, digest_size=PeerId.size, person=b"simulated peer").digest())

    def sign(self, data: bytes) -> bytes:
        return _signature(self._seed, data)


def _signature(seed: bytes, data: bytes) -> bytes:
    return blake2b(data, key=seed, digest_size=SIGNATURE_BYTES).digest()
