"""Watches the directory for the offers of one model: often while some are missing, else now and then."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from contextlib import suppress

from haif.base import limits
from haif.base.clock import Clock
from haif.base.errors import Dropped, PeerFault, Refusal, Unavailable
from haif.base.ids import ModelDigest, NetId, PeerId
from haif.dht.service import Dht
from haif.identity.signing import Verified
from haif.orchestrator.placement import Fleet, check_offer
from haif.protocol.offers import Offer
from haif.protocol.records import Record, offer_topic
from haif.telemetry.service import Telemetry


class OfferWatch:
    """Keeps a fleet's knowledge of one model's offers fresh. `admitted` None: offers of any worker count."""

    def __init__(
        self, model: ModelDigest, fleet: Fleet, *, admitted: Collection[PeerId] | None,
        net: NetId, dht: Dht, telemetry: Telemetry, clock: Clock,
    ) -> None:  # fmt: skip
        self._model = model
        self._fleet = fleet
        self._admitted = admitted
        self._topic = offer_topic(net, model)
        self._dht = dht
        self._telemetry = telemetry
        self._clock = clock
        self._incomplete = asyncio.Event()

    async def run(self) -> None:
        """Look up, check, tell the fleet, and again, until cancelled."""
        while True:
            await self._look()
            await asyncio.sleep(limits.OFFERS_SEARCH_SECONDS)
            with suppress(TimeoutError):
                async with asyncio.timeout(limits.OFFERS_REFRESH_SECONDS - limits.OFFERS_SEARCH_SECONDS):
                    await self._incomplete.wait()

    def heard(self, worker: PeerId) -> None:
        """A worker of this model is alive: search for its offer if it is not known."""
        if not self._fleet.knows(worker, self._model):
            self._incomplete.set()

    async def _look(self) -> None:
        try:
            self._fleet.found(self._model, self._checked(await self._dht.lookup(self._topic)))
        except Unavailable as error:
            self._telemetry.dropped(Dropped(error.reason, detail="looking up offers"))
        if self._fleet.is_complete(self._model, self._clock.now()):
            self._incomplete.clear()
        else:
            self._incomplete.set()

    def _checked(self, records: Sequence[Verified[Record]]) -> dict[PeerId, Offer]:
        """The offers that hold; the others are dropped and counted."""
        offers: dict[PeerId, Offer] = {}
        for record in records:
            try:
                offers[record.signer] = check_offer(record, self._model, self._topic, self._admitted)
            except (PeerFault, Refusal) as error:
                self._telemetry.dropped(Dropped(error.reason, record.signer, "offer"))
        return offers
