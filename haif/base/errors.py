"""Errors say whose doing it was, carry data, and tell a person what to do next.

    HaifError
    ├─ Misuse       we called ourselves wrongly; our bug: never retried, never sent to a peer
    ├─ PeerFault    a peer broke the protocol; carries the peer
    │               BadSignature BadProof Replayed Expired Oversize Malformed WrongState
    │               Equivocated
    ├─ Refusal      someone legitimately said no; carries a public code
    │               Unauthenticated Forbidden OverQuota Overloaded UnknownModel InvalidRequest
    │               ContextTooLong Unsupported MustWait Conflict
    ├─ Unavailable  circumstances; may be retried, carries retry_after
    │               Timeout ConnectionLost Elsewhere NoWorker EngineDied ModelLoading
    └─ Corruption   data failed its own check; stop, keep the evidence
                    DigestMismatch JournalBroken

Every leaf has one member in `Reason`; a machine that refuses something reports `Dropped(reason, peer)`, telemetry
counts it by reason, and a tidy test demands that each reason is named in a test.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

from haif.base.ids import PeerId


class Reason(StrEnum):
    """Why something was refused or failed. The value is the public code: it goes into metrics, replies and logs."""

    MISUSE = "misuse"
    BAD_SIGNATURE = "bad_signature"
    BAD_PROOF = "bad_proof"
    REPLAYED = "replayed"
    EXPIRED = "expired"
    OVERSIZE = "oversize"
    MALFORMED = "malformed"
    WRONG_STATE = "wrong_state"
    EQUIVOCATED = "equivocated"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    OVER_QUOTA = "over_quota"
    OVERLOADED = "overloaded"
    UNKNOWN_MODEL = "unknown_model"
    INVALID_REQUEST = "invalid_request"
    CONTEXT_TOO_LONG = "context_too_long"
    UNSUPPORTED = "unsupported"
    MUST_WAIT = "must_wait"
    CONFLICT = "conflict"
    TIMEOUT = "timeout"
    CONNECTION_LOST = "connection_lost"
    ELSEWHERE = "elsewhere"
    NO_WORKER = "no_worker"
    ENGINE_DIED = "engine_died"
    MODEL_LOADING = "model_loading"
    DIGEST_MISMATCH = "digest_mismatch"
    JOURNAL_BROKEN = "journal_broken"


class HaifError(Exception):
    """The root. `str(error)` is written for the person who reads it: what happened and what to do next."""

    reason: ClassVar[Reason]

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class Misuse(HaifError):
    """We called ourselves wrongly: a bug in HAIF, or a wrong setting."""

    reason = Reason.MISUSE


class PeerFault(HaifError):
    """A peer broke the protocol. `peer` is who, where known."""

    def __init__(self, message: str, peer: PeerId | None = None) -> None:
        super().__init__(message)
        self.peer = peer


class BadSignature(PeerFault):
    """A signature, certificate or authentication tag does not verify."""

    reason = Reason.BAD_SIGNATURE


class BadProof(PeerFault):
    """A proof does not show what it is said to show."""

    reason = Reason.BAD_PROOF


class Replayed(PeerFault):
    """A message, nonce, sequence or ticket was seen before."""

    reason = Reason.REPLAYED


class Expired(PeerFault):
    """A message, record, certificate or ticket is outside its time."""

    reason = Reason.EXPIRED


class Oversize(PeerFault):
    """Something is longer, deeper or more numerous than its limit."""

    reason = Reason.OVERSIZE


class Malformed(PeerFault):
    """Bytes do not have the form they must have."""

    reason = Reason.MALFORMED


class WrongState(PeerFault):
    """A message that is well formed but not allowed now."""

    reason = Reason.WRONG_STATE


class Equivocated(PeerFault):
    """A peer signed two statements of which only one can hold."""

    reason = Reason.EQUIVOCATED


class Refusal(HaifError):
    """Someone legitimately said no. `param` names what was refused, if one thing was; `retry_after` is in seconds."""

    def __init__(self, message: str, *, param: str | None = None, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.param = param
        self.retry_after = retry_after


class Unauthenticated(Refusal):
    """No valid credential was given."""

    reason = Reason.UNAUTHENTICATED


class Forbidden(Refusal):
    """The caller is known, and may not."""

    reason = Reason.FORBIDDEN


class OverQuota(Refusal):
    """The caller has used up its share for now."""

    reason = Reason.OVER_QUOTA


class Overloaded(Refusal):
    """There is no room for more work now."""

    reason = Reason.OVERLOADED


class UnknownModel(Refusal):
    """Nobody here offers that model."""

    reason = Reason.UNKNOWN_MODEL


class InvalidRequest(Refusal):
    """The request is missing something or carries a wrong value."""

    reason = Reason.INVALID_REQUEST


class ContextTooLong(Refusal):
    """Prompt and answer do not fit into the model's context."""

    reason = Reason.CONTEXT_TOO_LONG


