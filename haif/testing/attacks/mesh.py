"""A mesh on loopback, of real roles in one process, some of whose workers lie."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from haif import config
from haif.artifacts.service import DEMO_NAME, StoredModel
from haif.base.ids import ModelDigest
from haif.engine.request import Finished, Generate, Piece
from haif.engine.service import Engine, EngineSettings
from haif.gateway.service import tenant_key
from haif.identity.keys import Identity
from haif.identity.service import Keyring
from haif.node.gateway import open_gateway
from haif.node.ground import open_ground
from haif.node.orchestrator import open_orchestrator
from haif.node.settings import model_store
from haif.node.validator import open_validator
from haif.node.worker import open_worker
from haif.runtime.clock import SystemClock, entropy
from haif.testing.attacks.arena import digest_of
from haif.testing.attacks.siblings import Siblings
from haif.worker.memory import Needs
from haif.worker.service import Pool, Served, Worker, WorkerSettings

SLOTS: Final = 2
_ENGINE: Final[dict[str, Any]] = {"threads": 1, "insecure_no_sandbox": True}


class Inventor(Engine):
    """Computes what it was asked for, and says that its tokens were others."""

    @asynccontextmanager
    async def generate(self, request: Generate) -> AsyncIterator[AsyncIterator[Piece | Finished]]:
        """The honest answer, with each token another."""
        async with super().generate(request) as events:
            yield self._altered(events)

    async def _altered(self, events: AsyncIterator[Piece | Finished]) -> AsyncIterator[Piece | Finished]:
        async for event in events:
            yield replace(event, tokens=[token ^ 1 for token in event.tokens]) if isinstance(event, Piece) else event


@dataclass(frozen=True, slots=True)
class Lie:
    """What a worker does instead of what it offers: in words, the file it serves, the engine that does."""

    words: str
    serves: Callable[[Siblings], Path] = lambda siblings: siblings.source
    engine: type[Engine] = Engine


LIES: Final = {
    "smaller": Lie("serves a model of half the layers", lambda siblings: siblings.shorn(-1, -2)),
    "fewer-bits": Lie("serves Q4_0 for F16", lambda siblings: siblings.quantised("Q4_0")),
    "inventor": Lie("says other tokens than it computed", engine=Inventor),
}


@dataclass
class LyingMesh:
    """What runs: `ready` is what each role announced, by its name; `key` is a tenant's."""

    state: Path
    key: str
    ready: dict[str, dict[str, str]] = field(default_factory=dict)
    _known: list[str] = field(default_factory=list)  # DHT nodes to begin at
    _scope: AsyncExitStack = field(default_factory=AsyncExitStack)

    def identity(self, name: str) -> Identity:
        """The key of the role of that name, made if there is none."""
        return Keyring(self.state / "keys").load_or_create(name, entropy)

    def name_of(self, peer: str) -> str:
        """Which role a peer is."""
        return next((name for name, told in self.ready.items() if told["peer"] == peer), peer)

    @property
    def gateway(self) -> str:
        """Its base URL, without /v1."""
        return self.ready["gateway"]["http"]

    async def honest(self, name: str) -> None:
        """Start a worker that does what it offers."""
        await self._start(name, open_worker(self._settings(config.WorkerSettings, name, **self._honours(), **_ENGINE)))

    async def liar(self, name: str, lie: Lie) -> None:
        """Start a worker that offers the demo model and lies."""
        await self._start(name, self._lying(name, lie))

    def _settings(self, kind: type[Any], name: str, **chosen: Any) -> Any:
        return kind(name=name, state=self.state, host="127.0.0.1", bootstrap=tuple(self._known), **chosen)

    def _honours(self) -> dict[str, tuple[str, ...]]:
        return {"orchestrators": (str(self.identity("orchestrator").peer),)}

    async def _start(self, name: str, role: Any) -> None:
        self.ready[name] = await self._scope.enter_async_context(role)
        self._known.append(self.ready[name]["dht"])

    async def _roles(self) -> None:
        gateway, judge = (str(self.identity(name).peer) for name in ("gateway", "validator"))
        await self._start("orchestrator", open_orchestrator(self._settings(
            config.OrchestratorSettings, "orchestrator", gateways=(gateway,), validators=(judge,), convict="one",
            models=(DEMO_NAME,)
        )))  # fmt: skip
        await self._start("gateway", open_gateway(self._settings(
            config.GatewaySettings, "gateway", validators=(judge,), http_port=0, **self._honours()
        )))  # fmt: skip
        await self._start("validator", open_validator(self._settings(
            config.ValidatorSettings, "validator", **self._honours(), **_ENGINE
        )))  # fmt: skip

    @asynccontextmanager
    async def _lying(self, name: str, lie: Lie) -> AsyncIterator[dict[str, str]]:
        settings = self._settings(config.WorkerSettings, name, **self._honours())
        claimed = model_store(settings).find(DEMO_NAME)
        async with open_ground(settings) as ground:
            path = lie.serves(Siblings(claimed.path, ground.folder))
            async with (
                Pool([_served(claimed, path, lie.engine)], memory_bytes=1 << 40, clock=ground.clock) as pool,
                Worker(
                    settings=WorkerSettings(orchestrators=frozenset({self.identity("orchestrator").peer})),
                    identity=ground.identity, net=ground.net, wire=ground.wire, reach=ground.reach, dht=ground.dht,
                    voice=ground.voice, pool=pool, telemetry=ground.telemetry, clock=ground.clock, entropy=entropy,
                ),
                ground.announced("worker"),
            ):  # fmt: skip
                yield ground.ready


@asynccontextmanager
async def lying_mesh(state: Path) -> AsyncIterator[LyingMesh]:
    """Orchestrator, gateway and validator, on free ports of loopback; workers are started by whoever enters."""
    key = await tenant_key(state, "local", None)
    async with AsyncExitStack() as scope:
        mesh = LyingMesh(state, key, _scope=scope)
        await mesh._roles()  # noqa: SLF001 -- this makes it
        yield mesh


def _served(claimed: StoredModel, path: Path, kind: type[Engine]) -> Served:
    """The claimed model in the offer, another file in the engine."""
    chosen = EngineSettings(path, ModelDigest(digest_of(path)), slots=SLOTS, context_tokens=0, **_ENGINE)

    def opened(**told: Any) -> Engine:
        return kind(chosen, clock=SystemClock(), entropy=entropy, **told)

    return Served(
        model=claimed.digest, name=claimed.name, slots=SLOTS, needs=Needs(0, 0, 0, chosen.context_tokens), open=opened
    )
