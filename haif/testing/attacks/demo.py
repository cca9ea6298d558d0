"""Honest and lying workers side by side, and how each liar is caught: asked, audited, convicted, out."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from haif import config
from haif.artifacts.service import DEMO_NAME
from haif.base.errors import Timeout
from haif.node.replay import Bench
from haif.protocol import audits
from haif.protocol.receipts import check_bundle
from haif.testing.attacks.mesh import LIES, LyingMesh, lying_mesh

HONEST: Final = "honest"
AFTERWARDS: Final = 4  # answers that are asked for when all liars are out
_ASKED_MAX: Final = 60  # answers until then
_WAIT_SECONDS: Final = 60.0  # for a worker to be known, or a verdict
_POLL_SECONDS: Final = 0.1

Say = Callable[[str], None]
T = TypeVar("T")


async def show(folder: Path, say: Say) -> bool:
    """Start the mesh, ask it until each liar is convicted, then some more; whether all was as it should be.

    Raises `Timeout` where the mesh does not get on.
    """
    async with lying_mesh(folder) as mesh:
        await mesh.honest(HONEST)
        for name, lie in LIES.items():
            await mesh.liar(name, lie)
        await _until(partial(_all_live, mesh))
        say(f"On loopback: orchestrator, gateway, validator, and {1 + len(LIES)} workers that offer {DEMO_NAME}:")
        for name in (HONEST, *LIES):
            does = LIES[name].words if name in LIES else "does what it offers"
            say(f"  {name:<12} {mesh.ready[name]['peer'][:16]}…  {does}")
        caught = await _caught(mesh, say)
        say(f"\n{len(caught)} of {len(LIES)} liars are out. {AFTERWARDS} more answers:")
        after = [await _judged(mesh, _ASKED_MAX + number, say) for number in range(AFTERWARDS)]
    say("\nThe convictions, computed once more here, without believing the validator:")
    held = [await _holds(mesh, file, say) for file in _convictions(folder)]
    return caught == set(LIES) and set(after) == {(HONEST, audits.HONEST)} and len(held) == len(LIES) and all(held)


async def _caught(mesh: LyingMesh, say: Say) -> set[str]:
    """The workers that were convicted until all liars were, or too much was asked."""
    answers: Counter[str] = Counter()
    caught: set[str] = set()
    for number in range(_ASKED_MAX):
        if caught >= set(LIES):
            break
        name, finding = await _judged(mesh, number, say)
        answers[name] += 1
        if finding == audits.CONVICTED:
            caught.add(name)
            say(f"    {name} is out of placement, after {answers[name]} of its answers")
    return caught


async def _judged(mesh: LyingMesh, number: int, say: Say) -> tuple[str, str]:
    """Who answered a question, and what the validator finds of it."""
    name, job = await _ask(mesh, number, say)
    found = await _until(partial(_verdict, mesh, job))
    say(f"    the validator drew it, computed it again and says: {found['finding']} {found['cause']}".rstrip())
    return name, found["finding"]


async def _ask(mesh: LyingMesh, number: int, say: Say) -> tuple[str, str]:
    """Who answered, and the job. The answer's receipt must hold, as every liar's does."""
    body = {"model": DEMO_NAME, "prompt": f"On day {number} the river", "max_tokens": 24, "temperature": 1}
    answer = await _http(mesh, "/v1/completions", body)
    checked = check_bundle(answer["haif"], answer["choices"][0]["text"])
    name = mesh.name_of(str(checked.receipt.signer))
    say("\n> " + " ".join(f"{body['prompt']}{answer['choices'][0]['text']}".split()))
    say(f"    answered by {name}; all signatures hold, and the receipt is for this text")
    return name, str(checked.receipt.payload.job)


async def _verdict(mesh: LyingMesh, job: str) -> dict[str, str]:
    """What a validator says of the job; nothing while it has not judged."""
    told: list[dict[str, str]] = (await _http(mesh, f"/haif/v1/jobs/{job}"))["verdicts"]
    return told[0] if told else {}


async def _all_live(mesh: LyingMesh) -> bool:
    cards = (await _http(mesh, "/v1/models"))["data"]
    alive: int = sum(card["haif"]["workers"] for card in cards)
    return alive == 1 + len(LIES)


async def _until(asked: Callable[[], Awaitable[T]]) -> T:
    """The first answer that is something. Raises `Timeout` when none comes."""
    try:
        async with asyncio.timeout(_WAIT_SECONDS):
            while not (found := await asked()):  # noqa: ASYNC110 -- what is asked over HTTP tells nobody
                await asyncio.sleep(_POLL_SECONDS)
            return found
    except TimeoutError:
        raise Timeout(f"the mesh did not come to it within {_WAIT_SECONDS:.0f} s: too much else runs here") from None


def _convictions(folder: Path) -> list[dict[str, object]]:
    return [json.loads(path.read_bytes()) for path in sorted(folder.glob("validator/convictions/*.json"))]


async def _holds(mesh: LyingMesh, file: dict[str, object], say: Say) -> bool:
    """Whether the file of a conviction is true, as `haif verdict verify --replay` finds out."""
    checked, verdict = audits.check_conviction(file)
    settings = config.WorkerSettings(state=mesh.state, threads=1, insecure_no_sandbox=True)
    async with Bench(settings) as bench:
        found = (await bench.replay(checked)).difference
    holds = found is not None and (found.cause.value, found.place) == (verdict.payload.cause, verdict.payload.place)
    words = "nothing differs here" if found is None else found.words
    say(f"  {mesh.name_of(str(verdict.payload.worker)):<12} {'holds' if holds else 'does not hold'}: {words}")
    return holds


async def _http(mesh: LyingMesh, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    headers = {"authorization": f"Bearer {mesh.key}", "content-type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(mesh.gateway + path, data, headers)  # noqa: S310 -- our own gateway

    def read() -> dict[str, Any]:
        with urllib.request.urlopen(request, timeout=_WAIT_SECONDS) as answer:  # noqa: S310
            told: dict[str, Any] = json.loads(answer.read())
            return told

    return await asyncio.to_thread(read)
