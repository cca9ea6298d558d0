"""What a worker signs for what it ran, and what a gateway signs when it received just that.

A receipt proves who claims to have run what, and binds request, reservation, model and output together. It does not by
itself prove that the model was run honestly: that takes recomputation (audits).
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from haif.base.adapters import Adapted
from haif.base.codec import Message
from haif.base.errors import BadSignature, Malformed
from haif.base.execution import word
from haif.base.ids import Digest, JobId, ModelDigest, PeerId
from haif.identity.signing import Domain, Verified, open_sealed
from haif.protocol.embeddings import vectors_digest
from haif.protocol.inference import request_digest, said_digest, tokens_digest
from haif.protocol.jobs import Reservation
from haif.protocol.sandbox import Sandbox
from haif.protocol.seeds import check_seed


class Receipt(Message, frozen=True):
    """The worker's statement, sealed under `Domain.RECEIPT`. Times in ms since the epoch.

    Counts and digests are of the whole answer. Its first `resumed` tokens, whose digest is `earlier`, were given to
    this worker, which vouches for what follows them and for the text of all. `transcript` commits to the logits that
    those which follow were chosen from (`proof.transcript`); nil where the engine does not claim to be exact. An answer
    in vectors has no tokens, an empty text, and the finish reason "stop".

    Where it is not `verifiable` (`base.execution`), another program computed the answer: which model and sampler that
    has is its owner's word alone, a piece of text is counted as a token, and each token has the id
    `inference.NO_TOKEN`, so that `output_tokens` says how many there were and `output_text` which text.
    """

    job: JobId
    attempt: int
    gateway: PeerId
    reservation: Digest  # of the sealed reservation that was redeemed
    request: Digest
    model: ModelDigest
    prompt_tokens: int
    completion_tokens: int
    finish_reason: str
    output_tokens: Digest
    output_text: Digest
    engine: str  # build and execution profile, as the engine reports it
    sandbox: Sandbox  # what confined that engine
    started: int
    finished: int
    resumed: int = 0
    earlier: Digest | None = None
    transcript: Digest | None = None
    verifiable: bool = True
    output_vectors: Digest | None = None  # of an answer in vectors, which has no tokens and no text
    adapted: Adapted | None = None  # the two files, where the model is one with an adapter on it


class Countersignature(Message, frozen=True):
    """The gateway's statement: "I received exactly the output this receipt names." Under `Domain.COUNTERSIGNATURE`."""

    job: JobId
    receipt: Digest


def check_receipt(
    evidence: bytes, reservation: Verified[Reservation], output_tokens: Digest, output_text: Digest, tokens: int,
    earlier: Digest | None = None, output_vectors: Digest | None = None,
) -> Verified[Receipt]:  # fmt: skip
    """The receipt, once it is the reserved worker's and names this reservation and exactly this output.

    `earlier`: the digest of the tokens that the answer was resumed after, if it was. Raises `Malformed`, `Oversize`
    or `BadSignature`.
    """
    ticket = reservation.payload
    checked = open_sealed(Receipt, Domain.RECEIPT, evidence, signer=ticket.worker)
    receipt = checked.payload
    wanted = (
        ticket.job, ticket.attempt, ticket.gateway, reservation.digest, ticket.request_digest, ticket.model,
        output_tokens, output_text, tokens, ticket.resumed, earlier, output_vectors,
    )  # fmt: skip
    stated = (
        receipt.job, receipt.attempt, receipt.gateway, receipt.reservation, receipt.request, receipt.model,
        receipt.output_tokens, receipt.output_text, receipt.completion_tokens, receipt.resumed, receipt.earlier,
        receipt.output_vectors,
    )  # fmt: skip
    if stated != wanted:
        raise BadSignature("the receipt does not describe this job and the answer that was received", ticket.worker)
    check_parts(checked)
    return checked


def check_parts(receipt: Verified[Receipt]) -> None:
    """Return if the files that a receipt names, where it names two, are its model. Raises `BadSignature`."""
    said = receipt.payload
    if said.adapted is not None and said.adapted.model != said.model:
        raise BadSignature("the receipt names a base and an adapter that are not its model", receipt.signer)


# --- the bundle: everything a stranger needs to check one answer ------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CheckedBundle:
    """Three statements that hold and agree: orchestrator's ticket, worker's receipt, gateway's countersignature.

    With them, where the tenant asked for it, the encoded request and the answer's tokens that they are about.
    """

    reservation: Verified[Reservation]
    receipt: Verified[Receipt]
    countersignature: Verified[Countersignature]
    request: bytes | None = None
    tokens: tuple[int, ...] = ()


