"""Pieces of a request that several dialects have: content, tools, schemas, stop strings."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import msgspec

from haif.base import limits
from haif.base.errors import Unsupported
from haif.gateway.errors import Rejected
from haif.gateway.fields import LENIENT_IN_STREAM
from haif.gateway.strict import sift, wrong


def only_kinds(parts: Any, kinds: Collection[str], path: str) -> None:
    """Return unless a part of this content is of another kind. Raises `Rejected`, naming the part's type."""
    for index, part in enumerate(parts if isinstance(parts, list) else ()):
        if isinstance(part, dict) and isinstance(part.get("type"), str) and part["type"] not in kinds:
            raise Rejected(
                f"content of type {part['type'][:40]!r} is not supported here, only {', '.join(kinds)}",
                code="unsupported_content", param=f"{path}[{index}].type",
            )  # fmt: skip


def only_functions(tool: Any, path: str, kind: str = "function") -> None:
    """Return unless a tool, or the choice of one, is known to be of another kind. Raises `Unsupported`."""
    if isinstance(tool, dict) and isinstance(tool.get("type"), str) and tool["type"] != kind:
        raise Unsupported(f"what is of type {tool['type'][:40]!r} cannot be honoured here", param=f"{path}.type")


def plain_stream(fields: dict[str, Any]) -> None:
    """Drop the wish that a stream's events are not padded, which they never are. Raises `Unsupported` for the other."""
    if isinstance(fields.get("stream_options"), dict):
        fields["stream_options"], _ = sift(fields["stream_options"], LENIENT_IN_STREAM, "stream_options")


def schema_text(schema: dict[str, Any], param: str) -> str:
    """A JSON schema as workers get it. Raises `Rejected`."""
    encoded = msgspec.json.encode(schema)
    if len(encoded) > limits.JSON_SCHEMA_BYTES_MAX:
        wrong(param, f"a JSON schema has at most {limits.JSON_SCHEMA_BYTES_MAX} bytes")
    return encoded.decode()


def stop_strings(strings: Sequence[str], param: str) -> list[str]:
    """Strings that end an answer. Raises `Rejected`."""
    if any(len(string.encode()) > limits.STOP_STRING_BYTES_MAX for string in strings):
        wrong(param, f"a stop string has at most {limits.STOP_STRING_BYTES_MAX} bytes")
    return list(strings)
