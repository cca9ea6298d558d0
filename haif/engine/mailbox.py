"""One answer as the parent collects it: every claim of the child is checked, and what nobody fetched yet is merged."""

from __future__ import annotations

from typing import Final, cast

from haif.base import limits
from haif.base.conversation import ARGUMENTS, CALL, REASONING, Aside, merged
from haif.base.errors import HaifError, Malformed
from haif.base.ids import Digest
from haif.base.sampling import Scores
from haif.engine.frames import End, Output
from haif.engine.request import Finished, FinishReason, Generate, Piece

_TOKEN_TEXT_MAX: Final = 4096  # characters one token may stand for, stop strings that were withheld included
_DURATION_NS_MAX: Final = 10**15
_LOGPROB_MAX: Final = 1e-6  # rounding may lift a probability a little over 1


class Mailbox:
    """Takes a child's outputs for one request, gives pieces and at last `Finished`.

    Bounded by what was asked for: a slow reader gets fewer, longer pieces. `take` raises the error the answer failed
    with, after all that arrived before. An answer that is resumed begins with what it was given, and no word before.
    `witnessed`: the engine is exact, so the digests of its logits must come with an answer, and else none.
    """

    def __init__(
        self,
        request: Generate,
        *,
        vocabulary: int,
        context_tokens: int,
        submitted_ns: int,
        witnessed: bool = True,
    ) -> None:
        self._tokens_max = request.tokens_max
        self._fit = request.fit
        self._stop = request.stop
        self._chat = request.chat is not None
        self._names = {tool.name for tool in request.tools.tools} if request.tools else set()
        self._calling = False
        self._logprobs = request.logprobs
        self._vocabulary = vocabulary
        self._context_tokens = context_tokens
        self._submitted_ns = submitted_ns
        self._resumed = request.resumed
        self._witnessed = witnessed
        self._retold: Piece | None = None
        self._given = 0
        self._tokens: list[int] = []
        self._text: list[str] = []
        self._scores: list[Scores] = []
        self._rows: list[Digest] = []
        self._asides: list[Aside] = []
        self._finished: Finished | None = None
        self._error: HaifError | None = None
        self.complete = False

    def retell(self, output: Output) -> None:
        """Take in the tokens the answer was given, with their text. Raises `Malformed` for any others."""
        if self.complete or self._given or not output.tokens or output.tokens != self._resumed or output.scores:
            raise Malformed("it did not begin an answer with what it was given")
        self._check_text(output)
        self._check_asides(output)
        self._given = len(output.tokens)
        self._retold = Piece(0, output.tokens, output.text, [], merged(output.asides))
        if output.end is not None:
            self._finish(output.end, self._given)

    def put(self, output: Output) -> None:
        """Take in what the child says. Raises `Malformed` if that cannot be true."""
        if self._given < len(self._resumed):
            raise Malformed("it did not begin an answer with what it was given")
        total = self._given + len(self._tokens) + len(output.tokens)
        if self.complete or total > self._tokens_max:
            raise Malformed("it sent more tokens than were asked for")
        if len(output.rows) > 1 + len(output.tokens) // limits.TRANSCRIPT_WINDOW_TOKENS:
            raise Malformed("it sent more digests of logits than there are windows")
        if not all(0 <= token < self._vocabulary for token in output.tokens):
            raise Malformed("it sent a token that the vocabulary does not have")
        self._check_text(output)
        self._check_scores(output)
        self._check_asides(output)
        self._asides += output.asides
        self._scores += output.scores
        self._rows += output.rows
        self._tokens += output.tokens
        self._text.append(output.text)
        if output.end is not None:
            self._finish(output.end, total)

    def fail(self, error: HaifError) -> None:
        """Nothing more will come, because of `error`."""
        if not self.complete:
            self._error = error
            self.complete = True

    def take(self) -> Piece | Finished | None:
        """What there is: a piece, then the end, then None. None before the end means that nothing has arrived yet."""
        retold, self._retold = self._retold, None
        if retold is not None:
            return retold
        if self._tokens or any(self._text):
            piece = Piece(self._given, self._tokens, "".join(self._text), self._scores, merged(self._asides))
            self._given += len(self._tokens)
            self._tokens, self._text, self._scores, self._asides = [], [], [], []
            return piece
        if self._error is not None:
            raise self._error
        finished, self._finished = self._finished, None
        return finished

    def _finish(self, end: End, total: int) -> None:
        self._finished = self._checked(end, total)
        self.complete = True

    def _check_text(self, output: Output) -> None:
        told = len(output.text) + sum(len(aside.text) for aside in output.asides)
        if told > _TOKEN_TEXT_MAX * max(1, len(output.tokens)):
            raise Malformed("it sent more text than its tokens can stand for")

    def _check_scores(self, output: Output) -> None:
        if len(output.scores) != (0 if self._logprobs is None else len(output.tokens)):
            raise Malformed("it sent logprobs nobody asked for, or none where they were asked for")
        for token, scores in zip(output.tokens, output.scores, strict=False):
            if not 1 <= len(scores) <= 1 + (self._logprobs or 0) or scores[0].token != token:
                raise Malformed("its logprobs are not those of the token it sent")
            for each in scores:
                if not (0 <= each.token < self._vocabulary and each.logprob <= _LOGPROB_MAX):  # nor is NaN
                    raise Malformed("it sent a logprob that no token can have")
                if len(each.piece) > _TOKEN_TEXT_MAX:
                    raise Malformed("it sent more bytes than a token can stand for")

    def _check_asides(self, output: Output) -> None:
        for aside in output.asides:
            if aside.kind == CALL and aside.text in self._names:
                self._calling = True
            elif not (aside.kind == REASONING and self._chat) and not (aside.kind == ARGUMENTS and self._calling):
                raise Malformed("it said something beside its text that nobody asked for")

    def _windows(self, total: int) -> int:
        """How many windows of logits are digested, of an engine that says it is exact."""
        own = total - len(self._resumed)
        return -(-own // limits.TRANSCRIPT_WINDOW_TOKENS) if self._witnessed else 0

    def _most(self, prompt_tokens: int) -> int:
        """How many tokens the answer may have."""
        return min(self._tokens_max, self._context_tokens - prompt_tokens) if self._fit else self._tokens_max

    def _checked(self, end: End, total: int) -> Finished:
        durations = (end.queued_ns, end.prefill_ns, end.decode_ns)
        if (
            end.completion_tokens != total
            or not 1 <= end.prompt_tokens <= self._context_tokens
            or not 0 <= end.cached_tokens < end.prompt_tokens
            or not 0 <= end.reasoning_tokens <= (total if self._chat else 0)
            or end.finish_reason not in {"stop", "length"}
            or (end.stopped_by and (end.finish_reason != "stop" or end.stopped_by not in self._stop))
            or (end.finish_reason == "length" and total != self._most(end.prompt_tokens))
            or not all(0 <= duration <= _DURATION_NS_MAX for duration in durations)
            or len(self._rows) != self._windows(total)
        ):
            raise Malformed("its account of a finished answer does not add up")
        return Finished(
            finish_reason=cast("FinishReason", end.finish_reason),
            prompt_tokens=end.prompt_tokens,
            cached_tokens=end.cached_tokens,
            completion_tokens=total,
            submitted_ns=self._submitted_ns,
            queued_ns=end.queued_ns,
            prefill_ns=end.prefill_ns,
            decode_ns=end.decode_ns,
            rows=tuple(self._rows),
            reasoning_tokens=end.reasoning_tokens,
            stopped_by=end.stopped_by,
        )
