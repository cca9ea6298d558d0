"""docs/metrics.md is printed from the code."""

from pathlib import Path

from haif.telemetry import names

PRINT = "python -c 'from haif.telemetry import names; print(names.reference(), end=\"\")' > docs/metrics.md"


def test_the_metrics_reference_is_what_the_code_says() -> None:
    page = Path(__file__).parents[2] / "docs" / "metrics.md"
    assert names.reference() == page.read_text(), f"print it again: {PRINT}"
