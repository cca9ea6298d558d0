"""The certificate that binds a Noise static key to an identity, so that the key can be rotated and the peer stays."""

from __future__ import annotations

from functools import lru_cache

from haif.base import limits
from haif.base.clock import WallTime
from haif.base.codec import Message
from haif.base.errors import BadSignature, Expired
from haif.base.ids import NetId, NoisePublicKey, PeerId
from haif.identity.keys import Identity
from haif.identity.signing import Domain, Verified, open_sealed, seal


class StaticKey(Message, frozen=True):
    """In this network, between these times (ms since the epoch), the signer is reached under this X25519 key."""

    net: NetId
    noise_key: NoisePublicKey
    not_before: int
    not_after: int


def certify(identity: Identity, net: NetId, noise_key: NoisePublicKey, now: WallTime) -> bytes:
    """A certificate for `noise_key`, valid from now (less the permitted skew) for `limits.CERTIFICATE_TTL_MS`."""
    statement = StaticKey(net, noise_key, now - limits.CLOCK_SKEW_MS, now + limits.CERTIFICATE_TTL_MS)
    return seal(identity, Domain.STATIC_KEY, statement)


def read(evidence: bytes, *, net: NetId, now: WallTime) -> Verified[StaticKey]:
    """What a certificate says, once its signature, network and time hold.

    Raises `Malformed`, `Oversize`, `BadSignature` (also for another network) or `Expired`.
    """
    certificate = _opened(bytes(evidence))
    statement, peer = certificate.payload, certificate.signer
    if statement.net != net:
        raise BadSignature("the certificate is for another network", peer)
    if not statement.not_before <= now < statement.not_after:
        raise Expired("the certificate is outside its time; check both clocks", peer)
    if statement.not_after - statement.not_before > limits.CERTIFICATE_TTL_MS + limits.CLOCK_SKEW_MS:
        raise Expired("the certificate claims to live too long", peer)
    return certificate


def check(evidence: bytes, *, net: NetId, noise_key: NoisePublicKey, now: WallTime) -> PeerId:
    """Who is behind `noise_key`, according to a certificate received from it. Raises what `read` does."""
    certificate = read(evidence, net=net, now=now)
    if certificate.payload.noise_key != noise_key:
        raise BadSignature("the certificate is for another Noise key than the one that shook hands", certificate.signer)
    return certificate.signer


@lru_cache(maxsize=limits.CERTIFICATES_REMEMBERED_MAX)
def _opened(evidence: bytes) -> Verified[StaticKey]:
    """The signature of a certificate is checked once: the same bytes stay as true as they were."""
    return open_sealed(StaticKey, Domain.STATIC_KEY, evidence)
