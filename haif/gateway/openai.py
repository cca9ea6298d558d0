"""OpenAI's dialect, heard strictly: a body becomes an `Ask`, or a 400 that names what cannot be honoured.

1. JSON: well-formed, no key twice, no NaN, an object.
2. Each field: honoured (typed below), neutral (a value that asks for nothing), a hint (ignored and said so), or
   refused by its name. Unknown means no.
3. Types and ranges.

Source: the OpenAI API reference (openai-openapi 2.3.0), `createChatCompletion` and `createCompletion`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, NoReturn, TypeVar

import msgspec
from msgspec import Meta

from haif.base import limits
from haif.base.errors import Unsupported
from haif.base.ids import Nonce
from haif.gateway.errors import Rejected
from haif.protocol.inference import Request, Turn

T = TypeVar("T")


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


# --- what is honoured -------------------------------------------------------------------------------------------------

_TOKENS = Annotated[int, Meta(ge=1, le=limits.COMPLETION_TOKENS_MAX)]
_STOP_STRING = Annotated[str, Meta(min_length=1)]


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


class _Completion(_Common, forbid_unknown_fields=True, kw_only=True):
    prompt: str | Annotated[list[str], Meta(min_length=1, max_length=1)]


# --- what asks for nothing, and what is only a hint -------------------------------------------------------------------

_NEUTRAL: Final[Mapping[str, tuple[Any, ...]]] = {
    "n": (1,), "logprobs": (False,), "frequency_penalty": (0, 0.0), "presence_penalty": (0, 0.0), "logit_bias": ({},),
    "tools": ([],), "tool_choice": ("none", "auto"), "parallel_tool_calls": (True, False), "functions": ([],),
    "function_call": ("none", "auto"), "response_format": ({"type": "text"},), "modalities": (["text"],),
    "store": (False,), "service_tier": ("auto", "default"), "best_of": (1,), "echo": (False,), "suffix": ("",),
    "audio": (), "top_logprobs": (0,), "prediction": (), "reasoning_effort": (), "verbosity": (),
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
    fields, ignored = _sift(_object(body))
    _check_messages(fields)
    chat = _typed(_Chat, fields)
    if chat.max_tokens and chat.max_completion_tokens and chat.max_tokens != chat.max_completion_tokens:
        _wrong("max_tokens", "max_tokens and max_completion_tokens disagree; give max_completion_tokens only")
    turns = [Turn(_ROLES[message.role], _text_of(message.content)) for message in chat.messages]
    return _ask("chat", chat, ignored, nonce, chat=turns, tokens_max=chat.max_completion_tokens or chat.max_tokens)


def parse_completion(body: bytes, nonce: Nonce) -> Ask:
    """The body of POST /v1/completions. Raises `Rejected` or `Unsupported`, naming the parameter."""
    fields, ignored = _sift(_object(body))
    if isinstance(fields.get("prompt"), list) and (len(fields["prompt"]) > 1 or _has_numbers(fields["prompt"])):
        raise Unsupported("prompt must be one text: batches and token ids cannot be honoured", param="prompt")
    completion = _typed(_Completion, fields)
    prompt = completion.prompt if isinstance(completion.prompt, str) else completion.prompt[0]
    return _ask("text", completion, ignored, nonce, text=prompt, tokens_max=completion.max_tokens)


def _ask(
    kind: Literal["chat", "text"], common: _Common, ignored: tuple[str, ...], nonce: Nonce, *,
    chat: list[Turn] | None = None, text: str | None = None, tokens_max: int | None,
) -> Ask:  # fmt: skip
    options = common.stream_options
    if options is not None and not common.stream:
        _wrong("stream_options", "stream_options is only allowed when stream is true")
    request = Request(
        nonce=nonce, chat=chat, text=text, tokens_max=tokens_max or limits.COMPLETION_TOKENS_DEFAULT,
        temperature=1.0 if common.temperature is None else common.temperature,
        top_p=1.0 if common.top_p is None else common.top_p, stop=_stop(common.stop),
    )  # fmt: skip
    return Ask(
        kind=kind, model=common.model, request=request, seed=common.seed, stream=bool(common.stream),
        include_usage=options is not None and bool(options.include_usage), ignored=ignored,
    )  # fmt: skip


# --- 1. JSON ----------------------------------------------------------------------------------------------------------


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(body)
        # msgspec lets the last of two equal keys win; somebody else on the way may have read the first.
        json.loads(body, object_pairs_hook=_unique)
    except RecursionError:
        raise Rejected("the body is nested too deeply", code="invalid_json") from None
    except (msgspec.DecodeError, ValueError) as error:
        raise Rejected(f"the body is not valid JSON: {error}", code="invalid_json") from None
    if not isinstance(value, dict):
        raise Rejected("the body must be a JSON object", code="invalid_json")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> None:
    if len(dict.fromkeys(key for key, _ in pairs)) != len(pairs):
        raise ValueError("an object has the same key twice")


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


# --- 3. types and ranges ----------------------------------------------------------------------------------------------

_PATH: Final = re.compile(r" - at `\$\.?(?P<path>[^`]*)`$")
_MISSING: Final = re.compile(r"missing required field `(?P<name>[^`]*)`")
_UNKNOWN: Final = re.compile(r"contains unknown field `(?P<name>[^`]*)`")


def _typed(kind: type[T], fields: dict[str, Any]) -> T:
    try:
        return msgspec.convert(fields, kind, strict=True)
    except msgspec.ValidationError as error:
        text = str(error)
    where = _PATH.search(text)
    path = where["path"] if where else ""
    text = _PATH.sub("", text)
    if named := _MISSING.search(text):
        param = _join(path, named["name"])
        raise Rejected(f"{param} is missing", code="missing_required_parameter", param=param)
    if named := _UNKNOWN.search(text):
        param = _join(path, named["name"])[: limits.MODEL_NAME_CHARS_MAX]
        raise Unsupported(
            f"{param}: this parameter is unknown or cannot be honoured by HAIF; leave it out", param=param
        )
    code = "invalid_type" if ", got `" in text else "invalid_value"
    raise Rejected(f"{path or 'the body'}: {text}", code=code, param=path or None)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _stop(stop: str | list[str] | None) -> list[str]:
    strings = [] if stop is None else [stop] if isinstance(stop, str) else stop
    if any(len(string.encode()) > limits.STOP_STRING_BYTES_MAX for string in strings):
        _wrong("stop", f"a stop string has at most {limits.STOP_STRING_BYTES_MAX} bytes")
    return strings


def _text_of(content: str | list[_Part]) -> str:
    return content if isinstance(content, str) else "".join(part.text for part in content)


def _has_numbers(prompt: list[Any]) -> bool:
    return any(isinstance(item, int | list) for item in prompt)


def _wrong(param: str, message: str) -> NoReturn:
    raise Rejected(message, code="invalid_value", param=param)


_ROLES: Final = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
