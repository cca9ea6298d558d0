"""What every role stands on: key, clock, telemetry, DHT, wire and reach of one instance."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from haif import config
from haif.base.errors import HaifError, Misuse
from haif.base.ids import NetId, PeerId
from haif.base.roles import Role
from haif.dht.service import Dht
from haif.identity.admission import Book
from haif.identity.keys import Identity, NoiseKey
from haif.identity.service import Keyring, Memory, Networks
from haif.identity.voice import Voice
from haif.membership.service import Membership
from haif.node.reached import reached
from haif.node.settings import address_text, begins_persistent, looks_nearby
from haif.node.watch import watch_dht, watch_network, watch_reach, watch_wire
from haif.reach.service import Announced, Reach
from haif.runtime import disk
from haif.runtime.clock import SystemClock, entropy
from haif.telemetry.service import Telemetry
from haif.wire.service import Wire

DRAIN_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True)
class Ground:
    """What every role stands on."""

    name: str
    folder: Path
    identity: Identity
    net: NetId
    closed: bool
    clock: SystemClock
    telemetry: Telemetry
    dht: Dht
    wire: Wire
    reach: Reach
    voice: Voice
    ready: dict[str, str]

    def announced(self, role: str) -> Announced:
        """To be entered last, when the role answers whoever finds it."""
        return Announced(
            role, peer=self.identity.peer, net=self.net, dht=self.dht, reach=self.reach,
            on_dropped=self.telemetry.dropped,
        )  # fmt: skip


@asynccontextmanager
async def open_ground(settings: config.Common) -> AsyncIterator[Ground]:
    """Key, clock, telemetry, DHT and wire of one instance; the wire drains when the role above it is done."""
    role = config.SECTIONS[type(settings)]
    name = settings.name or role
    folder = disk.private_folder(settings.folder / name)
    clock = SystemClock()
    networks = Networks(settings.folder / "networks")
    charter = networks.find(settings.network, clock.wall())
    network, net = charter.network, charter.network.net
    with disk.owned(folder / "lock", name):
        identity = Keyring(settings.folder / "keys").load_or_create(name, entropy)
        book = networks.book(network, clock.wall(), identity.peer)
        _check_admitted(book, identity.peer, settings, clock)
        telemetry = Telemetry(role=role, instance=name, spans=folder / "spans.sqlite", otlp=settings.otlp or None)
        dht = Dht(
            identity=identity, net=net, clock=clock, entropy=entropy, bootstrap=settings.bootstrap_addresses,
            host=settings.host, port=settings.dht_port, beside=settings.host6, allow_private=settings.allow_private,
            lan=looks_nearby(settings), contacts_file=folder / "contacts", ephemeral=not begins_persistent(settings),
            on_dropped=telemetry.dropped, key=charter.key,
        )  # fmt: skip
        wire = Wire(
            identity=identity, noise_key=NoiseKey(entropy(32)), net=net, clock=clock, entropy=entropy,
            on_dropped=telemetry.dropped, host=settings.host, port=settings.wire_port,
            beside=settings.host6, book=book,
        )  # fmt: skip
        memory = Memory(folder / "voice")
        voice = Voice(identity, net, clock, entropy, memory.take())
        membership = Membership(
            book=book, peer=identity.peer, networks=networks, wire=wire, clock=clock, on_dropped=telemetry.dropped,
            on_revoked=dht.exclude,
        )  # fmt: skip
        async with (
            telemetry, dht, wire, membership if network.roots else contextlib.nullcontext(),
            reached(settings, identity, net, clock, telemetry, dht, wire) as reach,
        ):  # fmt: skip
            watch_wire(telemetry, wire)
            watch_dht(telemetry, dht)
            watch_reach(telemetry, reach)
            watch_network(telemetry, book, clock)
            metrics = await telemetry.serve_metrics("127.0.0.1", settings.metrics_port)
            ready = {
                "peer": str(identity.peer),
                "network": f"{network.name} ({'closed' if network.closed else 'open'})",
                "dht": address_text(dht.address),
                "metrics": f"http://{address_text(metrics)}/metrics",
                "wire": address_text(wire.address),
            }
            if settings.host6:
                ready |= {"dht6": address_text(dht.sides[1].address), "wire6": address_text(wire.addresses[1])}
            yield Ground(
                name=name, folder=folder, identity=identity, net=net, closed=network.closed, clock=clock,
                telemetry=telemetry, dht=dht, wire=wire, reach=reach, voice=voice, ready=ready,
            )  # fmt: skip
            await wire.drain(DRAIN_SECONDS)
        memory.leave(voice.remember())


def _check_admitted(book: Book, peer: PeerId, settings: config.Common, clock: SystemClock) -> None:
    """Say at once, and to the person who can change it, if the network will not have this peer in this role."""
    if not book.network.closed:
        return
    kind = config.SECTIONS[type(settings)]
    try:
        roles = book.judge(peer, book.own, clock.wall())
    except HaifError as error:
        roles, why = frozenset[Role](), error.message
    else:
        why = "it is not among its roles"
    if not roles or (kind != "node" and Role(kind) not in roles):
        name = book.network.name
        raise Misuse(
            f"this peer may not be a {kind} of the closed network {name}: {why}. Its owner can run:\n"
            f"  haif network admit {peer} --role {'observer' if kind == 'node' else kind} --network {name}\n"
            f"and you with the file from there: haif network join FILE"
        )