class Unsupported(Refusal):
    """An option, method, version or kind that cannot be honoured."""

    reason = Reason.UNSUPPORTED


class MustWait(Refusal):
    """There will be room in `retry_after` seconds for whoever then comes back."""

    reason = Reason.MUST_WAIT


class Conflict(Refusal):
    """What is there is not what the caller said it would replace."""

    reason = Reason.CONFLICT


class Unavailable(HaifError):
    """Circumstances: it may work later. `retry_after` is in seconds."""

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Timeout(Unavailable):
    """The deadline passed first."""

    reason = Reason.TIMEOUT


class ConnectionLost(Unavailable):
    """The other side is gone or cannot be reached."""

    reason = Reason.CONNECTION_LOST


class Elsewhere(Unavailable):
    """The job is with another orchestrator; should that one be gone, it will be here in a moment."""

    reason = Reason.ELSEWHERE


class NoWorker(Unavailable):
    """No live worker can take the job."""

    reason = Reason.NO_WORKER


class EngineDied(Unavailable):
    """The engine child ended without being asked to."""

    reason = Reason.ENGINE_DIED


class ModelLoading(Unavailable):
    """The model is not in memory yet, and will not be in time for this request. `retry_after` says when it may be."""

    reason = Reason.MODEL_LOADING


class Corruption(HaifError):
    """Data failed its own check. Stop and keep the evidence."""


class DigestMismatch(Corruption):
    """Content is not what its digest names."""

    reason = Reason.DIGEST_MISMATCH


class JournalBroken(Corruption):
    """The journal's hash chain does not hold."""

    reason = Reason.JOURNAL_BROKEN


LEAVES: tuple[type[HaifError], ...] = (
    Misuse, BadSignature, BadProof, Replayed, Expired, Oversize, Malformed, WrongState, Equivocated,
    Unauthenticated, Forbidden, OverQuota, Overloaded, UnknownModel, InvalidRequest, ContextTooLong, Unsupported,
    MustWait, Conflict, Timeout, ConnectionLost, Elsewhere, NoWorker, EngineDied, ModelLoading, DigestMismatch,
    JournalBroken,
)  # fmt: skip
BY_REASON: dict[Reason, type[HaifError]] = {leaf.reason: leaf for leaf in LEAVES}


def from_reason(code: str, message: str, retry_after: float | None = None, param: str | None = None) -> HaifError:
    """The error a peer's reply names. A code we do not know is a `Malformed`: unknown means no."""
    try:
        leaf = BY_REASON[Reason(code)]
    except ValueError:
        return Malformed(f"the peer answered with the unknown error code {code[:40]!r}: {message}")
    if issubclass(leaf, Refusal):
        return leaf(message, param=param, retry_after=retry_after)
    if issubclass(leaf, Unavailable):
        return leaf(message, retry_after=retry_after)
    return leaf(message)


@dataclass(frozen=True, slots=True)
class Dropped:
    """A machine refused something. An event, not an exception: the machine goes on."""

    reason: Reason
    peer: PeerId | None = None
    detail: str = ""
