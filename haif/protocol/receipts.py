"""What a worker signs for what it ran, and what a gateway signs when it received just that.

A receipt proves who claims to have run what, and binds request, reservation, model and output together. It does not by
itself prove that the model was run honestly: that takes recomputation (audits).
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

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
    """The gateway's statement: "I received exactly the output this receipt names." Under `Domain.COUNTERSIGNATURE`.

    Where it is `auditable`, the gateway keeps request and tokens for a while, for a validator that draws the receipt.
    """

    job: JobId
    receipt: Digest
    auditable: bool = False


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
        "receipt": text_of(receipt.evidence),
        "reservation": text_of(reservation.evidence),
        "countersignature": text_of(countersignature),
    }


def transcript(request: bytes, tokens: Iterable[int]) -> dict[str, str]:
    """What goes into the bundle too, for whoever will compute the answer again: tokens as four little-endian bytes."""
    return {"request": text_of(request), "tokens": text_of(b"".join(token.to_bytes(4, "little") for token in tokens))}


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
    checked = check_evidence(*(evidence_of(labels[name]) for name in ("reservation", "receipt", "countersignature")))
    receipt, said = checked.receipt, checked.receipt.payload
    if bundle(receipt, checked.reservation, checked.countersignature.evidence) != labels:
        raise BadSignature("the file's labels are not what its evidence says", receipt.signer)
    if text is not None and said_digest(text, reasoning, calls) != said.output_text:
        raise BadSignature("the receipt is for another answer than this text", receipt.signer)
    if vectors is not None and vectors_digest(vectors) != said.output_vectors:
        raise BadSignature("the receipt is for another answer than these vectors", receipt.signer)
    request, tokens = _check_transcript(fields, receipt)
    return replace(checked, request=request, tokens=tokens)


def check_evidence(ticket: bytes, signed: bytes, countersigned: bytes) -> CheckedBundle:
    """The same of the three statements alone: the sealed reservation, receipt and countersignature. Raises as above."""
    receipt = open_sealed(Receipt, Domain.RECEIPT, signed)
    reservation = open_sealed(Reservation, Domain.RESERVATION, ticket)
    hand = open_sealed(Countersignature, Domain.COUNTERSIGNATURE, countersigned, receipt.payload.gateway)
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
    return CheckedBundle(reservation, receipt, hand)


def _check_transcript(fields: Mapping[str, object], receipt: Verified[Receipt]) -> tuple[bytes | None, tuple[int, ...]]:
    if not set(_TRANSCRIPT) & set(fields):
        return None, ()
    request, raw = (evidence_of(str(fields.get(name, ""))) for name in _TRANSCRIPT)
    if len(raw) % 4:
        raise Malformed("tokens are four bytes each")
    tokens = tuple(int.from_bytes(raw[at : at + 4], "little") for at in range(0, len(raw), 4))
    said = receipt.payload
    if (request_digest(request), tokens_digest(tokens)) != (said.request, said.output_tokens):
        raise BadSignature("the receipt is for another request or other tokens than the file has", receipt.signer)
    return request, tokens


_TRANSCRIPT = ("request", "tokens")
_BUNDLE = ("job", "worker", "model_digest", "execution", "receipt", "reservation", "countersignature")


def text_of(evidence: bytes) -> str:
    """How bytes stand in a file: canonical unpadded base64url."""
    return base64.urlsafe_b64encode(evidence).decode().rstrip("=")


def evidence_of(text: str) -> bytes:
    """The bytes of canonical unpadded base64url: exactly one text means one byte string. Raises `Malformed`."""
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except ValueError:
        raise Malformed("the evidence is not base64url") from None
    if text_of(raw) != text:
        raise Malformed("the evidence is not canonical base64url")
    return raw
