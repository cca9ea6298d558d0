"""Which models leave when another is to be loaded: the least recently used, idle before busy ones, and none pinned."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from haif.base.amounts import bytes_text
from haif.base.clock import Instant
from haif.base.errors import Overloaded
from haif.base.ids import ModelDigest


@dataclass(frozen=True, slots=True)
class Resident:
    """A model in memory. `idle`: nobody uses it or waits for it."""

    model: ModelDigest
    size: int
    idle: bool
    pinned: bool
    used: Instant


def leaving(residents: Collection[Resident], need: int, budget: int) -> tuple[ModelDigest, ...]:
    """Who must leave, in this order, so that `need` bytes fit beside the others; nobody where there is room.

    Raises `Overloaded` when the pinned alone leave too little room.
    """
    over = need + sum(each.size for each in residents) - budget
    gone: list[ModelDigest] = []
    for each in sorted(residents, key=lambda each: (not each.idle, each.used)):
        if over <= 0:
            break
        if not each.pinned:
            gone.append(each.model)
            over -= each.size
    if over > 0:
        raise Overloaded(
            f"the model needs {bytes_text(need)} of the {bytes_text(budget)} that this worker has for models, and "
            "pinned ones have the rest: unpin one, or give --memory more"
        )
    return tuple(gone)
