"""A request for vectors as pure logic: what the worker sends is believed only within what was asked for.

1. vectors    in the order of the inputs, all of one length, finite, and an embedding 1 long
2. end        the receipt must be the reserved worker's and name exactly the vectors that were received
"""

from __future__ import annotations

from haif.base import limits
from haif.base.errors import HaifError, Malformed, Oversize
from haif.base.ids import JobId, PeerId
from haif.base.tasks import Task
from haif.base.vectors import FLOAT_BYTES, is_sound
from haif.gateway.embeddings import VectorAsk
from haif.gateway.errand import Errand, Order
from haif.gateway.strict import wrong
from haif.identity.signing import Verified
from haif.protocol.embeddings import EmbedAnswer, Embedded, Vectors, embed_digest, vectors_digest
from haif.protocol.inference import OutputHash
from haif.protocol.receipts import Receipt, check_receipt


class Gathering(Errand):
    """What is known of one request between its parsing and its vectors."""

    def __init__(self, ask: VectorAsk, *, job: JobId, tenant: str, gateway: PeerId, dimensions: int) -> None:
        """`dimensions`: of the model's vectors, as its workers say; 0 if nobody does.

        Raises `Rejected` for more vectors than go at once.
        """
        self.ask = ask
        one = 1 if ask.task is Task.RERANK else ask.dimensions or dimensions or limits.EMBEDDING_DIMENSIONS_MAX
        self._bytes_of_one = FLOAT_BYTES * one
        if self.bytes_of_all > limits.EMBEDDING_BYTES_MAX:
            wrong(
                "input",
                f"vectors for {ask.count} inputs are more than {limits.EMBEDDING_BYTES_MAX} bytes: ask in parts",
            )
        encoded = ask.encoded()
        order = Order(
            job=job, tenant=tenant, gateway=gateway, model=ask.model, task=ask.task, tokens_max=0, seed=None,
            sandbox_min=ask.sandbox_min,
        )  # fmt: skip
        super().__init__(order, encoded, embed_digest(encoded))
        self.restart()

    def restart(self) -> None:
        """Forget what an attempt that failed has brought."""
        self.vectors: list[bytes] = []

    def failed(self, error: HaifError) -> bool:
        """Whether another worker may try. It begins anew: half of the vectors are no beginning of the others."""
        self.restart()
        return super().failed(error)

    def take(self, answer: EmbedAnswer) -> Vectors | Embedded:
        """The next message of the worker. Raises `Malformed` or `Oversize` for what no honest worker sends."""
        if (answer.vectors is None) == (answer.end is None):
            raise Malformed("an answer is either vectors or the end", self.worker)
        if answer.vectors is not None:
            self._add(answer.vectors)
            return answer.vectors
        assert answer.end is not None
        return answer.end

    def _add(self, more: Vectors) -> None:
        if not more.vectors or more.first != len(self.vectors):
            raise Malformed(f"the worker's vectors are out of order: {len(self.vectors)} was due", self.worker)
        if len(self.vectors) + len(more.vectors) > self.ask.count:
            raise Oversize("the worker sends more vectors than were asked for", self.worker)
        size, unit = self._bytes_of_one, self.ask.task is Task.EMBED
        if not all(len(vector) == size and is_sound(vector, unit=unit) for vector in more.vectors):
            raise Malformed("the worker sends a vector of another length, or of what is not a number", self.worker)
        self.vectors += more.vectors

    @property
    def bytes_of_all(self) -> int:
        """How much the vectors of the whole answer are."""
        return self.ask.count * self._bytes_of_one

    def settled(self, end: Embedded) -> Verified[Receipt]:
        """The receipt, if it is the worker's and for exactly these vectors. Raises what `check_receipt` raises."""
        assert self.ticket is not None, "there is no end without a beginning"
        if len(self.vectors) != self.ask.count:
            raise Malformed("the worker ended before its last vector", self.worker)
        nothing = OutputHash()
        receipt = check_receipt(
            end.receipt, self.ticket.reservation, nothing.tokens_digest(), nothing.text_digest(), 0,
            output_vectors=vectors_digest(self.vectors),
        )  # fmt: skip
        signed = receipt.payload
        self.check_jail(signed)
        if (end.prompt_tokens, "stop") != (signed.prompt_tokens, signed.finish_reason):
            raise Malformed("the worker says one thing and signs another", self.worker)
        known = self.ask.tokens_known
        if not self.ask.count <= signed.prompt_tokens <= limits.EMBEDDING_TOKENS_MAX or (
            known is not None and signed.prompt_tokens != known
        ):
            raise Malformed("the receipt counts tokens that cannot be", self.worker)
        return receipt
