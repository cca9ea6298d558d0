"""Pools of real engines on tiny models, and a look at where their models stand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from haif.artifacts.gguf import read_header
from haif.base.adapters import Adapted
from haif.base.ids import Digest
from haif.engine.service import CHILD_PROGRAM, AdapterFile, Engine, EngineSettings
from haif.runtime.clock import SystemClock, entropy
from haif.worker.memory import needs
from haif.worker.service import Pool, Served, Variant
from haif.worker.standing import Standing, State
from tests.support.engines import digest_of

CLOCK = SystemClock()


def served(
    model: Path, *, slots=4, context_tokens=512, pinned=False, program=CHILD_PROGRAM, digest=None, adapters=()
) -> Served:
    """A model and adapters for it, each under its file's name; its needs told from its header."""
    files = tuple(AdapterFile(path, Digest(digest_of(path))) for path in adapters)
    chosen = EngineSettings(
        model, digest or digest_of(model), slots=slots, context_tokens=context_tokens, threads=1, adapters=files
    )
    size = model.stat().st_size
    with model.open("rb") as file:
        needed = needs(
            read_header(file, size).metadata,
            size,
            slots=slots,
            context_tokens=context_tokens,
        )

    def opened(**told: Any) -> Engine:
        return Engine(chosen, clock=CLOCK, entropy=entropy, program=program, **told)

    return Served(
        model=chosen.digest, name=model.stem, slots=slots, needs=needed, open=opened, pinned=pinned,
        variants=tuple(
            Variant(name=file.path.stem, adapted=Adapted(chosen.digest, file.digest), size=file.path.stat().st_size)
            for file in files
        ),
    )  # fmt: skip


def pool_of(*models: Path | Served, memory_bytes: int = 1 << 40, **told: Any) -> Pool:
    chosen = [each if isinstance(each, Served) else served(each) for each in models]
    return Pool(chosen, memory_bytes=memory_bytes, clock=CLOCK, **told)


def standing(pool: Pool, model: Path | Served | str) -> Standing:
    name = model if isinstance(model, str) else model.name if isinstance(model, Served) else model.stem
    return next(each for each in pool.standings() if each.name == name)


def states(pool: Pool) -> dict[str, State]:
    return {each.name: each.state for each in pool.standings()}


async def until(pool: Pool, condition: Callable[[], bool]) -> None:
    """Wait for what the pool's changes bring about."""
    changed, before = asyncio.Event(), pool.on_change

    def told() -> None:
        before()
        changed.set()

    pool.on_change = told
    try:
        async with asyncio.timeout(60):
            while not condition():
                changed.clear()
                await changed.wait()
    finally:
        pool.on_change = before
