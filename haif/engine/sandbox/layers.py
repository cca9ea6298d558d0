"""The layers of the jail, what is lost where one is missing, and the level that follows.

`full`: every layer. `reduced`: a layer is missing that the machine does not offer; what may then go wrong is named.
`none`: a layer is missing without which nothing is served, unless the operator allowed it by name.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

LAYERS: Final = (
    "own process", "clean environment", "no other files", "dies with its parent", "no new privileges", "not traceable",
    "rlimits", "not root", "no capabilities", "seccomp", "landlock", "namespaces", "empty root", "cgroups",
)  # fmt: skip
OPTIONAL: Final = frozenset({"landlock", "namespaces", "empty root", "cgroups"})
REQUIRED: Final = frozenset(LAYERS) - OPTIONAL

RESIDUAL: Final[Mapping[str, str]] = {
    "landlock": "no second lock behind seccomp's refusal to open files",
    "namespaces": "a kernel bug in one of the allowed calls meets the host's processes, networks and mounts",
    "empty root": "a kernel bug in one of the allowed calls meets the host's files",
    "cgroups": "memory is bounded by RLIMIT_AS only, and the cores it was given only by the worker's watching",
}
_NO_SANDBOX: Final = "code in a model is code as the worker's user"


@dataclass(frozen=True)
class Statement:
    """What holds, what does not and why, and what the layers that hold do not cover on this kernel.

    `pid` is the engine in the parent's view, which can so ask the kernel whether it is true.
    """

    enforced: tuple[str, ...]
    missing: Mapping[str, str]
    notes: tuple[str, ...]
    pid: int


def level(enforced: Collection[str]) -> str:
    """One of the three words above."""
    lacking = set(LAYERS) - set(enforced)
    if lacking & REQUIRED:
        return "none"
    return "reduced" if lacking else "full"


def residual(missing: Mapping[str, str], notes: Collection[str]) -> tuple[str, ...]:
    """The risks that remain, one sentence each, with the reason why the layer is missing."""
    risks = [f"{layer} ({why}): {RESIDUAL.get(layer, _NO_SANDBOX)}" for layer, why in missing.items()]
    return (*risks, *notes)
