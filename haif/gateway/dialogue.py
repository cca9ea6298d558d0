"""A chat's messages, tools and template settings, from OpenAI's fields to what a worker is asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from haif.base.conversation import Call, Setting, Tool, Toolbox, Turn, check_settings, check_toolbox
from haif.gateway.fields import Chat, Chosen, Message, Offered, Part, TemplateSettings
from haif.gateway.strict import wrong

ROLES: Final = {
    "system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool",
}  # fmt: skip
_NOTHING: Final = '{"type":"object","properties":{},"additionalProperties":false}'  # a function without parameters


def turns_of(messages: Sequence[Message]) -> list[Turn]:
    """The conversation. Raises `Rejected`: a tool answers a call that was made before it, and says which."""
    made: set[str] = set()
    turns = []
    for index, message in enumerate(messages):
        path = f"messages[{index}]"
        _check_fields(message, path, made)
        calls = [Call(call.id, call.function.name, call.function.arguments) for call in message.tool_calls or ()]
        made.update(call.id for call in calls)
        turns.append(Turn(
            ROLES[message.role], _text_of(message.content or ""), name=message.name or "", calls=calls,
            call_id=message.tool_call_id or "", reasoning=message.reasoning_content or "",
        ))  # fmt: skip
    return turns


def _check_fields(message: Message, path: str, made: set[str]) -> None:
    if message.role != "assistant":
        for name in ("tool_calls", "reasoning_content"):
            if getattr(message, name):
                wrong(f"{path}.{name}", f"only an assistant's message has {name}")
    if message.role == "tool" and message.tool_call_id is None:
        wrong(f"{path}.tool_call_id", "a tool's message says with tool_call_id which call it answers")
    if message.tool_call_id is not None and (message.role != "tool" or message.tool_call_id not in made):
        wrong(f"{path}.tool_call_id", "tool_call_id must be that of a call in an assistant's message before")


def toolbox_of(chat: Chat) -> Toolbox | None:
    """The functions that may be called, and which must be; None where none may. Raises `InvalidRequest`."""
    tools = [_tool(offered) for offered in chat.tools or ()]
    choice = chat.tool_choice.function.name if isinstance(chat.tool_choice, Chosen) else ""
    word = None if isinstance(chat.tool_choice, Chosen) else chat.tool_choice
    return toolbox_with(tools, word, only=choice, parallel=chat.parallel_tool_calls is not False)


def toolbox_with(tools: list[Tool], word: str | None, *, only: str, parallel: bool) -> Toolbox | None:
    """The same of any dialect: the `word` is "none", "auto" or "required", and `only` one function that is due."""
    if not tools:
        if only or word == "required":
            wrong("tool_choice", "a tool_choice that demands a call needs tools")
        return None
    box = Toolbox(tools, parallel=parallel, required=word == "required", only=only)
    check_toolbox(box)
    return None if word == "none" else box


def _tool(offered: Offered) -> Tool:
    function = offered.function
    return tool_of(function.name, function.description, function.parameters, strict=function.strict)


def tool_of(name: str, description: str | None, parameters: dict[str, Any] | None, *, strict: bool | None) -> Tool:
    """A function as workers get it."""
    schema = _NOTHING if parameters is None else msgspec.json.encode(parameters).decode()
    return Tool(name, description, schema, bool(strict))


def settings_of(chat: Chat) -> list[tuple[str, Setting]]:
    """What the model's template is told. Raises `InvalidRequest`."""
    return settings_with(chat.chat_template_kwargs, chat.reasoning_effort, "reasoning_effort")


def settings_with(given: TemplateSettings | None, effort: str | None, param: str) -> list[tuple[str, Setting]]:
    """The same of any dialect, whose word for the effort of reasoning is `param`."""
    settings = dict(given or {})
    if effort is not None:
        if "reasoning_effort" in settings:
            wrong(param, f"{param} is given twice, once in chat_template_kwargs")
        settings["reasoning_effort"] = effort
    check_settings(list(settings.items()))
    return list(settings.items())


def _text_of(content: str | list[Part]) -> str:
    return content if isinstance(content, str) else "".join(part.text for part in content)
