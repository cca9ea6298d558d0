"""Anthropic's Messages API, spoken: a message, the events that build one up, and errors in its form.

    message_start
    for each block: content_block_start  content_block_delta …  content_block_stop
    message_delta   the reason, the usage, the receipt
    message_stop    or, after any of these, error

What the prompt had of tokens is known at the end only, so `message_start` counts none and `message_delta` all. Source:
Anthropic's API reference, `POST /v1/messages`, "Streaming messages" and "Errors", versions 2023-06-01 and 2026-10-21.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from haif.base.conversation import CALL, REASONING, json_object
from haif.base.ids import JobId
from haif.gateway.ask import Ask
from haif.gateway.errors import Problem
from haif.gateway.told import Choice, Settled, call_id
from haif.protocol.inference import Chunk

_json = msgspec.json.encode
_PING: Final = b'event: ping\ndata: {"type":"ping"}\n\n'
_TEXT: Final = "text"
_THINKING: Final = "thinking"
_TOOL: Final = "tool_use"
_DELTA: Final = {
    _TEXT: ("text_delta", "text"), _THINKING: ("thinking_delta", "thinking"),
    _TOOL: ("input_json_delta", "partial_json"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class MessageReply:
    """A `told.Reply`: what all parts of one message share."""

    job: JobId
    ask: Ask
    created: int
    keepalive = _PING

    @property
    def id(self) -> str:
        """The message's id, made from the job's."""
        return f"msg_{self.job}"

    def whole(self, choices: Sequence[Choice]) -> bytes:
        """The body of a reply that is not streamed."""
        (choice,) = choices
        shown = self.message(_blocks(self.job, choice), self.end(choice.settled, calls=bool(choice.said.calls)))
        return _json({**shown, "usage": usage(choice.settled), "haif": choice.settled.proof})

    def stream(self, index: int, job: JobId) -> MessageStream:  # noqa: ARG002 - a message has one choice
        """The events of the message."""
        return MessageStream(self)

    def done(self, settled: Sequence[Settled]) -> bytes:  # noqa: ARG002
        """Nothing: the message's own end is the stream's."""
        return b""

    def message(self, content: list[dict[str, Any]], end: dict[str, str | None]) -> dict[str, Any]:
        """The message as it is now, without its usage."""
        head = {"id": self.id, "type": "message", "role": "assistant", "model": self.ask.model}
        return {**head, "content": content, **end}

    def end(self, settled: Settled, *, calls: bool) -> dict[str, str | None]:
        """Why the answer ended: the context's end is told from that of `max_tokens` by how many tokens there are."""
        receipt = settled.receipt
        if receipt.finish_reason == "length":
            whole = receipt.completion_tokens >= self.ask.request.tokens_max
            return {"stop_reason": "max_tokens" if whole else "model_context_window_exceeded", "stop_sequence": None}
        if settled.stopped_by:
            return {"stop_reason": "stop_sequence", "stop_sequence": settled.stopped_by}
        return {"stop_reason": "tool_use" if calls else "end_turn", "stop_sequence": None}


