"""How a refusal looks to a tenant: one catalogue from HAIF's errors to OpenAI's status, type and code.

Every body has the four keys the official clients read (message, type, param, code). Errors that are ours or a peer's
doing tell the tenant what happened, never how we are built.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import msgspec

from haif.base.errors import (
    Forbidden,
    HaifError,
    InvalidRequest,
    OverQuota,
    PeerFault,
    Reason,
    Refusal,
    Unauthenticated,
    Unavailable,
)


class Rejected(InvalidRequest):
    """An HTTP request that the dialect refuses, with the status and code OpenAI's clients know it by.

    `final` tells clients that retry by themselves (as they do after 409) not to.
    """

    def __init__(
        self, message: str, *, code: str, param: str | None = None, status: int = 400,
        retry_after: float | None = None, final: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(message, param=param, retry_after=retry_after)
        self.code = code
        self.status = status
        self.final = final


class KeyRevoked(Unauthenticated):
    """The key was good once and was revoked."""


class KeyExpired(Unauthenticated):
    """The key was good until a time that is over."""


class AddressRefused(Unauthenticated):
    """The key is good, but not from there."""


class EndpointDenied(Forbidden):
    """The key is good, but not for that."""


class OverAddress(OverQuota):
    """As many requests came from that address as may in a minute, whoever asked."""


class OverTokens(OverQuota):
    """The tenant's tokens of this minute are used up."""


class TooManyAtOnce(OverQuota):
    """As many requests of the tenant are being answered as may be at a time."""


class BudgetSpent(OverQuota):
    """The tenant's budget of this month does not hold the request; waiting does not help."""


@dataclass(frozen=True, slots=True)
class Problem:
    """An error as a tenant sees it. `retry_after` in seconds; `final` tells clients not to retry by themselves."""

    status: int
    type: str
    code: str
    message: str
    param: str | None = None
    retry_after: float | None = None
    final: bool = False

    def error(self) -> dict[str, str | None]:
        """The `error` object of OpenAI's API."""
        return {"message": self.message, "type": self.type, "param": self.param, "code": self.code}

    def body(self, request_id: str) -> bytes:
        """The answer's JSON body."""
        return msgspec.json.encode({"error": self.error(), "request_id": request_id})

    def event(self) -> bytes:
        """The same inside a stream that has begun: the last event, and no [DONE] after it."""
        return b"data: " + msgspec.json.encode({"error": self.error()}) + b"\n\n"

    def headers(self) -> list[tuple[bytes, bytes]]:
        """When to come back, for clients that retry by themselves."""
        if self.final:
            return [(b"x-should-retry", b"false")]
        if self.retry_after is None:
            return []
        return [
            (b"retry-after", b"%d" % max(1, math.ceil(self.retry_after))),
            (b"retry-after-ms", b"%d" % max(1, math.ceil(self.retry_after * 1000))),
        ]


_INVALID: Final = "invalid_request_error"
_SERVER: Final = "server_error"
_BUSY: Final = "service_unavailable_error"

