"""The pulse: a worker tells its orchestrators, every `limits.HEARTBEAT_SECONDS`, that it lives and how loaded it is.

Method `worker.heartbeat`: the argument is a live-signed `Heartbeat` (type `HEARTBEAT`), scoped to the session; the
reply is an `Acknowledged` with the heartbeat's nonce, so that the worker knows it was heard.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from msgspec import field

from haif.base.codec import Message
from haif.base.ids import ModelDigest, Nonce
from haif.protocol.sandbox import Sandbox

METHOD: Final = "worker.heartbeat"
HEARTBEAT: Final = 1  # live message type


class Load(Message, frozen=True):
    """How busy one model of a worker is, and what confines its engine now. Counts of requests; tokens/s of late.

    `hot`: tags (`protocol.prefixes`) of beginnings that were computed lately and may be in its cache.
    `ready_seconds`: until a request given now could begin, as the worker estimates it; 0 where the model is in memory.
    """

    model: ModelDigest
    slots: int
    running: int
    queued: int
    tokens_per_second: float
    sandbox: Sandbox
    hot: list[bytes] = field(default_factory=list)
    ready_seconds: float = 0.0


class Heartbeat(Message, frozen=True):
    """The worker is alive, and this is its load. An empty list says: draining, send nothing more."""

    loads: list[Load]


class Repute(StrEnum):
    """What an orchestrator tells a worker of itself, for its owner to know why no work comes."""

    FINE = ""
    CONVICTED = "convicted"  # it signed for what it did not compute; it gets no work
    INCOMPARABLE = "incomparable"  # no validator computes by its recipe; it gets only what need not be checked


class Acknowledged(Message, frozen=True):
    """The orchestrator heard the heartbeat with this nonce, and thinks this of the worker."""

    nonce: Nonce
    repute: Repute = Repute.FINE
