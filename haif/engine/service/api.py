"""What a worker needs of whatever computes its answers: an engine of ours in its jail, or a server that is there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Protocol, Self

from haif.engine.embed import Embed, Embedded, Vectors
from haif.engine.request import EngineStatistics, Finished, Generate, ModelInfo, Piece


class Backend(Protocol):
    """One model, ready inside `async with`. Every method raises leaves of `base.errors`."""

    async def __aenter__(self) -> Self:
        """Have the model ready."""

    async def __aexit__(self, *_: object) -> None:
        """Let it go; requests still running get `EngineDied`."""

    @property
    def model(self) -> ModelInfo:
        """What runs it, and what that can be believed of. Known once it was entered."""

    def generate(self, request: Generate) -> AbstractAsyncContextManager[AsyncIterator[Piece | Finished]]:
        """The pieces of an answer as they come, then one `Finished`. Leaving early cancels."""

    def embed(self, request: Embed) -> AbstractAsyncContextManager[AsyncIterator[Vectors | Embedded]]:
        """The vectors of a request as they come, then one `Embedded`. Leaving early cancels."""

    async def wait_alive(self) -> None:
        """Return once it is ready for requests."""

    def memory_bytes(self) -> int:
        """What it takes of this machine's memory now."""

    def statistics(self) -> EngineStatistics:
        """A snapshot."""
