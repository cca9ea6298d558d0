"""Dead letters: requests whose jobs came to nothing through no fault of theirs, with what was tried and why it failed.

The orchestrator knows no prompt, so letters are the gateway's. Of a request under an Idempotency-Key the request itself
is kept too, sealed, for as long as the key is remembered: it can be run again, and its tenant finds the answer under
the key. For others nobody would come back; their letters tell what happened, and hold no word of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from haif.base import codec, limits
from haif.base.clock import WallTime
from haif.base.codec import Message
from haif.base.errors import DigestMismatch, Reason
from haif.base.hashing import digest
from haif.base.ids import JobId, PeerId


class Try(Message, frozen=True):
    """One attempt that failed: on which worker, why, and how many tokens of the answer there were then."""

    attempt: int
    worker: PeerId
    reason: str
    tokens: int


class Payload(Message, frozen=True):
    """The request of a letter, as it came."""

    path: str
    key: bytes  # its Idempotency-Key
    body: bytes


class Standing(StrEnum):
    """Where a letter stands: lying there, to be run again, being run, or answered after all."""

    DEAD = "dead"
    ASKED = "asked"
    RUNNING = "running"
    ANSWERED = "answered"


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter. `at` in ms since the epoch; `redriven`: how often it was run again."""

    job: JobId
    tenant: str
    model: str
    at: WallTime
    cause: str
    standing: Standing
    redriven: int
    history: tuple[Try, ...]
    payload: bytes | None

    def redrivable(self, now: WallTime) -> bool:
        """Whether the request is there, and its tenant would find the answer."""
        fresh = now - self.at < limits.IDEMPOTENCY_MS
        return self.payload is not None and fresh and self.standing is Standing.DEAD


def cause_of(history: tuple[Try, ...]) -> str:
    """Why the last attempt failed; or "poison", where several engines died of the request."""
    deaths = sum(each.reason == Reason.ENGINE_DIED.value for each in history)
    return "poison" if deaths >= limits.POISON_DEATHS else history[-1].reason


def seal_payload(secret: bytes, job: JobId, payload: Payload) -> bytes:
    """The request as it is kept. A job has one."""
    return _cipher(secret).encrypt(bytes(job)[:12], codec.encode(payload), bytes(job))


def open_payload(secret: bytes, job: JobId, sealed: bytes) -> Payload:
    """The request that was sealed for this job. Raises `DigestMismatch` for anything else."""
    try:
        plain = _cipher(secret).decrypt(bytes(job)[:12], sealed, bytes(job))
    except InvalidTag:
        raise DigestMismatch(f"the request of letter {job} is not what was kept: its file was changed") from None
    return codec.decode(Payload, plain, size_max=2 * limits.HTTP_BODY_BYTES_MAX)


def _cipher(secret: bytes) -> ChaCha20Poly1305:
    return ChaCha20Poly1305(bytes(digest("haif v1 letters", secret)))
