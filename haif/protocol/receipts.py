"""What a worker signs for what it ran, and what a gateway signs when it received just that.

A receipt proves who claims to have run what, and binds request, reservation, model and output together. It does not by
itself prove that the model was run honestly: that takes recomputation (audits).
"""

from __future__ import annotations

from haif.base.codec import Message
from haif.base.errors import BadSignature
from haif.base.ids import Digest, JobId, ModelDigest, PeerId
from haif.identity.signing import Domain, Verified, open_sealed
from haif.protocol.jobs import Reservation


class Receipt(Message, frozen=True):
    """The worker's statement, sealed under `Domain.RECEIPT`. Times in ms since the epoch."""

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
    sandbox: str
    started: int
    finished: int


class Countersignature(Message, frozen=True):
    """The gateway's statement: "I received exactly the output this receipt names." Under `Domain.COUNTERSIGNATURE`."""

    job: JobId
    receipt: Digest


def check_receipt(
    evidence: bytes, reservation: Verified[Reservation], output_tokens: Digest, output_text: Digest, tokens: int
) -> Verified[Receipt]:
    """The receipt, once it is the reserved worker's and names this reservation and exactly this output.

    Raises `Malformed`, `Oversize` or `BadSignature`.
    """
    ticket = reservation.payload
    checked = open_sealed(Receipt, Domain.RECEIPT, evidence, signer=ticket.worker)
    receipt = checked.payload
    wanted = (
        ticket.job, ticket.attempt, ticket.gateway, reservation.digest, ticket.request_digest, ticket.model,
        output_tokens, output_text, tokens,
    )  # fmt: skip
    stated = (
        receipt.job, receipt.attempt, receipt.gateway, receipt.reservation, receipt.request, receipt.model,
        receipt.output_tokens, receipt.output_text, receipt.completion_tokens,
    )  # fmt: skip
    if stated != wanted:
        raise BadSignature("the receipt does not describe this job and the answer that was received", ticket.worker)
    return checked
