"""OpenAI's Responses API, spoken: a response object, and the typed events that build one up.

    response.created  response.in_progress
    for each item:    response.output_item.added
        reasoning     content_part.added   reasoning_text.delta …   reasoning_text.done   content_part.done
        message       content_part.added   output_text.delta …      output_text.done      content_part.done
        a call                             function_call_arguments.delta …   function_call_arguments.done
                      response.output_item.done
    response.completed | response.incomplete | (response.failed, error)

Every event has a `sequence_number` one above the last, and after the last of these nothing comes. An item's deltas
differ only in their number and text, so everything around these is made once. Source: the OpenAI API reference
(openai-openapi 2.3.0), `Response`, `ResponseStreamEvent`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from haif.base.conversation import CALL, REASONING
from haif.base.ids import JobId
from haif.base.sampling import Scores
from haif.gateway.ask import Ask
from haif.gateway.errors import Problem
from haif.gateway.likelihoods import chat_logprobs
from haif.gateway.told import KEEPALIVE, Choice, Settled, call_id
from haif.protocol.inference import Chunk

_json = msgspec.json.encode
_REASONING: Final = "reasoning"
_MESSAGE: Final = "message"
_CALL: Final = "function_call"
_ID: Final = {_REASONING: "rs", _MESSAGE: "msg", _CALL: "fc"}
_PART: Final = {_REASONING: "reasoning_text", _MESSAGE: "output_text"}
_DELTA: Final = {
    _REASONING: "response.reasoning_text", _MESSAGE: "response.output_text", _CALL: "response.function_call_arguments",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class ResponseReply:
    """A `told.Reply`: what all parts of one response share."""

    job: JobId
    ask: Ask
    created: int
    keepalive = KEEPALIVE

    @property
    def id(self) -> str:
        """The response's id, made from the job's."""
        return f"resp_{self.job}"

    def whole(self, choices: Sequence[Choice]) -> bytes:
        """The body of a reply that is not streamed."""
        (choice,) = choices
        items = _items(self.job, choice)
        status = _status(choice.settled)
        for item in items:
            item.status = status if item is items[-1] else "completed"
        return _json(self.object(status, [item.shown() for item in items], choice.settled))

    def stream(self, index: int, job: JobId) -> ResponseStream:  # noqa: ARG002 - a response has one choice
        """The events of the response."""
        return ResponseStream(self)

    def done(self, settled: Sequence[Settled]) -> bytes:  # noqa: ARG002
        """Nothing: the response's own end is the stream's."""
        return b""

    def object(
        self, status: str, output: Sequence[dict[str, Any]], settled: Settled | None = None,
        problem: Problem | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """The response as it is now."""
        error = None if problem is None else {"code": "server_error", "message": problem.message}
        shown = {
            "id": self.id, "object": "response", "created_at": self.created, "status": status, "error": error,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "model": self.ask.model, "output": output, **self.ask.told,
            "background": False, "previous_response_id": None, "store": False, "truncation": "disabled",
            "usage": None if settled is None else usage(settled),
        }  # fmt: skip
        return shown if settled is None else {**shown, "haif": settled.proof}


@dataclass(slots=True)
class _Item:
    """One item of the output, as far as it was said."""

    kind: str
    id: str
    name: str = ""
    call_id: str = ""
    said: list[str] = field(default_factory=list)
    scores: list[Scores] = field(default_factory=list)
    status: str = "incomplete"

    @property
    def text(self) -> str:
        """What was said: text, reasoning or arguments."""
        return "".join(self.said)

    def part(self, *, empty: bool = False) -> dict[str, Any]:
        """The one part of a message's or thought's content."""
        part: dict[str, Any] = {"type": _PART[self.kind], "text": "" if empty else self.text}
        if self.kind == _MESSAGE:
            part |= {"annotations": [], "logprobs": [] if empty else _logprobs(self.scores)}
        return part

    def shown(self, *, empty: bool = False) -> dict[str, Any]:
        """The item; `empty` as it is before anything was said."""
        shown: dict[str, Any] = {"id": self.id, "type": self.kind, "status": "in_progress" if empty else self.status}
        if self.kind == _CALL:
            return {**shown, "call_id": self.call_id, "name": self.name, "arguments": "" if empty else self.text}
        shown["content"] = [] if empty else [self.part()]
        return {**shown, "role": "assistant"} if self.kind == _MESSAGE else {**shown, "summary": []}


class ResponseStream:
    """A `told.Stream`: encodes the events of one response."""

    def __init__(self, reply: ResponseReply) -> None:
        self._reply = reply
        self._number = 0
        self._items: list[_Item] = []
        self._open = False  # whether the last of them may get more
        self._calls = 0
        self._before = self._after = b""

    def first(self, *, text: bool = True) -> bytes:  # noqa: ARG002 - items say for themselves what they are
        """The response before anything is said."""
        shown = self._reply.object("in_progress", [])
        return self._event("response.created", response=shown) + self._event("response.in_progress", response=shown)

    def chunk(self, chunk: Chunk) -> bytes:
        """The events of what came: first what stands beside the text, if it is reasoning, last if it is calls."""
        events = [self._say(_REASONING, aside.text) for aside in chunk.asides if aside.kind == REASONING]
        if chunk.text or chunk.scores:
            events.append(self._say(_MESSAGE, chunk.text, chunk.scores))
        for aside in chunk.asides:
            if aside.kind == CALL:
                events.append(self._close() + self._add(_CALL, aside.text))
            elif aside.kind != REASONING:
                events.append(self._say(_CALL, aside.text))
        return b"".join(events)

    def last(self, settled: Settled) -> bytes:
        """The end of the last item, and the response with its usage and receipt."""
        status = _status(settled)
        events = b"" if self._items else self._add(_MESSAGE)  # an answer of nothing is an answer
        events += self._close(status)
        return events + self._event(f"response.{status}", response=self._reply.object(status, self._output(), settled))

    def broken(self, problem: Problem) -> bytes:
        """The response as far as it came, and the error: as OpenAI's reference has it, and as its client reads it."""
        failed = self._reply.object("failed", self._output(), problem=problem)
        error = problem.error()
        told = {"code": error["code"], "message": error["message"], "param": error["param"], "error": error}
        return self._event("response.failed", response=failed) + self._event("error", **told)

    def _output(self) -> list[dict[str, Any]]:
        return [item.shown() for item in self._items]

    def _say(self, kind: str, text: str, scores: list[Scores] | None = None) -> bytes:
        """The event that carries more of an item, after those that begin it if it is a new one."""
        begun = b""
        if not self._open or self._items[-1].kind != kind:
            begun = self._close() + self._add(kind)
        item = self._items[-1]
        item.said.append(text)
        if scores:
            item.scores += scores
            return begun + self._event(
                f"{_DELTA[kind]}.delta", **self._place(item), delta=text, logprobs=_logprobs(scores)
            )
        self._number += 1
        return begun + self._before + b"%d" % (self._number - 1) + b',"delta":' + _json(text) + self._after

    def _add(self, kind: str, name: str = "") -> bytes:
        job = self._reply.job
        item = _Item(kind, f"{_ID[kind]}_{job}_{len(self._items)}", name)
        if kind == _CALL:
            item.call_id = call_id(job, self._calls)
            self._calls += 1
        self._items.append(item)
        self._open = True
        place = self._place(item)
        head = {"type": f"{_DELTA[kind]}.delta", **place}
        self._before = b"event: " + head["type"].encode() + b"\ndata: " + _json(head)[:-1] + b',"sequence_number":'
        self._after = b',"logprobs":[]}\n\n' if kind == _MESSAGE else b"}\n\n"
        events = self._event(
            "response.output_item.added", output_index=place["output_index"], item=item.shown(empty=True)
        )
        if kind != _CALL:
            events += self._event("response.content_part.added", **place, part=item.part(empty=True))
        return events

    def _close(self, status: str = "completed") -> bytes:
        """The events that end the last item, if it goes on until now."""
        if not self._open:
            return b""
        self._open = False
        item = self._items[-1]
        item.status = status
        place = self._place(item)
        if item.kind == _CALL:
            events = self._event(f"{_DELTA[_CALL]}.done", **place, name=item.name, arguments=item.text)
        else:
            more = {"logprobs": _logprobs(item.scores)} if item.kind == _MESSAGE else {}
            events = self._event(f"{_DELTA[item.kind]}.done", **place, text=item.text, **more)
            events += self._event("response.content_part.done", **place, part=item.part())
        return events + self._event("response.output_item.done", output_index=place["output_index"], item=item.shown())

    def _place(self, item: _Item) -> dict[str, Any]:
        place: dict[str, Any] = {"item_id": item.id, "output_index": len(self._items) - 1}
        return place if item.kind == _CALL else {**place, "content_index": 0}

    def _event(self, kind: str, **fields: Any) -> bytes:
        data = _json({"type": kind, "sequence_number": self._number, **fields})
        self._number += 1
        return b"event: " + kind.encode() + b"\ndata: " + data + b"\n\n"


