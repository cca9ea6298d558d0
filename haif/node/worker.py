"""`haif worker`: serves this machine's models to the orchestrators it honours, each through an engine of its own."""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

from haif import config
from haif.artifacts.service import DEMO_NAME, ModelStore, StoredModel, check_header, header_of
from haif.base import limits
from haif.base.amounts import bytes_text
from haif.base.clock import Clock, WallTime
from haif.base.errors import Malformed, Misuse, UnknownModel
from haif.base.ids import ModelDigest, PeerId
from haif.engine.meter import Meter
from haif.engine.profile import Offload
from haif.engine.request import ModelInfo
from haif.engine.service import AdapterFile, Engine, EngineSettings, Upstream, UpstreamSettings, server_at
from haif.node.ground import Ground, open_ground
from haif.node.settings import memory_bytes, model_store, peers
from haif.node.watch import watch_pool
from haif.protocol.heartbeats import Repute
from haif.runtime import disk
from haif.runtime.clock import SystemClock, entropy
from haif.telemetry import names
from haif.worker.expected import expected
from haif.worker.memory import Needs, needs
from haif.worker.quarantine import QUARANTINE, Case, Quarantine, load_quarantine
from haif.worker.service import Opener, Pool, Served, Variant, Worker, WorkerSettings, controlled

ALL = "all"


@asynccontextmanager
async def open_worker(settings: config.WorkerSettings) -> AsyncIterator[dict[str, str]]:
    """The worker while the block is entered, and what to tell whoever started it.

    Raises `Misuse` without an orchestrator to honour.
    """
    honoured = frozenset(peers(settings.orchestrators, "orchestrator"))
    if not honoured:
        raise Misuse("a worker serves only orchestrators it knows: give --orchestrator PEER (see `haif keys show`)")
    memory = memory_bytes(settings)
    models = _models(settings, memory, SystemClock())
    async with (
        open_ground(settings) as ground,
        _pool(models, memory, ground) as pool,
        Worker(
            settings=WorkerSettings(orchestrators=honoured),
            identity=ground.identity, net=ground.net, wire=ground.wire, reach=ground.reach, dht=ground.dht,
            voice=ground.voice, pool=pool, telemetry=ground.telemetry, clock=ground.clock, entropy=entropy,
            on_repute=lambda orchestrator, repute: Terminal().say(repute_text(orchestrator, repute)),
        ) as worker,
        controlled(pool, ground.folder),
        ground.announced("worker"),
    ):  # fmt: skip
        watch_pool(ground.telemetry, pool)
        if not worker.heard_by:
            Terminal().say("no orchestrator answers yet; this worker goes on looking for them")
        yield ground.ready | {
            "model": ", ".join(map(pool.name, pool.models)),
            "model_digest": ", ".join(map(str, pool.models)),
            "memory": f"{bytes_text(memory)} for models",
            "sandbox": next(each.about.sandbox for each in pool.standings() if each.about),
        }


def _pool(models: list[Served], memory: int, ground: Ground) -> Pool:
    """The pool, which remembers in the worker's folder what it had to quarantine."""
    kept, terminal = read_quarantine(ground.folder, ground.clock.wall()), Terminal()

    def quarantined(name: str, case: Case | None) -> None:
        if case is not None:
            ground.telemetry.count(names.WORKER_QUARANTINES)
            terminal.quarantined(name, case, ground.name)
        disk.write_private(ground.folder / QUARANTINE, kept.dump())

    return Pool(
        models, memory_bytes=memory, clock=ground.clock, quarantine=kept, on_died=terminal.died,
        on_progress=terminal.progress, on_quarantine=quarantined,
    )  # fmt: skip


def read_quarantine(folder: Path, now: WallTime) -> Quarantine:
    """What a worker quarantined before. A record that cannot be read is none: its models are tried again."""
    with suppress(FileNotFoundError, Malformed):
        return load_quarantine(disk.read_private(folder / QUARANTINE), now)
    return Quarantine()


