"""Each guard has a name, and each name a test: every `Reason` is named in at least one test."""

from pathlib import Path

import pytest

from haif.base.errors import BY_REASON, Reason

TESTS = Path(__file__).parents[1]
TEXT = "\n".join(path.read_text() for path in TESTS.rglob("test_*.py") if path.parent.name != "tidy")


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_is_named_in_a_test(reason: Reason) -> None:
    assert f"Reason.{reason.name}" in TEXT or f"{BY_REASON[reason].__name__}" in TEXT.split() or f'"{reason}"' in TEXT
