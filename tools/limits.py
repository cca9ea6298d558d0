"""Prints docs/limits.md from haif/base/limits.py: `python -m tools.limits > docs/limits.md`."""

from __future__ import annotations

import re
from pathlib import Path

from haif.base import limits

SOURCE = Path(__file__).parents[1] / "haif" / "base" / "limits.py"
_SECTION = re.compile(r"# --- (.+?) -+$")
_LIMIT = re.compile(r"(?P<name>[A-Z0-9_]+): Final = [^#]+(?:# (?P<reason>.+))?$")


def reference() -> str:
    """The text of docs/limits.md: every bound with its value and its reason."""
    lines = [
        "# Limits",
        "",
        "Every bound in HAIF, printed from `haif/base/limits.py`; a test keeps the two equal. The unit ends the name.",
    ]
    for line in SOURCE.read_text().splitlines():
        if section := _SECTION.match(line):
            lines += ["", f"## {section[1]}", "", "| limit | value | why |", "|---|---:|---|"]
        elif limit := _LIMIT.match(line):
            value = getattr(limits, limit["name"])
            shown = f"{value:,}" if isinstance(value, int) else str(value)
            lines.append(f"| `{limit['name']}` | {shown} | {limit['reason'] or ''} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(reference(), end="")