class MessageStream:
    """A `told.Stream`: encodes the events of one message."""

    def __init__(self, reply: MessageReply) -> None:
        self._reply = reply
        self._kind = ""  # of the block that goes on
        self._index = -1
        self._calls = 0
        self._before = b""

    def first(self, *, text: bool = True) -> bytes:  # noqa: ARG002 - blocks say for themselves what they are
        """The message before anything is said."""
        shown = self._reply.message([], {"stop_reason": None, "stop_sequence": None})
        return _event("message_start", message={**shown, "usage": {"input_tokens": 0, "output_tokens": 0}})

    def chunk(self, chunk: Chunk) -> bytes:
        """The events of what came: first what stands beside the text, if it is reasoning, last if it is calls."""
        events = [self._say(_THINKING, aside.text) for aside in chunk.asides if aside.kind == REASONING]
        if chunk.text:
            events.append(self._say(_TEXT, chunk.text))
        for aside in chunk.asides:
            if aside.kind == CALL:
                events.append(self._begin(_TOOL, aside.text))
            elif aside.kind != REASONING:
                events.append(self._say(_TOOL, aside.text))
        return b"".join(events)

    def last(self, settled: Settled) -> bytes:
        """The end of the last block, why the message ended, its usage and receipt."""
        delta = self._reply.end(settled, calls=self._calls > 0)
        ended = _event("message_delta", delta=delta, usage=usage(settled), haif=settled.proof)
        return self._close() + ended + _event("message_stop")

    def broken(self, problem: Problem) -> bytes:
        """The error, and nothing after it."""
        return broken(problem)

    def _say(self, kind: str, text: str) -> bytes:
        """The event that carries more of a block, after those that begin it if it is a new one."""
        begun = b"" if self._kind == kind else self._begin(kind)
        return begun + self._before + _json(text) + b"}}\n\n"

    def _begin(self, kind: str, name: str = "") -> bytes:
        events = self._close()
        self._kind = kind
        self._index += 1
        block: dict[str, Any] = {"type": kind}
        if kind == _TOOL:
            block |= {"id": call_id(self._reply.job, self._calls), "name": name, "input": {}}
            self._calls += 1
        else:
            block |= {"text": ""} if kind == _TEXT else {"thinking": "", "signature": ""}
        delta, field = _DELTA[kind]
        self._before = (
            b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":{"type":"%s","%s":'
            % (self._index, delta.encode(), field.encode())
        )
        return events + _event("content_block_start", index=self._index, content_block=block)

    def _close(self) -> bytes:
        if not self._kind:
            return b""
        self._kind = ""
        return _event("content_block_stop", index=self._index)


def _event(kind: str, **fields: Any) -> bytes:
    return b"event: " + kind.encode() + b"\ndata: " + _json({"type": kind, **fields}) + b"\n\n"


def _blocks(job: JobId, choice: Choice) -> list[dict[str, Any]]:
    said = choice.said
    blocks: list[dict[str, Any]] = []
    if said.reasoning:
        blocks.append({"type": _THINKING, "thinking": said.reasoning, "signature": ""})
    if said.text:
        blocks.append({"type": _TEXT, "text": said.text})
    for place, (name, arguments) in enumerate(said.calls):
        blocks.append({"type": _TOOL, "id": call_id(job, place), "name": name, **_input(arguments)})
    return blocks


def _input(arguments: str) -> dict[str, Any]:
    """A call's arguments as an object, empty where they are none (cut, or not enforced); and as they were written.

    The receipt is over what was written, as the events of a stream tell it.
    """
    try:
        value = json_object(arguments)
    except ValueError:
        value = {}
    return {"input": value, "partial_json": arguments}


def usage(settled: Settled) -> dict[str, Any]:
    """What the worker signed for: `input_tokens` are those that were computed, beside those that were reused."""
    receipt = settled.receipt
    return {
        "input_tokens": receipt.prompt_tokens - settled.cached_tokens,
        "cache_read_input_tokens": settled.cached_tokens, "cache_creation_input_tokens": 0,
        "output_tokens": receipt.completion_tokens,
        "output_tokens_details": {"thinking_tokens": settled.reasoning_tokens},
    }  # fmt: skip


# --- errors -----------------------------------------------------------------------------------------------------------

_TYPES: Final = {
    401: "authentication_error", 403: "permission_error", 404: "not_found_error", 408: "timeout_error",
    413: "request_too_large", 429: "rate_limit_error", 500: "api_error", 502: "api_error", 503: "overloaded_error",
    504: "timeout_error",
}  # fmt: skip


def refused(problem: Problem, request_id: str) -> bytes:
    """An error as the answer's body. Its code, and the parameter where there is one, are in `details`."""
    return _json({"type": "error", "error": _error(problem), "request_id": request_id})


def broken(problem: Problem) -> bytes:
    """The same inside a stream that has begun: the last event."""
    return _event("error", error=_error(problem))


def _error(problem: Problem) -> dict[str, Any]:
    kind = _TYPES.get(problem.status, "invalid_request_error")
    return {"type": kind, "message": problem.message, "details": {"error_code": problem.code, "param": problem.param}}
