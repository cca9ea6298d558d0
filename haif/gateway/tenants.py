"""Tenants and their keys: made once, shown once, known afterwards only by their hash.

A key is 256 random bits, so a plain hash of it cannot be searched (no salt, no stretching: those are for passwords).
The hash is BLAKE3 in its key-derivation mode, so that it can never be taken for another digest of ours.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Final

from haif.base import limits
from haif.base.clock import WallTime
from haif.base.confinement import LEVELS
from haif.base.errors import InvalidRequest, Unauthenticated
from haif.base.hashing import digest
from haif.base.ids import Digest
from haif.gateway.line import SERVICES, Service

KEY_PREFIX: Final = "haif-"
_KEY_BYTES: Final = 32
_KEY: Final = re.compile(r"haif-[A-Za-z0-9_-]{43}")
_NAME: Final = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{limits.TENANT_NAME_CHARS_MAX - 1}}}")
SCOPED_ENDPOINTS: Final = (
    "chat.completions", "completions", "responses", "messages", "embeddings", "rerank",
)  # fmt: skip
"""What a key may be for: what computes. Every key may list models and see its tenant's jobs."""


class Absent(InvalidRequest):
    """There is no tenant or key of that name."""


@dataclass(frozen=True, slots=True)
class Tenant:
    """Who may ask, and how much.

    `rpm` requests per minute, `burst` at once; the least level of jail that will do; its class `service`
    (`gateway.line`), and `weight`, its share of what there is among the tenants of that class; `tpm` tokens per minute,
    `concurrency` requests being answered at a time, and `budget` tokens a month of UTC, each without limit at 0; the
    models it may use, all where none is named.
    """

    name: str
    rpm: int
    burst: int
    sandbox_min: str = "none"
    service: str = Service.INTERACTIVE.word
    weight: int = 1
    tpm: int = 0
    concurrency: int = 0
    budget: int = 0
    models: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Scope:
    """What a key is good for: models, endpoints and networks of its tenant's; all of a kind where none is named."""

    models: tuple[str, ...] = ()
    endpoints: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()


ANYTHING: Final = Scope()


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a tenant, by its hash. `id` is public: it is how people name the key."""

    id: str
    tenant: Tenant
    hash: Digest
    created: WallTime
    revoked: bool
    scope: Scope = ANYTHING
    expires: WallTime | None = None

    def state(self, now: WallTime) -> str:
        """`live`, `expired` or `revoked`."""
        if self.revoked:
            return "revoked"
        return "live" if self.expires is None or now < self.expires else "expired"


def new_key(entropy: Callable[[int], bytes], prefix: str = KEY_PREFIX) -> str:
    """A key nobody can guess. It is shown once, to whoever asked for it, and never kept."""
    return prefix + base64.urlsafe_b64encode(entropy(_KEY_BYTES)).rstrip(b"=").decode()


def hash_of(key: str) -> Digest:
    """How a key is known at rest."""
    return digest("haif v1 tenant key", key.encode())


def id_of(key_hash: Digest) -> str:
    """How people name a key: the beginning of its hash."""
    return f"key-{key_hash[:6].hex()}"


def check_name(name: str) -> None:
    """Return if a tenant, or an operator, may be called so. Raises `InvalidRequest`."""
    if not _NAME.fullmatch(name):
        raise InvalidRequest(
            f"{name[:80]!r} cannot be a name: use letters, digits, dots, dashes and underscores, "
            f"at most {limits.TENANT_NAME_CHARS_MAX}, beginning with a letter or digit",
            param="name",
        )


def check_tenant(tenant: Tenant) -> Tenant:
    """The tenant, if it is one that can be. Raises `InvalidRequest` with what to change."""
    check_name(tenant.name)
    if not 1 <= tenant.rpm <= 1_000_000 or not 1 <= tenant.burst <= 1_000_000:
        raise InvalidRequest("--rpm and --burst must be between 1 and 1,000,000")
    if tenant.sandbox_min not in LEVELS:
        raise InvalidRequest(f"--sandbox-min must be one of {', '.join(LEVELS)}")
    if tenant.service not in SERVICES:
        raise InvalidRequest(f"--service must be one of {', '.join(SERVICES)}")
    if not 1 <= tenant.weight <= limits.TENANT_WEIGHT_MAX:
        raise InvalidRequest(f"--weight must be between 1 and {limits.TENANT_WEIGHT_MAX}")
    for flag, value in (("--tpm", tenant.tpm), ("--concurrency", tenant.concurrency), ("--budget", tenant.budget)):
        if not 0 <= value <= limits.TENANT_TOKENS_MAX:
            raise InvalidRequest(f"{flag} must be between 1 and {limits.TENANT_TOKENS_MAX:,}, or 0 for no limit")
    _check_models(tenant.models)
    return tenant


def check_scope(scope: Scope) -> Scope:
    """The scope, with its networks as they are written everywhere. Raises `InvalidRequest` with what to change."""
    _check_models(scope.models)
    for endpoint in scope.endpoints:
        if endpoint not in SCOPED_ENDPOINTS:
            raise InvalidRequest(f"--endpoint must be one of {', '.join(SCOPED_ENDPOINTS)}, not {endpoint[:40]!r}")
    if len(scope.networks) > limits.KEY_NETWORKS_MAX:
        raise InvalidRequest(f"a key may be used from at most {limits.KEY_NETWORKS_MAX} networks")
    try:
        networks = tuple(str(ip_network(each)) for each in scope.networks)
    except ValueError as error:
        raise InvalidRequest(f"--from must be an address or a network such as 192.0.2.0/24: {error}") from None
    return Scope(scope.models, scope.endpoints, networks)


def _check_models(models: tuple[str, ...]) -> None:
    if len(models) > limits.TENANT_MODELS_MAX:
        raise InvalidRequest(f"at most {limits.TENANT_MODELS_MAX} models can be named")
    for model in models:
        if not 1 <= len(model) <= limits.MODEL_NAME_CHARS_MAX or any(each in model for each in "\n,"):
            raise InvalidRequest(f"--model: {model[:40]!r} cannot be a model's name")


def bearer(authorization: str | None) -> str:
    """The key of an Authorization header. Raises `Unauthenticated`."""
    if authorization is None:
        raise Unauthenticated("no API key was given; send the header 'Authorization: Bearer haif-…'")
    scheme, _, key = authorization.partition(" ")
    if scheme.lower() != "bearer" or not _KEY.fullmatch(key.strip()):
        raise Unauthenticated(WRONG_KEY)
    return key.strip()


WRONG_KEY: Final = "the API key is not valid here; `haif tenant create NAME` on the gateway's machine makes one"
