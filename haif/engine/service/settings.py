"""What an engine is told to run: settings that can work, and the model file they name."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import blake3

from haif.base import limits
from haif.base.errors import (
    Misuse,
)
from haif.base.ids import ModelDigest
from haif.engine.frames import (
    Ready,
)

_READ_BYTES: Final = 4 << 20


@dataclass(frozen=True)
class EngineSettings:
    """What to run and with what.

    `context_tokens` is per slot; 0 takes what the model was trained for, at most
    `limits.ENGINE_CONTEXT_TOKENS_DEFAULT`. Below the level `sandbox_min` nothing is served; with `insecure_no_sandbox`
    the model is served even where no jail can be had, and the level says so.
    """

    model: Path
    digest: ModelDigest
    slots: int
    context_tokens: int
    threads: int
    profile: Literal["exact"] = "exact"
    sandbox_min: str = "reduced"
    insecure_no_sandbox: bool = False

    @property
    def demanded(self) -> str:
        """The level (`base.confinement`) without which nothing is served."""
        return "none" if self.insecure_no_sandbox else self.sandbox_min


def check_settings(settings: EngineSettings) -> None:
    """Raise `Misuse` for settings that no engine can run."""
    if not 1 <= settings.slots <= limits.ENGINE_SLOTS_MAX:
        raise Misuse(f"an engine has 1 to {limits.ENGINE_SLOTS_MAX} slots, not {settings.slots}")
    if settings.context_tokens < 0 or settings.threads < 1:
        raise Misuse("an engine needs a context that is not negative and at least 1 thread")
    if settings.profile != "exact":
        raise Misuse(f"there is no execution profile {settings.profile!r}: use 'exact'")


def context_tokens(settings: EngineSettings, ready: Ready) -> int:
    """The context of one slot, as the child that is ready has it."""
    most = limits.EMBEDDING_CONTEXT_TOKENS_DEFAULT if ready.dimensions else limits.ENGINE_CONTEXT_TOKENS_DEFAULT
    return settings.context_tokens or min(ready.context_trained, most)


def open_model(path: Path) -> tuple[int, int]:
    """An open descriptor and the size. Raises `Misuse`."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise Misuse(f"the model file {path} cannot be opened: {error.strerror}") from None
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        os.close(descriptor)
        raise Misuse(f"{path} is not a regular file")
    return descriptor, found.st_size


def digest_of(descriptor: int) -> ModelDigest:
    """BLAKE3 of the open file. Read, not mapped: a file that shrinks meanwhile must not kill us."""
    hasher = blake3.blake3()
    buffer = bytearray(_READ_BYTES)
    place = 0
    while count := os.preadv(descriptor, [buffer], place):
        hasher.update(memoryview(buffer)[:count])
        place += count
    return ModelDigest(hasher.digest())
