"""The pulse: a worker tells its orchestrators, every `limits.HEARTBEAT_SECONDS`, that it lives and how loaded it is.

Method `worker.heartbeat`: the argument is a live-signed `Heartbeat` (type `HEARTBEAT`), scoped to the session; the
reply is an `Acknowledged` with the heartbeat's nonce, so that the worker knows it was heard.
"""

from __future__ import annotations

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
    """

    model: ModelDigest
    slots: int
    running: int
    queued: int
    tokens_per_second: float
    sandbox: Sandbox
    hot: list[bytes] = field(default_factory=list)


class Heartbeat(Message, frozen=True):
    """The worker is alive, and this is its load. An empty list says: draining, send nothing more."""

    loads: list[Load]


class Acknowledged(Message, frozen=True):
    """The orchestrator heard the heartbeat with this nonce."""

    nonce: Nonce
