"""Tenants and their keys: made once, shown once, known afterwards only by their hash.

A key is 256 random bits, so a plain hash of it cannot be searched (no salt, no stretching: those are for passwords).
The hash is BLAKE3 in its key-derivation mode, so that it can never be taken for another digest of ours.
"""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from haif.base import limits
from haif.base.clock import Instant, WallTime
from haif.base.confinement import LEVELS
from haif.base.errors import InvalidRequest, OverQuota, Unauthenticated
from haif.base.hashing import digest
from haif.base.ids import Digest
from haif.gateway.errors import KeyRevoked
from haif.gateway.line import SERVICES, Service
from haif.policy.bucket import Answer, Bucket

KEY_PREFIX: Final = "haif-"
_KEY_BYTES: Final = 32
_KEY: Final = re.compile(r"haif-[A-Za-z0-9_-]{43}")
_NAME: Final = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{limits.TENANT_NAME_CHARS_MAX - 1}}}")


@dataclass(frozen=True, slots=True)
class Tenant:
    """Who may ask, how often: `rpm` requests per minute, `burst` at once; and the least level of jail that will do.

    `service` is its class (`gateway.line`), `weight` its share of what there is among the tenants of that class.
    """

    name: str
    rpm: int
    burst: int
    sandbox_min: str = "none"
    service: str = Service.INTERACTIVE.word
    weight: int = 1


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a tenant, by its hash. `id` is public: it is how people name the key."""

    id: str
    tenant: Tenant
    hash: Digest
    created: WallTime
    revoked: bool


def new_key(entropy: Callable[[int], bytes]) -> str:
    """A key nobody can guess. It is shown once, to whoever asked for it, and never kept."""
    return KEY_PREFIX + base64.urlsafe_b64encode(entropy(_KEY_BYTES)).rstrip(b"=").decode()


def hash_of(key: str) -> Digest:
    """How a key is known at rest."""
    return digest("haif v1 tenant key", key.encode())


def id_of(key_hash: Digest) -> str:
    """How people name a key: the beginning of its hash."""
    return f"key-{key_hash[:6].hex()}"


def check_tenant(tenant: Tenant) -> Tenant:
    """The tenant, if it is one that can be. Raises `InvalidRequest` with what to change."""
    if not _NAME.fullmatch(tenant.name):
        raise InvalidRequest(
            f"{tenant.name!r} cannot be a tenant's name: use letters, digits, dots, dashes and underscores, "
            f"at most {limits.TENANT_NAME_CHARS_MAX}, beginning with a letter or digit",
            param="name",
        )
    if not 1 <= tenant.rpm <= 1_000_000 or not 1 <= tenant.burst <= 1_000_000:
        raise InvalidRequest("--rpm and --burst must be between 1 and 1,000,000")
    if tenant.sandbox_min not in LEVELS:
        raise InvalidRequest(f"--sandbox-min must be one of {', '.join(LEVELS)}")
    if tenant.service not in SERVICES:
        raise InvalidRequest(f"--service must be one of {', '.join(SERVICES)}")
    if not 1 <= tenant.weight <= limits.TENANT_WEIGHT_MAX:
        raise InvalidRequest(f"--weight must be between 1 and {limits.TENANT_WEIGHT_MAX}")
    return tenant


def bearer(authorization: str | None) -> str:
    """The key of an Authorization header. Raises `Unauthenticated`."""
    if authorization is None:
        raise Unauthenticated("no API key was given; send the header 'Authorization: Bearer haif-…'")
    scheme, _, key = authorization.partition(" ")
    if scheme.lower() != "bearer" or not _KEY.fullmatch(key.strip()):
        raise Unauthenticated(_WRONG_KEY)
    return key.strip()


class Directory:
    """The keys that are known, and each tenant's bucket.

    Bucket levels live in memory only: a restarted gateway starts them full. Bounded by `limits.TENANT_KEYS_MAX`.
    """

    def __init__(self) -> None:
        self._keys: dict[bytes, Key] = {}
        self._buckets: dict[str, Bucket] = {}

    def load(self, keys: Iterable[Key]) -> None:
        """From now on these are the keys. Buckets of tenants that stay keep their level."""
        self._keys = {bytes(key.hash): key for key in keys}
        names = {key.tenant.name for key in self._keys.values()}
        self._buckets = {name: bucket for name, bucket in self._buckets.items() if name in names}

    def tenant_of(self, key: str) -> Tenant:
        """Whose key this is. Raises `Unauthenticated`, or `KeyRevoked` for a key that was good once.

        The time this takes tells nothing about the keys: what is looked up is a hash that the sender cannot steer
        towards another, and the comparison is constant-time.
        """
        wanted = hash_of(key)
        found = self._keys.get(bytes(wanted))
        if not hmac.compare_digest(wanted, found.hash if found else bytes(Digest.size)) or found is None:
            raise Unauthenticated(_WRONG_KEY)
        if found.revoked:
            raise KeyRevoked("this API key was revoked; ask the operator for a new one")
        return found.tenant

    def named(self, name: str) -> Tenant:
        """The tenant of this name, while it has a key that works. Raises `Unauthenticated`."""
        for key in self._keys.values():
            if key.tenant.name == name and not key.revoked:
                return key.tenant
        raise Unauthenticated(f"no key of {name} works any more")

    def take(self, tenant: Tenant, now: Instant, requests: int = 1) -> Answer:
        """So many requests of this tenant. The answer says whether they may go on."""
        capacity, rate = float(tenant.burst), tenant.rpm / 60
        bucket = self._buckets.get(tenant.name)
        if bucket is None:
            bucket = Bucket.full(capacity=capacity, rate=rate, now=now)
        elif bucket.capacity != capacity or bucket.rate != rate:
            bucket = bucket.resized(capacity=capacity, rate=rate, now=now)
        self._buckets[tenant.name], answer = bucket.take(float(requests), now)
        return answer

    def __len__(self) -> int:
        return len(self._keys)


def over_quota(tenant: Tenant, answer: Answer, requests: int = 1) -> OverQuota:
    """The refusal of requests that the bucket does not hold."""
    return OverQuota(
        f"Rate limit reached for {tenant.name} on requests per minute: limit {tenant.rpm} with bursts of "
        f"{tenant.burst}, requested {requests}. Please try again in {answer.retry_after:.3f}s.",
        retry_after=answer.retry_after,
    )


_WRONG_KEY: Final = "the API key is not valid here; `haif tenant create NAME` on the gateway's machine makes one"
