"""OpenAI's dialect, heard strictly: a body becomes an `Ask`, or a 400 that names what cannot be honoured.

1. JSON: well-formed, no key twice, no NaN, an object.
2. Each field: honoured (typed below), neutral (a value that asks for nothing), a hint (ignored and said so), or
   refused by its name. Unknown means no.
3. Types and ranges.

Source: the OpenAI API reference (openai-openapi 2.3.0), `createChatCompletion` and `createCompletion`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, structs

from haif.base import limits
from haif.base.errors import Unsupported
from haif.base.ids import Nonce
from haif.base.sampling import Sampling
from haif.gateway.errors import Rejected
from haif.gateway.strict import object_of, typed, wrong
from haif.protocol.inference import Request, Turn


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What a tenant wants: the request a worker will see, and how to answer it."""

    kind: Literal["chat", "text"]
    model: str
    request: Request
    seed: int | None
    stream: bool
    include_usage: bool
    ignored: tuple[str, ...]
    echo: str = ""  # what a text completion's answer begins with

    def within(self, scope: bytes) -> Ask:
        """The same, where only requests of `scope` may share what a worker computed."""
        return replace(self, request=structs.replace(self.request, scope=scope))


# --- what is honoured -------------------------------------------------------------------------------------------------

_TOKENS = Annotated[int, Meta(ge=1, le=limits.COMPLETION_TOKENS_MAX)]
_PENALTY = Annotated[float, Meta(ge=-limits.PENALTY_MAX, le=limits.PENALTY_MAX)]
_REPEAT = Annotated[float, Meta(ge=1 / limits.REPEAT_PENALTY_MAX, le=limits.REPEAT_PENALTY_MAX)]
_BIAS = Annotated[float, Meta(ge=-limits.LOGIT_BIAS_MAX, le=limits.LOGIT_BIAS_MAX)]
_LOGPROBS = Annotated[int, Meta(ge=0, le=limits.LOGPROBS_MAX)]
_STOP_STRING = Annotated[str, Meta(min_length=1)]


class _Schema(msgspec.Struct, forbid_unknown_fields=True):
    name: Annotated[str, Meta(pattern="^[a-zA-Z0-9_-]{1,64}$")]
    schema: dict[str, Any]
    description: str | None = None
    strict: bool | None = None


class _Format(msgspec.Struct, forbid_unknown_fields=True):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: _Schema | None = None


class _StreamOptions(msgspec.Struct, forbid_unknown_fields=True):
    include_usage: bool | None = None


