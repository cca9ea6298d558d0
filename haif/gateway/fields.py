"""The fields of OpenAI's requests: those that are honoured, typed; those that ask for nothing; those that are hints.

What stands nowhere here is refused by its name.

Source: the OpenAI API reference (openai-openapi 2.3.0), `createChatCompletion` and `createCompletion`.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from haif.base import limits
from haif.gateway.strict import Lenient

# --- what is honoured -------------------------------------------------------------------------------------------------

Tokens = Annotated[int, Meta(ge=1, le=limits.COMPLETION_TOKENS_MAX)]
_PENALTY = Annotated[float, Meta(ge=-limits.PENALTY_MAX, le=limits.PENALTY_MAX)]
_REPEAT = Annotated[float, Meta(ge=1 / limits.REPEAT_PENALTY_MAX, le=limits.REPEAT_PENALTY_MAX)]
_BIAS = Annotated[float, Meta(ge=-limits.LOGIT_BIAS_MAX, le=limits.LOGIT_BIAS_MAX)]
Logprobs = Annotated[int, Meta(ge=0, le=limits.LOGPROBS_MAX)]
StopString = Annotated[str, Meta(min_length=1)]


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


class Sampled(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What a request for text may say in every dialect."""

    model: Annotated[str, Meta(min_length=1, max_length=limits.MODEL_NAME_CHARS_MAX)]
    stream: bool | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=0, le=limits.VOCABULARY_MAX)] | None = None  # these three as llama.cpp's server
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    repeat_penalty: _REPEAT | None = None
    haif: Haif | None = None


class Common(Sampled, forbid_unknown_fields=True, kw_only=True):
    """What both kinds of completion may say."""

    n: Annotated[int, Meta(ge=1, le=limits.CHOICES_MAX)] | None = None
    stream_options: StreamOptions | None = None
    stop: StopString | Annotated[list[StopString], Meta(max_length=limits.STOP_STRINGS_MAX)] | None = None
    presence_penalty: _PENALTY | None = None
    frequency_penalty: _PENALTY | None = None
    logit_bias: dict[str, _BIAS] | None = None
    max_tokens: Tokens | None = None
    service_tier: Literal["auto", "default", "flex"] | None = None


class Part(msgspec.Struct, forbid_unknown_fields=True):
    """A piece of a message's content."""

    type: str
    text: str


Name = Annotated[str, Meta(pattern="^[a-zA-Z0-9_-]{1,64}$")]
CallId = Annotated[str, Meta(min_length=1, max_length=limits.TOOL_CALL_ID_CHARS_MAX)]


Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh"]
TemplateSettings = dict[str, bool | int | float | str]  # as llama.cpp's server and vLLM


class Called(msgspec.Struct, forbid_unknown_fields=True):
    """The function of a call."""

    name: Name
    arguments: str


class ToolCall(msgspec.Struct, forbid_unknown_fields=True):
    """A call in an assistant's message."""

    id: CallId
    type: Literal["function"]
    function: Called
    index: int | None = None  # clients that gathered a stream leave it there


class Message(msgspec.Struct, forbid_unknown_fields=True):
    """One message of a chat."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[Part] | None = None
    name: Name | None = None
    tool_calls: Annotated[list[ToolCall], Meta(max_length=limits.TOOL_CALLS_MAX)] | None = None
    tool_call_id: CallId | None = None
    reasoning_content: str | None = None


class Function(msgspec.Struct, forbid_unknown_fields=True):
    """What `tools[].function` holds."""

    name: Name
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Offered(msgspec.Struct, forbid_unknown_fields=True):
    """What `tools` holds."""

    type: Literal["function"]
    function: Function


class Named(msgspec.Struct, forbid_unknown_fields=True):
    """The function of a choice."""

    name: Name


class Chosen(msgspec.Struct, forbid_unknown_fields=True):
    """`tool_choice` as an object."""

    type: Literal["function"]
    function: Named


class Chat(Common, forbid_unknown_fields=True, kw_only=True):
    """The body of POST /v1/chat/completions."""

    messages: Annotated[list[Message], Meta(min_length=1, max_length=limits.MESSAGES_PER_PROMPT_MAX)]
    max_completion_tokens: Tokens | None = None
    response_format: Format | None = None
    logprobs: bool | None = None
    top_logprobs: Logprobs | None = None
    tools: Annotated[list[Offered], Meta(max_length=limits.TOOLS_MAX)] | None = None
    tool_choice: Literal["none", "auto", "required"] | Chosen | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: Effort | None = None
    chat_template_kwargs: TemplateSettings | None = None


class Completion(Common, forbid_unknown_fields=True, kw_only=True):
    """The body of POST /v1/completions."""

    prompt: str | Annotated[list[str], Meta(min_length=1, max_length=1)]
    suffix: str | None = None
    best_of: int | None = None
    echo: bool | None = None
    logprobs: Logprobs | None = None


# --- what asks for nothing, and what is only a hint -------------------------------------------------------------------

_HINTS: Final = frozenset({
    "user", "metadata", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "prompt_cache_options",
})  # fmt: skip

LENIENT: Final = Lenient(
    neutral={
        "functions": ([],), "function_call": ("none", "auto"), "modalities": (["text"],),
        "store": (False,),
        "audio": (), "prediction": (), "verbosity": (), "web_search_options": (), "moderation": (),
    },
    hints=_HINTS, said=frozenset({"store"}),
)  # fmt: skip
"""Of chats and text completions."""

LENIENT_IN_STREAM: Final = Lenient(neutral={"include_obfuscation": (False,)})
"""Of `stream_options`: events are not padded."""

LENIENT_IN_MESSAGE: Final = Lenient(neutral={"refusal": (), "function_call": (), "audio": (), "annotations": ([],)})
"""Of a chat's message: what clients echo back from our own answers."""
