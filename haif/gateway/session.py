"""The journey of a request for text as pure logic: what counts as the answer.

1. placed     as every request (`gateway.errand`)
2. answer     chunks in order and within the bounds that were asked for
3. end        the receipt must be the reserved worker's and name exactly the answer that was received
4. failed     another worker goes on after the tokens there are; what it tells again must be what came before. If the
              worker broke the protocol, its tokens are worth nothing: then another starts over, or, if the tenant has
              seen some, the tenant is told
"""

from __future__ import annotations

from collections.abc import Collection
from math import isnan
from typing import Final

from haif.base import limits
from haif.base.clock import WallTime
from haif.base.conversation import Said
from haif.base.errors import (
    Forbidden,
    HaifError,
    Malformed,
    Oversize,
    PeerFault,
    WrongState,
)
from haif.base.execution import VERIFIABLE
from haif.base.hashing import digest
from haif.base.ids import JobId, PeerId
from haif.base.sampling import Scores
from haif.gateway.ask import Ask
from haif.gateway.calls import check_asides, check_said
from haif.gateway.errand import TENANTS_OWN, Errand, Order, Ticket
from haif.gateway.letters import Try
from haif.identity.signing import Verified
from haif.protocol.audits import Payload
from haif.protocol.inference import (
    NO_TOKEN,
    Answer,
    Chunk,
    End,
    OutputHash,
    encode_request,
    request_digest,
    tokens_digest,
)
from haif.protocol.jobs import Placed
from haif.protocol.prefixes import prefix_tags
from haif.protocol.receipts import Receipt, check_receipt, transcript

_TOKEN_MAX: Final = (1 << 32) - 1


