"""OpenAI's dialect, spoken: whole answers, and streams of server-sent events.

A stream's events differ only in their text, so everything around it is made once per request: an event costs one JSON
string and one join. Source: the OpenAI API reference, `chat.completion`, `chat.completion.chunk`, `text_completion`;
framing as in the HTML standard, section 9.2.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from haif.base.ids import JobId
from haif.base.sampling import Scores
from haif.gateway.likelihoods import chat_logprobs, text_logprobs
from haif.gateway.openai import Ask
from haif.protocol.jobs import JobView, ModelCard
from haif.protocol.receipts import Receipt

_json = msgspec.json.encode
DONE: Final = b"data: [DONE]\n\n"
KEEPALIVE: Final = b": haif is waiting for the worker\n\n"


def base64url(data: bytes) -> str:
    """Base64 with the URL-safe alphabet and without padding (RFC 4648 section 5)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@dataclass(frozen=True, slots=True)
class Settled:
    """An answer whose receipt was verified and recorded. `proof` is the tenant's: `protocol.receipts.bundle`."""

    receipt: Receipt
    proof: dict[str, str]
    cached_tokens: int


def usage(settled: Sequence[Settled]) -> dict[str, Any]:
    """The `usage` object: what the workers signed for, and, by their word alone, how much of the prompt they reused.

    It is the sum over the choices, prompts included: what their receipts add up to.
    """
    prompt = sum(each.receipt.prompt_tokens for each in settled)
    completion = sum(each.receipt.completion_tokens for each in settled)
    return {
        "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": sum(each.cached_tokens for each in settled)},
    }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Choice:
    """One whole answer: its text, its scores where they were asked for, and its receipt."""

    text: str
    scores: list[Scores]
    settled: Settled


@dataclass(frozen=True, slots=True)
class Envelope:
    """What all parts of one reply share; `job` is that of its first choice. `created` in seconds since the epoch."""

    job: JobId
    ask: Ask
    created: int

    @property
    def id(self) -> str:
        """The answer's id, made from the job's."""
        return f"{'chatcmpl' if self.ask.kind == 'chat' else 'cmpl'}-{self.job}"

    def whole(self, choices: Sequence[Choice]) -> bytes:
        """The body of a reply that is not streamed. One choice's receipt is the reply's, several have each its own."""
        head = self._head("chat.completion" if self.ask.kind == "chat" else "text_completion")
        settled = [choice.settled for choice in choices]
        body = {
            **head, "system_fingerprint": fingerprint(settled[0].receipt), "usage": usage(settled),
            "choices": [self._choice(index, choice) for index, choice in enumerate(choices)],
        }  # fmt: skip
        if len(choices) == 1:
            body["haif"] = settled[0].proof
        else:
            for shown, each in zip(body["choices"], settled, strict=True):
                shown["haif"] = each.proof
        return _json(body)

    def _choice(self, index: int, choice: Choice) -> dict[str, Any]:
        shown: dict[str, Any] = {"index": index, "finish_reason": choice.settled.receipt.finish_reason}
        shown["logprobs"] = self.logprobs(choice.scores, len(self.ask.echo))
        if self.ask.kind == "chat":
            shown["message"] = {"role": "assistant", "content": choice.text, "refusal": None}
        else:
            shown["text"] = self.ask.echo + choice.text
        return shown

    def logprobs(self, scores: list[Scores], offset: int) -> dict[str, Any] | None:
        """The `logprobs` of a choice whose text so far has `offset` characters, where they were asked for."""
        if self.ask.request.logprobs is None:
            return None
        return chat_logprobs(scores) if self.ask.kind == "chat" else text_logprobs(scores, offset)

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.ask.model}

    def chunk_head(self) -> dict[str, Any]:
        """The fields every event of this stream begins with."""
        return self._head("chat.completion.chunk" if self.ask.kind == "chat" else "text_completion")


