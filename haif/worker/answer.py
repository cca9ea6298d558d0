"""What a worker says about itself and its work: offers, loads and receipts, as values."""

from __future__ import annotations

from collections.abc import Sequence

from haif.base.adapters import Adapted
from haif.base.clock import WallTime
from haif.base.hashing import digest
from haif.base.ids import Digest, ModelDigest, PeerId
from haif.engine.embed import Embed, Embedded
from haif.engine.request import Finished
from haif.identity.keys import Identity
from haif.identity.signing import Domain, Verified, seal
from haif.proof.transcript import root, windows
from haif.protocol.embeddings import vectors_digest
from haif.protocol.inference import OutputHash, tokens_digest
from haif.protocol.jobs import Reservation
from haif.protocol.receipts import Receipt
from haif.protocol.sandbox import Sandbox
from haif.worker.ticket import EmbedTicket


def prefix_scope(gateway: PeerId, scope: bytes) -> bytes:
    """Within which prompts may share what was computed: one gateway's scope is never another's; none has none."""
    return bytes(digest("haif v1 prefix scope", gateway, scope)) if scope else b""


def seal_receipt(
    identity: Identity,
    reservation: Verified[Reservation],
    output: OutputHash,
    finished: Finished,
    resumed: Sequence[int],
    *,
    engine: str,
    exact: bool,
    sandbox: Sandbox,
    verifiable: bool = True,
    adapted: Adapted | None = None,
    started: WallTime,
    now: WallTime,
) -> bytes:
    """The sealed receipt for an answer: which request, which model, which output, by which build.

    `resumed` are the tokens of the output that this worker was given. Where the engine is `exact`, the receipt commits
    to the logits that the others were chosen from.
    """
    terms = reservation.payload
    receipt = Receipt(
        job=terms.job,
        attempt=terms.attempt,
        gateway=terms.gateway,
        reservation=reservation.digest,
        request=terms.request_digest,
        model=ModelDigest(terms.model),
        prompt_tokens=finished.prompt_tokens,
        completion_tokens=output.tokens,
        finish_reason=finished.finish_reason,
        output_tokens=output.tokens_digest(),
        output_text=output.text_digest(),
        engine=engine,
        sandbox=sandbox,
        started=started,
        finished=now,
        resumed=len(resumed),
        earlier=tokens_digest(resumed) if resumed else None,
        transcript=_transcript(output, finished, len(resumed)) if exact else None,
        verifiable=verifiable,
        adapted=adapted,
    )
    return seal(identity, Domain.RECEIPT, receipt)


def seal_vector_receipt(
    identity: Identity, reservation: Verified[Reservation], vectors: list[bytes], embedded: Embedded, *,
    engine: str, sandbox: Sandbox, started: WallTime, now: WallTime,
) -> bytes:  # fmt: skip
    """The same for vectors: no tokens, an empty text, and the digest of the vectors themselves."""
    terms, nothing = reservation.payload, OutputHash()
    receipt = Receipt(
        job=terms.job, attempt=terms.attempt, gateway=terms.gateway, reservation=reservation.digest,
        request=terms.request_digest, model=terms.model, prompt_tokens=embedded.prompt_tokens, completion_tokens=0,
        finish_reason="stop", output_tokens=nothing.tokens_digest(), output_text=nothing.text_digest(),
        engine=engine, sandbox=sandbox, started=started, finished=now, output_vectors=vectors_digest(vectors),
    )  # fmt: skip
    return seal(identity, Domain.RECEIPT, receipt)


def to_embed(ticket: EmbedTicket) -> Embed:
    """What the engine is asked for."""
    request, terms = ticket.request, ticket.reservation.payload
    scope = prefix_scope(terms.gateway, request.scope)
    return Embed(terms.job, request.query, request.texts, request.tokens, request.dimensions, scope)


def _transcript(output: OutputHash, finished: Finished, resumed: int) -> Digest:
    return root(windows(resumed, output.token_ids[resumed:], finished.rows))
