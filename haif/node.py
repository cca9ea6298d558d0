"""The composition root: settings become services, each handed only what it may touch, and run until told to stop.

What is where, in the state folder:

    keys/<name>.key      the identity of an instance; keys/publisher.key signs the models added here
    networks/<name>/     what is known of a network: its keys' names, certificates, lists of revocations
    models/              the model store
    <name>/              an instance's databases (journal, tenants, spans) and its lock
    logs/                what the roles of `haif up` say
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from haif import config
from haif.artifacts.service import ModelStore, StoredModel
from haif.base.errors import HaifError, Misuse
from haif.base.ids import NetId, PeerId
from haif.base.roles import Role
from haif.dht.service import Dht
from haif.identity.admission import Book
from haif.identity.keys import Identity, NoiseKey
from haif.identity.service import Keyring, Memory, Networks
from haif.identity.voice import Voice
from haif.membership.service import Membership
from haif.protocol.relay import RelayAt
from haif.reach.classify import Mapping
from haif.reach.natpmp import Opcode
from haif.reach.service import Outlook, PortMapper, PortMapping, Reach, own_addresses
from haif.reach.standing import Standing
from haif.relay.service import Carrier, Places
from haif.runtime import disk
from haif.runtime.clock import SystemClock, entropy
from haif.telemetry import names
from haif.telemetry.service import Telemetry
from haif.wire.service import Wire

if TYPE_CHECKING:
    from haif.engine.request import ModelInfo
    from haif.engine.service import Engine
    from haif.relay.service import Relay

DRAIN_SECONDS = 1.0
Announce = Callable[[dict[str, str]], None]


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


def run(settings: config.Common, *, announce: Announce, until_eof: bool = False) -> int:
    """Run the role these settings are for until SIGINT, SIGTERM or, if asked, the end of standard input."""

    async def whole() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        if until_eof:
            _watch_stdin(loop, stop)
        serving = asyncio.create_task(_serve(settings, announce))
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        serving.cancel()  # wherever it is: a role that is still loading its model stops too
        with contextlib.suppress(asyncio.CancelledError):
            await serving

    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(whole())
    return 0


async def _serve(settings: config.Common, announce: Announce) -> None:
    async with _role(settings) as ready:
        announce(ready)
        await asyncio.Event().wait()  # until it is cancelled


def model_store(settings: config.Common) -> ModelStore:
    """The models of this machine, trusting its own publisher key and the publishers in the settings."""
    ring = Keyring(settings.folder / "keys")
    own = [ring.load("publisher").peer] if ring.path("publisher").exists() else []
    named = _peers(getattr(settings, "publishers", ()), "publisher")
    return ModelStore(settings.folder / "models", publishers=[*own, *named], clock=SystemClock())


def _role(settings: config.Common) -> AbstractAsyncContextManager[dict[str, str]]:
    """The role these settings are for."""
    match settings:
        case config.OrchestratorSettings():
            return _orchestrator(settings)
        case config.WorkerSettings():
            return _worker(settings)
        case config.GatewaySettings():
            return _gateway(settings)
        case config.RelaySettings():
            return _relay(settings)
        case config.NodeSettings():
            return _node(settings)
    raise Misuse(f"{type(settings).__name__} is no role's")


# --- the ground -------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def _ground(settings: config.Common, *, listen: bool) -> AsyncIterator[Ground]:
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
            host=settings.host, port=settings.dht_port, allow_private=settings.allow_private, lan=_is_lan(settings),
            contacts_file=folder / "contacts", ephemeral=not _begins_persistent(settings),
            on_dropped=telemetry.dropped, key=charter.key,
        )  # fmt: skip
        wire = Wire(
            identity=identity, noise_key=NoiseKey(entropy(32)), net=net, clock=clock, entropy=entropy,
            on_dropped=telemetry.dropped, host=settings.host, port=settings.wire_port if listen else None,
            book=book,
        )  # fmt: skip
        memory = Memory(folder / "voice")
        voice = Voice(identity, net, clock, entropy, memory.take())
        membership = Membership(
            book=book, peer=identity.peer, networks=networks, wire=wire, clock=clock, on_dropped=telemetry.dropped,
            on_revoked=dht.exclude,
        )  # fmt: skip
        async with (
            telemetry, dht, wire, membership if network.roots else contextlib.nullcontext(),
            _reached(settings, identity, net, clock, telemetry, dht, wire, listen=listen) as reach,
        ):  # fmt: skip
            _watch_mesh(telemetry, wire, dht)
            _watch_reach(telemetry, reach)
            _watch_network(telemetry, book, clock)
            metrics = await telemetry.serve_metrics("127.0.0.1", settings.metrics_port)
            ready = {
                "peer": str(identity.peer),
                "network": f"{network.name} ({'closed' if network.closed else 'open'})",
                "dht": _text(dht.address),
                "metrics": f"http://{_text(metrics)}/metrics",
            }
            if listen:
                ready["wire"] = _text(wire.address)
            yield Ground(
                name=name, folder=folder, identity=identity, net=net, closed=network.closed, clock=clock,
                telemetry=telemetry, dht=dht, wire=wire, reach=reach, voice=voice, ready=ready,
            )  # fmt: skip
            await wire.drain(DRAIN_SECONDS)
        memory.leave(voice.remember())


def _begins_persistent(settings: config.Common) -> bool:
    """Whether others may rely on this node from its start: as told, or because its mesh is one machine or one site.

    Elsewhere a node must have been reachable for long, unless it is the first and there is nobody to say so.
    """
    if settings.dht_mode != "auto":
        return settings.dht_mode == "persistent"
    return settings.allow_private or config.is_loopback(settings.host) or not settings.bootstrap


@asynccontextmanager
async def _reached(
    settings: config.Common, identity: Identity, net: NetId, clock: SystemClock, telemetry: Telemetry, dht: Dht,
    wire: Wire, *, listen: bool,
) -> AsyncIterator[Reach]:  # fmt: skip
    """How this node reaches others and is reached: its relays, the router's ports, and how peers see it."""
    relays = [await _relay_at(text) for text in getattr(settings, "relays", ())]
    places = Places(
        relays, peer=identity.peer, net=net, wire=wire, clock=clock, on_dropped=telemetry.dropped,
        on_change=lambda held: reach.learn(relays=held),
    )  # fmt: skip
    reach = Reach(
        identity=identity, net=net, wire=wire, clock=clock, on_dropped=telemetry.dropped, site=settings.allow_private,
        carry=Carrier(wire), relay_at=places.at,
    )  # fmt: skip
    reach.learn(own=own_addresses([*settings.bootstrap_addresses, *(relay.address for relay in relays)]))
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(reach)
        await stack.enter_async_context(_outlook(settings, dht, clock, telemetry, reach))
        if relays:
            await stack.enter_async_context(places)
        if settings.port_mapping:
            await stack.enter_async_context(_port_mapper(settings, telemetry, dht, wire, reach, listen=listen))
        yield reach