class Journey(Errand):
    """What is known of one request between its parsing and its answer."""

    def __init__(
        self, ask: Ask, *, job: JobId, tenant: str, gateway: PeerId, choice: int = 0, encoded: bytes | None = None
    ) -> None:
        """`encoded` is the request where somebody has encoded it already."""
        self.ask = ask
        self.choice = choice
        order = Order(
            job=job, tenant=tenant, gateway=gateway, model=ask.model, task=ask.task, sandbox_min=ask.sandbox_min,
            tokens_max=ask.request.tokens_max, seed=choice_seed(ask.seed, choice), prefixes=prefix_tags(ask.request),
            execution=ask.execution or VERIFIABLE, service=ask.service, weight=ask.weight,
        )  # fmt: skip
        encoded = encode_request(ask.request) if encoded is None else encoded
        super().__init__(order, encoded, request_digest(encoded))
        self.history: list[Try] = []
        self._allowed = ask.request.tokens_max
        self.restart()

    def restart(self) -> None:
        """Forget what an attempt that failed has brought."""
        self._output = OutputHash()
        self.scores: list[Scores] = []
        self._bytes = 0
        self._chunks = 0
        self._untold = False  # the worker has yet to tell what it was given

    def placed(self, placed: Placed, orchestrators: Collection[PeerId], now: WallTime) -> Ticket:
        """The ticket for the next attempt, which begins by telling again what there is."""
        ticket = super().placed(placed, orchestrators, now)
        self._chunks = 0
        self._untold = self.tokens > 0
        return ticket

    def transcript(self) -> dict[str, str]:
        """The request as the worker had it and the answer's tokens."""
        return transcript(self.encoded, self._output.ids()) if self.ask.transcript else {}

    def payload(self, receipt: Verified[Receipt]) -> Payload | None:
        """The same for a validator, unless the tenant said no."""
        return Payload(receipt.digest, self.encoded, self._output.ids()) if self.ask.audit else None

    def resumed(self) -> tuple[int, ...]:
        """The tokens that the next attempt goes on after."""
        return tuple(self._output.ids())

    def take(self, answer: Answer) -> Chunk | End | None:
        """What the next message of the worker adds; None for what it tells again.

        Raises `Malformed` or `Oversize` for what no honest worker sends.
        """
        if (answer.chunk is None) == (answer.end is None):
            raise Malformed("an answer is either a chunk or the end", self.worker)
        if self._untold:
            self._told_again(answer.chunk)
            return None
        if answer.chunk is not None:
            self._add(answer.chunk)
            return answer.chunk
        assert answer.end is not None
        return answer.end

    def _told_again(self, chunk: Chunk | None) -> None:
        """The text that was shown is what these tokens mean to the next worker too, or one of the two lied."""
        if chunk is None or (chunk.first, chunk.tokens, chunk.scores) != (0, self._output.ids(), []):
            raise Malformed("the worker did not begin with the tokens it was given", self.worker)
        again = Said()
        again.add(chunk.text, chunk.asides)
        if (again.text, again.reasoning, again.calls) != (self.said.text, self.said.reasoning, self.said.calls):
            raise Malformed("two workers disagree about the text of the same tokens", self.worker)
        self._untold = False

    def _add(self, chunk: Chunk) -> None:
        allowed = self._allowed
        try:
            self._output.add(chunk)
        except ValueError as error:
            raise Malformed(f"the worker's answer is out of order: {error}", self.worker) from None
        for token in chunk.tokens:
            if not 0 <= token <= _TOKEN_MAX:
                raise Malformed("a token id does not fit in 32 bits", self.worker)
        self._chunks += 1
        self._bytes += len(chunk.text)
        if chunk.asides:
            self._bytes += sum(len(aside.text) for aside in chunk.asides)
        if (
            self._output.tokens > allowed
            or self._bytes > allowed * limits.ANSWER_BYTES_PER_TOKEN_MAX
            or self._chunks > 2 * allowed + 16
        ):
            raise Oversize("the worker sends more than was asked for", self.worker)
        if chunk.scores or self.ask.request.logprobs is not None:
            self._check_scores(chunk)
            self.scores += chunk.scores
        if chunk.asides:
            check_asides(chunk.asides, self.ask.request, self.said, self.worker)

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
        earlier = tokens_digest(self.ticket.resumed) if self.ticket.resumed else None
        receipt = check_receipt(
            end.receipt, self.ticket.reservation,
            self._output.tokens_digest(), self._output.text_digest(), self._output.tokens, earlier,
        )  # fmt: skip
        said = (end.finish_reason, end.prompt_tokens, end.completion_tokens)
        signed = receipt.payload
        if said != (signed.finish_reason, signed.prompt_tokens, signed.completion_tokens):
            raise Malformed("the worker says one thing and signs another", self.worker)
        check_said(self.said, self.ask.request, signed.finish_reason, self.worker)
        if not 0 <= end.reasoning_tokens <= (signed.completion_tokens if self.ask.kind == "chat" else 0):
            raise Malformed("the worker counts more reasoning than there is", self.worker)
        if not 0 <= end.cached_tokens < max(1, signed.prompt_tokens):
            raise Malformed("the worker says it reused more of the prompt than there is", self.worker)
        if end.stopped_by and (end.finish_reason != "stop" or end.stopped_by not in self.ask.request.stop):
            raise Malformed("the worker names a stop string that cannot have ended the answer", self.worker)
        self.check_jail(signed)
        if signed.verifiable and self._nameless:
            raise Malformed("the worker signs as verifiable tokens that it did not name", self.worker)
        if signed.finish_reason not in ("stop", "length") or signed.prompt_tokens < 0:
            raise Malformed("the receipt gives a finish reason or count that cannot be", self.worker)
        request = self.ask.request
        if signed.finish_reason == "length" and self.tokens < request.tokens_max and not request.fit:
            raise Malformed("the worker ends an answer for its length that may be longer", self.worker)
        return receipt

    def failed(self, error: HaifError) -> bool:
        """Whether another worker may go on: the request is not to blame, nor is what the tenant has seen."""
        assert self.ticket is not None
        if not isinstance(error, TENANTS_OWN):
            self.history.append(Try(self.ticket.attempt, self.ticket.worker, error.reason.value, self.tokens))
        if self._nameless:  # nobody could go on after them
            if self.shown:
                return False
            self.restart()
        if isinstance(error, PeerFault) and self.tokens > len(self.ticket.resumed):  # some are of who broke the rules
            if self.shown:
                return False
            self.restart()
        return super().failed(error)

    @property
    def shown(self) -> bool:
        """Whether the tenant may have seen a part of the answer."""
        return self.ask.stream and self.tokens > 0

    @property
    def _nameless(self) -> bool:
        """Whether the answer has tokens whose ids the worker did not tell."""
        return NO_TOKEN in self._output.ids()

    @property
    def said(self) -> Said:
        """The answer so far."""
        return self._output.said

    @property
    def tokens(self) -> int:
        """How many tokens the answer has so far."""
        return self._output.tokens


def choice_seed(seed: int | None, choice: int) -> int | None:
    """The tenant's seed for one of several choices: its own for the first, so that it is what `n = 1` would give."""
    if seed is None or choice == 0:
        return seed
    material = digest("haif v1 choice seed", seed.to_bytes(8, "little", signed=True), bytes([choice]))
    return int.from_bytes(material[:8], "little", signed=True)


def blames_worker(error: HaifError, ticket: Ticket) -> HaifError:
    """What a worker's refusal means to the tenant: a ticket refused is not the tenant's lack of permission.

    Nor is it the tenant's fault if a worker cannot go on where another one began.
    """
    if isinstance(error, Forbidden):
        return WrongState(f"the worker refused the reservation: {error.message}")
    if ticket.resumed and isinstance(error, TENANTS_OWN):
        return WrongState(f"the worker could not go on with the answer: {error.message}")
    return error
