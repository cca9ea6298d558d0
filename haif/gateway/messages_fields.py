"""The fields of Anthropic's Messages API: the honoured ones, typed; those that ask for nothing; those that are hints.

What stands nowhere here is refused by its name. Source: Anthropic's API reference, `POST /v1/messages`, versions
2023-06-01 and 2026-10-21.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from haif.base import limits
from haif.gateway.fields import CallId, Name, Sampled, StopString, TemplateSettings, Tokens
from haif.gateway.strict import Lenient


class Text(msgspec.Struct, forbid_unknown_fields=True, tag="text"):
    """A block: what was said to the model or by it."""

    text: str


class Thought(msgspec.Struct, forbid_unknown_fields=True, tag="thinking"):
    """A block: what the model thought."""

    thinking: str


class ToolUse(msgspec.Struct, forbid_unknown_fields=True, tag="tool_use"):
    """A block: a call the model made."""

    id: CallId
    name: Name
    input: dict[str, Any]


class ToolResult(msgspec.Struct, forbid_unknown_fields=True, tag="tool_result"):
    """A block: what a call that was made before came to."""

    tool_use_id: CallId
    content: str | list[Text] | None = None


Block = Text | Thought | ToolUse | ToolResult
BLOCKS: Final = {
    "user": ("text", "tool_result"), "assistant": ("text", "thinking", "tool_use"), "system": ("text",),
}  # fmt: skip
"""By role: the kinds of block its messages may have."""


class Message(msgspec.Struct, forbid_unknown_fields=True):
    """One message."""

    role: Literal["user", "assistant", "system"]
    content: str | Annotated[list[Block], Meta(max_length=limits.MESSAGE_BLOCKS_MAX)]


class Tool(msgspec.Struct, forbid_unknown_fields=True):
    """What `tools` holds."""

    name: Name
    input_schema: dict[str, Any]
    type: Literal["custom"] | None = None
    description: str | None = None
    strict: bool | None = None


class ToolChoice(msgspec.Struct, forbid_unknown_fields=True):
    """What `tool_choice` holds; a `name` where its type is `tool`."""

    type: Literal["auto", "any", "tool", "none"]
    name: Name | None = None
    disable_parallel_tool_use: bool | None = None


class OutputFormat(msgspec.Struct, forbid_unknown_fields=True):
    """What `output_config.format` holds."""

    type: Literal["json_schema"]
    schema: dict[str, Any]


class OutputConfig(msgspec.Struct, forbid_unknown_fields=True):
    """What `output_config` holds."""

    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: OutputFormat | None = None


class MessagesRequest(Sampled, forbid_unknown_fields=True, kw_only=True):
    """The body of POST /v1/messages."""

    messages: Annotated[list[Message], Meta(min_length=1, max_length=limits.MESSAGES_PER_PROMPT_MAX)]
    max_tokens: Tokens
    system: str | list[Text] | None = None
    stop_sequences: Annotated[list[StopString], Meta(max_length=limits.STOP_STRINGS_MAX)] | None = None
    tools: Annotated[list[Tool], Meta(max_length=limits.TOOLS_MAX)] | None = None
    tool_choice: ToolChoice | None = None
    output_config: OutputConfig | None = None
    chat_template_kwargs: TemplateSettings | None = None


LENIENT: Final = Lenient(
    neutral={
        "container": (), "context_management": (), "mcp_servers": ([],), "service_tier": ("auto", "standard_only"),
        "speed": ("standard",), "inference_geo": (), "diagnostics": (),
    },
    hints=frozenset({"metadata", "cache_control", "thinking"}), said=frozenset({"service_tier"}),
    why={"container": "nothing is kept here between requests: leave it out"},
)  # fmt: skip
"""Of a request. Whether a model thinks is for its template to say; `chat_template_kwargs` may tell it."""

LENIENT_IN_BLOCK: Final = Lenient(
    neutral={"caller": ({"type": "direct"},), "toolset_name": ()},
    hints=frozenset({"cache_control", "citations", "signature", "is_error", "parsed_output", "partial_json"}),
)  # fmt: skip
"""Of a block. A result that is an error says so in its own words."""

LENIENT_IN_TOOL: Final = Lenient(
    neutral={"defer_loading": (False,), "allowed_callers": (["direct"],), "input_examples": ([],)},
    hints=frozenset({"cache_control", "eager_input_streaming"}),
)  # fmt: skip