def _port_mapper(
    settings: config.Common, telemetry: Telemetry, dht: Dht, wire: Wire, reach: Reach, *, listen: bool
) -> PortMapper:
    if config.is_loopback(settings.host):
        raise Misuse("--port-mapping asks a router for ports, but this node listens on loopback only: give --host")

    def mapped(mappings: tuple[PortMapping, ...]) -> None:
        reach.learn(mapped=tuple(mapping.outside for mapping in mappings if mapping.opcode is Opcode.TCP))

    ports = ((Opcode.UDP, dht.address[1]), *([(Opcode.TCP, wire.address[1])] if listen else []))
    return PortMapper(ports, on_mapped=mapped, on_dropped=telemetry.dropped)


async def _relay_at(text: str) -> RelayAt:
    """A relay by PEER@HOST:PORT; a name is looked up once, for sessions are told apart by the relay's address."""
    peer, at, where = text.partition("@")
    if not at:
        raise Misuse(f"--relay: {text!r} is not PEER@HOST:PORT, as `haif relay` prints it")
    host, port = config.parse_address(where)
    (relay,) = _peers((peer,), "relay")
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise Misuse(f"--relay: {host!r} is no address and no known name ({error})") from None
    return RelayAt(relay, str(found[0][4][0]), port)


@asynccontextmanager
async def _outlook(
    settings: config.Common, dht: Dht, clock: SystemClock, telemetry: Telemetry, reach: Reach
) -> AsyncIterator[None]:
    """How peers see this node, kept up to date; nobody sees a loopback mesh from outside."""

    def changed(standing: Standing) -> None:
        reach.learn(verdict=standing.verdict)
        for mapping in Mapping:
            telemetry.gauge(names.REACH_MAPPING, float(mapping is standing.verdict.mapping), mapping=mapping.value)
        persistent = _begins_persistent(settings) or (settings.dht_mode == "auto" and standing.persistent)
        telemetry.gauge(names.REACH_PERSISTENT, float(persistent))
        dht.appear(ephemeral=not persistent)

    changed(Standing())
    if config.is_loopback(settings.host):
        yield
        return
    async with Outlook(dht=dht, clock=clock, on_standing=changed):
        yield


