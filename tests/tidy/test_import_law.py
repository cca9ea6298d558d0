"""The import law of docs/architecture.md: rooms are stacked, imports point down, one door to the world per room."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "haif"
FLOORS = (
    {"base"},
    {"runtime", "policy", "config"},
    {"identity", "storage"},
    {"protocol", "wire", "telemetry"},
    {"dht", "relay", "membership", "artifacts", "engine", "proof", "ledger", "privacy"},
    {"reach"},
    {"gateway", "orchestrator", "worker", "validator", "training"},
    {"node"},
    {"testing"},
    {"cli"},
)
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}

# Who may touch the operating system: these rooms, every room's `service`, and the engine child's own door.
OPEN_ROOMS = {"runtime", "node", "config", "cli", "testing"}
IMPURE = {
    "asyncio", "socket", "ssl", "select", "selectors", "os", "time", "random", "secrets", "logging", "sqlite3",
    "aiosqlite", "asyncpg",
    "subprocess", "threading", "multiprocessing", "signal", "pathlib", "shutil", "tempfile", "trio",
    "uvicorn", "httpx", "requests", "http", "urllib",
}  # fmt: skip
SANDBOX = {f"engine/sandbox/{path.name}" for path in PACKAGE.glob("engine/sandbox/*.py")}
LLAMA = {f"engine/llama/{path.name}" for path in PACKAGE.glob("engine/llama/*.py")}
CHILD = {"engine/child.py"} | LLAMA | SANDBOX
LEANS_ON_TESTING = {"cli/attack.py", "cli/sim.py"}
CHILD_DOORS = CHILD - LLAMA - {"engine/sandbox/layers.py"}


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if "data" not in path.relative_to(PACKAGE).parts)


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else None


def imports(tree: ast.AST) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, 0
        elif isinstance(node, ast.ImportFrom):
            yield node.module or "", node.level
            for alias in node.names:
                yield f"{node.module}.{alias.name}", node.level


def is_door(path: Path) -> bool:
    relative = path.relative_to(PACKAGE)
    return (
        relative.parts[0].removesuffix(".py") in OPEN_ROOMS
        or relative.name == "service.py"
        or "service" in relative.parts[1:-1]
        or relative.as_posix() in CHILD_DOORS
    )


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_a_room_imports_only_lower_floors_and_itself(path: Path) -> None:
    room = room_of(name_of(path))
    if room is None:
        return
    for target, level in imports(parse(path)):
        assert level == 0, f"{path}: relative import; write the whole name"
        if not target.startswith("haif."):
            continue
        other = room_of(target)
        assert other in FLOOR_OF, f"{path}: {target} belongs to no room of the map"
        if other == room:
            continue
        assert FLOOR_OF[other] < FLOOR_OF[room], f"{name_of(path)} may not import {target}: it is not on a lower floor"
        if other == "testing":
            assert path.relative_to(PACKAGE).as_posix() in LEANS_ON_TESTING, f"{path}: it may not lean on testing"


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_only_a_door_touches_the_world(path: Path) -> None:
    if room_of(name_of(path)) is None or is_door(path):
        return
    tree = parse(path)
    for target, _ in imports(tree):
        assert target.split(".")[0] not in IMPURE, f"{name_of(path)} imports {target}; only a service may"
    for node in ast.walk(tree):
        assert not isinstance(node, ast.AsyncFunctionDef | ast.AsyncWith | ast.AsyncFor | ast.Await), (
            f"{name_of(path)} line {getattr(node, 'lineno', '?')}: async belongs in a service"
        )
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id != "open", f"{name_of(path)} line {node.lineno}: only a service opens files"


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_llama_cpp_is_imported_in_one_place(path: Path) -> None:
    if path.relative_to(PACKAGE).as_posix() not in LLAMA:
        assert not any(target.split(".")[0] == "llama_cpp" for target, _ in imports(parse(path)))


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("node/*.py")), ids=name_of)
def test_a_role_imports_only_what_it_needs(path: Path) -> None:
    roles = FLOORS[FLOOR_OF["node"] - 1] | {"engine"}
    own = {"worker", "engine"} if path.stem in ("worker", "replay") else {path.stem}  # what a worker did, done again
    at_once = [child for child in parse(path).body if isinstance(child, ast.Import | ast.ImportFrom)]
    for target, _ in (found for child in at_once for found in imports(child)):
        room = target.removeprefix("haif.").removeprefix("node.").split(".")[0]
        assert room not in roles - own, f"{name_of(path)} imports {target}; only the role's own file may, at its top"


def reachable(start: set[str]) -> set[str]:
    known = {name_of(path): path for path in modules()}
    seen: set[str] = set()
    todo = [name for name in start if name in known]
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        todo += [target for target, _ in imports(parse(known[name])) if target in known]
        todo += [".".join(name.split(".")[:n]) for n in range(1, name.count(".") + 1)]
    return seen


def test_the_engine_child_can_hold_neither_key_nor_socket() -> None:
    names = {f"haif.{path.removesuffix('.py').replace('/', '.')}" for path in CHILD}
    for name in reachable(names):
        assert name.split(".")[1:2] in ([], ["base"], ["engine"]), f"the engine child reaches {name}"
        assert not name.startswith("haif.engine.service"), "the engine child reaches its parent's code"


def test_no_cycles_not_even_inside_a_room() -> None:
    known = {name_of(path) for path in modules()}
    graph = {
        name_of(path): {t for t, _ in imports(parse(path)) if t in known and t != name_of(path)} for path in modules()
    }
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, f"import cycle: {' -> '.join([*trail[trail.index(name) :], name])}"
        if name in done:
            return
        for target in graph[name]:
            visit(target, (*trail, name))
        done.add(name)

    for name in graph:
        visit(name, ())
