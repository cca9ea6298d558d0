"""Every limit has a name with a unit and a reason, and docs/limits.md shows all of them."""

import re
from pathlib import Path

from haif.base import limits
from tools.limits import SOURCE, reference

ROOT = Path(__file__).parents[2]


def test_the_page_is_printed_from_the_code() -> None:
    assert reference() == (ROOT / "docs" / "limits.md").read_text(), "python -m tools.limits > docs/limits.md"


def test_every_limit_is_shown() -> None:
    names = {name for name in vars(limits) if name.isupper()}
    assert {name for name in names if f"`{name}`" not in reference()} == set()


def test_limits_are_final() -> None:
    lines = [line for line in SOURCE.read_text().splitlines() if re.match(r"[A-Z0-9_]{2,}\b", line)]
    assert [line for line in lines if ": Final = " not in line] == []