# --- the roles --------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def _node(settings: config.NodeSettings) -> AsyncIterator[dict[str, str]]:
    async with _ground(settings, listen=False) as ground:
        yield ground.ready


@asynccontextmanager
async def _orchestrator(settings: config.OrchestratorSettings) -> AsyncIterator[dict[str, str]]:
    from haif.orchestrator.service import MIGRATIONS, CatalogueEntry, Orchestrator, OrchestratorSettings
    from haif.storage.service import Database, Journal

    store = model_store(settings)
    models = [store.find(name) for name in settings.models] if settings.models else store.models()
    gateways = frozenset(_peers(settings.gateways, "gateway"))
    chosen = OrchestratorSettings(
        gateways=gateways,
        workers=frozenset(_peers(settings.workers, "worker")) or None,
        catalogue=tuple(
            CatalogueEntry(
                name=model.name, digest=model.digest, context_tokens=0, published=model.manifest.payload.published
            )
            for model in models
        ),
    )
    async with (
        _ground(settings, listen=True) as ground,
        Database(ground.folder / "journal.sqlite", MIGRATIONS, exclusive=True) as database,
        Orchestrator(
            settings=replace(chosen, gateways=None) if ground.closed and not gateways else chosen,
            identity=ground.identity, net=ground.net, wire=ground.wire, reach=ground.reach, dht=ground.dht,
            voice=ground.voice, journal=Journal(database), telemetry=ground.telemetry, clock=ground.clock,
            entropy=entropy,
        ),
    ):  # fmt: skip
        yield ground.ready


@asynccontextmanager
async def _worker(settings: config.WorkerSettings) -> AsyncIterator[dict[str, str]]:
    from haif.worker.service import Worker, WorkerSettings

    honoured = frozenset(_peers(settings.orchestrators, "orchestrator"))
    if not honoured:
        raise Misuse("a worker serves only orchestrators it knows: give --orchestrator PEER (see `haif keys show`)")
    model = model_store(settings).find(settings.model)
    async with (
        _ground(settings, listen=True) as ground,
        _engine(settings, model, ground.clock) as engine,
        Worker(
            settings=WorkerSettings(orchestrators=honoured, model=model.digest, name=model.name),
            identity=ground.identity, net=ground.net, wire=ground.wire, reach=ground.reach, dht=ground.dht,
            voice=ground.voice, engine=engine, telemetry=ground.telemetry, clock=ground.clock, entropy=entropy,
        ) as worker,
    ):  # fmt: skip
        _watch_engine(ground.telemetry, engine, model.name)
        if not worker.heard_by:
            print("no orchestrator answers yet; this worker goes on looking for them", file=sys.stderr, flush=True)
        yield ground.ready | {"model": model.name, "model_digest": str(model.digest), "sandbox": engine.model.sandbox}


@asynccontextmanager
async def _gateway(settings: config.GatewaySettings) -> AsyncIterator[dict[str, str]]:
    from haif.gateway.service import TENANTS_SCHEMA, Gateway, GatewaySettings
    from haif.storage.service import Database

    orchestrators = tuple(_peers(settings.orchestrators, "orchestrator"))
    if not orchestrators:
        raise Misuse("a gateway uses only orchestrators it knows: give --orchestrator PEER (see `haif keys show`)")
    async with (
        _ground(settings, listen=False) as ground,
        Database(ground.folder / "tenants.sqlite", TENANTS_SCHEMA) as tenants,
        Gateway(
            settings=GatewaySettings(host=settings.host, port=settings.http_port, orchestrators=orchestrators),
            identity=ground.identity, reach=ground.reach, dht=ground.dht, voice=ground.voice, tenants=tenants,
            telemetry=ground.telemetry, clock=ground.clock, entropy=entropy,
        ) as gateway,
    ):  # fmt: skip
        yield ground.ready | {"http": f"http://{_text(gateway.address)}"}


