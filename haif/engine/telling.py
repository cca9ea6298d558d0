"""What comes of logits: the token that is sampled, its text and its scores, and whether the answer ends with it."""

from __future__ import annotations

from collections.abc import Sequence

from haif.base.conversation import merged
from haif.base.errors import InvalidRequest
from haif.base.sampling import Likelihood, Scores
from haif.engine.answer import Answer
from haif.engine.frames import Output
from haif.engine.model import Model, Rows
from haif.engine.sampler import logprobs, top


def follow(model: Model, answer: Answer, given: Sequence[int], now_ns: int) -> Output:
    """Bring an answer to where it stood after the tokens it is given: they, their text, and the end if it was over.

    Text, stop strings, penalties and grammar are what they would be had the tokens been chosen here; the next one
    is computed from the prompt and them. Raises `InvalidRequest` for what cannot be the beginning of this answer.
    """
    text, reason = "", None
    for place, token in enumerate(given):
        if reason is not None or not 0 <= token < model.size:
            raise InvalidRequest("the tokens to go on after are not the beginning of an answer", param="resumed")
        answer.sampler.follow(token, answer.grammar)
        told, reason = _told(model, answer, token, last=place + 1 == answer.tokens_max)
        text += told
    answer.tokens = [*answer.tokens, *given]
    answer.sure += len(given)
    answer.resumed = len(given)
    if reason is not None:
        answer.started_ns = answer.first_ns = now_ns
    end = None if reason is None else answer.end(reason, now_ns)
    return Output(answer.number, list(given), text, end, asides=merged(answer.text.asides()))


def sample(model: Model, answer: Answer, logits: Rows, now_ns: int) -> tuple[Output, bool]:
    """Sample one token and see whether the answer ends with it, and whether the draft was wrong."""
    place = answer.sure - answer.prompt_tokens
    if place == answer.resumed:
        answer.first_ns = now_ns
    token = answer.sampler.choose(logits, place, answer.grammar)
    scores = [] if answer.logprobs is None else [_scores(model, logits, token, answer.logprobs)]
    wrong = answer.take(token)
    text, reason = _told(model, answer, token, last=place + 1 == answer.tokens_max)
    end = None if reason is None else answer.end(reason, now_ns)
    rows = [] if answer.witness is None else answer.witness.see(logits, last=end is not None)
    return Output(answer.number, [token], text, end, scores, rows, answer.text.asides()), wrong


def _told(model: Model, answer: Answer, token: int, *, last: bool) -> tuple[str, str | None]:
    """The text that a token completes, and why the answer ends with it, if it does."""
    if model.ends(token):
        return answer.text.finish(), "stop"
    text = answer.text.feed(answer.markers.get(token) or model.piece(token))
    if last and not answer.text.stopped:
        text += answer.text.finish()
    if answer.text.stopped:
        return text, "stop"
    return text, "length" if last else None


def _scores(model: Model, logits: Rows, token: int, alternatives: int) -> Scores:
    """What the model itself gave the chosen token, and the likeliest here."""
    likely = top(logits, min(alternatives, len(logits))).tolist() if alternatives else []
    ids: list[int] = [token, *sorted(likely, key=lambda each: (-logits[each], each))]
    values = logprobs(logits, ids)
    return [Likelihood(i, value, model.piece(i)) for i, value in zip(ids, values, strict=True)]
