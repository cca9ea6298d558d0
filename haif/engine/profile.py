"""Execution profiles: how a model may be computed, each way under a name, and what its numbers depend on.

    exact         the portable build: the same bits alone or in any batch, on every machine it runs on
    exact-native  the build for this machine's own instructions: the same bits alone or in any batch, on such machines
    fast          flash attention, tiled products, one KV cache for all: as fast as llama.cpp gets, bits vary with load

Exactness is a property of instructions, format and kernel together, so an exact profile is a ladder of recipes, fastest
first: the engine takes the first on which its self-test finds the same bits, and says when none holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from haif.base.codec import Message
from haif.base.hashing import digest

EXACT: Final = "exact"
EXACT_NATIVE: Final = "exact-native"
FAST: Final = "fast"
KV_TYPES: Final = ("f16", "q8_0")
SPLITS: Final = ("layer", "row", "none")


class Offload(Message, frozen=True):
    """What is computed on GPUs: how many layers, split how, and which GPU comes first."""

    layers: int = 0
    split: str = SPLITS[0]
    main_gpu: int = 0


NO_OFFLOAD: Final = Offload()


class Recipe(Message, frozen=True):
    """What determines the numbers beside build, format and instructions.

    `repack`: weights are rearranged for kernels that take several rows at once. `flash`: attention without a matrix of
    scores, exact where each slot has its share of the cache (`passes`). `tiled`: products by tiles. `unified`: one KV
    cache for all sequences instead of a share for each. `kv`: the type of its numbers.
    """

    repack: bool = False
    flash: bool = False
    tiled: bool = False
    unified: bool = False
    kv: str = KV_TYPES[0]
    offload: Offload = Offload()


_LADDER: Final = (Recipe(repack=True, flash=True), Recipe(flash=True), Recipe(repack=True), Recipe())
PROFILES: Final[Mapping[str, tuple[Recipe, ...]]] = {
    EXACT: _LADDER,
    EXACT_NATIVE: _LADDER,
    FAST: (Recipe(repack=True, flash=True, tiled=True, unified=True),),
}


def native(profile: str) -> bool:
    """Whether the profile takes the build for this machine's own instructions, where there is one."""
    return profile != EXACT


def numerics(build: str, recipe: Recipe, threads: int) -> str:
    """A short digest of everything but the model that the numbers depend on: equal digests, comparable results.

    Threads count where attention may be split among them.
    """
    shares = str(threads) if recipe.flash and recipe.unified else "any"
    text = f"{build}; {recipe!r}; threads {shares}"
    return digest("haif v1 numerics", text.encode()).hex()[:16]
