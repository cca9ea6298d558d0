"""Compute an answer again, from its request and its receipt, in an engine of this machine's own."""

from __future__ import annotations

import os
from dataclasses import dataclass

from msgspec import structs

from haif import config
from haif.base import codec
from haif.base.errors import BadProof, Misuse, Unsupported
from haif.engine.request import Finished, Piece
from haif.engine.service import Engine, EngineSettings
from haif.node.settings import model_store
from haif.node.worker import adapter_files
from haif.proof.transcript import root, windows
from haif.protocol.inference import Request
from haif.protocol.receipts import CheckedBundle
from haif.runtime.clock import SystemClock, entropy
from haif.worker.service import generate
from haif.worker.ticket import Ticket


@dataclass(frozen=True, slots=True)
class Replayed:
    """What this machine computed: how many tokens, in how many windows, by which engine."""

    tokens: int
    windows: int
    engine: str


async def replay(settings: config.WorkerSettings, checked: CheckedBundle) -> Replayed:
    """Return if this machine gives the receipt's answer from the very logits that the receipt commits to.

    A resumed answer is checked from the token on that the worker vouches for. Raises `Misuse` where the file lacks what
    it takes, `Unsupported` where bits cannot be compared, `UnknownModel` where the model is not in the store, and
    `BadProof` where the worker did not compute what it signed.
    """
    said = checked.receipt.payload
    if checked.request is None:
        raise Misuse('this file has no transcript: ask for one with the request, "haif": {"transcript": true}')
    if said.transcript is None:
        raise Unsupported(f"the worker's engine does not claim to be exact, so its bits say nothing: {said.engine}")
    store = model_store(settings)
    model = store.find(str(said.model))
    base = store.base_of(model)
    chosen = EngineSettings(
        model=base.path, digest=base.digest, adapters=adapter_files([model]),
        slots=1, context_tokens=settings.context_tokens,
        threads=settings.threads or max(1, (os.cpu_count() or 2) // 2), profile=settings.profile,
        sandbox_min=settings.sandbox_min, insecure_no_sandbox=settings.insecure_no_sandbox,
    )  # fmt: skip
    ticket = Ticket(checked.reservation, codec.decode(Request, checked.request), list(checked.tokens[: said.resumed]))
    asked = structs.replace(generate(ticket, model.adapted), draft=list(checked.tokens[said.resumed :]))
    async with Engine(chosen, clock=SystemClock(), entropy=entropy, on_died=lambda _: None) as engine:
        if engine.model.engine != said.engine:
            raise Unsupported(
                "this machine computes by another recipe, so its bits cannot be compared.\n"
                f"  the worker  {said.engine}\n  here        {engine.model.engine}"
            )
        tokens: list[int] = []
        async with engine.generate(asked) as events:
            async for event in events:
                if isinstance(event, Piece):
                    tokens += event.tokens
                else:
                    _compare(checked, tokens, event)
                    return Replayed(len(tokens) - said.resumed, len(event.rows), said.engine)
    raise AssertionError("an engine's answer ends with Finished")


def _compare(checked: CheckedBundle, tokens: list[int], done: Finished) -> None:
    said, worker = checked.receipt.payload, checked.receipt.signer
    for place, (theirs, ours) in enumerate(zip(checked.tokens, tokens, strict=False)):
        if theirs != ours:
            raise BadProof(f"token {place} of the answer is {theirs}, and the model gives {ours}", worker)
    if (len(tokens), done.finish_reason) != (len(checked.tokens), said.finish_reason):
        raise BadProof(
            f"the answer ends after {len(checked.tokens)} tokens ({said.finish_reason}), and the model's after "
            f"{len(tokens)} ({done.finish_reason})", worker,
        )  # fmt: skip
    if said.transcript != root(windows(said.resumed, tokens[said.resumed :], done.rows)):
        raise BadProof("the tokens are the model's, and the logits that the worker signed for are not", worker)
