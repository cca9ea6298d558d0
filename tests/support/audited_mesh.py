"""A mesh in one process, of real roles on real sockets: orchestrator, gateway, validator, and workers that lie."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx

from haif import config
from haif.artifacts.service import DEMO_NAME
from haif.base.hashing import digest
from haif.engine.service import Engine, EngineSettings
from haif.gateway.service import tenant_key
from haif.identity.keys import Identity
from haif.identity.service import Keyring
from haif.node.gateway import open_gateway
from haif.node.ground import open_ground
from haif.node.orchestrator import open_orchestrator
from haif.node.settings import model_store, peers
from haif.node.validator import open_validator
from haif.node.worker import open_worker
from haif.proof.compare import Cause, Difference
from haif.protocol.receipts import CheckedBundle
from haif.runtime.clock import SystemClock, entropy
from haif.validator.service import Validator
from haif.validator.verdict import Answered
from haif.worker.service import Worker, WorkerSettings
from tests.support.engines import digest_of
from tests.support.pools import pool_of, served

COMMON: dict[str, Any] = {"host": "127.0.0.1"}
ENGINE: dict[str, Any] = {"threads": 1, "insecure_no_sandbox": True}


@dataclass
class AuditedMesh:
    """What runs, and where it is asked."""

    state: Path
    http: httpx.AsyncClient
    ready: dict[str, dict[str, str]] = field(default_factory=dict)
    known: list[str] = field(default_factory=list)  # DHT nodes to begin at
    scope: AsyncExitStack = field(default_factory=AsyncExitStack)

    def identity(self, name: str) -> Identity:
        return Keyring(self.state / "keys").load_or_create(name, entropy)

    def settings(self, kind: type[Any], name: str, **chosen: Any) -> Any:
        return kind(name=name, state=self.state, bootstrap=tuple(self.known), **COMMON, **chosen)

    async def start(self, name: str, role: Any) -> None:
        self.ready[name] = await self.scope.enter_async_context(role)
        self.known.append(self.ready[name]["dht"])

    async def worker(self, name: str) -> None:
        """An honest one."""
        orchestrators = (str(self.identity("orchestrator").peer),)
        await self.start(name, open_worker(self.settings(config.WorkerSettings, name, orchestrators=orchestrators,
                                                         **ENGINE)))  # fmt: skip

    async def liar(self, name: str, model: Path | None = None, engine: type[Engine] = Engine) -> None:
        """A worker that offers the demo model, and serves it from another file or by another engine."""
        await self.start(name, self._liar(name, model, engine))

    @asynccontextmanager
    async def _liar(self, name: str, model: Path | None, engine: type[Engine]) -> AsyncIterator[dict[str, str]]:
        settings = self.settings(config.WorkerSettings, name)
        claimed = model_store(settings).find(DEMO_NAME)
        path = model or claimed.path
        chosen = EngineSettings(path, digest_of(path), slots=4, context_tokens=0, **ENGINE)

        def opened(**told: Any) -> Engine:
            return engine(chosen, clock=SystemClock(), entropy=entropy, **told)

        lie = replace(served(claimed.path), model=claimed.digest, name=DEMO_NAME, open=opened)
        honoured = frozenset(peers((str(self.identity("orchestrator").peer),), "orchestrator"))
        async with (
            open_ground(settings) as ground,
            pool_of(lie) as pool,
            Worker(
                settings=WorkerSettings(orchestrators=honoured), identity=ground.identity, net=ground.net,
                wire=ground.wire, reach=ground.reach, dht=ground.dht, voice=ground.voice, pool=pool,
                telemetry=ground.telemetry, clock=ground.clock, entropy=entropy,
            ),
        ):  # fmt: skip
            yield ground.ready

    async def workers(self, count: int) -> None:
        """Wait until so many are known to be alive."""
        await self.until(lambda page: f"haif_workers_live {count}.0" in page)

    async def until(self, holds: Callable[[str], bool], role: str = "orchestrator") -> str:
        """Read a role's metrics until something holds of them."""
        async with asyncio.timeout(120):
            while not holds(page := await self.metrics(role)):
                pass
        return page

    async def metrics(self, role: str) -> str:
        return (await self.http.get(self.ready[role]["metrics"])).text

    async def ask(self, **chosen: Any) -> httpx.Response:
        """One question; who answered it is in the header `x-haif-worker`."""
        body = {"prompt": "The river runs slowly through the", "max_tokens": 24, "temperature": 1}
        return await self._post("completions", body | chosen)

    async def chat(self, messages: list[dict[str, str]], **chosen: Any) -> httpx.Response:
        """The same of a chat."""
        return await self._post("chat/completions", {"messages": messages, "max_tokens": 24} | chosen)

    async def _post(self, endpoint: str, body: dict[str, Any]) -> httpx.Response:
        where = f"{self.ready['gateway']['http']}/v1/{endpoint}"
        return await self.http.post(where, json={"model": DEMO_NAME} | body, timeout=60)


@asynccontextmanager
async def audited_mesh(folder: Path, *, validator: bool = True, more: int = 0) -> AsyncIterator[AuditedMesh]:
    """Everything but the workers. With `more` validators they convict by panels; the last of these lies always."""
    key = await tenant_key(folder, "ada", None)
    headers = {"authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(headers=headers, trust_env=False) as http, AsyncExitStack() as scope:
        mesh = AuditedMesh(folder, http, scope=scope)
        orchestrator, gateway, judge = (
            str(mesh.identity(name).peer) for name in ("orchestrator", "gateway", "validator")
        )
        others = [str(mesh.identity(f"validator-{number}").peer) for number in range(1, more + 1)]
        judges = (judge, *others) if validator else ()
        await mesh.start("orchestrator", open_orchestrator(mesh.settings(
            config.OrchestratorSettings, "orchestrator", gateways=(gateway,), validators=(judge, *others),
            convict="panel" if more else "one", models=(DEMO_NAME,)
        )))  # fmt: skip
        await mesh.start("gateway", open_gateway(mesh.settings(
            config.GatewaySettings, "gateway", orchestrators=(orchestrator,), validators=judges, http_port=0
        )))  # fmt: skip
        for name in ("validator", *(f"validator-{number}" for number in range(1, more))):
            await mesh.start(name, open_validator(mesh.settings(
                config.ValidatorSettings, name, orchestrators=(orchestrator,), **ENGINE
            )))  # fmt: skip
        if more:
            name = f"validator-{more}"
            await mesh.start(name, _accuser(mesh.settings(config.ValidatorSettings, name), orchestrator))
        yield mesh


@asynccontextmanager
async def _accuser(settings: config.ValidatorSettings, orchestrator: str) -> AsyncIterator[dict[str, str]]:
    """A validator that convicts whatever it draws, and computes nothing."""

    async def invent(bundle: CheckedBundle, _fresh: bool) -> Answered:
        lie = Difference(Cause.TOKENS, 0, "token 0 of the answer is another")
        root = digest("an invented root", bytes(bundle.receipt.digest))
        return Answered(bundle.receipt.payload.engine, root, root, len(bundle.tokens), lie)

    async with (
        open_ground(settings) as ground,
        Validator(
            orchestrators=tuple(peers((orchestrator,), "orchestrator")), identity=ground.identity, net=ground.net,
            wire=ground.wire, reach=ground.reach, dht=ground.dht, recompute=invent, on_convicted=lambda *_: None,
            on_ruled=lambda _: None, telemetry=ground.telemetry, clock=ground.clock,
        ),
        ground.announced("validator"),
    ):  # fmt: skip
        yield ground.ready
