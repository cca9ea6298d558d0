"""Secret keys stay in their keyring: who may touch what, read from the syntax trees."""

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "haif"
KEYRING = "identity/service/keyring.py"
VRF = "identity/vrf.py"  # a lot that takes the secret to draw
OWNER = "identity/service/owner.py"  # the only one that knows under which name a root key is kept
COMMANDS = {"cli/network.py", "cli/household.py", "cli/doctor.py"}  # what people type; no role is among them


def trees() -> Iterator[tuple[str, ast.Module]]:
    for path in PACKAGE.rglob("*.py"):
        yield path.relative_to(PACKAGE).as_posix(), ast.parse(path.read_text())


def test_only_the_keyring_and_the_vrf_ask_an_identity_for_its_seed() -> None:
    asking = {
        name
        for name, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "seed"
    }
    assert asking == {KEYRING, VRF}


def test_only_an_owner_at_work_and_what_people_type_come_near_a_root_key() -> None:
    naming, using = set(), set()
    for name, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value == "network-":
                naming.add(name)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Owner":
                using.add(name)
    assert naming == {OWNER}
    assert using == COMMANDS
