"""The orchestrator's door for validators: what ended, what they say of it, and what they drew."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection

from haif.base import codec
from haif.base.clock import Clock
from haif.base.codec import Message
from haif.base.ids import PeerId
from haif.orchestrator import audits
from haif.orchestrator.events import Event, VerdictGiven
from haif.orchestrator.placement import Fleet
from haif.orchestrator.service.record import Record
from haif.protocol.audits import CONVICTED, Judge, ListEnded, Reveal, Taken
from haif.telemetry import names
from haif.telemetry.service import Telemetry
from haif.wire.service import Call

_log = logging.getLogger(__name__)


class Audits:
    """Serves the `validators` that this orchestrator trusts, and keeps whom they convicted out of placement.

    The operator reads in the log whom, and which validator leaves its work undone.
    """

    def __init__(
        self, validators: Collection[PeerId], *, me: PeerId, record: Record, fleet: Fleet, telemetry: Telemetry,
        clock: Clock,
    ) -> None:  # fmt: skip
        self._trusted = validators
        self._me = me
        self._record = record
        self._fleet = fleet
        self._telemetry = telemetry
        self._clock = clock

    async def ended(self, call: Call) -> Message:
        """`audits.ended`. Nothing is told that is not durable."""
        audits.check_validator(call.peer, self._trusted)
        asked = codec.decode(ListEnded, call.argument)
        told = audits.ended(self._record.state, asked.after, call.peer)
        await self._record.settled()
        return told

    async def judge(self, call: Call) -> Message:
        """`audits.judge`. A convicted worker is out of placement at once, before its verdict is durable."""
        audits.check_validator(call.peer, self._trusted)
        request = codec.decode(Judge, call.argument)
        now = self._clock.wall()
        decision = audits.judge(self._record.state, request, call.peer, orchestrator=self._me, now=now)
        for event in decision.events:
            assert isinstance(event, VerdictGiven)
            await asyncio.shield(self._record.apply(event.job, [event]))
        await self._record.settled()
        assert isinstance(decision.answer, Message)
        return decision.answer

    async def reveal(self, call: Call) -> Message:
        """`audits.reveal`."""
        audits.check_validator(call.peer, self._trusted)
        request = codec.decode(Reveal, call.argument)
        now = self._clock.wall()
        found = audits.reveal(self._record.state, request, call.peer, orchestrator=self._me, now=now)
        if found is None:
            return Taken()
        event, reckoning = found
        await self._record.note(event, call.peer)
        self._telemetry.count(names.AUDITS_DUE, reckoning.drawn)
        self._telemetry.count(names.AUDITS_MISSED, reckoning.missed)
        self._telemetry.count(names.AUDITS_UNDRAWN, reckoning.undrawn)
        if reckoning.missed or reckoning.undrawn:
            _log.warning(
                "validator %s… left %d of %d receipts unjudged that it had to audit in epoch %d, and judged %d that it "
                "had not drawn", call.peer.short, reckoning.missed, reckoning.drawn, event.epoch, reckoning.undrawn,
            )  # fmt: skip
        return Taken()

    def learn(self, event: Event) -> None:
        """Something happened to a job."""
        if not isinstance(event, VerdictGiven):
            return
        self._telemetry.count(names.VERDICTS, finding=event.finding, cause=event.cause or "none")
        if event.finding == CONVICTED:
            self.refresh()
            _log.warning(
                "worker %s was convicted by validator %s… for job %s (%s); it gets no more work here",
                event.worker, event.validator.short, event.job, event.cause,
            )  # fmt: skip

    def refresh(self) -> None:
        """Bring placement up to who is out now."""
        self._fleet.out = frozenset(self._record.state.standings.out(self._trusted, self._clock.wall()))
        self._telemetry.gauge(names.WORKERS_CONVICTED, len(self._fleet.out))
