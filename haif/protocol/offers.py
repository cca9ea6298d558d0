"""What a worker offers, and where a peer is reached: the bodies of DHT records."""

from __future__ import annotations

from haif.base.codec import Message
from haif.base.ids import ModelDigest


class Offer(Message, frozen=True):
    """A worker's standing offer to run one model. Signed by the worker as the record that carries it."""

    model: ModelDigest
    host: str
    port: int
    context_tokens: int
    slots: int
    sandbox: str  # the sandbox level the worker claims: "none", "reduced" or "full"
    engine: str  # build and execution profile, as the engine reports it


class Presence(Message, frozen=True):
    """Where a peer's wire listens, and as what: "orchestrator", "worker" or "gateway"."""

    role: str
    host: str
    port: int
