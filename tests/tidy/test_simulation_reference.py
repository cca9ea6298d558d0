"""docs/simulation.md lists exactly the scenarios there are, with their goals."""

from pathlib import Path

from haif.testing.scenarios import SCENARIOS

DOCUMENT = Path(__file__).parents[2] / "docs" / "simulation.md"


def rows() -> list[str]:
    return [
        f"| `{each.name}` | {each.nodes} | {each.about} | {each.found_min:.1%} | {each.recall_min:.0%} |"
        for each in SCENARIOS.values()
    ]


def test_the_table_of_scenarios_is_the_code_s() -> None:
    listed = [line for line in DOCUMENT.read_text().splitlines() if line.startswith("| `")]
    assert listed == rows()
