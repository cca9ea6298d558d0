"""The journey of a request for text as pure logic: what counts as the answer.

1. placed     as every request (`gateway.errand`)
2. answer     chunks in order and within the bounds that were asked for
3. end        the receipt must be the reserved worker's and name exactly the answer that was received
4. failed     before the tenant has seen a token, another worker may try; after that the tenant is told
"""

from __future__ import annotations

from math import isnan

from haif.base import limits
from haif.base.errors import (
    Forbidden,
    HaifError,
    Malformed,
    Oversize,
    WrongState,
)
from haif.base.ids import JobId, PeerId
from haif.base.sampling import Scores
from haif.gateway.errand import Errand, Order
from haif.gateway.openai import Ask
from haif.identity.signing import Verified
from haif.protocol.inference import Answer, Chunk, End, OutputHash, encode_request, request_digest
from haif.protocol.receipts import Receipt, check_receipt


class Journey(Errand):
    """What is known of one request between its parsing and its answer."""

    def __init__(self, ask: Ask, *, job: JobId, tenant: str, gateway: PeerId) -> None:
        self.ask = ask
        order = Order(
            job=job, tenant=tenant, gateway=gateway, model=ask.model, task=ask.task,
            tokens_max=ask.request.tokens_max, seed=ask.seed,
        )  # fmt: skip
        encoded = encode_request(ask.request)
        super().__init__(order, encoded, request_digest(encoded))
        self.restart()

    def restart(self) -> None:
        """Forget what an attempt that failed has brought."""
        self._output = OutputHash()
        self._text: list[str] = []
        self.scores: list[Scores] = []
        self._bytes = 0
        self._chunks = 0

    def take(self, answer: Answer) -> Chunk | End:
        """The next message of the worker. Raises `Malformed` or `Oversize` for what no honest worker sends."""
        if (answer.chunk is None) == (answer.end is None):
            raise Malformed("an answer is either a chunk or the end", self.worker)
        if answer.chunk is not None:
            self._add(answer.chunk)
            return answer.chunk
        assert answer.end is not None
        return answer.end

    def _add(self, chunk: Chunk) -> None:
        allowed = self.ask.request.tokens_max
        try:
            self._output.add(chunk)
        except ValueError as error:
            raise Malformed(f"the worker's answer is out of order: {error}", self.worker) from None
        if any(not 0 <= token < 1 << 32 for token in chunk.tokens):
            raise Malformed("a token id does not fit in 32 bits", self.worker)
        self._chunks += 1
        self._bytes += len(chunk.text)
        if (
            self._output.tokens > allowed
            or self._bytes > allowed * limits.ANSWER_BYTES_PER_TOKEN_MAX
            or self._chunks > 2 * allowed + 16
        ):
            raise Oversize("the worker sends more than was asked for", self.worker)
        self._check_scores(chunk)
        self._text.append(chunk.text)
        self.scores += chunk.scores

    def _check_scores(self, chunk: Chunk) -> None:
        alternatives = self.ask.request.logprobs
        if len(chunk.scores) != (0 if alternatives is None else len(chunk.tokens)):
            raise Malformed("the worker sent logprobs nobody asked for, or none where they were", self.worker)
        for token, scores in zip(chunk.tokens, chunk.scores, strict=False):
            if not 1 <= len(scores) <= 1 + (alternatives or 0) or scores[0].token != token:
                raise Malformed("the worker's logprobs are not those of its tokens", self.worker)
            if any(len(each.piece) > limits.ANSWER_BYTES_PER_TOKEN_MAX or isnan(each.logprob) for each in scores):
                raise Malformed("the worker sent a logprob that no token can have", self.worker)

    def settled(self, end: End) -> Verified[Receipt]:
        """The receipt, if it is the worker's and for exactly this answer. Raises what `check_receipt` raises."""
        assert self.ticket is not None, "there is no end without a beginning"
        receipt = check_receipt(
            end.receipt, self.ticket.reservation,
            self._output.tokens_digest(), self._output.text_digest(), self._output.tokens,
        )  # fmt: skip
        said = (end.finish_reason, end.prompt_tokens, end.completion_tokens)
        signed = receipt.payload
        if said != (signed.finish_reason, signed.prompt_tokens, signed.completion_tokens):
            raise Malformed("the worker says one thing and signs another", self.worker)
        if not 0 <= end.cached_tokens < max(1, signed.prompt_tokens):
            raise Malformed("the worker says it reused more of the prompt than there is", self.worker)
        if signed.finish_reason not in ("stop", "length") or signed.prompt_tokens < 0:
            raise Malformed("the receipt gives a finish reason or count that cannot be", self.worker)
        return receipt

    def may_retry(self, error: HaifError) -> bool:
        """Whether another worker may try: nothing was shown to the tenant, and the request is not to blame."""
        shown = self.ask.stream and self._output.tokens > 0
        return not shown and super().may_retry(error)

    @property
    def text(self) -> str:
        """The answer so far."""
        return "".join(self._text)

    @property
    def tokens(self) -> int:
        """How many tokens the answer has so far."""
        return self._output.tokens


def blames_worker(error: HaifError) -> HaifError:
    """What a worker's refusal means to the tenant: a ticket refused is not the tenant's lack of permission."""
    if isinstance(error, Forbidden):
        return WrongState(f"the worker refused the reservation: {error.message}")
    return error
