"""What /metrics shows of the services' own statistics, read whenever somebody asks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from haif.dht.service import Dht
from haif.identity.admission import Book
from haif.reach.service import Reach
from haif.runtime.clock import SystemClock
from haif.telemetry import names
from haif.telemetry.service import Telemetry
from haif.wire.service import Wire

if TYPE_CHECKING:  # a role imports only what it needs
    from haif.relay.service import Relay
    from haif.worker.service import Pool
    from haif.worker.standing import Standing


def watch_wire(telemetry: Telemetry, wire: Wire) -> None:
    """Sessions, calls, bytes and handshakes."""

    def refresh() -> None:
        at = wire.statistics()
        telemetry.gauge(names.WIRE_SESSIONS, at.sessions)
        telemetry.gauge(names.WIRE_CALLS, at.calls_made + at.calls_served)
        telemetry.total(names.WIRE_BYTES, at.bytes_in, direction="in")
        telemetry.total(names.WIRE_BYTES, at.bytes_out, direction="out")
        telemetry.total(names.WIRE_HANDSHAKES, at.handshakes_done, outcome="ok")
        telemetry.total(names.WIRE_HANDSHAKES, at.handshakes_failed, outcome="failed")
        telemetry.total(names.WIRE_MOVES, at.moved)

    telemetry.watch(refresh)


def watch_dht(telemetry: Telemetry, dht: Dht) -> None:
    """Operations and datagrams, records and tickets, watches, and the lookups that ended since last time."""

    def refresh() -> None:
        of = dht.statistics()
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
        telemetry.total(names.DHT_CARRIED, of.carried, whose="others")
        telemetry.total(names.DHT_CARRIED, of.carried_for_us, whose="ours")
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


def watch_network(telemetry: Telemetry, book: Book, clock: SystemClock) -> None:
    """What is revoked in a closed network, and whether the lists that say so are stale."""

    def refresh() -> None:
        telemetry.gauge(names.NETWORK_REVOKED, len(book.revoked()))
        telemetry.gauge(names.NETWORK_LISTS_STALE, book.stale(clock.wall()))

    telemetry.watch(refresh)


def watch_reach(telemetry: Telemetry, reach: Reach) -> None:
    """By which ways peers were reached."""

    def refresh() -> None:
        for way, count in reach.statistics().items():
            telemetry.total(names.REACH_SESSIONS, count, way=way)

    telemetry.watch(refresh)


def watch_pool(telemetry: Telemetry, pool: Pool) -> None:
    """Where each model stands and what it takes; slots, tokens, deaths and jails of their engines."""

    def refresh() -> None:
        standings = [each for each in pool.standings() if each.adapted is None]  # one for each engine
        busy = [each.statistics for each in standings if each.statistics]
        for each in standings:
            _watch_model(telemetry, each)
        telemetry.gauge(names.WORKER_MEMORY, pool.memory_bytes, use="budget")
        telemetry.gauge(names.WORKER_MEMORY, pool.memory_used, use="models")
        loads, unloads, deaths = pool.counts
        telemetry.total(names.WORKER_MODEL_MOVES, loads, to="memory")
        telemetry.total(names.WORKER_MODEL_MOVES, unloads, to="disk")
        prompt, answers = pool.tokens()
        telemetry.total(names.ENGINE_DEATHS, deaths)
        telemetry.total(names.ENGINE_PREFILL_TOKENS, prompt)
        telemetry.total(names.ENGINE_DECODE_TOKENS, answers)
        telemetry.total(names.ENGINE_PREEMPTIONS, pool.preemptions)
        slots = sum(each.slots for each in busy)
        telemetry.gauge(names.ENGINE_BATCH_OCCUPANCY, sum(each.running for each in busy) / slots if slots else 0.0)
        telemetry.gauge(names.ENGINE_KV_TOKENS, sum(each.kv_tokens for each in busy))
        jail = next((each.about.enforced for each in standings if each.about), ())
        for layer in names.SANDBOX_LAYERS:
            telemetry.gauge(names.SANDBOX_LAYER, float(layer in jail), layer=layer)

    telemetry.watch(refresh)


def _watch_model(telemetry: Telemetry, at: Standing) -> None:
    now = at.statistics
    telemetry.gauge(names.WORKER_SLOTS, at.slots, model=at.name)
    telemetry.gauge(names.WORKER_RUNNING, now.running if now else 0, model=at.name)
    telemetry.gauge(names.WORKER_QUEUE_DEPTH, (now.queued if now else 0) + at.waiting, model=at.name)
    telemetry.gauge(names.WORKER_MODEL_MEMORY, at.size, model=at.name)
    telemetry.gauge(names.WORKER_MODEL_READY, at.ready_seconds, model=at.name)
    for state in names.MODEL_STATES:
        telemetry.gauge(names.WORKER_MODEL_STATE, float(at.state == state), model=at.name, state=state)


def watch_relay(telemetry: Telemetry, relay: Relay) -> None:
    """Places held and circuits joined for others."""

    def refresh() -> None:
        at = relay.statistics()
        telemetry.gauge(names.RELAY_PLACES, at.places)
        telemetry.gauge(names.RELAY_CIRCUITS, at.circuits)
        telemetry.total(names.RELAY_CIRCUITS_TOTAL, at.circuits_joined, outcome="joined")
        telemetry.total(names.RELAY_CIRCUITS_TOTAL, at.circuits_failed, outcome="failed")
        telemetry.total(names.RELAY_BYTES, at.bytes_relayed)

    telemetry.watch(refresh)