def bundle(receipt: Verified[Receipt], reservation: Verified[Reservation], countersignature: bytes) -> dict[str, str]:
    """What a tenant is given with an answer: the evidence in unpadded base64url, and what it is about in hex."""
    return {
        "job": str(receipt.payload.job),
        "worker": str(receipt.signer),
        "model_digest": str(receipt.payload.model),
        "execution": word(receipt.payload.verifiable),
        "receipt": _text(receipt.evidence),
        "reservation": _text(reservation.evidence),
        "countersignature": _text(countersignature),
    }


def transcript(request: bytes, tokens: Iterable[int]) -> dict[str, str]:
    """What goes into the bundle too, for whoever will compute the answer again: tokens as four little-endian bytes."""
    return {"request": _text(request), "tokens": _text(b"".join(token.to_bytes(4, "little") for token in tokens))}


def check_bundle(
    fields: Mapping[str, object], text: str | None = None, reasoning: str = "", calls: Sequence[tuple[str, str]] = (),
    *, vectors: list[bytes] | None = None,
) -> CheckedBundle:  # fmt: skip
    """A bundle whose signatures hold, whose parts name one another, and whose labels are true.

    `text`, when given, is the answer as the tenant has it, with its reasoning and its calls (name, arguments), where it
    has any; it must be the one the receipt names, and so must `vectors`. Raises `Malformed`, `Oversize`,
    `BadSignature`, or `BadProof` where the seed was chosen. Who the signers are is for the caller to judge: anyone can
    make keys.
    """
    if set(fields) - set(_TRANSCRIPT) != set(_BUNDLE) or not all(isinstance(value, str) for value in fields.values()):
        raise Malformed(f"a receipt file holds exactly these texts: {', '.join(_BUNDLE)}; or {_TRANSCRIPT} besides")
    labels = {name: str(value) for name, value in fields.items() if name in _BUNDLE}
    receipt = open_sealed(Receipt, Domain.RECEIPT, _evidence(labels["receipt"]))
    reservation = open_sealed(Reservation, Domain.RESERVATION, _evidence(labels["reservation"]))
    hand = open_sealed(
        Countersignature, Domain.COUNTERSIGNATURE, _evidence(labels["countersignature"]), receipt.payload.gateway
    )
    check_seed(reservation)
    said, terms = receipt.payload, reservation.payload
    if (
        said.reservation, said.job, said.attempt, said.gateway, said.request, said.model, said.resumed, receipt.signer,
    ) != (
        reservation.digest, terms.job, terms.attempt, terms.gateway, terms.request_digest, terms.model, terms.resumed,
        terms.worker,
    ):  # fmt: skip
        raise BadSignature("the receipt and the reservation are about different jobs", receipt.signer)
    check_parts(receipt)
    if (hand.payload.job, hand.payload.receipt) != (said.job, receipt.digest):
        raise BadSignature("the countersignature is under another receipt", hand.signer)
    if bundle(receipt, reservation, hand.evidence) != labels:
        raise BadSignature("the file's labels are not what its evidence says", receipt.signer)
    if text is not None and said_digest(text, reasoning, calls) != said.output_text:
        raise BadSignature("the receipt is for another answer than this text", receipt.signer)
    if vectors is not None and vectors_digest(vectors) != said.output_vectors:
        raise BadSignature("the receipt is for another answer than these vectors", receipt.signer)
    return CheckedBundle(reservation, receipt, hand, *_check_transcript(fields, receipt))


def _check_transcript(fields: Mapping[str, object], receipt: Verified[Receipt]) -> tuple[bytes | None, tuple[int, ...]]:
    if not set(_TRANSCRIPT) & set(fields):
        return None, ()
    request, raw = (_evidence(str(fields.get(name, ""))) for name in _TRANSCRIPT)
    if len(raw) % 4:
        raise Malformed("tokens are four bytes each")
    tokens = tuple(int.from_bytes(raw[at : at + 4], "little") for at in range(0, len(raw), 4))
    said = receipt.payload
    if (request_digest(request), tokens_digest(tokens)) != (said.request, said.output_tokens):
        raise BadSignature("the receipt is for another request or other tokens than the file has", receipt.signer)
    return request, tokens


_TRANSCRIPT = ("request", "tokens")
_BUNDLE = ("job", "worker", "model_digest", "execution", "receipt", "reservation", "countersignature")


def _text(evidence: bytes) -> str:
    return base64.urlsafe_b64encode(evidence).decode().rstrip("=")


def _evidence(text: str) -> bytes:
    """The bytes of canonical unpadded base64url: exactly one text means one byte string."""
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except ValueError:
        raise Malformed("the evidence is not base64url") from None
    if _text(raw) != text:
        raise Malformed("the evidence is not canonical base64url")
    return raw
