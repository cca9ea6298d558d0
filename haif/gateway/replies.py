"""OpenAI's dialect, spoken: whole answers, and streams of server-sent events.

A stream's events differ only in their text, so everything around it is made once per request: an event costs one JSON
string and one join. Source: the OpenAI API reference, `chat.completion`, `chat.completion.chunk`, `text_completion`;
framing as in the HTML standard, section 9.2.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from haif.base.conversation import CALL, REASONING, Aside
from haif.base.errors import PeerFault
from haif.base.ids import JobId
from haif.base.sampling import Scores
from haif.gateway.ask import Ask
from haif.gateway.errors import Problem
from haif.gateway.likelihoods import chat_logprobs, text_logprobs
from haif.gateway.told import KEEPALIVE, Choice, Settled, call_id
from haif.identity.signing import evidence_digest
from haif.protocol.audits import open_verdict
from haif.protocol.inference import Chunk
from haif.protocol.jobs import JobView, ModelCard
from haif.protocol.receipts import Receipt

_json = msgspec.json.encode
DONE: Final = b"data: [DONE]\n\n"


def base64url(data: bytes) -> str:
    """Base64 with the URL-safe alphabet and without padding (RFC 4648 section 5)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def usage(settled: Sequence[Settled]) -> dict[str, Any]:
    """The `usage` object: what the workers signed for, and, by their word alone, what was reused and what reasoning.

    It is the sum over the choices, prompts included: what their receipts add up to.
    """
    prompt = sum(each.receipt.prompt_tokens for each in settled)
    completion = sum(each.receipt.completion_tokens for each in settled)
    return {
        "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": sum(each.cached_tokens for each in settled)},
        "completion_tokens_details": {"reasoning_tokens": sum(each.reasoning_tokens for each in settled)},
    }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Envelope:
    """A `told.Reply`: what all parts of one reply share."""

    job: JobId
    ask: Ask
    created: int
    keepalive = KEEPALIVE

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
        reason = finish_reason(choice.settled, calls=bool(choice.said.calls))
        shown: dict[str, Any] = {"index": index, "finish_reason": reason}
        shown["logprobs"] = self.logprobs(choice.scores, len(self.ask.echo))
        if self.ask.kind == "chat":
            shown["message"] = _message(choice)
        else:
            shown["text"] = self.ask.echo + choice.said.text
        return shown

    def logprobs(self, scores: list[Scores], offset: int) -> dict[str, Any] | None:
        """The `logprobs` of a choice whose text so far has `offset` characters, where they were asked for."""
        if self.ask.request.logprobs is None:
            return None
        return chat_logprobs(scores) if self.ask.kind == "chat" else text_logprobs(scores, offset)

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.ask.model, **self.ask.told}

    def stream(self, index: int, job: JobId) -> Stream:
        """The events of one choice."""
        return Stream(self, index, job)

    def done(self, settled: Sequence[Settled]) -> bytes:
        """What ends a stream: usage if it was asked for, and [DONE]."""
        if not self.ask.include_usage:
            return DONE
        return b"data: " + _json({**self.chunk_head(), "choices": [], "usage": usage(settled)}) + b"\n\n" + DONE

    def chunk_head(self) -> dict[str, Any]:
        """The fields every event of this stream begins with."""
        return self._head("chat.completion.chunk" if self.ask.kind == "chat" else "text_completion")