class _Common(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    model: Annotated[str, Meta(min_length=1, max_length=limits.MODEL_NAME_CHARS_MAX)]
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    stop: _STOP_STRING | Annotated[list[_STOP_STRING], Meta(max_length=limits.STOP_STRINGS_MAX)] | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    presence_penalty: _PENALTY | None = None
    frequency_penalty: _PENALTY | None = None
    logit_bias: dict[str, _BIAS] | None = None
    top_k: Annotated[int, Meta(ge=0, le=limits.VOCABULARY_MAX)] | None = None  # these three as llama.cpp's server
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    repeat_penalty: _REPEAT | None = None
    max_tokens: _TOKENS | None = None


class _Part(msgspec.Struct, forbid_unknown_fields=True):
    type: str
    text: str


class _Message(msgspec.Struct, forbid_unknown_fields=True):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[_Part]


class _Chat(_Common, forbid_unknown_fields=True, kw_only=True):
    messages: Annotated[list[_Message], Meta(min_length=1, max_length=limits.MESSAGES_PER_PROMPT_MAX)]
    max_completion_tokens: _TOKENS | None = None
    response_format: _Format | None = None
    logprobs: bool | None = None
    top_logprobs: _LOGPROBS | None = None


class _Completion(_Common, forbid_unknown_fields=True, kw_only=True):
    prompt: str | Annotated[list[str], Meta(min_length=1, max_length=1)]
    suffix: str | None = None
    echo: bool | None = None
    logprobs: _LOGPROBS | None = None


# --- what asks for nothing, and what is only a hint -------------------------------------------------------------------

_NEUTRAL: Final[Mapping[str, tuple[Any, ...]]] = {
    "n": (1,), "tools": ([],), "tool_choice": ("none", "auto"), "parallel_tool_calls": (True, False),
    "functions": ([],),
    "function_call": ("none", "auto"), "modalities": (["text"],),
    "store": (False,), "service_tier": ("auto", "default"), "best_of": (1,),
    "audio": (), "prediction": (), "reasoning_effort": (), "verbosity": (),
    "web_search_options": (), "moderation": (), "user": (), "metadata": (), "safety_identifier": (),
    "prompt_cache_key": (), "prompt_cache_retention": (), "prompt_cache_options": (),
}  # fmt: skip
_HINTS: Final = frozenset({
    "user", "metadata", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "prompt_cache_options",
})  # fmt: skip
_SAID: Final = _HINTS | {"store", "service_tier"}  # named in x-haif-ignored-params when present
_NEUTRAL_IN_MESSAGE: Final[Mapping[str, tuple[Any, ...]]] = {
    # What clients echo back from our own answers.
    "refusal": (), "tool_calls": ([],), "function_call": (), "audio": (), "annotations": ([],),
}  # fmt: skip


def parse_chat(body: bytes, nonce: Nonce) -> Ask:
    """The body of POST /v1/chat/completions. Raises `Rejected` or `Unsupported`, naming the parameter."""
    fields, ignored = _sift(object_of(body))
    _check_messages(fields)
    chat = typed(_Chat, fields)
    if chat.max_tokens and chat.max_completion_tokens and chat.max_tokens != chat.max_completion_tokens:
        wrong("max_tokens", "max_tokens and max_completion_tokens disagree; give max_completion_tokens only")
    if chat.top_logprobs is not None and not chat.logprobs:
        wrong("top_logprobs", "top_logprobs is only allowed when logprobs is true")
    turns = [Turn(_ROLES[message.role], _text_of(message.content)) for message in chat.messages]
    request = _request(
        chat, nonce, chat=turns, tokens_max=chat.max_completion_tokens or chat.max_tokens,
        logprobs=(chat.top_logprobs or 0) if chat.logprobs else None, json_schema=_schema(chat.response_format),
    )  # fmt: skip
    return _ask("chat", chat, ignored, request)


def parse_completion(body: bytes, nonce: Nonce) -> Ask:
    """The body of POST /v1/completions. Raises `Rejected` or `Unsupported`, naming the parameter."""
    fields, ignored = _sift(object_of(body))
    if isinstance(fields.get("prompt"), list) and (len(fields["prompt"]) > 1 or _has_numbers(fields["prompt"])):
        raise Unsupported("prompt must be one text: batches and token ids cannot be honoured", param="prompt")
    completion = typed(_Completion, fields)
    prompt = completion.prompt if isinstance(completion.prompt, str) else completion.prompt[0]
    if completion.echo and completion.logprobs is not None:
        raise Unsupported("logprobs of an echoed prompt cannot be honoured: leave out echo", param="logprobs")
    request = _request(
        completion, nonce, text=prompt, suffix=completion.suffix or None, tokens_max=completion.max_tokens,
        logprobs=completion.logprobs,
    )  # fmt: skip
    return _ask("text", completion, ignored, request, echo=prompt if completion.echo else "")


def _ask(
    kind: Literal["chat", "text"], common: _Common, ignored: tuple[str, ...], request: Request, *, echo: str = ""
) -> Ask:
    options = common.stream_options
    if options is not None and not common.stream:
        wrong("stream_options", "stream_options is only allowed when stream is true")
    return Ask(
        kind=kind, model=common.model, request=request, seed=common.seed, stream=bool(common.stream),
        include_usage=options is not None and bool(options.include_usage), ignored=ignored, echo=echo,
    )  # fmt: skip


def _request(
    common: _Common, nonce: Nonce, *, chat: list[Turn] | None = None, text: str | None = None,
    suffix: str | None = None, tokens_max: int | None, logprobs: int | None, json_schema: str | None = None,
) -> Request:  # fmt: skip
    return Request(
        nonce=nonce, chat=chat, text=text, tokens_max=tokens_max or limits.COMPLETION_TOKENS_DEFAULT,
        sampling=_sampling(common), stop=_stop(common.stop), suffix=suffix, logprobs=logprobs,
        json_schema=json_schema,
    )  # fmt: skip


def _sampling(common: _Common) -> Sampling:
    options = {name: value for name in _SAMPLING if (value := getattr(common, name)) is not None}
    return Sampling(**options, bias=_bias(common.logit_bias or {}))


# --- 2. each field ----------------------------------------------------------------------------------------------------


def _sift(fields: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What is to be honoured, and the hints that are ignored. Null means not given, for every known field."""
    kept: dict[str, Any] = {}
    ignored: list[str] = []
    for name, value in fields.items():
        if name not in _NEUTRAL:
            kept[name] = value
        elif name in _HINTS or _is_neutral(value, _NEUTRAL[name]):
            if name in _SAID and value is not None:
                ignored.append(name)
        else:
            raise Unsupported(f"{name}: this value cannot be honoured by HAIF; leave it out", param=name)
    options = kept.get("stream_options")
    if isinstance(options, dict) and options.get("include_obfuscation", True) in (False, None):
        kept["stream_options"] = {key: value for key, value in options.items() if key != "include_obfuscation"}
    return kept, tuple(ignored)


def _is_neutral(value: Any, neutral: tuple[Any, ...]) -> bool:
    return value is None or any(value == each and isinstance(value, bool) == isinstance(each, bool) for each in neutral)


def _check_messages(fields: dict[str, Any]) -> None:
    """Drop what asks for nothing; refuse roles, parts and fields that cannot be honoured, by their path."""
    messages = fields.get("messages")
    if not isinstance(messages, list):
        return
    fields["messages"] = [
        _check_message(message, f"messages[{index}]") if isinstance(message, dict) else message
        for index, message in enumerate(messages)
    ]


def _check_message(message: dict[str, Any], path: str) -> dict[str, Any]:
    role = message.get("role")
    if isinstance(role, str) and role not in _ROLES:
        raise Unsupported(f"the role {role[:40]!r} cannot be honoured", param=f"{path}.role")
    kept: dict[str, Any] = {}
    for name, value in message.items():
        if name not in _NEUTRAL_IN_MESSAGE:
            kept[name] = value
        elif not _is_neutral(value, _NEUTRAL_IN_MESSAGE[name]):
            raise Unsupported(f"{name} in a message cannot be honoured", param=f"{path}.{name}")
    parts = message.get("content")
    for index, part in enumerate(parts if isinstance(parts, list) else ()):
        if isinstance(part, dict) and isinstance(part.get("type"), str) and part["type"] != "text":
            raise Rejected(
                f"content of type {part['type'][:40]!r} is not supported, only text",
                code="unsupported_content", param=f"{path}.content[{index}].type",
            )  # fmt: skip
    return kept


# --- 3. what the fields mean ------------------------------------------------------------------------------------------


_SAMPLING: Final = (
    "temperature", "top_p", "top_k", "min_p", "repeat_penalty", "presence_penalty", "frequency_penalty",
)  # fmt: skip


def _bias(biases: dict[str, float]) -> list[tuple[int, float]]:
    """Biases by token id, ascending. The ids are this model's own."""
    if len(biases) > limits.LOGIT_BIASES_MAX:
        wrong("logit_bias", f"at most {limits.LOGIT_BIASES_MAX} tokens can have a bias")
    if not all(token.isascii() and token.isdecimal() and str(int(token)) == token for token in biases):
        wrong("logit_bias", 'logit_bias maps token ids to biases; an id is a number such as "50256"')
    if any(len(token) > len(str(limits.VOCABULARY_MAX)) or int(token) >= limits.VOCABULARY_MAX for token in biases):
        wrong("logit_bias", "no vocabulary has a token with such an id")
    return sorted((int(token), bias) for token, bias in biases.items())


def _schema(wanted: _Format | None) -> str | None:
    """The JSON schema an answer must fit; any object's for `json_object`."""
    if wanted is None or wanted.type == "text":
        schema: dict[str, Any] | None = None
    elif wanted.type == "json_object":
        schema = {"type": "object"}
    elif wanted.json_schema is None:
        wrong("response_format.json_schema", "a response format of type json_schema needs a json_schema")
    else:
        schema = wanted.json_schema.schema
    if wanted is not None and wanted.json_schema is not None and wanted.type != "json_schema":
        wrong("response_format.json_schema", f"a response format of type {wanted.type} has no json_schema")
    if schema is None:
        return None
    text = msgspec.json.encode(schema).decode()
    if len(text.encode()) > limits.JSON_SCHEMA_BYTES_MAX:
        wrong("response_format", f"a JSON schema has at most {limits.JSON_SCHEMA_BYTES_MAX} bytes")
    return text


def _stop(stop: str | list[str] | None) -> list[str]:
    strings = [] if stop is None else [stop] if isinstance(stop, str) else stop
    if any(len(string.encode()) > limits.STOP_STRING_BYTES_MAX for string in strings):
        wrong("stop", f"a stop string has at most {limits.STOP_STRING_BYTES_MAX} bytes")
    return strings


def _text_of(content: str | list[_Part]) -> str:
    return content if isinstance(content, str) else "".join(part.text for part in content)


def _has_numbers(prompt: list[Any]) -> bool:
    return any(isinstance(item, int | list) for item in prompt)


_ROLES: Final = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