async def try_engine(settings: config.WorkerSettings) -> ModelInfo:
    """Start the engine with the first model of these settings, and say what it reports of itself."""
    clock = SystemClock()
    (model, *_) = _models(settings, memory_bytes(settings), clock)
    async with (
        Pool([model], memory_bytes=memory_bytes(settings), clock=clock) as pool,
        pool.lease(model.model, seconds=limits.MODEL_WAIT_SECONDS) as engine,
    ):
        return engine.model


def repute_text(orchestrator: PeerId, repute: Repute) -> str:
    """What an orchestrator thinks of this worker, and what its owner may do."""
    return _REPUTES[repute].format(orchestrator=f"orchestrator {orchestrator.short}…")


_REPUTES: Final[Mapping[Repute, str]] = {
    Repute.FINE: "{orchestrator} gives this worker all kinds of work again",
    Repute.CONVICTED: "{orchestrator} gives this worker no more work: validators computed answers again, and they are "
    "not what it signed for. Look at its model files, its build and its memory (`haif doctor`)",
    Repute.INCOMPARABLE: "{orchestrator} gives this worker only what need not be checked: no validator there computes "
    "by its recipe. Take a profile that validators have, such as `exact`, or have a validator run on such a machine",
}


class Terminal:
    """Tells whoever started the worker what becomes of its models: lines, and progress where somebody watches."""

    def __init__(self) -> None:
        self._unfinished = False

    def say(self, text: str) -> None:
        """A line."""
        print("\n" * self._unfinished + text, file=sys.stderr, flush=True)
        self._unfinished = False

    def died(self, name: str, cause: str) -> None:
        """A child ended unasked, or did not load."""
        self.say(f"the engine of {name} ended: {cause}")

    def quarantined(self, name: str, case: Case, worker: str) -> None:
        """A model killed its children once too often."""
        until = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(case.until / 1000))
        which = "" if worker == "worker" else f" --name {worker}"
        self.say(f"{name} is quarantined until {until}, or until: haif worker models release {name}{which}")

    def progress(self, name: str, stage: str, percent: int) -> None:
        """A model is being loaded."""
        if sys.stderr.isatty():
            self._unfinished = (stage, percent) != ("loading", 100)
            end = "" if self._unfinished else "\n"
            print(f"\r{stage} {name} {percent:>3} %", end=end, file=sys.stderr, flush=True)


# --- what the settings name -------------------------------------------------------------------------------------------


def _models(settings: config.WorkerSettings, memory: int, clock: Clock) -> list[Served]:
    """The models to serve, each once. Raises `UnknownModel`, or `Misuse` for a pin that is none of them."""
    if settings.upstream:
        return _behind(settings, clock)
    if settings.upstream_models or settings.upstream_hosts or settings.upstream_key_file:
        raise Misuse("--upstream-model, --upstream-host and --upstream-key-file go with --upstream URL")
    engines = _stored(settings)
    for name in settings.pins:
        if not any(_is_called(model, name) for models in engines for model in models):
            raise Misuse(f"--pin {name}: it is none of the models served; those are given with --model")
    served = [_served(settings, *models, clock=clock) for models in engines]
    if ALL in settings.models:
        fitting = [each for each in served if each.needs.total <= memory or each.pinned]
        return _as_many(fitting) or served
    return served


def _is_called(model: StoredModel, name: str) -> bool:
    return name in (model.name, str(model.digest))


def _as_many(served: list[Served]) -> list[Served]:
    """The first of them, as far as a worker may serve so many."""
    counts = itertools.accumulate(1 + len(each.variants) for each in served)
    return [each for each, count in zip(served, counts, strict=True) if count <= limits.WORKER_MODELS_MAX]


