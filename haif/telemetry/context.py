"""The thread that ties spans of different processes together: the W3C `traceparent` header.

    traceparent = "00-" trace-id (32 hex) "-" parent-id (16 hex) "-" flags (2 hex)

W3C Trace Context, level 2, section 3.2. A header that is not of this form is treated as absent, and a new trace begins:
that is what the recommendation asks, and a stranger's header must not be able to refuse a request.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_FORM: Final = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Parent:
    """The span, perhaps of another process, that a new span belongs under. Ids in hex."""

    trace: str
    span: str


def parse_traceparent(text: str | None) -> Parent | None:
    """The parent that a header names, or None where it names none."""
    found = _FORM.fullmatch(text or "")
    return Parent(found[1], found[2]) if found else None


def write_traceparent(trace: str, span: str) -> str:
    """The header for a span, ids in hex. It always says "sampled": what is refused or slow is what one wants to see."""
    return f"00-{trace}-{span}-01"
