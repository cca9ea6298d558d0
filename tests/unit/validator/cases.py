"""Receipts that a validator drew, whole and signed by everybody."""

from typing import Any

from haif.base import codec
from haif.base.clock import Instant
from haif.base.hashing import digest
from haif.base.ids import JobId, ModelDigest, Nonce
from haif.base.sampling import Sampling
from haif.identity.keys import Identity
from haif.identity.signing import Domain, evidence_digest, seal
from haif.protocol.audits import Payload
from haif.protocol.inference import Request, request_digest, said_digest, tokens_digest
from haif.protocol.jobs import Reservation
from haif.protocol.receipts import Countersignature, Receipt, check_evidence
from haif.protocol.sandbox import Sandbox
from haif.protocol.seeds import given_seed
from haif.validator.docket import Case

ORCHESTRATOR, GATEWAY, ANNE, BOB, VALIDATOR, STRANGER = (Identity(bytes([n]) * 32) for n in range(1, 7))
TOKENS = [7, 8, 9]
ROOT = digest("root", b"")
WORK = digest("work", b"")


def evidence(number: int, worker: Identity = ANNE, gateway: Identity = GATEWAY, **changed: Any) -> tuple[bytes, ...]:
    """Reservation, receipt and countersignature of job `number`."""
    job = JobId(number.to_bytes(16, "big"))
    terms = Reservation(
        job, 1, gateway.peer, worker.peer, ModelDigest(b"m" * 32), request_digest(request(number)), 16, given_seed(1),
        1, b"", 1, 2, 3,
    )  # fmt: skip
    ticket = seal(ORCHESTRATOR, Domain.RESERVATION, terms)
    fields: dict[str, Any] = {
        "job": job, "attempt": 1, "gateway": gateway.peer, "reservation": evidence_digest(ticket),
        "request": terms.request_digest, "model": terms.model, "prompt_tokens": 2, "completion_tokens": len(TOKENS),
        "finish_reason": "stop", "output_tokens": tokens_digest(TOKENS), "output_text": said_digest("text"),
        "engine": "an engine", "sandbox": Sandbox("reduced", []), "started": 1, "finished": 2, "transcript": ROOT,
    }  # fmt: skip
    signed = seal(worker, Domain.RECEIPT, Receipt(**(fields | changed)))
    hand = seal(gateway, Domain.COUNTERSIGNATURE, Countersignature(job, evidence_digest(signed), auditable=True))
    return ticket, signed, hand


def request(number: int) -> bytes:
    return codec.encode(Request(Nonce(number.to_bytes(16, "big")), None, "The river", 16, Sampling(1.0), []))


def case(number: int, worker: Identity = ANNE, gateway: Identity = GATEWAY, since: float = 0.0) -> Case:
    return Case(check_evidence(*evidence(number, worker, gateway)), 7, Instant(since))


def payload(number: int, of: Case | None = None) -> Payload:
    return Payload((of or case(number)).receipt, request(number), TOKENS)
