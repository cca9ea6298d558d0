"""Whether what a worker ran can be told by recomputing it, and what a tenant demands of that.

`verifiable`: an engine of ours, whose build, profile, sampler and seed are known. `unverifiable`: another program of
the worker's owner, which runs what it runs.
"""

from __future__ import annotations

from typing import Final

VERIFIABLE: Final = "verifiable"
UNVERIFIABLE: Final = "unverifiable"
ANY: Final = "any"
DEMANDS: Final = (VERIFIABLE, ANY, UNVERIFIABLE)


def meets(verifiable: bool, demand: str) -> bool:
    """Whether an execution of this kind is what is demanded, one of `DEMANDS`."""
    return demand == ANY or verifiable == (demand == VERIFIABLE)


def word(verifiable: bool) -> str:
    """The kind, as it is shown."""
    return VERIFIABLE if verifiable else UNVERIFIABLE
