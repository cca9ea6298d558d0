"""A chat's messages, tools and template settings, from OpenAI's fields to what a worker is asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from haif.base.conversation import Call, Setting, Tool, Toolbox, Turn, check_settings, check_toolbox
from haif.gateway.fields import Chat, Chosen, Message, Offered, Part
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
    choice = chat.tool_choice
    if not chat.tools:
        if choice not in {None, "none", "auto"}:
            wrong("tool_choice", "a tool_choice that demands a call needs tools")
        return None
    box = Toolbox(
        [_tool(offered) for offered in chat.tools],
        parallel=chat.parallel_tool_calls is not False,
        required=choice == "required",
        only=choice.function.name if isinstance(choice, Chosen) else "",
    )
    check_toolbox(box)
    return None if choice == "none" else box


def _tool(offered: Offered) -> Tool:
    function = offered.function
    parameters = _NOTHING if function.parameters is None else msgspec.json.encode(function.parameters).decode()
    return Tool(function.name, function.description, parameters, bool(function.strict))


def settings_of(chat: Chat) -> list[tuple[str, Setting]]:
    """What the model's template is told. Raises `InvalidRequest`."""
    settings = dict(chat.chat_template_kwargs or {})
    if chat.reasoning_effort is not None:
        if "reasoning_effort" in settings:
            wrong("reasoning_effort", "reasoning_effort is given twice, once in chat_template_kwargs")
        settings["reasoning_effort"] = chat.reasoning_effort
    check_settings(list(settings.items()))
    return list(settings.items())


def _text_of(content: str | list[Part]) -> str:
    return content if isinstance(content, str) else "".join(part.text for part in content)
