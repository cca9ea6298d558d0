"""Where an answer that was computed again parts from the one that a worker signed for: the first thing that differs.

What is compared, in this order: the tokens one by one; those that the worker says it was given; how many there are said
to be; where and why the answer ends; what its text is; how long its prompt is; the logits behind the tokens. All of it
follows from the request, the seed and the model's file, to the last bit, so that a difference is somebody's doing and
no rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from haif.base.hashing import digest
from haif.base.ids import Digest
from haif.proof.transcript import root, windows
from haif.protocol.inference import Request, tokens_digest
from haif.protocol.receipts import Receipt


class Cause(StrEnum):
    """What differs. The value is what a verdict says."""

    TOKENS = "tokens"
    END = "end"
    TEXT = "text"
    PROMPT = "prompt"
    LOGITS = "logits"


@dataclass(frozen=True, slots=True)
class Computed:
    """What a machine computed that was given the claimed tokens as a draft, and asked for no more than so many."""

    tokens: Sequence[int]
    finish_reason: str
    prompt_tokens: int
    text: Digest  # `inference.said_digest` of what they say
    rows: Sequence[Digest]  # of the windows that the worker vouches for

    def transcript(self, resumed: int) -> Digest:
        """The root that a receipt for this answer would commit to."""
        return root(windows(resumed, self.tokens[resumed:], self.rows))

    def work(self) -> Digest:
        """What only who computed the logits knows: the root hides it, and follows from it."""
        return digest("haif v1 audit work", *self.rows)


@dataclass(frozen=True, slots=True)
class Difference:
    """What differs first, at which token, in words."""

    cause: Cause
    place: int
    words: str


def difference(said: Receipt, request: Request, claimed: Sequence[int], ours: Computed) -> Difference | None:
    """How the answer that was signed differs from ours; None if in nothing.

    Where the request leaves the answer's length to the context (`fit`), how long that is is the worker's to say: an
    answer that ends for its length is then compared as far as it goes.
    """
    for place, (theirs, own) in enumerate(zip(claimed, ours.tokens, strict=False)):
        if theirs != own:
            return Difference(
                Cause.TOKENS, place, f"token {place} of the answer is {theirs}, and the model gives {own}"
            )
    if said.earlier != (tokens_digest(claimed[: said.resumed]) if said.resumed else None):
        return Difference(
            Cause.TOKENS, 0, "the tokens that the worker says it was given are not those the answer begins with"
        )
    if said.completion_tokens != len(claimed):
        return Difference(
            Cause.END,
            len(claimed),
            f"the answer has {len(claimed)} tokens, and the worker counts {said.completion_tokens}",
        )
    if said.finish_reason == "length" and len(claimed) < request.tokens_max and not request.fit:
        return Difference(
            Cause.END,
            len(claimed),
            f"the answer ends for its length after {len(claimed)} tokens, and {request.tokens_max} were asked for",
        )
    if (len(ours.tokens), ours.finish_reason) != (len(claimed), said.finish_reason):
        return Difference(
            Cause.END,
            min(len(claimed), len(ours.tokens)),
            f"the answer ends after {len(claimed)} tokens ({said.finish_reason}), and the model's after "
            f"{len(ours.tokens)} ({ours.finish_reason})",
        )
    if said.output_text != ours.text:
        return Difference(Cause.TEXT, 0, "the tokens are the model's, and the text that was signed for is not theirs")
    if said.prompt_tokens != ours.prompt_tokens:
        return Difference(
            Cause.PROMPT, 0, f"the prompt has {ours.prompt_tokens} tokens, and the worker counts {said.prompt_tokens}"
        )
    if said.transcript != ours.transcript(said.resumed):
        return Difference(
            Cause.LOGITS, 0, "the tokens are the model's, and the logits that the worker signed for are not"
        )
    return None
