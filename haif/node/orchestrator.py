"""`haif orchestrator`: places jobs on workers and keeps the journal."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from haif import config
from haif.base.errors import Misuse
from haif.base.ids import PeerId
from haif.node.ground import Ground, open_ground
from haif.node.settings import model_store, peers
from haif.orchestrator.service import MIGRATIONS, CatalogueEntry, Orchestrator, OrchestratorSettings
from haif.proof.committee import Elector, check_roster
from haif.runtime.clock import entropy
from haif.storage.service import Database, Journal, Store


@asynccontextmanager
async def open_orchestrator(settings: config.OrchestratorSettings) -> AsyncIterator[dict[str, str]]:
    """The orchestrator while the block is entered, and what to tell whoever started it.

    Raises `Misuse` without a gateway to take jobs from, unless a closed network admits them.
    """
    store = model_store(settings)
    models = [store.find(name) for name in settings.models] if settings.models else store.models()
    gateways = frozenset(peers(settings.gateways, "gateway"))
    owners = _owners(settings.owners)
    roster = _roster(settings.validators, owners)
    chosen = OrchestratorSettings(
        gateways=gateways or None,
        workers=frozenset(peers(settings.workers, "worker")) or None,
        catalogue=tuple(
            CatalogueEntry(
                name=model.name, digest=model.digest, context_tokens=0, published=model.manifest.payload.published
            )
            for model in models
        ),
        sandbox_min=settings.sandbox_min,
        validators=frozenset(each.peer for each in roster),
        roster=_drawn(roster) if settings.convict == "panel" else (),
        owners=owners,
    )
    async with (
        open_ground(settings) as ground,
        _journal(settings, ground) as journal,
        Orchestrator(
            settings=_usable(chosen, closed=ground.closed),
            identity=ground.identity, net=ground.net, wire=ground.wire, dht=ground.dht, voice=ground.voice,
            journal=journal, folder=ground.folder, telemetry=ground.telemetry, clock=ground.clock, entropy=entropy,
        ) as orchestrator,
        ground.announced("orchestrator"),
    ):  # fmt: skip
        for refused in orchestrator.refused_snapshots:
            print(f"haif: {refused}", file=sys.stderr)
        yield ground.ready


@asynccontextmanager
async def _journal(settings: config.OrchestratorSettings, ground: Ground) -> AsyncIterator[Store]:
    """The journal in the state folder, or ours in the database that was named."""
    if not settings.store:
        async with Database(ground.folder / "journal.sqlite", MIGRATIONS, exclusive=True) as database:
            yield Journal(database)
        return
    try:
        from haif.storage.service.postgres import PostgresJournal
    except ImportError:
        raise Misuse("--store: the driver is not installed: pip install 'haif[postgres]'") from None
    async with PostgresJournal(settings.store, bytes(ground.identity.peer)) as shared:
        yield shared


def _owners(texts: tuple[str, ...]) -> dict[PeerId, str]:
    found: dict[PeerId, str] = {}
    for text in texts:
        name, given, peer = text.rpartition("=")
        if not (given and name):
            raise Misuse(f"--owner: {text!r} is not NAME=PEER")
        found[peers((peer,), "owner")[0]] = name
    return found


def _roster(texts: tuple[str, ...], owners: Mapping[PeerId, str]) -> tuple[Elector, ...]:
    found: dict[PeerId, Elector] = {}
    for text in texts:
        name, weighed, weight = text.partition("*")
        if weighed and not (weight.isascii() and weight.isdigit()):
            raise Misuse(f"--validator: {text!r} is neither PEER nor PEER*WEIGHT")
        (peer,) = peers((name,), "validator")
        found[peer] = Elector(peer, int(weight) if weighed else 1, owners.get(peer, ""))
    return tuple(found.values())


def _drawn(roster: tuple[Elector, ...]) -> tuple[Elector, ...]:
    """The roster, if panels can be drawn of it, or if nobody audits at all."""
    try:
        if roster:
            check_roster(roster)
    except Misuse as error:
        raise Misuse(
            f"--validator: {error}. Give more, or say --convict one: then each of them convicts alone, on its word"
        ) from None
    return roster


def _usable(settings: OrchestratorSettings, *, closed: bool) -> OrchestratorSettings:
    if settings.gateways is None and not closed:
        raise Misuse("an orchestrator serves only gateways it knows: give --gateway PEER (see `haif keys show`)")
    return settings
