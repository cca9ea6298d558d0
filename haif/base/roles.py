"""What a peer may be in a network: words that certificates, methods and settings share."""

from __future__ import annotations

from enum import StrEnum


class Role(StrEnum):
    """Who takes part, and as what. A peer may be several of these."""

    GATEWAY = "gateway"
    OBSERVER = "observer"  # looks: `haif dht`, `haif peers`, `haif net ping`
    ORCHESTRATOR = "orchestrator"
    RELAY = "relay"
    VALIDATOR = "validator"
    WORKER = "worker"
