"""How far an engine is confined, as words with an order: offers, heartbeats and receipts say one, demands name one.

`full`: every layer of the jail. `reduced`: a layer that the machine does not offer is missing. `none`: code in a model
is code as the worker's user. What the layers are stands in `engine.sandbox.layers`.
"""

from __future__ import annotations

from typing import Final

LEVELS: Final = ("none", "reduced", "full")


def suffices(level: str, demanded: str) -> bool:
    """Whether a level is at least the one that is demanded. A word that is no level suffices for nothing."""
    return level in LEVELS and demanded in LEVELS and LEVELS.index(level) >= LEVELS.index(demanded)


def stricter(one: str, other: str) -> str:
    """The higher of two demands."""
    return max(one, other, key=LEVELS.index)