def _items(job: JobId, choice: Choice) -> list[_Item]:
    """A whole answer's items: what was thought, said and called."""
    said = choice.said
    items = [_Item(_REASONING, "", said=[said.reasoning])] if said.reasoning else []
    if said.text or choice.scores or not (said.calls or items):
        items.append(_Item(_MESSAGE, "", said=[said.text], scores=choice.scores))
    items += [
        _Item(_CALL, "", name, call_id(job, place), [arguments]) for place, (name, arguments) in enumerate(said.calls)
    ]
    for place, item in enumerate(items):
        item.id = f"{_ID[item.kind]}_{job}_{place}"
    return items


def usage(settled: Settled) -> dict[str, Any]:
    """What the worker signed for, and, by its word alone, what was reused and what reasoning. No cache is billed."""
    receipt = settled.receipt
    return {
        "input_tokens": receipt.prompt_tokens,
        "input_tokens_details": {"cached_tokens": settled.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": receipt.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": settled.reasoning_tokens},
        "total_tokens": receipt.prompt_tokens + receipt.completion_tokens,
    }


def _status(settled: Settled) -> str:
    return "incomplete" if settled.receipt.finish_reason == "length" else "completed"


def _logprobs(scores: list[Scores]) -> list[dict[str, Any]]:
    logprobs: list[dict[str, Any]] = chat_logprobs(scores)["content"] if scores else []
    return logprobs
