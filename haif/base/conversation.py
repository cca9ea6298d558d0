"""A conversation as it travels: turns, the functions an assistant may call, and what it says beside its text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, Final, NoReturn

from msgspec import field

from haif.base import limits
from haif.base.codec import Message
from haif.base.errors import InvalidRequest

ROLES: Final = ("system", "user", "assistant", "tool")
REASONING: Final = "reasoning"
CALL: Final = "call"
ARGUMENTS: Final = "arguments"

Setting = bool | int | float | str


class Call(Message, frozen=True):
    """A call of a function: `arguments` is the text of a JSON object, as the model wrote it."""

    id: str
    name: str
    arguments: str


class Turn(Message, frozen=True):
    """One message of a chat. An assistant's may have calls and reasoning, a tool's answers the call `call_id`."""

    role: str
    content: str
    name: str = ""
    calls: list[Call] = field(default_factory=list)
    call_id: str = ""
    reasoning: str = ""


class Tool(Message, frozen=True):
    """A function that may be called; `parameters` is the JSON schema of its arguments, an object's."""

    name: str
    description: str | None
    parameters: str
    strict: bool


class Toolbox(Message, frozen=True):
    """The functions of a request, and which must be called: `only` this one, or, if `required`, any."""

    tools: list[Tool]
    parallel: bool = True
    required: bool = False
    only: str = ""

    @property
    def single(self) -> bool:
        """Whether there is at most one call."""
        return bool(self.only) or not self.parallel

    @property
    def must(self) -> bool:
        """Whether there is at least one."""
        return self.required or bool(self.only)


class Aside(Message, frozen=True):
    """What an answer says beside its text: more of its reasoning, the name of a call, more of that call's arguments."""

    kind: str
    text: str


class Said:
    """All of an answer so far."""

    def __init__(self) -> None:
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._calls: list[tuple[str, list[str]]] = []

    def add(self, text: str, asides: Iterable[Aside]) -> None:
        """The next of it. Raises `ValueError` for an aside that cannot come here."""
        self._text.append(text)
        for aside in asides:
            if aside.kind == REASONING:
                self._reasoning.append(aside.text)
            elif aside.kind == CALL:
                self._calls.append((aside.text, []))
            elif aside.kind == ARGUMENTS and self._calls:
                self._calls[-1][1].append(aside.text)
            else:
                raise ValueError(f"an aside of kind {aside.kind[:20]!r} where none is due")

    @property
    def text(self) -> str:
        """What the tenant asked to read."""
        return "".join(self._text)

    @property
    def reasoning(self) -> str:
        """What was thought before."""
        return "".join(self._reasoning)

    @property
    def called(self) -> int:
        """How many calls there are."""
        return len(self._calls)

    @property
    def calls(self) -> list[tuple[str, str]]:
        """Names and arguments."""
        return [(name, "".join(pieces)) for name, pieces in self._calls]


def merged(asides: Sequence[Aside]) -> list[Aside]:
    """The same in fewer pieces."""
    result: list[Aside] = []
    for aside in asides:
        if result and aside.kind != CALL and result[-1].kind == aside.kind:
            result[-1] = Aside(aside.kind, result[-1].text + aside.text)
        else:
            result.append(aside)
    return result


def json_object(text: str) -> dict[str, Any]:
    """The object that a JSON text is. Raises `ValueError`: another value, a key twice, no number, no text, too deep."""
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_number)
        if not isinstance(value, dict):
            raise ValueError("it is not an object")  # noqa: TRY004 - the text is at fault, not our call
        _check_depth(value, limits.JSON_DEPTH_MAX)
        json.dumps(value, ensure_ascii=False).encode()  # an escaped half of a character is a `ValueError` here
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("an object has the same key twice")
    return result


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number of JSON")


def _check_depth(value: Any, left: int) -> None:
    if left == 0:
        raise ValueError(f"it is nested deeper than {limits.JSON_DEPTH_MAX}")
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _check_depth(each, left - 1)


def check_turns(turns: Sequence[Turn]) -> None:
    """Refuse what is no conversation. Raises `InvalidRequest`."""
    if not 1 <= len(turns) <= limits.MESSAGES_PER_PROMPT_MAX:
        raise InvalidRequest(f"a chat has 1 to {limits.MESSAGES_PER_PROMPT_MAX} messages", param="messages")
    for turn in turns:
        if turn.role not in ROLES:
            raise InvalidRequest(f"the role {turn.role[:40]!r} is not one of {', '.join(ROLES)}", param="messages")
        if (turn.role == "tool") != bool(turn.call_id):
            raise InvalidRequest("a tool's message, and no other, says which call it answers", param="messages")
        if turn.calls and (turn.role != "assistant" or len(turn.calls) > limits.TOOL_CALLS_MAX):
            raise InvalidRequest(f"an assistant makes up to {limits.TOOL_CALLS_MAX} calls at once", param="messages")


def check_toolbox(box: Toolbox) -> None:
    """Refuse what cannot be offered to any model. Raises `InvalidRequest`."""
    names = [tool.name for tool in box.tools]
    if not 1 <= len(names) <= limits.TOOLS_MAX or len(set(names)) != len(names):
        raise InvalidRequest(f"there are 1 to {limits.TOOLS_MAX} tools, each of another name", param="tools")
    size = sum(
        len(tool.name) + len((tool.description or "").encode()) + len(tool.parameters.encode()) for tool in box.tools
    )
    if size > limits.TOOLS_BYTES_MAX:
        raise InvalidRequest(f"all tools together have at most {limits.TOOLS_BYTES_MAX} bytes", param="tools")
    if box.only and box.only not in names:
        raise InvalidRequest(f"{box.only[:64]!r} is not among the tools", param="tool_choice")
    for place, tool in enumerate(box.tools):
        _check_tool(tool, f"tools[{place}].function")


def _check_tool(tool: Tool, path: str) -> None:
    if not 1 <= len(tool.name) <= limits.TOOL_NAME_CHARS_MAX or not set(tool.name) <= _NAME:
        raise InvalidRequest(f"a function's name has 1 to {limits.TOOL_NAME_CHARS_MAX} letters, digits, - and _",
                             param=f"{path}.name")  # fmt: skip
    try:
        schema = json_object(tool.parameters)
    except ValueError as error:
        raise InvalidRequest(f"these parameters are no JSON schema: {error}", param=f"{path}.parameters") from None
    if schema.get("type", "object") != "object":
        raise InvalidRequest("parameters are those of an object", param=f"{path}.parameters")


_NAME: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")


def check_settings(settings: Sequence[tuple[str, Setting]]) -> None:
    """Refuse what a template should not be told. Raises `InvalidRequest`."""
    names = [name for name, _ in settings]
    if len(names) > limits.TEMPLATE_SETTINGS_MAX or len(set(names)) != len(names):
        raise InvalidRequest(
            f"a template takes up to {limits.TEMPLATE_SETTINGS_MAX} settings, each once", param=_SETTINGS
        )
    for name, value in settings:
        words = (name, value) if isinstance(value, str) else (name,)
        if not name or any(len(word) > limits.TEMPLATE_SETTING_CHARS_MAX or not set(word) <= _NAME for word in words):
            raise InvalidRequest(
                f"settings are named and worded in 1 to {limits.TEMPLATE_SETTING_CHARS_MAX} letters, digits, - and _",
                param=_SETTINGS,
            )


_SETTINGS: Final = "chat_template_kwargs"