_CATALOGUE: Final[dict[Reason, tuple[int, str, str]]] = {
    Reason.UNAUTHENTICATED: (401, _INVALID, "invalid_api_key"),
    Reason.FORBIDDEN: (403, "permission_error", "model_not_allowed"),
    Reason.OVER_QUOTA: (429, "rate_limit_error", "rate_limit_exceeded"),
    Reason.OVERLOADED: (503, _BUSY, "server_is_overloaded"),
    Reason.UNKNOWN_MODEL: (404, _INVALID, "model_not_found"),
    Reason.INVALID_REQUEST: (400, _INVALID, "invalid_value"),
    Reason.CONTEXT_TOO_LONG: (400, _INVALID, "context_length_exceeded"),
    Reason.UNSUPPORTED: (400, _INVALID, "unsupported_parameter"),
    Reason.MUST_WAIT: (503, _BUSY, "server_is_overloaded"),
    Reason.CONFLICT: (409, _INVALID, "conflict"),
    Reason.TIMEOUT: (504, "timeout_error", "deadline_exceeded"),
    Reason.CONNECTION_LOST: (502, _SERVER, "worker_failed"),
    Reason.ENGINE_DIED: (502, _SERVER, "worker_failed"),
    Reason.ELSEWHERE: (503, _BUSY, "no_worker_available"),
    Reason.NO_WORKER: (503, _BUSY, "no_worker_available"),
    Reason.MODEL_LOADING: (503, _BUSY, "model_loading"),
    Reason.BAD_SIGNATURE: (502, _SERVER, "verification_failed"),
    Reason.BAD_PROOF: (502, _SERVER, "verification_failed"),
    Reason.DIGEST_MISMATCH: (502, _SERVER, "verification_failed"),
    Reason.REPLAYED: (502, _SERVER, "bad_worker_response"),
    Reason.EXPIRED: (502, _SERVER, "bad_worker_response"),
    Reason.OVERSIZE: (502, _SERVER, "bad_worker_response"),
    Reason.MALFORMED: (502, _SERVER, "bad_worker_response"),
    Reason.WRONG_STATE: (502, _SERVER, "bad_worker_response"),
    Reason.EQUIVOCATED: (502, _SERVER, "bad_worker_response"),
    Reason.MISUSE: (500, _SERVER, "internal_error"),
    Reason.JOURNAL_BROKEN: (500, _SERVER, "internal_error"),
}
_SPECIFIC: Final[dict[type[HaifError], tuple[int, str, str]]] = {
    KeyRevoked: (401, _INVALID, "revoked_api_key"),
    KeyExpired: (401, _INVALID, "expired_api_key"),
    AddressRefused: (401, _INVALID, "ip_not_authorized"),
    EndpointDenied: (403, "permission_error", "policy_denied"),
    OverAddress: (429, "rate_limit_error", "rate_limit_exceeded"),
    OverTokens: (429, "rate_limit_error", "rate_limit_exceeded"),
    TooManyAtOnce: (429, "rate_limit_error", "concurrency_limit_exceeded"),
    BudgetSpent: (429, "insufficient_quota", "insufficient_quota"),
}
_FINAL: Final = frozenset({"verification_failed", "insufficient_quota"})
_REJECTED: Final = {408: "timeout_error", 409: "conflict_error"}
_IN_STREAM: Final = {Reason.CONNECTION_LOST: "worker_lost", Reason.ENGINE_DIED: "worker_lost"}
_VERIFICATION: Final = "The worker's receipt did not verify against the answer. Nothing was billed; you may ask again."
_PEER: Final = "A machine of the mesh answered in a way that is not allowed. Nothing was billed; you may ask again."
_OURS: Final = "Something failed inside the gateway. Ask again; if it stays, give the operator the request id."
RETRY_SECONDS: Final = 1.0  # when nobody knows better

INTERNAL: Final = Problem(500, _SERVER, "internal_error", _OURS)


def problem_of(error: HaifError, *, in_stream: bool = False) -> Problem:
    """What to tell the tenant."""
    if isinstance(error, Rejected):
        kind = _REJECTED.get(error.status, _INVALID)
        return Problem(error.status, kind, error.code, error.message, error.param, error.retry_after, error.final)
    status, kind, code = _SPECIFIC.get(type(error)) or _CATALOGUE[error.reason]
    if in_stream:
        code = _IN_STREAM.get(error.reason, code)
    return Problem(
        status, kind, code, _message(error, status, code),
        param=error.param if isinstance(error, Refusal) else None,
        retry_after=_retry_after(error, status),
        final=code in _FINAL,
    )  # fmt: skip


def _message(error: HaifError, status: int, code: str) -> str:
    if code == "verification_failed":
        return _VERIFICATION
    if status == 500:
        return _OURS
    return _PEER if isinstance(error, PeerFault) else error.message


def _retry_after(error: HaifError, status: int) -> float | None:
    if status not in (429, 503):
        return None
    given = error.retry_after if isinstance(error, Refusal | Unavailable) else None
    return given if given is not None and 0 < given < float("inf") else RETRY_SECONDS