def _behind(settings: config.WorkerSettings, clock: Clock) -> list[Served]:
    """The models that a server of this machine's owner computes: named as in the store, or by digest alone."""
    if not settings.models or ALL in settings.models or settings.pins:
        raise Misuse("--upstream serves the models that --model names, one by one, and pins none")
    if len(settings.upstream_models) not in {0, len(settings.models)}:
        raise Misuse("give as many --upstream-model as --model, in the same order, or none if the names are the same")
    server = server_at(settings.upstream, allowed=settings.upstream_hosts, key=config.upstream_key(settings))
    store = model_store(settings)
    served = []
    for name, theirs in zip(settings.models, settings.upstream_models or settings.models, strict=True):
        digest, known = _digest_of(store, name)
        chosen = UpstreamSettings(server, theirs, settings.slots, settings.context_tokens)
        served.append(
            Served(
                model=digest,
                name=known or theirs,
                slots=settings.slots,
                verifiable=False,
                needs=Needs(0, 0, 0, settings.context_tokens),
                open=_opener_behind(chosen, clock),
            )
        )
    return served


def _digest_of(store: ModelStore, name: str) -> tuple[ModelDigest, str]:
    try:
        return ModelDigest.parse(name), ""
    except ValueError:
        model = store.find(name)
        return model.digest, model.name


def _opener_behind(chosen: UpstreamSettings, clock: Clock) -> Opener:
    def opened(*, on_died: Callable[[str], None], on_progress: Callable[[str, int], None], meter: Meter) -> Upstream:
        del on_progress  # there is nothing to load
        return Upstream(chosen, clock=clock, on_died=on_died, meter=meter)

    return opened


def _stored(settings: config.WorkerSettings) -> list[list[StoredModel]]:
    """For each engine its model, and then those that are that model with an adapter on it. Raises `UnknownModel`."""
    store = model_store(settings)
    if ALL in settings.models and settings.models != (ALL,):
        raise Misuse("--model all is every model of the store: give it alone")
    engines: dict[ModelDigest, dict[ModelDigest, StoredModel]] = {}
    for model in store.models() if ALL in settings.models else map(store.find, settings.models or (DEMO_NAME,)):
        try:
            base = store.base_of(model)
        except UnknownModel:
            if ALL in settings.models:
                continue  # an adapter alone is nothing to serve
            raise
        engines.setdefault(base.digest, {base.digest: base})[model.digest] = model
    return [list(models.values()) for models in engines.values()]


def adapter_files(models: Iterable[StoredModel]) -> tuple[AdapterFile, ...]:
    """The adapters among these models, as an engine takes them."""
    return tuple(AdapterFile(model.path, model.adapted.adapter) for model in models if model.adapted)


def _served(settings: config.WorkerSettings, model: StoredModel, *adapted: StoredModel, clock: Clock) -> Served:
    chosen = EngineSettings(
        model=model.path, digest=model.digest, adapters=adapter_files(adapted),
        slots=settings.slots, context_tokens=settings.context_tokens,
        threads=settings.threads or max(1, (os.cpu_count() or 2) // 2),
        profile=settings.profile, kv_tokens=settings.kv_tokens, kv=settings.kv_type,
        offload=Offload(settings.gpu_layers, settings.split_mode, settings.main_gpu),
        sandbox_min=settings.sandbox_min, insecure_no_sandbox=settings.insecure_no_sandbox,
    )  # fmt: skip

    def opened(*, on_died: Callable[[str], None], on_progress: Callable[[str, int], None], meter: Meter) -> Engine:
        return Engine(chosen, clock=clock, entropy=entropy, on_died=on_died, on_progress=on_progress, meter=meter)

    check_header(model.path)
    for each in adapted:
        check_header(each.path, model.path)
    header, size = header_of(model)
    variants = [
        Variant(name=each.name, adapted=each.adapted, size=each.manifest.payload.size)
        for each in adapted
        if each.adapted
    ]
    size += sum(each.size for each in variants)
    needed = needs(
        header, size, slots=settings.slots, context_tokens=settings.context_tokens, kv_tokens=settings.kv_tokens
    )
    tasks, dimensions = expected(header)
    return Served(
        model=model.digest, name=model.name, slots=settings.slots, needs=needed, open=opened,
        pinned=any(_is_called(each, name) for each in (model, *adapted) for name in settings.pins),
        tasks=tasks, dimensions=dimensions, variants=tuple(variants),
    )  # fmt: skip
