"""docs/protocol.md is printed from the code, and roles speak only what is declared."""

import re
from pathlib import Path

from haif.protocol import methods

ROOT = Path(__file__).parents[2]
PRINT = "python -c 'from haif.protocol import methods; print(methods.reference(), end=\"\")' > docs/protocol.md"


def test_the_protocol_reference_is_what_the_code_says() -> None:
    assert methods.reference() == (ROOT / "docs" / "protocol.md").read_text(), f"print it again: {PRINT}"


def test_each_method_and_each_live_type_is_declared_once() -> None:
    names = [method.name for method in methods.ALL]
    lives = [method.live for method in methods.ALL if method.live is not None]
    assert len(names) == len(set(names))
    assert len(lives) == len(set(lives))


def test_roles_serve_and_call_methods_only_by_their_declaration() -> None:
    for path in (ROOT / "haif").rglob("*.py"):
        if not {"protocol", "wire", "telemetry"} & set(path.parts):
            named = re.search(r"(?<!names\.)\b\w*METHOD\b", path.read_text())
            assert not named, f"{path}: name the method by its declaration"
