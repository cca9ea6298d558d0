"""Logprobs as OpenAI's API shows them: one shape for chats, another for text completions (its API reference)."""

from __future__ import annotations

import codecs
from typing import Any

from haif.base.sampling import Likelihood, Scores

LEAST = -9999.0  # JSON has no infinities: what OpenAI's API writes for a probability of zero


def chat_logprobs(scores: list[Scores]) -> dict[str, Any]:
    """`choices[].logprobs` of a chat. What has no text (the token that ends an answer) is left out."""
    content = [
        {**_entry(chosen), "top_logprobs": [_entry(each) for each in likely]}
        for chosen, *likely in scores
        if chosen.piece
    ]
    return {"content": content, "refusal": None}


def text_logprobs(scores: list[Scores], offset: int) -> dict[str, Any]:
    """`choices[].logprobs` of a text completion, whose first token begins `offset` characters into its text.

    Offsets count the characters of whole tokens: a character that is spread over several begins with the first.
    """
    shown = [each for each in scores if each[0].piece]
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    offsets: list[int] = []
    for chosen, *_ in shown:
        offsets.append(offset)
        offset += len(decoder.decode(chosen.piece))
    return {
        "tokens": [_text(chosen) for chosen, *_ in shown],
        "token_logprobs": [_value(chosen) for chosen, *_ in shown],
        "top_logprobs": [{_text(each): _value(each) for each in likely} for _, *likely in shown],
        "text_offset": offsets,
    }


def _entry(each: Likelihood) -> dict[str, Any]:
    return {"token": _text(each), "logprob": _value(each), "bytes": list(each.piece)}


def _text(each: Likelihood) -> str:
    return each.piece.decode(errors="replace")


def _value(each: Likelihood) -> float:
    return max(min(each.logprob, 0.0), LEAST)
