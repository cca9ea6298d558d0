"""docs/threats.md names every threat once, and every test it names exists."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "threats.md").read_text()
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in TEXT.splitlines()
    if re.match(r"\| [HPNXRDW]-", line)
]
IDS = (
    [f"H-S{n}" for n in (1, 2, 3)] + [f"H-T{n}" for n in (1, 2, 3)] + [f"H-R{n}" for n in (1, 2, 3)]
    + ["H-I1", "H-I2"] + [f"H-D{n}" for n in (1, 2, 3)] + [f"H-E{n}" for n in (1, 2, 3)]
    + [f"P-{n}" for n in range(1, 10)] + [f"N-{n}" for n in range(1, 13)] + [f"X-{n}" for n in range(1, 10)]
    + [f"R-{n}" for n in range(1, 12)] + [f"D-{n}" for n in range(1, 6)] + ["W-1", "W-2"]
)  # fmt: skip


def test_every_threat_has_one_row() -> None:
    assert IDS == [row[0] for row in ROWS]


def test_every_row_names_a_room_and_a_test_or_says_open() -> None:
    for identifier, _, room, test in ROWS:
        assert room, identifier
        assert "::" in test or "*open*" in test, identifier


def test_every_named_test_exists() -> None:
    for path, name in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", TEXT):
        tree = ast.parse((ROOT / path).read_text())
        names = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
        assert name in names, f"{path} has no {name}"
