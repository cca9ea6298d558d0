"""`haif relay`: carries sessions of peers that cannot dial each other, blindly."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from haif import config
from haif.node.ground import open_ground
from haif.node.watch import watch_relay
from haif.relay.circuits import Allowance
from haif.relay.service import Relay
from haif.runtime.clock import entropy


@asynccontextmanager
async def open_relay(settings: config.RelaySettings) -> AsyncIterator[dict[str, str]]:
    """The relay while the block is entered, and what to tell whoever started it."""
    allowance = Allowance(
        circuits=settings.circuits, bytes_per_second=settings.bytes_per_second,
        circuit_bytes=settings.circuit_bytes, circuit_seconds=settings.circuit_seconds,
    )  # fmt: skip
    async with (
        open_ground(settings) as ground,
        Relay(
            identity=ground.identity, net=ground.net, wire=ground.wire, clock=ground.clock, entropy=entropy,
            on_dropped=ground.telemetry.dropped, allowance=allowance,
        ) as relay,
        ground.announced("relay"),
    ):  # fmt: skip
        watch_relay(ground.telemetry, relay)
        yield ground.ready | {"relay": f"{ground.identity.peer}@{ground.ready['wire']}"}
