"""JSON heard strictly: well-formed, no key twice, no NaN; then typed fields, and what is wrong named by its path."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn, TypeVar

import msgspec

from haif.base import limits
from haif.base.errors import Unsupported
from haif.gateway.errors import Rejected

T = TypeVar("T")


def object_of(body: bytes) -> dict[str, Any]:
    """The JSON object a body is. Raises `Rejected`."""
    try:
        value = msgspec.json.decode(body)
        # msgspec lets the last of two equal keys win; somebody else on the way may have read the first.
        json.loads(body, object_pairs_hook=_unique)
    except RecursionError:
        raise Rejected("the body is nested too deeply", code="invalid_json") from None
    except (msgspec.DecodeError, ValueError) as error:
        raise Rejected(f"the body is not valid JSON: {error}", code="invalid_json") from None
    if not isinstance(value, dict):
        raise Rejected("the body must be a JSON object", code="invalid_json")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> None:
    if len(dict.fromkeys(key for key, _ in pairs)) != len(pairs):
        raise ValueError("an object has the same key twice")


@dataclass(frozen=True, slots=True)
class Lenient:
    """Fields of an object that are known and not honoured.

    `neutral`: the values that ask for nothing, beside null. `hints`: ignored whatever they say. The tenant is told
    which hints were ignored, and which of the neutral fields named in `said`. `why` a field's value is refused.
    """

    neutral: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    hints: frozenset[str] = frozenset()
    said: frozenset[str] = frozenset()
    why: Mapping[str, str] = field(default_factory=dict)


def sift(fields: dict[str, Any], lenient: Lenient, path: str = "") -> tuple[dict[str, Any], tuple[str, ...]]:
    """What is to be honoured, and what was ignored. Raises `Unsupported` for a value that asks for something."""
    kept: dict[str, Any] = {}
    ignored: list[str] = []
    for name, value in fields.items():
        if name in lenient.hints or (name in lenient.neutral and _is_neutral(value, lenient.neutral[name])):
            if value is not None and (name in lenient.hints or name in lenient.said):
                ignored.append(name)
        elif name in lenient.neutral:
            param = _join(path, name)
            why = lenient.why.get(name, "this value cannot be honoured by HAIF; leave it out")
            raise Unsupported(f"{param}: {why}", param=param)
        else:
            kept[name] = value
    return kept, tuple(ignored)


def _is_neutral(value: Any, neutral: tuple[Any, ...]) -> bool:
    return value is None or any(value == each and isinstance(value, bool) == isinstance(each, bool) for each in neutral)


_PATH: Final = re.compile(r" - at (`key` in )?`\$\.?(?P<path>[^`]*)`$")
_MISSING: Final = re.compile(r"missing required field `(?P<name>[^`]*)`")
_UNKNOWN: Final = re.compile(r"contains unknown field `(?P<name>[^`]*)`")


def typed(kind: type[T], fields: dict[str, Any]) -> T:
    """The fields as `kind`. Raises `Rejected` or `Unsupported`, naming the parameter by its path."""
    try:
        return msgspec.convert(fields, kind, strict=True)
    except msgspec.ValidationError as error:
        text = str(error)
    where = _PATH.search(text)
    path = where["path"].removesuffix("[...]") if where else ""  # a map's own keys are not named
    text = _PATH.sub("", text)
    if named := _MISSING.search(text):
        param = _join(path, named["name"])
        raise Rejected(f"{param} is missing", code="missing_required_parameter", param=param)
    if named := _UNKNOWN.search(text):
        param = _join(path, named["name"])[: limits.MODEL_NAME_CHARS_MAX]
        raise Unsupported(
            f"{param}: this parameter is unknown or cannot be honoured by HAIF; leave it out", param=param
        )
    code = "invalid_type" if ", got `" in text else "invalid_value"
    raise Rejected(f"{path or 'the body'}: {text}", code=code, param=path or None)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def wrong(param: str, message: str) -> NoReturn:
    """Raise `Rejected`: this parameter's value cannot be."""
    raise Rejected(message, code="invalid_value", param=param)