class Stream:
    """Encodes the events of one choice."""

    def __init__(self, envelope: Envelope, index: int = 0, job: JobId | None = None) -> None:
        """`job` is the choice's own, where it is not the envelope's."""
        self._envelope = envelope
        self._index = index
        self._job = job or envelope.job
        self._calls = 0
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

    def first(self, *, text: bool = True) -> bytes:
        """The event that says who speaks; of a text completion the echoed prompt, if that was asked for.

        `text`: whether the answer begins with some.
        """
        if self._chat:
            return self._event({"role": "assistant", "content": "" if text else None, "refusal": None}, None)
        return self.text(self._echo) if self._echo else b""

    def text(self, text: str, scores: list[Scores] | None = None) -> bytes:
        """The event that carries the next piece of text."""
        if not scores:
            return self._before + _json(text) + self._after
        logprobs = self._envelope.logprobs(scores, self._offset)
        self._offset += len(text)
        return self._event({"content": text} if self._chat else text, None, logprobs)

    def chunk(self, chunk: Chunk) -> bytes:
        """The events of what came: first what stands beside the text, if it is reasoning, last if it is calls."""
        if not chunk.asides:
            return self.text(chunk.text, chunk.scores) if chunk.text or chunk.scores else b""
        reasoning = b"".join(map(self._aside, (aside for aside in chunk.asides if aside.kind == REASONING)))
        text = self.text(chunk.text, chunk.scores) if chunk.text or chunk.scores else b""
        return reasoning + text + b"".join(map(self._aside, (each for each in chunk.asides if each.kind != REASONING)))

    def _aside(self, aside: Aside) -> bytes:
        if aside.kind == REASONING:
            return self._event({"reasoning_content": aside.text}, None)
        call: dict[str, Any] = {"function": {"arguments": aside.text}}
        if aside.kind == CALL:
            self._calls += 1
            call = {
                "id": call_id(self._job, self._calls - 1), "type": "function",
                "function": {"name": aside.text, "arguments": ""},
            }  # fmt: skip
        return self._event({"tool_calls": [{"index": self._calls - 1, **call}]}, None)

    def last(self, settled: Settled) -> bytes:
        """The event that ends the choice: the reason and the proof."""
        reason = finish_reason(settled, calls=self._calls > 0)
        return self._event({} if self._chat else "", reason, haif=settled.proof)

    def broken(self, problem: Problem) -> bytes:
        """What ends a stream that failed: no [DONE] comes after it."""
        return problem.event()

    def _event(
        self, delta: dict[str, Any] | str, finish_reason: str | None, logprobs: Any = None, **more: Any
    ) -> bytes:
        choice: dict[str, Any] = {"index": self._index, "logprobs": logprobs, "finish_reason": finish_reason}
        choice |= {"delta": delta} if self._chat else {"text": delta}
        body = {**self._head, "choices": [choice], **more}
        if self._include_usage:
            body["usage"] = None
        return b"data: " + _json(body) + b"\n\n"


def _message(choice: Choice) -> dict[str, Any]:
    """The `message` of a chat's choice."""
    calls = choice.said.calls
    message: dict[str, Any] = {"role": "assistant", "content": choice.said.text, "refusal": None}
    if choice.said.reasoning:
        message["reasoning_content"] = choice.said.reasoning
    if calls:
        message["content"] = choice.said.text or None
        message["tool_calls"] = [
            {
                "id": call_id(choice.settled.receipt.job, place), "type": "function",
                "function": {"name": name, "arguments": arguments},
            }
            for place, (name, arguments) in enumerate(calls)
        ]  # fmt: skip
    return message


def finish_reason(settled: Settled, *, calls: bool) -> str:
    """Why an answer ended, in OpenAI's words."""
    reason = settled.receipt.finish_reason
    return "tool_calls" if calls and reason == "stop" else reason


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
        "countersignature": base64url(view.countersignature) or None, "verdicts": _verdicts(view),
    })  # fmt: skip


def _verdicts(view: JobView) -> list[dict[str, str]]:
    """What validators signed about this job's receipt. What else an orchestrator hands out as such is left out."""
    told = []
    for evidence in view.verdicts:
        with suppress(PeerFault):
            verdict = open_verdict(evidence)
            said = verdict.payload
            if (said.job, said.receipt) == (view.job, evidence_digest(view.receipt)):
                told.append({
                    "validator": str(verdict.signer), "finding": said.finding, "cause": said.cause,
                    "verdict": base64url(evidence),
                })  # fmt: skip
    return told


def seconds_text(seconds: float) -> str:
    """A duration as OpenAI's rate-limit headers write it (Go's format): "12ms", "1s", "6m0s"."""
    if seconds < 1:
        return f"{round(seconds * 1000)}ms"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
