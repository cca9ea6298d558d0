"""Keeps a fleet told of the offers of one model, as the directory hears of them."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import aclosing

from haif.base.errors import Dropped, PeerFault, Refusal
from haif.base.ids import ModelDigest, NetId, PeerId
from haif.dht.service import Dht
from haif.dht.watch import Change, What
from haif.orchestrator.placement import Fleet, check_offer
from haif.protocol.records import offer_topic
from haif.telemetry.service import Telemetry


class OfferWatch:
    """Watches the topic of one model. `admitted` None: offers of any worker count."""

    def __init__(
        self, model: ModelDigest, fleet: Fleet, *, admitted: Collection[PeerId] | None,
        net: NetId, dht: Dht, telemetry: Telemetry,
    ) -> None:  # fmt: skip
        self._model = model
        self._fleet = fleet
        self._admitted = admitted
        self._topic = offer_topic(net, model)
        self._dht = dht
        self._telemetry = telemetry

    async def run(self) -> None:
        """Tell the fleet of every change, until cancelled."""
        async with aclosing(self._dht.watch(self._topic)) as changes:
            async for change in changes:
                self._tell(change)

    def heard(self, worker: PeerId, *, restarted: bool) -> None:
        """A worker of this model is alive: have its offer looked for if it is not known, or may be an older one."""
        if restarted or not self._fleet.knows(worker, self._model):
            self._dht.hurry(self._topic)

    def _tell(self, change: Change) -> None:
        worker = change.record.signer
        if change.what is What.GONE:
            self._fleet.withdrawn(worker, self._model)
            return
        try:
            self._fleet.offered(worker, check_offer(change.record, self._model, self._topic, self._admitted))
        except (PeerFault, Refusal) as error:
            self._fleet.withdrawn(worker, self._model)
            self._telemetry.dropped(Dropped(error.reason, worker, "offer"))
