"""What a worker says, and signs, of the jail around an engine: in its offer, its heartbeats and its receipts."""

from __future__ import annotations

from haif.base import limits
from haif.base.codec import Message
from haif.base.confinement import LEVELS
from haif.base.errors import Malformed
from haif.base.ids import PeerId


class Sandbox(Message, frozen=True):
    """The level (`base.confinement`), and the layers that are missing, by name: none at level `full`."""

    level: str
    missing: list[str]

    def __str__(self) -> str:
        return self.level + (f", without {', '.join(self.missing)}" if self.missing else "")


def check_sandbox(said: Sandbox, peer: PeerId | None) -> None:
    """Return if a worker can mean this. Raises `Malformed`."""
    if said.level not in LEVELS or (said.level == "full") != (not said.missing):
        raise Malformed("a sandbox is full with nothing missing, or reduced or none with what is missing", peer)
    if len(said.missing) > limits.SANDBOX_LAYERS_MAX or len(set(said.missing)) < len(said.missing):
        raise Malformed(f"a sandbox lacks at most {limits.SANDBOX_LAYERS_MAX} layers, each once", peer)
    if not all(1 <= len(layer) <= limits.SANDBOX_LAYER_CHARS_MAX and layer.isprintable() for layer in said.missing):
        raise Malformed(f"a layer of a sandbox has a name of 1 to {limits.SANDBOX_LAYER_CHARS_MAX} characters", peer)
