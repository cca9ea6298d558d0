"""How a node reaches others and is reached: its relays, the router's ports, and how peers see it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial

from haif import config
from haif.base.errors import Misuse
from haif.base.ids import NetId
from haif.dht.service import Dht, Side
from haif.identity.keys import Identity
from haif.node.settings import address_text, begins_persistent, relay_at
from haif.protocol.relay import RelayAt
from haif.reach.classify import Mapping
from haif.reach.natpmp import Opcode
from haif.reach.service import Outlook, PortMapper, PortMapping, Reach, Relayed, own_addresses
from haif.reach.standing import Standing
from haif.relay.service import Carrier, Places
from haif.runtime.clock import SystemClock
from haif.runtime.net import ANYWHERE, ANYWHERE_6
from haif.telemetry import names
from haif.telemetry.service import Telemetry
from haif.wire.service import Wire


@asynccontextmanager
async def reached(
    settings: config.Common, identity: Identity, net: NetId, clock: SystemClock, telemetry: Telemetry, dht: Dht,
    wire: Wire,
) -> AsyncIterator[Reach]:  # fmt: skip
    """How this node reaches others and is reached: its relays, the router's ports, and how peers see it."""
    relays = [await relay_at(text) for text in getattr(settings, "relays", ())]
    places = Places(
        relays, peer=identity.peer, net=net, wire=wire, clock=clock, on_dropped=telemetry.dropped,
        on_change=lambda held: reach.learn(relays=held),
    )  # fmt: skip
    reach = Reach(
        identity=identity, net=net, wire=wire, clock=clock, on_dropped=telemetry.dropped, site=settings.allow_private,
        carry=Relayed(Carrier(wire), dht, net, site=settings.allow_private), relay_at=places.at,
    )  # fmt: skip
    others = [*settings.bootstrap_addresses, *(relay.address for relay in relays)]
    reach.learn(own=own_addresses([*others, ANYWHERE, ANYWHERE_6]))
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(reach)
        outlooks = _Outlooks(settings, dht.sides, clock, telemetry, reach)
        for side in dht.sides:
            await stack.enter_async_context(outlooks.of(side))
        if relays:
            await stack.enter_async_context(places)
            _say_missing(relays, places)
        if settings.port_mapping:
            await stack.enter_async_context(_port_mapper(settings, telemetry, dht, wire, reach))
        yield reach


def _say_missing(wanted: Sequence[RelayAt], places: Places) -> None:
    for relay in wanted:
        if relay not in places.relays:
            where = f"the relay {relay.peer.short}… at {address_text(relay.address)}"
            print(f"{where} gives no place yet; it is asked again and again", file=sys.stderr, flush=True)


class _Outlooks:
    """How peers see this node, kept up to date for each family; nobody sees a loopback mesh from outside."""

    def __init__(
        self, settings: config.Common, sides: Sequence[Side], clock: SystemClock, telemetry: Telemetry, reach: Reach
    ) -> None:
        self._settings, self._clock, self._telemetry, self._reach = settings, clock, telemetry, reach
        self._standings = {side.address: Standing() for side in sides}

    def of(self, side: Side) -> AbstractAsyncContextManager[object]:
        """What asks the peers of one side, while it is entered."""
        self._changed(side, Standing())
        if config.is_loopback(side.address[0]):
            return contextlib.nullcontext()
        return Outlook(side=side, clock=self._clock, on_standing=partial(self._changed, side))

    def _changed(self, side: Side, standing: Standing) -> None:
        self._standings[side.address] = standing
        self._reach.learn(verdicts=tuple(each.verdict for each in self._standings.values()))
        family = "ipv6" if ":" in side.address[0] else "ipv4"
        for mapping in Mapping:
            seen = float(mapping is standing.verdict.mapping)
            self._telemetry.gauge(names.REACH_MAPPING, seen, mapping=mapping.value, family=family)
        settings = self._settings
        persistent = begins_persistent(settings) or (settings.dht_mode == "auto" and standing.persistent)
        self._telemetry.gauge(names.REACH_PERSISTENT, float(persistent), family=family)
        side.appear(ephemeral=not persistent)


def _port_mapper(settings: config.Common, telemetry: Telemetry, dht: Dht, wire: Wire, reach: Reach) -> PortMapper:
    if config.is_loopback(settings.host):
        raise Misuse("--port-mapping asks a router for ports, but this node listens on loopback only: give --host")

    def mapped(mappings: tuple[PortMapping, ...]) -> None:
        reach.learn(mapped=tuple(mapping.outside for mapping in mappings if mapping.opcode is Opcode.TCP))

    ports = (Opcode.UDP, dht.address[1]), (Opcode.TCP, wire.address[1])
    return PortMapper(ports, on_mapped=mapped, on_dropped=telemetry.dropped)
