"""The fields of OpenAI's requests: those that are honoured, typed; those that ask for nothing; those that are hints.

What stands nowhere here is refused by its name.

Source: the OpenAI API reference (openai-openapi 2.3.0), `createChatCompletion` and `createCompletion`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from haif.base import limits

# --- what is honoured -------------------------------------------------------------------------------------------------

_TOKENS = Annotated[int, Meta(ge=1, le=limits.COMPLETION_TOKENS_MAX)]
_PENALTY = Annotated[float, Meta(ge=-limits.PENALTY_MAX, le=limits.PENALTY_MAX)]
_REPEAT = Annotated[float, Meta(ge=1 / limits.REPEAT_PENALTY_MAX, le=limits.REPEAT_PENALTY_MAX)]
_BIAS = Annotated[float, Meta(ge=-limits.LOGIT_BIAS_MAX, le=limits.LOGIT_BIAS_MAX)]
_LOGPROBS = Annotated[int, Meta(ge=0, le=limits.LOGPROBS_MAX)]
_STOP_STRING = Annotated[str, Meta(min_length=1)]


class Schema(msgspec.Struct, forbid_unknown_fields=True):
    """What `response_format.json_schema` holds."""

    name: Annotated[str, Meta(pattern="^[a-zA-Z0-9_-]{1,64}$")]
    schema: dict[str, Any]
    description: str | None = None
    strict: bool | None = None


class Format(msgspec.Struct, forbid_unknown_fields=True):
    """What `response_format` holds."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: Schema | None = None


class StreamOptions(msgspec.Struct, forbid_unknown_fields=True):
    """What `stream_options` holds."""

    include_usage: bool | None = None


class Haif(msgspec.Struct, forbid_unknown_fields=True):
    """What `haif` holds: demands that OpenAI has no word for."""

    sandbox: Literal["none", "reduced", "full"] | None = None
    execution: Literal["verifiable", "any", "unverifiable"] | None = None
    transcript: bool | None = None
    audit: bool | None = None


class Common(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What both kinds of request may say."""

    model: Annotated[str, Meta(min_length=1, max_length=limits.MODEL_NAME_CHARS_MAX)]
    n: Annotated[int, Meta(ge=1, le=limits.CHOICES_MAX)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
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
    haif: Haif | None = None


class Part(msgspec.Struct, forbid_unknown_fields=True):
    """A piece of a message's content."""

    type: str
    text: str


_NAME = Annotated[str, Meta(pattern="^[a-zA-Z0-9_-]{1,64}$")]
_ID = Annotated[str, Meta(min_length=1, max_length=limits.TOOL_CALL_ID_CHARS_MAX)]


class Called(msgspec.Struct, forbid_unknown_fields=True):
    """The function of a call."""

    name: _NAME
    arguments: str


class ToolCall(msgspec.Struct, forbid_unknown_fields=True):
    """A call in an assistant's message."""

    id: _ID
    type: Literal["function"]
    function: Called
    index: int | None = None  # clients that gathered a stream leave it there


class Message(msgspec.Struct, forbid_unknown_fields=True):
    """One message of a chat."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[Part] | None = None
    name: _NAME | None = None
    tool_calls: Annotated[list[ToolCall], Meta(max_length=limits.TOOL_CALLS_MAX)] | None = None
    tool_call_id: _ID | None = None
    reasoning_content: str | None = None


class Function(msgspec.Struct, forbid_unknown_fields=True):
    """What `tools[].function` holds."""

    name: _NAME
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Offered(msgspec.Struct, forbid_unknown_fields=True):
    """What `tools` holds."""

    type: Literal["function"]
    function: Function


class Named(msgspec.Struct, forbid_unknown_fields=True):
    """The function of a choice."""

    name: _NAME


class Chosen(msgspec.Struct, forbid_unknown_fields=True):
    """`tool_choice` as an object."""

    type: Literal["function"]
    function: Named


class Chat(Common, forbid_unknown_fields=True, kw_only=True):
    """The body of POST /v1/chat/completions."""

    messages: Annotated[list[Message], Meta(min_length=1, max_length=limits.MESSAGES_PER_PROMPT_MAX)]
    max_completion_tokens: _TOKENS | None = None
    response_format: Format | None = None
    logprobs: bool | None = None
    top_logprobs: _LOGPROBS | None = None
    tools: Annotated[list[Offered], Meta(max_length=limits.TOOLS_MAX)] | None = None
    tool_choice: Literal["none", "auto", "required"] | Chosen | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None = None
    chat_template_kwargs: dict[str, bool | int | float | str] | None = None  # as llama.cpp's server and vLLM


class Completion(Common, forbid_unknown_fields=True, kw_only=True):
    """The body of POST /v1/completions."""

    prompt: str | Annotated[list[str], Meta(min_length=1, max_length=1)]
    suffix: str | None = None
    best_of: int | None = None
    echo: bool | None = None
    logprobs: _LOGPROBS | None = None


# --- what asks for nothing, and what is only a hint -------------------------------------------------------------------

NEUTRAL: Final[Mapping[str, tuple[Any, ...]]] = {
    "functions": ([],),
    "function_call": ("none", "auto"), "modalities": (["text"],),
    "store": (False,), "service_tier": ("auto", "default"),
    "audio": (), "prediction": (), "verbosity": (),
    "web_search_options": (), "moderation": (), "user": (), "metadata": (), "safety_identifier": (),
    "prompt_cache_key": (), "prompt_cache_retention": (), "prompt_cache_options": (),
}  # fmt: skip
"""By field: the values that ask for nothing, beside null."""

HINTS: Final = frozenset({
    "user", "metadata", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "prompt_cache_options",
})  # fmt: skip
"""Ignored whatever they say."""

SAID: Final = HINTS | {"store", "service_tier"}
"""Named in x-haif-ignored-params when present."""

NEUTRAL_IN_MESSAGE: Final[Mapping[str, tuple[Any, ...]]] = {
    "refusal": (), "function_call": (), "audio": (), "annotations": ([],),
}  # fmt: skip
"""The same within a message: what clients echo back from our own answers."""
