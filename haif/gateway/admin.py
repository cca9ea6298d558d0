"""The admin API's language: what operators may ask over HTTP, how it is answered, and how a refusal is told.

Bodies are strict JSON, refusals `application/problem+json` (RFC 9457) with our public code, a tenant's version an ETag
that a change must name in If-Match (RFC 9110, section 13.1.1), so that two operators do not undo each other unseen.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, Final, TypeVar

import msgspec
from msgspec import Meta, structs

from haif.base import limits
from haif.base.clock import WallTime
from haif.base.errors import HaifError, InvalidRequest, Unauthenticated
from haif.base.hashing import digest
from haif.base.ids import Digest
from haif.gateway.errors import Problem, Rejected
from haif.gateway.line import Service
from haif.gateway.tenants import Key, Scope, Tenant, new_key

ADMIN_PREFIX: Final = "haif-admin-"
PROBLEM: Final = b"application/problem+json"
_KEY: Final = re.compile(r"Bearer (haif-admin-[A-Za-z0-9_-]{43})")
_Count = Annotated[int, Meta(ge=0)]
_Milliseconds = Annotated[int, Meta(ge=0, le=10 * 366 * 86_400_000)]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Admin:
    """Somebody who may look, and, unless `read_only`, change; by the hash of the key."""

    name: str
    hash: Digest
    read_only: bool
    expires: WallTime | None = None
    revoked: bool = False


class NewTenant(msgspec.Struct, forbid_unknown_fields=True):
    """A tenant to make, with the fields of `Tenant`."""

    name: str
    rpm: _Count = limits.TENANT_REQUESTS_PER_MINUTE
    burst: _Count = limits.TENANT_BURST_REQUESTS
    sandbox_min: str = "none"
    service: str = Service.INTERACTIVE.word
    weight: _Count = 1
    tpm: _Count = 0
    concurrency: _Count = 0
    budget: _Count = 0
    models: list[str] = []


class Change(msgspec.Struct, forbid_unknown_fields=True):
    """What is to be another; the rest stays."""

    rpm: _Count | msgspec.UnsetType = msgspec.UNSET
    burst: _Count | msgspec.UnsetType = msgspec.UNSET
    sandbox_min: str | msgspec.UnsetType = msgspec.UNSET
    service: str | msgspec.UnsetType = msgspec.UNSET
    weight: _Count | msgspec.UnsetType = msgspec.UNSET
    tpm: _Count | msgspec.UnsetType = msgspec.UNSET
    concurrency: _Count | msgspec.UnsetType = msgspec.UNSET
    budget: _Count | msgspec.UnsetType = msgspec.UNSET
    models: list[str] | msgspec.UnsetType = msgspec.UNSET


class NewKey(msgspec.Struct, forbid_unknown_fields=True):
    """A key to make for a tenant."""

    tenant: str
    models: list[str] = []
    endpoints: list[str] = []
    networks: list[str] = []
    expires_in_ms: _Milliseconds | None = None


class Rotation(msgspec.Struct, forbid_unknown_fields=True):
    """A key to put in the place of another, which works for so long beside it."""

    grace_ms: _Milliseconds = 0


def new_admin_key(entropy: Callable[[int], bytes]) -> str:
    """A key nobody can guess, and nobody takes for a tenant's."""
    return new_key(entropy, ADMIN_PREFIX)


def admin_hash(key: str) -> Digest:
    """How it is known at rest."""
    return digest("haif v1 admin key", key.encode())


def admin_bearer(authorization: str) -> str:
    """The key of an Authorization header. Raises `Unauthenticated`."""
    found = _KEY.fullmatch(authorization)
    if found is None:
        raise Unauthenticated("send 'Authorization: Bearer haif-admin-…'; `haif admin create NAME` makes such a key")
    return found[1]


def read(body: bytes, kind: type[T]) -> T:
    """What a body says. Raises `Rejected`."""
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.ValidationError, msgspec.DecodeError, RecursionError) as error:
        raise Rejected(f"the body is not what is wanted here: {error}", code="invalid_json") from None


def tenant_of(wanted: NewTenant) -> Tenant:
    """The tenant that is to be."""
    fields = structs.asdict(wanted)
    return Tenant(**fields | {"models": tuple(wanted.models)})


def changed(tenant: Tenant, change: Change) -> Tenant:
    """The tenant as it is to be."""
    given = {name: value for name, value in structs.asdict(change).items() if value is not msgspec.UNSET}
    if "models" in given:
        given["models"] = tuple(given["models"])
    return replace(tenant, **given)


def scope_of(wanted: NewKey) -> Scope:
    """What the key is to be good for."""
    return Scope(tuple(wanted.models), tuple(wanted.endpoints), tuple(wanted.networks))


def etag(tenant: Tenant) -> str:
    """The version of a tenant."""
    return f'"{digest("haif v1 tenant version", msgspec.json.encode(asdict(tenant))).hex()[:32]}"'


def key_view(key: Key, now: WallTime, text: str | None = None) -> dict[str, Any]:
    """A key as it is shown; its `text` is there only when it was made just now."""
    view = {
        "id": key.id, "tenant": key.tenant.name, "state": key.state(now), "created": key.created,
        "expires": key.expires, **asdict(key.scope),
    }  # fmt: skip
    return view if text is None else view | {"key": text}


def page(items: list[Any], name: Callable[[Any], str], after: str, wanted: str) -> tuple[list[Any], str | None]:
    """Those that come after `after` by their names, and after which to go on. Raises `InvalidRequest`."""
    if not re.fullmatch(r"[0-9]{1,4}", wanted) or not 1 <= int(wanted) <= limits.ADMIN_PAGE_MAX:
        raise InvalidRequest(f"limit must be between 1 and {limits.ADMIN_PAGE_MAX}", param="limit")
    rest = sorted((each for each in items if name(each) > after), key=name)
    shown = rest[: int(wanted)]
    return shown, name(shown[-1]) if len(rest) > len(shown) else None


def problem_json(problem: Problem, request_id: str) -> bytes:
    """The body of a refusal."""
    told = {
        "type": "about:blank", "title": problem.code.replace("_", " "), "status": problem.status,
        "detail": problem.message, "code": problem.code, "param": problem.param, "instance": request_id,
    }  # fmt: skip
    return msgspec.json.encode(told)


def status_of(error: HaifError, problem: Problem) -> Problem:
    """The same problem where operators ask: what a tenant is not told, they are."""
    return replace(problem, message=error.message)