@asynccontextmanager
async def _relay(settings: config.RelaySettings) -> AsyncIterator[dict[str, str]]:
    from haif.relay.circuits import Allowance
    from haif.relay.service import Relay

    allowance = Allowance(
        circuits=settings.circuits, bytes_per_second=settings.bytes_per_second,
        circuit_bytes=settings.circuit_bytes, circuit_seconds=settings.circuit_seconds,
    )  # fmt: skip
    async with (
        _ground(settings, listen=True) as ground,
        Relay(
            identity=ground.identity, net=ground.net, wire=ground.wire, clock=ground.clock, entropy=entropy,
            on_dropped=ground.telemetry.dropped, allowance=allowance,
        ) as relay,
    ):  # fmt: skip
        _watch_relay(ground.telemetry, relay)
        yield ground.ready | {"relay": f"{ground.identity.peer}@{ground.ready['wire']}"}


@asynccontextmanager
async def _engine(settings: config.WorkerSettings, model: StoredModel, clock: SystemClock) -> AsyncIterator[Engine]:
    from haif.engine.service import Engine, EngineSettings

    def died(cause: str) -> None:
        print(f"the engine ended: {cause}; it is being started again", file=sys.stderr, flush=True)

    chosen = EngineSettings(
        model=model.path, digest=model.digest, slots=settings.slots, context_tokens=settings.context_tokens,
        threads=settings.threads or max(1, (os.cpu_count() or 2) // 2),
        insecure_no_sandbox=settings.insecure_no_sandbox,
    )  # fmt: skip
    async with Engine(chosen, clock=clock, entropy=entropy, on_died=died) as engine:
        yield engine


async def try_engine(settings: config.WorkerSettings) -> ModelInfo:
    """Start the engine with the model of these settings, and say what it reports of itself."""
    async with _engine(settings, model_store(settings).find(settings.model), SystemClock()) as engine:
        return engine.model


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


# --- what /metrics shows of the services' own statistics --------------------------------------------------------------


def _watch_mesh(telemetry: Telemetry, wire: Wire, dht: Dht) -> None:
    def refresh() -> None:
        at, of = wire.statistics(), dht.statistics()
        telemetry.gauge(names.WIRE_SESSIONS, at.sessions)
        telemetry.gauge(names.WIRE_CALLS, at.calls_made + at.calls_served)
        telemetry.total(names.WIRE_BYTES, at.bytes_in, direction="in")
        telemetry.total(names.WIRE_BYTES, at.bytes_out, direction="out")
        telemetry.total(names.WIRE_HANDSHAKES, at.handshakes_done, outcome="ok")
        telemetry.total(names.WIRE_HANDSHAKES, at.handshakes_failed, outcome="failed")
        telemetry.total(names.WIRE_MOVES, at.moved)
        telemetry.gauge(names.DHT_OPERATIONS, of.operations)
        for direction, datagrams, size in (
            ("in", of.datagrams_in, of.bytes_in),
            ("out", of.datagrams_out, of.bytes_out),
        ):
            telemetry.total(names.DHT_DATAGRAMS, datagrams, direction=direction)
            telemetry.total(names.DHT_BYTES, size, direction=direction)
        for outcome, value in (
            ("served", of.queries_answered),
            ("accepted", of.replies_accepted),
            ("resent", of.queries_resent),
            ("failed", of.queries_failed),
        ):
            telemetry.total(names.DHT_QUERIES, value, outcome=outcome)
        telemetry.gauge(names.DHT_NODES, of.contacts)
        telemetry.gauge(names.DHT_RECORDS, of.records)
        telemetry.gauge(names.DHT_STORE_BYTES, of.store_bytes)
        for outcome, value in (
            ("given", of.tickets_given),
            ("redeemed", of.tickets_redeemed),
            ("void", of.tickets_void),
        ):
            telemetry.total(names.DHT_TICKETS, value, outcome=outcome)
        telemetry.gauge(names.DHT_WAITING, of.tickets_held)
        telemetry.total(names.DHT_ADMITTED, of.puts_waited)
        telemetry.gauge(names.DHT_WATCHES, of.watched)
        telemetry.gauge(names.DHT_WATCHERS, of.watchers)
        telemetry.total(names.DHT_WATCHED, of.notices_heard, by="notice")
        telemetry.total(names.DHT_WATCHED, of.records_missed, by="read")
        for lookup in dht.lookups_ended():
            telemetry.observe(names.DHT_LOOKUP_HOPS, lookup.hops)
            telemetry.observe(names.DHT_LOOKUP_SECONDS, lookup.seconds)
        telemetry.gauge(names.DHT_NODES_ESTIMATED, of.nodes_estimated)
        telemetry.total(names.DHT_ECLIPSES, of.eclipses_suspected)

    telemetry.watch(refresh)


def _watch_network(telemetry: Telemetry, book: Book, clock: SystemClock) -> None:
    def refresh() -> None:
        telemetry.gauge(names.NETWORK_REVOKED, len(book.revoked()))
        telemetry.gauge(names.NETWORK_LISTS_STALE, book.stale(clock.wall()))

    telemetry.watch(refresh)


def _watch_reach(telemetry: Telemetry, reach: Reach) -> None:
    def refresh() -> None:
        for way, count in reach.statistics().items():
            telemetry.total(names.REACH_SESSIONS, count, way=way)

    telemetry.watch(refresh)


def _watch_engine(telemetry: Telemetry, engine: Engine, model: str) -> None:
    for layer in names.SANDBOX_LAYERS:
        enforced = layer in engine.model.enforced
        telemetry.gauge(names.SANDBOX_LAYER, float(enforced), layer=layer)

    def refresh() -> None:
        now = engine.statistics()
        telemetry.gauge(names.WORKER_SLOTS, now.slots, model=model)
        telemetry.gauge(names.WORKER_RUNNING, now.running, model=model)
        telemetry.gauge(names.WORKER_QUEUE_DEPTH, now.queued, model=model)
        telemetry.total(names.ENGINE_DEATHS, now.deaths)
        telemetry.total(names.ENGINE_PREFILL_TOKENS, now.prompt_tokens)
        telemetry.total(names.ENGINE_DECODE_TOKENS, now.completion_tokens)
        telemetry.gauge(names.ENGINE_BATCH_OCCUPANCY, now.running / now.slots)
        telemetry.gauge(names.ENGINE_KV_TOKENS, now.kv_tokens)

    telemetry.watch(refresh)


def _watch_relay(telemetry: Telemetry, relay: Relay) -> None:
    def refresh() -> None:
        at = relay.statistics()
        telemetry.gauge(names.RELAY_PLACES, at.places)
        telemetry.gauge(names.RELAY_CIRCUITS, at.circuits)
        telemetry.total(names.RELAY_CIRCUITS_TOTAL, at.circuits_joined, outcome="joined")
        telemetry.total(names.RELAY_CIRCUITS_TOTAL, at.circuits_failed, outcome="failed")
        telemetry.total(names.RELAY_BYTES, at.bytes_relayed)

    telemetry.watch(refresh)


# --- below ------------------------------------------------------------------------------------------------------------


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """uvloop where it is installed (the extra `speed`), else the standard loop."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


def _watch_stdin(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    """Stop when whoever started us closes our standard input, by ending or by being killed."""

    def readable() -> None:
        if not os.read(sys.stdin.fileno(), 4096):
            loop.remove_reader(sys.stdin.fileno())
            stop.set()

    loop.add_reader(sys.stdin.fileno(), readable)


def _is_lan(settings: config.Common) -> bool:
    """Whether to look for nodes nearby: never for those who listen where nobody else is."""
    try:
        address = ip_address(settings.host)
    except ValueError:
        return False  # a name; `--bootstrap` finds the others
    return settings.lan and address.version == 4 and not address.is_loopback


def _peers(texts: tuple[str, ...], what: str) -> list[PeerId]:
    try:
        return [PeerId.parse(text) for text in texts]
    except ValueError as error:
        raise Misuse(f"--{what}: {error}") from None


def _text(address: tuple[str, int]) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
