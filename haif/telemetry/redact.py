"""What may enter a span: declared attributes of bounded length, and error codes; never a message, never content.

Redaction by permission: there is no list of secrets to look for. A key that `names` does not declare is our own bug.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from haif.base import limits
from haif.base.errors import HaifError, Misuse
from haif.telemetry import names

Value = str | int | float | bool
OTHER: Final = "_OTHER"  # OpenTelemetry's own word for an error type that has no name
CANCELLED: Final = "cancelled"
_CODE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}", re.ASCII)


def attributes(given: Mapping[str, Value]) -> dict[str, Value]:
    """The attributes as they may be recorded. Raises `Misuse` for a key that `names.ATTRIBUTES` does not hold."""
    return {key: attribute(key, value) for key, value in given.items()}


def attribute(key: str, value: Value) -> Value:
    """One attribute as it may be recorded: text is cut and made printable. Raises `Misuse` for an undeclared key."""
    if key not in names.ATTRIBUTES:
        raise Misuse(f"{key!r} is no span attribute: declare it in telemetry/names.py, or leave it out")
    return line(value) if isinstance(value, str) else value


def line(text: str) -> str:
    """Text for one line of a terminal: at most `limits.ATTRIBUTE_CHARS_MAX` characters, no control characters."""
    text = text[: limits.ATTRIBUTE_CHARS_MAX]
    return text if text.isprintable() else "".join(char if char.isprintable() else "\ufffd" for char in text)


def code(reason: str) -> str:
    """A reason as it may be recorded: a plain word of at most 64 characters, or `OTHER`."""
    return reason if _CODE.fullmatch(reason) else OTHER


def error_code(error: BaseException) -> str:
    """What to record of an exception: its `Reason` or the name of its class; never what it says."""
    return error.reason.value if isinstance(error, HaifError) else code(type(error).__name__)
