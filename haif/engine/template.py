"""Chat templates are programs from a stranger's file: they run sandboxed, and what they may build is bounded.

Jinja's immutable sandbox refuses private attributes and changes to its arguments. Here it also has no way to make much
out of little (repetition, padding and formatting are gone), no clock and no randomness, so that the same chat always
renders the same. The child adds a limit on time and memory around `render`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, NoReturn

from jinja2 import TemplateError, meta
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from haif.base import limits
from haif.base.errors import InvalidRequest, Unsupported

Plain = Sequence[Mapping[str, Any]]  # messages or tools, as templates expect them

_FAULTS: Final = (
    TemplateError, ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError,
    ValueError,
)  # fmt: skip
_NOT_SETTINGS: Final = frozenset({
    "messages", "tools", "documents", "add_generation_prompt", "bos_token", "eos_token", "strftime_now",
})  # fmt: skip
_METHODS_REFUSED: Final = frozenset({"format", "format_map", "center", "ljust", "rjust", "zfill", "expandtabs"})
_FILTERS_REFUSED: Final = frozenset({"center", "format", "indent", "pprint", "random", "urlize", "wordwrap", "xmlattr"})


class _Raised(TemplateError):
    """The template called `raise_exception`."""


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        return attr not in _METHODS_REFUSED and super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> Any:
        if super().wrap_str_format(value) is not None:
            raise SecurityError("str.format is not available in a chat template")

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        numbers = isinstance(left, int | float) and isinstance(right, int | float)
        if not numbers and operator != "+":
            raise SecurityError(f"{operator} is for numbers only in a chat template")
        if operator == "**" and (abs(left) > 1 << 32 or abs(right) > 64):
            raise SecurityError("this power is too large for a chat template")
        result = super().call_binop(context, operator, left, right)
        if isinstance(result, str | list | tuple) and len(result) > limits.PROMPT_BYTES_MAX:
            raise SecurityError("a chat template made a value that is too long")
        return result


def _environment() -> _Environment:
    environment = _Environment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
    for name in _FILTERS_REFUSED:
        environment.filters.pop(name, None)
    environment.globals.pop("lipsum", None)
    environment.globals["raise_exception"] = _raise
    environment.filters["tojson"] = _to_json
    return environment


def _raise(message: object) -> NoReturn:
    raise _Raised(str(message)[:200])


def _to_json(
    value: Any, ensure_ascii: bool = False, indent: int | None = None, separators: Any = None, sort_keys: bool = False
) -> str:
    """As Hugging Face's chat templates know it, but that no character is ever escaped: `ensure_ascii` means nothing."""
    del ensure_ascii
    depth = None if indent is None else max(0, min(int(indent), 8))
    return json.dumps(value, ensure_ascii=False, indent=depth, separators=separators, sort_keys=bool(sort_keys))


class ChatTemplate:
    """A model's own chat template. Raises `Unsupported` if it is none."""

    def __init__(self, source: str, *, bos: str, eos: str) -> None:
        if len(source.encode(errors="replace")) > limits.TEMPLATE_BYTES_MAX:
            raise Unsupported(f"the model's chat template is over {limits.TEMPLATE_BYTES_MAX} bytes", param="messages")
        environment = _environment()
        try:
            self._template = environment.from_string(source)
        except _FAULTS as error:
            raise Unsupported(f"the model's chat template cannot be used: {_words(error)}", param="messages") from None
        self.source = source
        named = meta.find_undeclared_variables(environment.parse(source))
        self.settings = frozenset(named) - _NOT_SETTINGS - frozenset(environment.globals)
        self._tokens = {"bos_token": bos, "eos_token": eos}

    def render(
        self, messages: Plain, tools: Plain | None = None, settings: Mapping[str, Any] | None = None, *,
        prompt: bool = True,
    ) -> str:  # fmt: skip
        """The text of a chat; as a `prompt` up to where the assistant's answer begins.

        `settings` are further variables of the template's, of those that `self.settings` names. Raises `InvalidRequest`
        when the template refuses the chat, `Unsupported` when the template itself fails.
        """
        variables = {**(settings or {}), "messages": messages, "tools": tools, "add_generation_prompt": prompt}
        parts: list[str] = []
        room = limits.PROMPT_BYTES_MAX
        try:
            for part in self._template.generate(**variables, **self._tokens):
                room -= len(part)
                if room < 0:
                    raise InvalidRequest("the rendered chat is too long", param="messages")
                parts.append(part)
        except _Raised as error:
            raise InvalidRequest(
                f"the model's chat template refuses this chat: {error.message}", param="messages"
            ) from None
        except _FAULTS as error:
            raise Unsupported(f"the model's chat template failed: {_words(error)}", param="messages") from None
        return "".join(parts)


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:200]
