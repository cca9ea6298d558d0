"""`haif worker`: serves this machine's model to the orchestrators it honours, through an engine of its own."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from haif import config
from haif.artifacts.service import StoredModel, check_header
from haif.base.errors import Misuse
from haif.engine.profile import Offload
from haif.engine.request import ModelInfo
from haif.engine.service import Engine, EngineSettings
from haif.node.ground import open_ground
from haif.node.settings import model_store, peers
from haif.node.watch import watch_engine
from haif.runtime.clock import SystemClock, entropy
from haif.worker.service import Worker, WorkerSettings


@asynccontextmanager
async def open_worker(settings: config.WorkerSettings) -> AsyncIterator[dict[str, str]]:
    """The worker while the block is entered, and what to tell whoever started it.

    Raises `Misuse` without an orchestrator to honour.
    """
    honoured = frozenset(peers(settings.orchestrators, "orchestrator"))
    if not honoured:
        raise Misuse("a worker serves only orchestrators it knows: give --orchestrator PEER (see `haif keys show`)")
    model = model_store(settings).find(settings.model)
    check_header(model.path)
    async with (
        open_ground(settings, listen=True) as ground,
        _engine(settings, model, ground.clock) as engine,
        Worker(
            settings=WorkerSettings(orchestrators=honoured, model=model.digest, name=model.name),
            identity=ground.identity, net=ground.net, wire=ground.wire, reach=ground.reach, dht=ground.dht,
            voice=ground.voice, engine=engine, telemetry=ground.telemetry, clock=ground.clock, entropy=entropy,
        ) as worker,
    ):  # fmt: skip
        watch_engine(ground.telemetry, engine, model.name)
        if not worker.heard_by:
            print("no orchestrator answers yet; this worker goes on looking for them", file=sys.stderr, flush=True)
        yield ground.ready | {"model": model.name, "model_digest": str(model.digest), "sandbox": engine.model.sandbox}


@asynccontextmanager
async def _engine(settings: config.WorkerSettings, model: StoredModel, clock: SystemClock) -> AsyncIterator[Engine]:
    def died(cause: str) -> None:
        print(f"the engine ended: {cause}; it is being started again", file=sys.stderr, flush=True)

    chosen = EngineSettings(
        model=model.path, digest=model.digest, slots=settings.slots, context_tokens=settings.context_tokens,
        threads=settings.threads or max(1, (os.cpu_count() or 2) // 2),
        profile=settings.profile, kv_tokens=settings.kv_tokens, kv=settings.kv_type,
        offload=Offload(settings.gpu_layers, settings.split_mode, settings.main_gpu),
        sandbox_min=settings.sandbox_min, insecure_no_sandbox=settings.insecure_no_sandbox,
    )  # fmt: skip
    async with Engine(chosen, clock=clock, entropy=entropy, on_died=died) as engine:
        yield engine


async def try_engine(settings: config.WorkerSettings) -> ModelInfo:
    """Start the engine with the model of these settings, and say what it reports of itself."""
    async with _engine(settings, model_store(settings).find(settings.model), SystemClock()) as engine:
        return engine.model
