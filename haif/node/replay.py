"""Compute an answer again, from its request and its receipt, in an engine of this machine's own."""

from __future__ import annotations

import os
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import takewhile
from types import TracebackType
from typing import Self

from msgspec import structs

from haif import config
from haif.artifacts.service import DEMO_NAME, StoredModel
from haif.base import codec
from haif.base.adapters import Adapted
from haif.base.errors import BadProof, Misuse, Unsupported
from haif.base.ids import Digest, ModelDigest
from haif.engine.request import Finished, Generate, Piece
from haif.engine.service import Engine, EngineSettings
from haif.node.settings import model_store
from haif.node.worker import adapter_files
from haif.proof.compare import Computed, Difference, difference
from haif.protocol.inference import Chunk, OutputHash, Request
from haif.protocol.receipts import CheckedBundle
from haif.runtime.clock import SystemClock, entropy
from haif.worker.service import generate
from haif.worker.ticket import Ticket

Settings = config.WorkerSettings | config.ValidatorSettings


@dataclass(frozen=True, slots=True)
class Replayed:
    """What this machine computed: how many tokens, in how many windows, by which engine, to which root.

    And what differs, if anything does.
    """

    tokens: int
    windows: int
    engine: str
    transcript: Digest
    work: Digest
    difference: Difference | None


class Bench:
    """An engine for computing answers again. Inside `async with` the model used last stays in memory."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._store = model_store(settings)
        self._engine: Engine | None = None
        self._loaded: ModelDigest | None = None
        self._scope = AsyncExitStack()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.clear()

    async def clear(self) -> None:
        """End the engine: the next answer gets one that was never used."""
        self._engine = self._loaded = None
        await self._scope.aclose()

    async def recipe(self) -> str:
        """How this machine computes the demo model, once an engine for it has started. Raises what keeps it from that.

        Where a worker computes it otherwise, its answers cannot be compared here.
        """
        return (await self._opened(self._store.find(DEMO_NAME))).model.engine

    async def replay(self, checked: CheckedBundle) -> Replayed:
        """What this machine gives where the receipt claims an answer, as far as the worker vouches for it.

        Raises `Misuse` where the request is lacking, `Unsupported` where bits cannot be compared, `UnknownModel` where
        the model is not in the store, and what an engine raises that cannot answer.
        """
        said = checked.receipt.payload
        if checked.request is None:
            raise Misuse('this file has no transcript: ask for one with the request, "haif": {"transcript": true}')
        if said.transcript is None:
            raise Unsupported(f"the worker's engine does not claim to be exact, so its bits say nothing: {said.engine}")
        model = self._store.find(str(said.model))
        engine = await self._opened(model)
        if engine.model.engine != said.engine:
            raise Unsupported(
                "this machine computes by another recipe, so its bits cannot be compared.\n"
                f"  the worker  {said.engine}\n  here        {engine.model.engine}"
            )
        request = codec.decode(Request, checked.request)
        ours = await _compute(engine, _asked(checked, request, model.adapted, engine.model.vocabulary))
        found = difference(said, request, checked.tokens, ours)
        return Replayed(
            len(ours.tokens) - said.resumed,
            len(ours.rows),
            said.engine,
            ours.transcript(said.resumed),
            ours.work(),
            found,
        )

    async def _opened(self, model: StoredModel) -> Engine:
        if self._engine is not None and self._loaded == model.digest:
            return self._engine
        await self.clear()
        settings, base = self._settings, self._store.base_of(model)
        chosen = EngineSettings(
            model=base.path, digest=base.digest, adapters=adapter_files([model]),
            slots=1, context_tokens=settings.context_tokens,
            threads=settings.threads or max(1, (os.cpu_count() or 2) // 2), profile=settings.profile,
            sandbox_min=settings.sandbox_min, insecure_no_sandbox=settings.insecure_no_sandbox,
        )  # fmt: skip
        engine = Engine(chosen, clock=SystemClock(), entropy=entropy, on_died=lambda _: None)
        self._engine = await self._scope.enter_async_context(engine)
        self._loaded = model.digest
        return engine


async def replay(settings: Settings, checked: CheckedBundle) -> Replayed:
    """Return if this machine gives the receipt's answer from the very logits that the receipt commits to.

    Raises as `Bench.replay` does, and `BadProof` where the worker did not compute what it signed.
    """
    async with Bench(settings) as bench:
        done = await bench.replay(checked)
    if done.difference is not None:
        raise BadProof(done.difference.words, checked.receipt.signer)
    return done


def _asked(checked: CheckedBundle, request: Request, adapted: Adapted | None, vocabulary: int) -> Generate:
    """The claimed answer as a draft, and no token more: a context of another length than the worker's ends nothing.

    From a token on that no vocabulary has, the engine says by itself what it would be.
    """
    resumed, claimed = checked.receipt.payload.resumed, list(checked.tokens)
    draft = list(takewhile(lambda token: token < vocabulary, claimed[resumed:]))
    ticket = Ticket(checked.reservation, request, claimed[:resumed])
    return structs.replace(generate(ticket, adapted), draft=draft, tokens_max=max(1, len(claimed)), fit=False)


async def _compute(engine: Engine, asked: Generate) -> Computed:
    output = OutputHash()
    async with engine.generate(asked) as events:
        async for event in events:
            if isinstance(event, Piece):
                output.add(Chunk(event.first, event.tokens, event.text, [], event.asides))
            else:
                return _computed(output, event)
    raise AssertionError("an engine's answer ends with Finished")


def _computed(output: OutputHash, done: Finished) -> Computed:
    return Computed(output.ids(), done.finish_reason, done.prompt_tokens, output.text_digest(), done.rows)
