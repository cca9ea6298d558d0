"""The fields of OpenAI's Responses API: the honoured ones, typed; those that ask for nothing; those that are hints.

What stands nowhere here is refused by its name. Source: the OpenAI API reference (openai-openapi 2.3.0),
`createResponse`, `Item`, `FunctionTool`.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from haif.base import limits
from haif.gateway.fields import CallId, Effort, Logprobs, Name, Sampled, StreamOptions, TemplateSettings, Tokens
from haif.gateway.strict import Lenient

_ITEM_ID = Annotated[str, Meta(max_length=limits.ITEM_ID_CHARS_MAX)]
_STATUS = Literal["in_progress", "completed", "incomplete"]


class Text(msgspec.Struct, forbid_unknown_fields=True):
    """A part of a message: what was said to the model or by it."""

    type: Literal["input_text", "output_text"]
    text: str


class Message(msgspec.Struct, forbid_unknown_fields=True, tag="message"):
    """An item: a message of either side."""

    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[Text]
    id: _ITEM_ID | None = None
    status: _STATUS | None = None


class FunctionCall(msgspec.Struct, forbid_unknown_fields=True, tag="function_call"):
    """An item: a call the model made."""

    call_id: CallId
    name: Name
    arguments: str
    id: _ITEM_ID | None = None
    status: _STATUS | None = None


class FunctionCallOutput(msgspec.Struct, forbid_unknown_fields=True, tag="function_call_output"):
    """An item: what a call that was made before came to."""

    call_id: CallId
    output: str | list[Text]
    id: _ITEM_ID | None = None
    status: _STATUS | None = None


class Thought(msgspec.Struct, forbid_unknown_fields=True):
    """A part of a reasoning item."""

    type: Literal["reasoning_text", "summary_text"]
    text: str


class Reasoning(msgspec.Struct, forbid_unknown_fields=True, tag="reasoning"):
    """An item: what the model thought. Only `content` goes back to it."""

    summary: list[Thought] = []
    content: list[Thought] | None = None
    id: _ITEM_ID | None = None
    status: _STATUS | None = None


Item = Message | FunctionCall | FunctionCallOutput | Reasoning
KINDS: Final = ("message", "function_call", "function_call_output", "reasoning")


class FunctionTool(msgspec.Struct, forbid_unknown_fields=True):
    """What `tools` holds."""

    type: Literal["function"]
    name: Name
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    description: str | None = None


class ChosenFunction(msgspec.Struct, forbid_unknown_fields=True):
    """`tool_choice` as an object."""

    type: Literal["function"]
    name: Name


class TextFormat(msgspec.Struct, forbid_unknown_fields=True):
    """What `text.format` holds."""

    type: Literal["text", "json_object", "json_schema"]
    name: Name | None = None
    schema: dict[str, Any] | None = None
    description: str | None = None
    strict: bool | None = None


class TextOptions(msgspec.Struct, forbid_unknown_fields=True):
    """What `text` holds."""

    format: TextFormat | None = None


class Thinking(msgspec.Struct, forbid_unknown_fields=True):
    """What `reasoning` holds."""

    effort: Effort | None = None


_KEY = Annotated[str, Meta(max_length=limits.ANSWER_METADATA_KEY_CHARS_MAX)]
_VALUE = Annotated[str, Meta(max_length=limits.ANSWER_METADATA_VALUE_CHARS_MAX)]
_INCLUDED = Literal["message.output_text.logprobs", "reasoning.encrypted_content"]


class Response(Sampled, forbid_unknown_fields=True, kw_only=True):
    """The body of POST /v1/responses."""

    input: str | Annotated[list[Item], Meta(min_length=1, max_length=limits.RESPONSE_ITEMS_MAX)]
    instructions: str | None = None
    max_output_tokens: Tokens | None = None
    metadata: Annotated[dict[_KEY, _VALUE], Meta(max_length=limits.ANSWER_METADATA_PAIRS_MAX)] | None = None
    tools: Annotated[list[FunctionTool], Meta(max_length=limits.TOOLS_MAX)] | None = None
    tool_choice: Literal["none", "auto", "required"] | ChosenFunction | None = None
    parallel_tool_calls: bool | None = None
    text: TextOptions | None = None
    reasoning: Thinking | None = None
    include: list[_INCLUDED] | None = None
    top_logprobs: Logprobs | None = None
    stream_options: StreamOptions | None = None
    chat_template_kwargs: TemplateSettings | None = None


LENIENT: Final = Lenient(
    neutral={
        "background": (False,), "conversation": (), "context_management": (), "max_tool_calls": (), "moderation": (),
        "previous_response_id": (), "prompt": (), "service_tier": ("auto", "default"), "store": (False,),
        "truncation": ("disabled",),
    },
    hints=frozenset({
        "user", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "prompt_cache_options",
    }),
    said=frozenset({"service_tier"}),
    why=dict.fromkeys(
        ("store", "previous_response_id", "conversation", "prompt", "background"),
        "nothing is kept here between requests: leave it out, and send the conversation's items again as input",
    ),
)  # fmt: skip
"""Of a request."""

LENIENT_IN_ITEM: Final = Lenient(
    neutral={"phase": (), "encrypted_content": (), "namespace": (), "caller": (), "async": ()},
    hints=frozenset({"parsed_arguments"}),
)  # fmt: skip
LENIENT_IN_PART: Final = Lenient(hints=frozenset({"annotations", "logprobs", "parsed"}))
LENIENT_IN_TOOL: Final = Lenient(neutral={"defer_loading": (False,), "allowed_callers": (["direct"],)})
LENIENT_IN_TEXT: Final = Lenient(neutral={"verbosity": ("medium",)})
LENIENT_IN_REASONING: Final = Lenient(neutral={"summary": ("auto",), "generate_summary": ("auto",)})
"""Of its pieces: what clients echo back of our own answers, and the defaults that they spell out."""
