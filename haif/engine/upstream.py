"""An OpenAI-compatible server as an engine: what it is asked, and what of its answer is believed.

Its tokens are unknown: what comes are pieces of text. So each piece that has text counts as one token, of the id
`NO_TOKEN`, and if the server's own count at the end is higher, the rest follows without text; never more than were
asked for. Digests over such tokens say how many there were, and the digest of the text which text.

The server is this machine's owner's, and may be broken or hostile all the same: everything it sends is bounded by what
was asked for, and costs that request at most.
"""

from __future__ import annotations

from typing import Any, Final, cast

import msgspec

from haif.base import limits
from haif.base.conversation import REASONING, Aside, Turn
from haif.base.errors import (
    ContextTooLong,
    EngineDied,
    HaifError,
    InvalidRequest,
    Malformed,
    Overloaded,
    Oversize,
    Unsupported,
)
from haif.base.sampling import Sampling
from haif.engine.request import Finished, FinishReason, Generate, Piece
from haif.protocol.inference import NO_TOKEN

_HONOURED: Final = frozenset({"temperature", "top_p", "presence_penalty", "frequency_penalty"})
_NAMES: Final = {"bias": "logit_bias"}  # as tenants know them, where that differs
_PLAIN: Final = Sampling()


# --- what is asked ----------------------------------------------------------------------------------------------------


