"""`haif validator`: computes answers again that it drew by lot, in an engine of its own, and judges their workers."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from haif import config
from haif.base import limits
from haif.base.errors import EngineDied, Misuse
from haif.identity.signing import Verified
from haif.node.ground import open_ground
from haif.node.replay import Bench
from haif.node.settings import peers
from haif.protocol.audits import Ruling, Verdict
from haif.protocol.receipts import CheckedBundle, text_of
from haif.runtime import disk
from haif.validator.service import Validator
from haif.validator.verdict import Answered

CONVICTIONS = "convictions"  # in the validator's folder: a file for each, with the tenant's request


@asynccontextmanager
async def open_validator(settings: config.ValidatorSettings) -> AsyncIterator[dict[str, str]]:
    """The validator while the block is entered, and what to tell whoever started it.

    Raises `Misuse` without an orchestrator to audit, and what keeps an engine from starting on this machine.
    """
    orchestrators = tuple(dict.fromkeys(peers(settings.orchestrators, "orchestrator")))
    if not orchestrators:
        raise Misuse("a validator audits the jobs of orchestrators it knows: give --orchestrator PEER")
    async with open_ground(settings) as ground, Bench(settings) as bench:
        engine = await bench.recipe()  # a machine without a jail says so now, and not in every verdict
        validator = Validator(
            orchestrators=orchestrators, identity=ground.identity, net=ground.net, wire=ground.wire, reach=ground.reach,
            dht=ground.dht, recompute=lambda bundle, fresh: _answer(bench, bundle, fresh=fresh),
            on_convicted=lambda verdict, file, words: _keep(ground.folder / CONVICTIONS, verdict, file, words),
            on_ruled=lambda ruling: _add(ground.folder / CONVICTIONS, ruling),
            telemetry=ground.telemetry, clock=ground.clock,
        )  # fmt: skip
        async with validator, ground.announced("validator"):
            yield ground.ready | {"engine": engine}


async def _answer(bench: Bench, bundle: CheckedBundle, *, fresh: bool) -> Answered:
    if fresh:
        await bench.clear()
    try:
        done = await bench.replay(bundle)
    except EngineDied:
        await bench.clear()  # the next answer is not to wait for its respawn
        raise
    return Answered(done.engine, done.transcript, done.work, done.tokens, done.difference)


def _keep(folder: Path, verdict: Verified[Verdict], file: dict[str, str], words: str) -> None:
    """What lets anybody check the conviction, for its owner to give to whom it may be shown."""
    path = folder / f"{verdict.payload.receipt}.json"
    try:
        disk.write_private(path, json.dumps(file).encode())
        kept = sorted(folder.glob("*.json"), key=lambda each: each.stat().st_mtime)
        for old in kept[: -limits.CONVICTIONS_KEPT_MAX]:
            disk.remove(old)
        then = f"check it with: haif verdict verify {path}"
    except OSError as error:  # the verdict stands without the file
        then = f"what lets others check it could not be kept: {error}"
    print(f"worker {verdict.payload.worker} is convicted: {words}\n  {then}", file=sys.stderr, flush=True)


def _add(folder: Path, ruling: Verified[Ruling]) -> None:
    """Put what the panel found to our own file of the conviction, if we have one."""
    path = folder / f"{ruling.payload.receipt}.json"
    try:
        if path.exists():
            file = json.loads(path.read_text())
            disk.write_private(path, json.dumps(file | {"ruling": text_of(ruling.evidence)}).encode())
    except (OSError, ValueError) as error:
        print(f"haif: the ruling about {path} could not be kept: {error}", file=sys.stderr, flush=True)
