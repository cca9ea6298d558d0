"""A verifiable random function: a number that only the key's owner can compute, once, and anybody can check.

ECVRF-EDWARDS25519-SHA512-TAI of RFC 9381 (suite 3), on libsodium's group operations. Who draws lots with it cannot
choose the outcome, because each input has one; nobody else can foresee it, because it takes the secret.

Stricter than the RFC where that costs nothing: keys and Gamma must lie in the prime-order subgroup, encodings must be
canonical. Hashing to the curve takes a time that depends on the input, so inputs must not be secret (section 7.3).
"""

from __future__ import annotations

import hashlib
from typing import Final

from nacl.bindings import (
    crypto_core_ed25519_add,
    crypto_core_ed25519_is_valid_point,
    crypto_core_ed25519_scalar_add,
    crypto_core_ed25519_scalar_mul,
    crypto_core_ed25519_scalar_reduce,
    crypto_core_ed25519_sub,
    crypto_scalarmult_ed25519_base_noclamp,
    crypto_scalarmult_ed25519_noclamp,
)

from haif.base.errors import BadProof
from haif.base.ids import PeerId
from haif.identity.keys import Identity

PROOF_BYTES: Final = 80
OUTPUT_BYTES: Final = 64
_SUITE: Final = b"\x03"
_POINT: Final = 32
_CHALLENGE: Final = 16
_FIELD: Final = 2**255 - 19
_ORDER: Final = 2**252 + 27742317777372353535851937790883648493


def prove(identity: Identity, alpha: bytes) -> tuple[bytes, bytes]:
    """The proof (80 bytes) for an input, and the output it proves (64 bytes). RFC 9381, section 5.1."""
    expanded = hashlib.sha512(identity.seed()).digest()
    secret, prefix = _clamped(expanded[:32]), expanded[32:]
    point = _to_curve(identity.peer, alpha)
    gamma = crypto_scalarmult_ed25519_noclamp(secret, point)
    nonce = crypto_core_ed25519_scalar_reduce(hashlib.sha512(prefix + point).digest())
    challenge = _challenge(
        identity.peer, point, gamma, crypto_scalarmult_ed25519_base_noclamp(nonce),
        crypto_scalarmult_ed25519_noclamp(nonce, point),
    )  # fmt: skip
    product = crypto_core_ed25519_scalar_mul(challenge + bytes(16), secret)
    response = crypto_core_ed25519_scalar_add(nonce, product)
    return gamma + challenge + response, _output(gamma)


def verify(peer: PeerId, alpha: bytes, proof: bytes) -> bytes:
    """The output (64 bytes) of the peer's key for an input. RFC 9381, section 5.3. Raises `BadProof`."""
    if len(proof) != PROOF_BYTES:
        raise BadProof(f"a VRF proof has {PROOF_BYTES} bytes, not {len(proof)}", peer)
    gamma, challenge, response = proof[:_POINT], proof[_POINT : _POINT + _CHALLENGE], proof[_POINT + _CHALLENGE :]
    if not crypto_core_ed25519_is_valid_point(peer):
        raise BadProof("the key is no point of the prime-order group, so it can prove anything", peer)
    if not crypto_core_ed25519_is_valid_point(gamma) or int.from_bytes(response, "little") >= _ORDER:
        raise BadProof("the VRF proof is not canonical", peer)
    point = _to_curve(peer, alpha)
    scalar = challenge + bytes(16)
    try:
        left = crypto_core_ed25519_sub(
            crypto_scalarmult_ed25519_base_noclamp(response), crypto_scalarmult_ed25519_noclamp(scalar, peer)
        )
        right = crypto_core_ed25519_sub(
            crypto_scalarmult_ed25519_noclamp(response, point), crypto_scalarmult_ed25519_noclamp(scalar, gamma)
        )
    except RuntimeError:  # a scalar of zero: libsodium refuses to return the neutral element
        raise BadProof("the VRF proof is degenerate", peer) from None
    if _challenge(peer, point, gamma, left, right) != challenge:  # nothing here is secret
        raise BadProof("the VRF proof is not this key's for this input", peer)
    return _output(gamma)


def _to_curve(peer: PeerId, alpha: bytes) -> bytes:
    """Try and increment, section 5.4.1.1: the first hash that is a point, times the cofactor."""
    for count in range(256):  # each try succeeds with a chance of one half
        text = hashlib.sha512(_SUITE + b"\x01" + peer + alpha + bytes([count]) + b"\x00").digest()[:_POINT]
        if int.from_bytes(text, "little") % 2**255 >= _FIELD:
            continue
        try:
            return _times_eight(text)
        except RuntimeError:  # not on the curve
            continue
    raise AssertionError("256 hashes in a row were no points")


def _times_eight(point: bytes) -> bytes:
    for _ in range(3):
        point = crypto_core_ed25519_add(point, point)
    return point


def _challenge(*points: bytes) -> bytes:
    return hashlib.sha512(_SUITE + b"\x02" + b"".join(points) + b"\x00").digest()[:_CHALLENGE]


def _output(gamma: bytes) -> bytes:
    return hashlib.sha512(_SUITE + b"\x03" + _times_eight(gamma) + b"\x00").digest()


def _clamped(scalar: bytes) -> bytes:
    """RFC 8032, section 5.1.5."""
    number = int.from_bytes(scalar, "little") & ((1 << 254) - 8) | (1 << 254)
    return number.to_bytes(32, "little")
