"""The engines, models and checks of one run: real ones, of this machine, in a folder of their own."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import blake3

from haif import config
from haif.artifacts.service import DEMO_NAME, StoredModel
from haif.base.ids import Digest, ModelDigest
from haif.engine.profile import EXACT
from haif.engine.service import CHILD_PROGRAM, AdapterFile, Engine, EngineSettings
from haif.identity.service import Keyring
from haif.node.replay import Bench
from haif.node.settings import model_store
from haif.runtime.clock import SystemClock, entropy
from haif.testing.attacks.siblings import Siblings

SLOTS: Final = 8  # answers of one engine at once
_ENGINES_MAX: Final = 4  # open at once


class Arena:
    """Inside `async with`, engines open when they are wanted, and leave for others when there are too many.

    `source` is the model that is attacked; None is the demo. `folder` takes what is made of it. Engines run in the jail
    that this machine can build around them: their models are ours.
    """

    def __init__(self, folder: Path, source: Path | None = None) -> None:
        self.settings = config.WorkerSettings(state=folder, insecure_no_sandbox=True, threads=1)
        self._publisher = Keyring(folder / "keys").load_or_create("publisher", entropy)
        self._store = model_store(self.settings)
        self.model = self._store.find(DEMO_NAME) if source is None else self.claim(source)
        self.siblings = Siblings(self.model.path, folder)
        self.bench = Bench(self.settings)
        self._engines: OrderedDict[tuple[object, ...], tuple[Engine, AsyncExitStack]] = OrderedDict()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.bench.clear()
        while self._engines:
            await self._close_oldest()

    def claim(self, path: Path, base: StoredModel | None = None) -> StoredModel:
        """The model of this file under a manifest that its validator believes; of an adapter, the `base` with it on."""
        return self._store.add(
            path, name=path.stem.lower()[:60], license_name="none", publisher=self._publisher,
            progress=lambda *_: None, base=None if base is None else str(base.digest),
        )  # fmt: skip

    async def engine(
        self, path: Path | None = None, *, program: str = CHILD_PROGRAM, profile: str = EXACT,
        adapters: Sequence[Path] = (), context_tokens: int = 0, threads: int = 1,
    ) -> Engine:  # fmt: skip
        """An engine of the model in `path` (that which is attacked), whose child runs `program`."""
        path = path or self.model.path
        key = (path, program, profile, context_tokens, threads, *adapters)
        if key not in self._engines:
            while len(self._engines) >= _ENGINES_MAX:
                await self._close_oldest()
            chosen = EngineSettings(
                path, ModelDigest(digest_of(path)), slots=SLOTS, context_tokens=context_tokens, threads=threads,
                profile=profile, insecure_no_sandbox=True,
                adapters=tuple(AdapterFile(each, digest_of(each)) for each in adapters),
            )  # fmt: skip
            scope = AsyncExitStack()
            engine = Engine(chosen, clock=SystemClock(), entropy=entropy, on_died=lambda _: None, program=program)
            self._engines[key] = await scope.enter_async_context(engine), scope
        self._engines.move_to_end(key)
        return self._engines[key][0]

    async def _close_oldest(self) -> None:
        _, (_, scope) = self._engines.popitem(last=False)
        await scope.aclose()


def digest_of(path: Path) -> Digest:
    """BLAKE3 of a file."""
    return Digest(blake3.blake3(path.read_bytes()).digest())