def asking(request: Generate, model: str, context_tokens: int) -> tuple[str, bytes]:
    """The path below the server's base URL, and the body.

    Raises `Unsupported` for what no such server promises, `EngineDied` for an answer begun elsewhere: its tokens mean
    nothing here. The seed makes answers repeatable as far as the server promises that; it is not our sampler's.
    """
    _check(request)
    body: dict[str, Any] = {
        "model": model, "stream": True, "stream_options": {"include_usage": True},
        "seed": int.from_bytes(request.seed[:4], "little") >> 1,
    }  # fmt: skip
    if not request.fit:
        body["max_tokens"] = request.tokens_max
    elif request.chat is None:  # left out, a text would end after 16 tokens
        body["max_tokens"] = min(request.tokens_max, max(1, context_tokens // 2))
    body |= {name: getattr(request.sampling, name) for name in sorted(_HONOURED)}
    if request.stop:
        body["stop"] = request.stop
    if request.json_schema is not None:
        schema = {"name": "answer", "strict": True, "schema": msgspec.Raw(request.json_schema.encode())}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    if request.chat is not None:
        body["messages"] = [_message(turn) for turn in request.chat]
        return "/chat/completions", msgspec.json.encode(body)
    body["prompt"] = request.text
    if request.suffix is not None:
        body["suffix"] = request.suffix
    return "/completions", msgspec.json.encode(body)


def _message(turn: Turn) -> dict[str, str]:
    if turn.calls or turn.call_id:
        raise Unsupported("the server behind this worker is not asked about calls of functions", param="messages")
    plain = {"role": turn.role, "content": turn.content}
    more = {"name": turn.name, "reasoning_content": turn.reasoning}
    return plain | {name: value for name, value in more.items() if value}


def _check(request: Generate) -> None:
    if request.resumed:
        raise EngineDied("the server behind this worker cannot go on with an answer that was begun elsewhere")
    for field in msgspec.structs.fields(Sampling):
        if field.name not in _HONOURED and getattr(request.sampling, field.name) != getattr(_PLAIN, field.name):
            param = _NAMES.get(field.name, field.name)
            raise Unsupported(f"the server behind this worker does not promise {param}", param=param)
    if request.tools is not None:
        raise Unsupported("the server behind this worker is not asked to call functions", param="tools")
    if request.adapter is not None:
        raise Unsupported("the server behind this worker is not asked for adapters", param="model")
    if request.settings:
        param = "chat_template_kwargs"
        raise Unsupported("the server behind this worker does not promise what its template is told", param=param)
    if request.logprobs is not None:
        raise Unsupported("token ids of the server behind this worker are unknown, so there are no logprobs of them",
                          param="logprobs")  # fmt: skip


# --- what comes back --------------------------------------------------------------------------------------------------


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[Any] | None = None


class _Choice(msgspec.Struct):
    index: int = 0
    delta: _Delta | None = None
    text: str | None = None
    finish_reason: str | None = None


class _Cached(msgspec.Struct):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int
    completion_tokens: int = 0
    prompt_tokens_details: _Cached | None = None


class _Event(msgspec.Struct):
    choices: list[_Choice] = msgspec.field(default_factory=list)
    usage: _Usage | None = None
    error: Any = None


class _Problem(msgspec.Struct):
    message: str = ""
    code: str | int | None = None


class _Refusal(msgspec.Struct):
    error: _Problem | str = ""


class _Listed(msgspec.Struct):
    id: str
    max_model_len: int | None = None


class _Models(msgspec.Struct):
    data: list[_Listed]


_EVENT: Final = msgspec.json.Decoder(_Event)


class AnswerReader:
    """The bytes of an event stream in, pieces out; `finished` once the server said how it ended.

    `feed` and `end` raise `Malformed` or `Oversize` for what no honest server sends, `EngineDied` for an error it
    reports and for a stream that breaks off.
    """

    def __init__(self, request: Generate) -> None:
        self._tokens_max, self._fit = request.tokens_max, request.fit
        self._line = bytearray()
        self._events = self._bytes = 0
        self.tokens = self._thoughts = 0
        self._reason: FinishReason | None = None
        self._usage: _Usage | None = None
        self._done = False

    def feed(self, data: bytes) -> list[Piece]:
        """The pieces that `data` completes."""
        pieces: list[Piece] = []
        self._line += data
        *lines, rest = self._line.split(b"\n")
        if max(map(len, (*lines, rest))) > limits.UPSTREAM_EVENT_BYTES_MAX:
            raise Oversize(f"the server sent an event of more than {limits.UPSTREAM_EVENT_BYTES_MAX} bytes")
        self._line = bytearray(rest)
        for line in lines:
            if line.startswith(b"data:"):
                pieces += self._event(bytes(line[5:].strip()))
            elif not (line.startswith((b":", b"event:", b"id:", b"retry:")) or not line.strip()):
                raise Malformed("the server sent what is no event stream")
        return pieces

    def end(self) -> list[Piece]:
        """The stream is over: what its own count of tokens adds."""
        if self._reason is None:
            raise EngineDied("the server behind this worker broke off its answer")
        whole = self._tokens_max if self._reason == "length" and not self._fit else self.tokens
        counted = self._usage.completion_tokens if self._usage else whole
        if self._reason == "length" and not self._fit and counted < self._tokens_max:
            raise EngineDied("the server behind this worker ended its answer for its length before it was so long")
        missing = min(counted, self._tokens_max) - self.tokens
        if missing <= 0:
            return []
        piece = Piece(self.tokens, [NO_TOKEN] * missing, "", [])
        self.tokens += missing
        return [piece]

    def finished(self, *, submitted_ns: int, first_ns: int, last_ns: int) -> Finished:
        """How it ended. The times are nanoseconds after it was asked. Without the server's word: 0 prompt tokens."""
        usage = self._usage
        prompt = usage.prompt_tokens if usage else 0
        cached = (usage.prompt_tokens_details.cached_tokens or 0) if usage and usage.prompt_tokens_details else 0
        return Finished(
            finish_reason=cast("FinishReason", self._reason), prompt_tokens=prompt,
            cached_tokens=min(max(0, cached), max(0, prompt - 1)), completion_tokens=self.tokens,
            submitted_ns=submitted_ns, queued_ns=0, prefill_ns=first_ns, decode_ns=max(0, last_ns - first_ns),
            reasoning_tokens=self._thoughts,
        )  # fmt: skip

    def _event(self, raw: bytes) -> list[Piece]:
        self._events += 1
        if self._events > 2 * self._tokens_max + limits.UPSTREAM_EVENTS_SPARE:
            raise Oversize("the server sent more events than tokens were asked for")
        if raw == b"[DONE]":
            self._done = True
            return []
        if self._done:
            raise Malformed("the server went on after the end of its answer")
        try:
            event = _EVENT.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise Malformed("the server sent an event that is none of the OpenAI dialect") from None
        if event.error is not None:
            raise EngineDied("the server behind this worker reported an error in the middle of its answer")
        if event.usage is not None:
            self._count(event.usage)
        return [piece for choice in event.choices for piece in self._take(choice)]

    def _count(self, usage: _Usage) -> None:
        if not (0 <= usage.prompt_tokens <= limits.UPSTREAM_TOKENS_MAX and usage.completion_tokens >= 0):
            raise Malformed("the server counts tokens that cannot be")
        self._usage = usage

    def _take(self, choice: _Choice) -> list[Piece]:
        text = choice.text if choice.text is not None else choice.delta.content if choice.delta else None
        if choice.index != 0 or (choice.delta and choice.delta.tool_calls):
            raise Malformed("the server sent another kind of answer than was asked for")
        thought = choice.delta.reasoning_content if choice.delta else None
        if (text or thought) and self._reason is not None:
            raise Malformed("the server went on after the end of its answer")
        if choice.finish_reason is not None:
            if choice.finish_reason not in ("stop", "length"):
                raise Malformed("the server ended its answer for a reason that nobody asked for")
            self._reason = cast("FinishReason", choice.finish_reason)
        return [self._piece(text or "", thought or "")] if text or thought else []

    def _piece(self, text: str, thought: str) -> Piece:
        self._bytes += len(text) + len(thought)
        if self._bytes > self._tokens_max * limits.ANSWER_BYTES_PER_TOKEN_MAX:
            raise Oversize("the server sent more text than the tokens asked for can stand for")
        tokens = [NO_TOKEN] if self.tokens < self._tokens_max else []
        piece = Piece(self.tokens, tokens, text, [], [Aside(REASONING, thought)] if thought else [])
        self.tokens += len(tokens)
        self._thoughts += len(tokens) if thought else 0
        return piece


def refused(status: int, body: bytes, retry_after: float | None) -> HaifError:
    """What an answer other than 200 means to whoever asked."""
    try:
        problem = msgspec.json.decode(body, type=_Refusal).error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        problem = ""
    said = problem if isinstance(problem, str) else problem.message
    code = "" if isinstance(problem, str) else str(problem.code or "")
    words = "".join(letter for letter in said if letter.isprintable())[: limits.UPSTREAM_WORDS_MAX] or f"HTTP {status}"
    if status in (400, 413, 422):
        if "context_length" in code:
            return ContextTooLong(f"the server behind this worker says: {words}", param="max_tokens")
        return InvalidRequest(f"the server behind this worker says: {words}")
    if status in (429, 503):
        return Overloaded("the server behind this worker is busy", retry_after=min(max(retry_after or 1.0, 1.0), 60.0))
    return EngineDied(f"the server behind this worker answered with HTTP {status}", retry_after=1.0)


def find_model(body: bytes, wanted: str) -> int:
    """The longest context the server states for the model, 0 if it does not. Raises `Unsupported` if it has it not."""
    try:
        models = msgspec.json.decode(body, type=_Models).data
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Malformed("the server's list of models is none of the OpenAI dialect") from None
    for model in models:
        if model.id == wanted:
            return max(0, model.max_model_len or 0)
    known = ", ".join(sorted(model.id[:80] for model in models[:20])) or "none"
    raise Unsupported(f"the server has no model {wanted!r}; it has: {known}. Name one with --upstream-model")
