"""A worker's engine made to load and run one hostile file after the other, and what is left of the worker."""

import asyncio
import gc
import io
import os
import random
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from haif.artifacts.adapter import check_adapter
from haif.artifacts.gguf import Header, read_header
from haif.artifacts.shape import shape_of
from haif.base.errors import EngineDied, HaifError, Malformed
from haif.base.ids import Digest
from haif.engine.service import AdapterFile, Engine, EngineSettings
from haif.runtime.clock import SystemClock
from tests.support.engines import digest_of, read, request
from tests.support.tiny_model import build_tiny_model
from tools.random_adapter import FORMATS, random_adapter

SEED = 4
SMALL = {"layers": 1, "width": 64, "heads": 2, "feed_forward": 64}


@dataclass
class Outcome:
    """What became of the files, by kind and end, and the causes of deaths in words."""

    ends: Counter[tuple[str, str]] = field(default_factory=Counter)
    causes: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    unexplained: list[str] = field(default_factory=list)

    def count(self, end: str) -> int:
        """How many files ended so."""
        return sum(count for (_, found), count in self.ends.items() if found == end)


def whole_models(folder: Path) -> list[bytes]:
    """What the mutants are made of: small random models of four quantisations, and the demo model."""
    small = [build_tiny_model(folder / f"{kind}.gguf", quantisation=kind, **SMALL) for kind in ("F32", "Q8_0", "Q4_0")]
    small.append(build_tiny_model(folder / "F16.gguf", quantisation="F16", seed=2, **SMALL))
    (demo,) = (Path(__file__).parents[2] / "haif" / "data" / "demo").glob("*.gguf")
    return [path.read_bytes() for path in (*small, demo)]


def whole_adapters(model: Path, folder: Path) -> list[bytes]:
    """What mutants of adapters are made of: small random ones for that model, in all formats."""
    return [random_adapter(model, folder / f"{kind}.gguf", rank=32, kind=kind).read_bytes() for kind in FORMATS]


async def undergo(
    mutants: Iterable[tuple[str, bytes]], folder: Path, *, jobs: int = 2, base: Path | None = None
) -> Outcome:
    """Let `jobs` at a time go through our reader and, if it passes them, be loaded and run in a jailed child.

    With `base` they are adapters for that model.
    """
    outcome, waiting = Outcome(), iter(enumerate(mutants))

    async def work() -> None:
        for number, (kind, data) in waiting:
            outcome.ends[kind, await _one(outcome, data, folder / f"mutant-{number}.gguf", base)] += 1

    await asyncio.gather(*(work() for _ in range(jobs)))
    return outcome


def _check(header: Header, base: Path | None) -> None:
    if base is None:
        shape_of(header)
        return
    with base.open("rb") as file:
        check_adapter(header, read_header(file, base.stat().st_size))


async def _one(outcome: Outcome, data: bytes, path: Path, base: Path | None) -> str:
    """How one file ended: refused by us, refused by the child, died, or answered."""
    try:
        _check(read_header(io.BytesIO(data), len(data)), base)
    except Malformed as refusal:
        outcome.refusals[_kind_of(refusal.message)] += 1
        return "refused by us"
    deaths: list[str] = []
    settings = _written(data, path, base)
    adapter = settings.adapters[0].digest if base else None
    try:
        async with Engine(settings, clock=SystemClock(), entropy=random.randbytes, on_died=deaths.append) as engine:
            for asked in (
                request("once upon", tokens_max=4, adapter=adapter),
                request(chat=[("user", "hi")], tokens_max=4, adapter=adapter),
            ):
                try:
                    await read(engine, asked)
                except EngineDied as death:
                    deaths.append(death.message)
                    break
                except HaifError as refusal:
                    outcome.refusals[_kind_of(refusal.message)] += 1
    except EngineDied as death:
        deaths.append(death.message)
    except HaifError as refusal:
        outcome.refusals[_kind_of(refusal.message)] += 1
        return "refused by the child"
    finally:
        os.unlink(path)  # noqa: PTH108 - nothing is awaited here
    for cause in deaths[:1]:
        outcome.causes[_kind_of(cause)] += 1
        if "killed by" not in cause and "status" not in cause and "was killed" not in cause:
            outcome.unexplained.append(cause)
    return "died" if deaths else "answered"


def _written(data: bytes, path: Path, base: Path | None) -> EngineSettings:
    path.write_bytes(data)
    adapters = (AdapterFile(path, Digest(digest_of(path))),) if base else ()
    model = base or path
    return EngineSettings(model, digest_of(model), slots=2, context_tokens=64, threads=1, adapters=adapters)


def _kind_of(message: str) -> str:
    """A message without the numbers and folders that make each its own."""
    words = re.sub(r"/\S*/", "", message)  # where llama.cpp was built
    words = "".join("#" if letter.isdigit() else letter for letter in words)
    while "##" in words:
        words = words.replace("##", "#")
    return words[:160]


@dataclass(frozen=True)
class Belongings:
    """What this process has: open files, children, resident bytes."""

    files: int
    children: int
    resident: int


def belongings() -> Belongings:
    """Of this process, now."""
    gc.collect()
    me = os.getpid()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    children = Path(f"/proc/{me}/task/{me}/children").read_text().split()
    return Belongings(len(os.listdir("/proc/self/fd")), len(children), pages * os.sysconf("SC_PAGESIZE"))  # noqa: PTH208