class Stream:
    """Encodes the events of one choice."""

    def __init__(self, envelope: Envelope, index: int = 0) -> None:
        self._envelope = envelope
        self._index = index
        self._echo = envelope.ask.echo
        self._offset = len(envelope.ask.echo)
        self._chat = envelope.ask.kind == "chat"
        self._include_usage = envelope.ask.include_usage
        self._head = envelope.chunk_head()
        opened = _json(self._head)[:-1]
        usage = b',"usage":null' if self._include_usage else b""
        delta = b'"delta":{"content":' if self._chat else b'"text":'
        close = b"}" if self._chat else b""
        self._before = b"data: " + opened + b',"choices":[{"index":%d,' % index + delta
        self._after = close + b',"logprobs":null,"finish_reason":null}]' + usage + b"}\n\n"

    def first(self) -> bytes:
        """The event that says who speaks; of a text completion the echoed prompt, if that was asked for."""
        if self._chat:
            return self._event({"role": "assistant", "content": "", "refusal": None}, None)
        return self.text(self._echo) if self._echo else b""

    def text(self, text: str, scores: list[Scores] | None = None) -> bytes:
        """The event that carries the next piece of text."""
        if not scores:
            return self._before + _json(text) + self._after
        logprobs = self._envelope.logprobs(scores, self._offset)
        self._offset += len(text)
        return self._event({"content": text} if self._chat else text, None, logprobs)

    def last(self, settled: Settled) -> bytes:
        """The event that ends the choice: the reason and the proof."""
        return self._event({} if self._chat else "", settled.receipt.finish_reason, haif=settled.proof)

    def _event(
        self, delta: dict[str, Any] | str, finish_reason: str | None, logprobs: Any = None, **more: Any
    ) -> bytes:
        choice: dict[str, Any] = {"index": self._index, "logprobs": logprobs, "finish_reason": finish_reason}
        choice |= {"delta": delta} if self._chat else {"text": delta}
        body = {**self._head, "choices": [choice], **more}
        if self._include_usage:
            body["usage"] = None
        return b"data: " + _json(body) + b"\n\n"


def done(envelope: Envelope, settled: Sequence[Settled]) -> bytes:
    """What ends a stream: usage if it was asked for, and [DONE]."""
    if not envelope.ask.include_usage:
        return DONE
    return b"data: " + _json({**envelope.chunk_head(), "choices": [], "usage": usage(settled)}) + b"\n\n" + DONE


def fingerprint(receipt: Receipt) -> str:
    """`system_fingerprint`: changes when the model or the engine's build or profile does."""
    return f"{receipt.model.short}-{receipt.engine}"


def model_object(card: ModelCard) -> dict[str, Any]:
    """A model as OpenAI's API shows it. `created` in seconds."""
    more: dict[str, Any] = {
        "digest": str(card.digest), "context_tokens": card.context_tokens, "workers": card.workers,
        "tasks": card.tasks, "dimensions": card.dimensions or None,
    }  # fmt: skip
    return {"id": card.name, "object": "model", "created": card.published // 1000, "owned_by": "haif", "haif": more}


def model_list(cards: list[ModelCard]) -> bytes:
    """The body of GET /v1/models."""
    return _json({"object": "list", "data": [model_object(card) for card in cards]})


def job_view(view: JobView) -> bytes:
    """The body of GET /haif/v1/jobs/{job}."""
    return _json({
        "object": "haif.job", "job": str(view.job), "model": view.model, "state": view.state,
        "attempts": view.attempts, "worker": None if view.worker is None else str(view.worker),
        "reason": view.reason or None, "receipt": base64url(view.receipt) or None,
        "countersignature": base64url(view.countersignature) or None,
    })  # fmt: skip


def seconds_text(seconds: float) -> str:
    """A duration as OpenAI's rate-limit headers write it (Go's format): "12ms", "1s", "6m0s"."""
    if seconds < 1:
        return f"{round(seconds * 1000)}ms"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
