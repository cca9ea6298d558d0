"""A chat as plain values, in the shape that templates expect (that of Hugging Face's `apply_chat_template`)."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from haif.base.conversation import Tool, Turn, json_object

Message = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Manner:
    """How a template wants calls in a conversation: arguments as objects or as text, and what content is where none."""

    objects: bool = True
    empty: str | None = ""


@dataclass(frozen=True, slots=True)
class Scene:
    """What a template is given."""

    messages: list[Message]
    tools: list[Message] | None

    def changed(self, change: Callable[[str], str]) -> Scene:
        """The same with every text changed, wherever in it: also in the keys of schemas and arguments."""
        return Scene(_changed(self.messages, change), self.tools and _changed(self.tools, change))

    def texts(self) -> list[str]:
        """Every text in it."""
        found: list[str] = []

        def keep(text: str) -> str:
            found.append(text)
            return text

        self.changed(keep)
        return found

    def harmless(self) -> Scene:
        """The same shape without a word of anybody's: what a template does by itself."""
        return Scene(
            [_harmless(each) for each in self.messages], self.tools and [_harmless_tool(t) for t in self.tools]
        )


def scene(turns: Sequence[Turn], tools: Sequence[Tool], manner: Manner) -> Scene:
    """The scene of a conversation."""
    called = {call.id: call.name for turn in turns for call in turn.calls}
    return Scene([_message(turn, called, manner) for turn in turns], [_tool(tool) for tool in tools] or None)


def _message(turn: Turn, called: dict[str, str], manner: Manner) -> Message:
    message: Message = {"role": turn.role, "content": turn.content}
    name = turn.name or called.get(turn.call_id, "")
    if name:
        message["name"] = name
    if turn.call_id:
        message["tool_call_id"] = turn.call_id
    if turn.reasoning:
        message["reasoning_content"] = turn.reasoning
    if turn.calls:
        message["content"] = turn.content or manner.empty
        message["tool_calls"] = [
            {
                "id": call.id, "type": "function",
                "function": {"name": call.name, "arguments": _arguments(call.arguments, manner)},
            }
            for call in turn.calls
        ]  # fmt: skip
    return message


def _arguments(text: str, manner: Manner) -> Any:
    """As the template wants them; what is no object can only be text."""
    if not manner.objects:
        return text
    try:
        return json_object(text)
    except ValueError:
        return text


def _tool(tool: Tool) -> Message:
    function: Message = {"name": tool.name}
    if tool.description is not None:
        function["description"] = tool.description
    function["parameters"] = json_object(tool.parameters)
    return {"type": "function", "function": function}


def _changed(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {change(key): _changed(each, change) for key, each in value.items()}
    if isinstance(value, list):
        return [_changed(each, change) for each in value]
    return value


def _harmless(message: Message) -> Message:
    changed: Message = {"role": message["role"], "content": message["content"] and "x"}
    for key in ("name", "tool_call_id", "reasoning_content"):
        if key in message:
            changed[key] = "x" * len(message[key])
    if "tool_calls" in message:
        changed["tool_calls"] = [
            {
                "id": "x" * len(call["id"]), "type": "function",
                "function": {
                    "name": "x" * len(call["function"]["name"]),
                    "arguments": _harmless_arguments(call["function"]["arguments"]),
                },
            }
            for call in message["tool_calls"]
        ]  # fmt: skip
    return changed


def _harmless_arguments(arguments: Any) -> Any:
    if not isinstance(arguments, str):
        return _bare(arguments)
    try:
        return json.dumps(_bare(json_object(arguments)))
    except ValueError:
        return "x"


def _harmless_tool(tool: Message) -> Message:
    function = tool["function"]
    changed = {"name": "x" * len(function["name"]), "parameters": _bare(function["parameters"])}
    if "description" in function:
        changed["description"] = "x"
    return {"type": "function", "function": {key: changed[key] for key in function}}


def _bare(value: Any) -> Any:
    """Only what JSON Schema itself knows keeps its words."""
    if isinstance(value, str):
        return value if value in _SCHEMA else "x"
    if isinstance(value, dict):
        return {key if key in _SCHEMA else f"x{place}": _bare(each) for place, (key, each) in enumerate(value.items())}
    if isinstance(value, list):
        return [_bare(each) for each in value]
    return value


_SCHEMA: Final = frozenset({
    "type", "properties", "required", "items", "enum", "const", "anyOf", "oneOf", "allOf", "description", "title",
    "default", "additionalProperties", "minimum", "maximum", "minItems", "maxItems", "minLength", "maxLength",
    "pattern", "format", "nullable", "string", "number", "integer", "boolean", "object", "array", "null", "$ref",
    "$defs", "definitions", "examples",
})  # fmt: skip
