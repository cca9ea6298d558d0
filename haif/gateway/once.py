"""A request that comes again under its Idempotency-Key is the same request: it runs once and has one answer and bill.

The header is that of the IETF draft `draft-ietf-httpapi-idempotency-key-header`; status codes as there. What is kept of
a request is a digest, and of its answer a sealed copy: the key of the seal is made of the gateway's secret and the
Idempotency-Key itself, which is kept nowhere, so that a database alone opens nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from haif.base import codec, limits
from haif.base.codec import Message
from haif.base.errors import DigestMismatch
from haif.base.hashing import digest
from haif.base.ids import Digest, JobId
from haif.gateway.admission import Headers
from haif.gateway.errors import Rejected

HEADER: Final = b"idempotency-key"
REPLAYED: Final = (b"idempotent-replayed", b"true")
_NONCE_BYTES: Final = 12


class Kept(Message, frozen=True):
    """An answer as it was sent: its status, content type and body."""

    status: int
    kind: bytes
    body: bytes


@dataclass(frozen=True, slots=True)
class Keyed:
    """A request under an Idempotency-Key: by which name it is remembered, what it says, and the key of its seal."""

    tenant: str
    name: Digest
    content: Digest
    seal_key: bytes


def keyed(secret: bytes, tenant: str, headers: Headers, path: str, body: bytes) -> Keyed | None:
    """The request's identity, if its sender gave it one. Raises `Rejected` for a key that is none."""
    key = headers.get(HEADER)
    if key is None:
        return None
    if not re.fullmatch(rb"[\x21-\x7e]{1,%d}" % limits.IDEMPOTENCY_KEY_BYTES_MAX, key):
        raise Rejected(
            f"an Idempotency-Key has 1 to {limits.IDEMPOTENCY_KEY_BYTES_MAX} visible ASCII characters",
            code="invalid_value", param="Idempotency-Key",
        )  # fmt: skip
    whose = (secret, tenant.encode(), key)
    return Keyed(
        tenant, digest("haif v1 idempotency name", *whose),
        digest("haif v1 idempotency content", *whose, path.encode(), body),
        bytes(digest("haif v1 idempotency seal", *whose)),
    )  # fmt: skip


def seal_answer(request: Keyed, job: JobId, answer: Kept) -> bytes:
    """The answer as it is kept. A job has one answer, so its random id serves as the nonce."""
    nonce = bytes(job)[:_NONCE_BYTES]
    return ChaCha20Poly1305(request.seal_key).encrypt(nonce, codec.encode(answer), bytes(request.name))


def open_answer(request: Keyed, job: JobId, sealed: bytes) -> Kept:
    """The answer that was sealed for this request. Raises `DigestMismatch` for anything else."""
    try:
        plain = ChaCha20Poly1305(request.seal_key).decrypt(bytes(job)[:_NONCE_BYTES], sealed, bytes(request.name))
    except InvalidTag:
        raise DigestMismatch("a kept answer is not what was kept: its file was changed") from None
    return codec.decode(Kept, plain, size_max=2 * limits.ANSWER_KEPT_BYTES_MAX)


def reused() -> Rejected:
    """The refusal of another request under a key that was used."""
    message = "this Idempotency-Key was used for another request: a request has a key of its own"
    return Rejected(message, code="idempotency_key_reused", status=422, param="Idempotency-Key", final=True)


def in_progress(job: JobId) -> Rejected:
    """The refusal of a request that is being answered."""
    message = f"the request under this Idempotency-Key is still being answered (job {job}); ask again shortly"
    return Rejected(message, code="idempotency_in_progress", status=409, param="Idempotency-Key", retry_after=1.0)


def answer_lost(job: JobId) -> Rejected:
    """The refusal of a request that was answered, where the answer is not kept."""
    message = (
        f"the request under this Idempotency-Key was answered (job {job}), and its answer is not kept any more; its "
        f"receipt is at /haif/v1/jobs/{job}. To have it answered again, send it under another key"
    )
    return Rejected(message, code="idempotency_answer_lost", status=409, param="Idempotency-Key", final=True)
