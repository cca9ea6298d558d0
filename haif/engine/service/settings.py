"""What an engine is told to run: settings that can work, and the model file they name."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import blake3

from haif.base import limits
from haif.base.errors import (
    Misuse,
)
from haif.base.ids import Digest, ModelDigest
from haif.engine.frames import (
    Ready,
)
from haif.engine.profile import EXACT, EXACT_NATIVE, FAST, KV_TYPES, NO_OFFLOAD, PROFILES, SPLITS, Offload, native
from haif.engine.sandbox import ENVIRONMENT, LIBRARY

_READ_BYTES: Final = 4 << 20
NATIVE: Final = Path(sys.prefix) / "lib" / "haif-llama-native"  # where tools/setup.py --native puts that build


@dataclass(frozen=True)
class AdapterFile:
    """A LoRA adapter's file and its BLAKE3."""

    path: Path
    digest: Digest


@dataclass(frozen=True)
class EngineSettings:
    """What to run and with what.

    `context_tokens` is per slot; 0 takes what the model was trained for, at most
    `limits.ENGINE_CONTEXT_TOKENS_DEFAULT`. `kv_tokens` is for all slots together, where the profile lets them share; 0
    is enough for all of them at their longest, with less an answer may be preempted and go on later. Below the level
    `sandbox_min` nothing is served; with `insecure_no_sandbox` the model is served even where no jail can be had, and
    the level says so. Each request says which of the `adapters` is on the model, or that none is.
    """

    model: Path
    digest: ModelDigest
    slots: int
    context_tokens: int
    threads: int
    profile: str = EXACT  # of `engine.profile`
    kv_tokens: int = 0
    kv: str = KV_TYPES[0]  # of `engine.profile`
    offload: Offload = NO_OFFLOAD
    sandbox_min: str = "reduced"
    insecure_no_sandbox: bool = False
    adapters: tuple[AdapterFile, ...] = ()

    @property
    def files(self) -> tuple[tuple[Path, bytes], ...]:
        """What is handed to the child, with its digest: the model, then its adapters."""
        return ((self.model, self.digest), *((each.path, each.digest) for each in self.adapters))

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
    if settings.profile not in PROFILES:
        raise Misuse(f"there is no execution profile {settings.profile!r}: use one of {', '.join(PROFILES)}")
    if settings.kv_tokens < 0 or (settings.kv_tokens and not PROFILES[settings.profile][0].unified):
        raise Misuse(f"in the profile {settings.profile} each slot has its own KV cells: leave kv_tokens at 0")
    if settings.kv not in KV_TYPES or (settings.kv != KV_TYPES[0] and settings.profile != FAST):
        raise Misuse(
            f"a KV cache of {settings.kv!r}: use one of {', '.join(KV_TYPES)}; other than f16 with profile fast only"
        )
    _check_offload(settings)
    if len({each.digest for each in settings.adapters}) < len(settings.adapters):
        raise Misuse("an engine has each adapter once")
    if len(settings.adapters) >= limits.WORKER_MODELS_MAX:
        raise Misuse(f"an engine has at most {limits.WORKER_MODELS_MAX - 1} adapters beside its model")
    if settings.profile == EXACT_NATIVE and not has_native():
        raise Misuse(
            f"the profile {EXACT_NATIVE} needs llama.cpp built for this machine: python3 tools/setup.py --native"
        )


def _check_offload(settings: EngineSettings) -> None:
    offload = settings.offload
    if offload.split not in SPLITS:
        raise Misuse(f"there is no way {offload.split!r} to split layers among GPUs: use one of {', '.join(SPLITS)}")
    if offload.layers < 0 or offload.main_gpu < 0:
        raise Misuse("the layers on GPUs and the number of the main GPU are 0 or more")
    if offload.layers and settings.profile != FAST:
        raise Misuse("layers on a GPU have other bits than on a processor: --gpu-layers needs --profile fast")
    if offload.layers and not settings.insecure_no_sandbox:
        raise Misuse("there is no jail around a GPU's driver yet: --gpu-layers needs --insecure-no-sandbox")


def has_native() -> bool:
    """Whether llama.cpp was built for this machine's own instructions."""
    return NATIVE.is_dir()


def environment(profile: str) -> dict[str, str]:
    """What a child of this profile finds in its environment, and nothing else."""
    chosen = dict(ENVIRONMENT)
    if native(profile) and has_native():
        chosen[LIBRARY] = str(NATIVE)
    if PROFILES[profile][0].tiled:
        chosen["GGML_CPU_TILED_MM"] = "1"
    return chosen


def context_tokens(settings: EngineSettings, ready: Ready) -> int:
    """The context of one slot, as the child that is ready has it."""
    most = limits.EMBEDDING_CONTEXT_TOKENS_DEFAULT if ready.dimensions else limits.ENGINE_CONTEXT_TOKENS_DEFAULT
    return settings.context_tokens or min(ready.context_trained, most)


def kv_tokens(settings: EngineSettings, context_tokens: int) -> int:
    """How many tokens the KV cache has cells for, where a slot has `context_tokens`."""
    return settings.kv_tokens or settings.slots * context_tokens


@contextmanager
def opened(settings: EngineSettings) -> Iterator[tuple[list[int], int]]:
    """Open descriptors of all files, while the block is entered, and their sizes together. Raises `Misuse`."""
    with ExitStack() as stack:
        found: list[int] = []
        total = 0
        for path, _ in settings.files:
            descriptor, size = open_model(path)
            stack.callback(os.close, descriptor)
            found.append(descriptor)
            total += size
        yield found, total


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


def digest_of(descriptor: int, progress: Callable[[int], object] = lambda _: None) -> ModelDigest:
    """BLAKE3 of the open file, `progress` hearing of each percent. Read, not mapped: if it shrinks we must not die."""
    size, told = max(1, os.fstat(descriptor).st_size), -1
    hasher = blake3.blake3()
    buffer = bytearray(_READ_BYTES)
    place = 0
    while count := os.preadv(descriptor, [buffer], place):
        hasher.update(memoryview(buffer)[:count])
        place += count
        if min(100, 100 * place // size) > told:
            told = min(100, 100 * place // size)
            progress(told)
    return ModelDigest(hasher.digest())
