"""The gateway's part in audits: it asks the validators it trusts what they drew, and gives them just that.

It serves nobody and is asked nothing: who is not among its validators learns nothing of any request.
"""

from __future__ import annotations

import asyncio

from haif.base import codec, limits
from haif.base.clock import Clock
from haif.base.errors import Dropped, HaifError
from haif.base.ids import NetId, PeerId
from haif.dht.service import Dht
from haif.gateway.payloads import Payloads
from haif.protocol import methods
from haif.protocol.audits import AskWanted, Payload, Wanted
from haif.protocol.offers import whereabouts
from haif.protocol.records import presence_topic
from haif.reach.service import Reach
from haif.telemetry import names
from haif.telemetry.service import Telemetry
from haif.wire.service import Session


class Audits:
    """Keeps payloads and hands them over. Without `validators` nothing is kept, and nothing leaves."""

    def __init__(
        self, validators: tuple[PeerId, ...], *, net: NetId, reach: Reach, dht: Dht, telemetry: Telemetry, clock: Clock
    ) -> None:
        self._validators = validators
        self._net = net
        self._way = reach
        self._dht = dht
        self._telemetry = telemetry
        self._clock = clock
        self._kept = Payloads()
        self._sessions: dict[PeerId, Session] = {}

    @property
    def possible(self) -> bool:
        """Whether there is anybody to audit an answer."""
        return bool(self._validators)

    def keep(self, payload: Payload) -> None:
        """Keep it for whoever draws its receipt."""
        self._kept.keep(payload, self._clock.now())

    async def run(self) -> None:
        """Ask and give, until cancelled."""
        while True:
            await asyncio.gather(*(self._serve(peer) for peer in self._validators))
            self._kept.forget(self._clock.now())
            await asyncio.sleep(limits.AUDITS_POLL_SECONDS)

    async def _serve(self, peer: PeerId) -> None:
        if not len(self._kept):
            return  # it can want nothing
        try:
            session = self._sessions.get(peer) or await self._reach(peer)
            self._sessions[peer] = session
            reply = await session.call(
                methods.AUDITS_WANTED.name, codec.encode(AskWanted()), timeout=limits.CONTROL_CALL_SECONDS
            )
            for payload in self._kept.those(codec.decode(Wanted, reply).receipts):
                argument = codec.encode(payload)
                await session.call(methods.AUDITS_GIVE.name, argument, timeout=limits.AUDIT_PAYLOAD_SECONDS)
                self._telemetry.count(names.PAYLOADS_GIVEN)
        except HaifError as error:  # it asks again, and what comes too late is not audited
            self._sessions.pop(peer, None)
            self._telemetry.dropped(Dropped(error.reason, peer, "audits"))

    async def _reach(self, peer: PeerId) -> Session:
        place, certificate = whereabouts(await self._dht.lookup(presence_topic(self._net, peer)), peer)
        return await self._way.connect(peer, place, timeout=limits.CONTROL_CALL_SECONDS, certificate=certificate)
