"""The orchestrator's door for validators: what ended, what they say of it, what they drew, and where they sit.

Who convicts is the operator's choice: a panel of validators (`orchestrator.panels`), or any one of them alone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from contextlib import suppress

from haif.base import codec
from haif.base.clock import Clock
from haif.base.codec import Message
from haif.base.errors import Overloaded, WrongState
from haif.base.ids import PeerId
from haif.orchestrator import audits
from haif.orchestrator.events import Event, PanelRuled, VerdictGiven
from haif.orchestrator.panels import Panels
from haif.orchestrator.placement import Fleet
from haif.orchestrator.service.record import Record
from haif.orchestrator.standings import PANEL
from haif.orchestrator.state import Job
from haif.proof.committee import liars
from haif.protocol.audits import (
    CONVICTED,
    HONEST,
    UNDECIDED,
    Commit,
    Judge,
    ListEnded,
    ListPanels,
    Reveal,
    Share,
    Show,
    Summoned,
    Taken,
    open_verdict,
)
from haif.protocol.heartbeats import Repute
from haif.telemetry import names
from haif.telemetry.service import Telemetry
from haif.wire.service import Call

_log = logging.getLogger(__name__)


class Audits:
    """Serves the `validators` that this orchestrator trusts, and keeps whom they convicted out of placement.

    With `panels` they convict together; without, each one alone. The operator reads in the log whom, and which
    validator leaves its work undone or says what is not.
    """

    def __init__(
        self, validators: Collection[PeerId], *, me: PeerId, panels: Panels | None, record: Record, fleet: Fleet,
        telemetry: Telemetry, clock: Clock,
    ) -> None:  # fmt: skip
        self._trusted = validators
        self._me = me
        self._panels = panels
        self._record = record
        self._fleet = fleet
        self._telemetry = telemetry
        self._clock = clock
        self._since = clock.wall()
        self._convicted: frozenset[PeerId] = frozenset()

    def repute(self, worker: PeerId) -> Repute:
        """What a worker is told of itself. Not that it was accused: a panel may find it honest."""
        if worker in self._convicted:
            return Repute.CONVICTED
        return Repute.INCOMPARABLE if worker in self._fleet.strange else Repute.FINE

    @property
    def believed(self) -> frozenset[PeerId]:
        """The validators whose word counts now."""
        return self._record.state.standings.believed(self._trusted, self._clock.wall())

    async def ended(self, call: Call) -> Message:
        """`audits.ended`. Nothing is told that is not durable."""
        audits.check_validator(call.peer, self._trusted)
        asked = codec.decode(ListEnded, call.argument)
        told = audits.ended(self._record.state, asked.after, call.peer)
        await self._record.settled()
        return told

    async def judge(self, call: Call) -> Message:
        """`audits.judge`. Who is accused is out of placement at once, before the verdict is durable.

        Raises `Overloaded` where panels still sit about whom the same validator accused before.
        """
        audits.check_validator(call.peer, self._trusted)
        request = codec.decode(Judge, call.argument)
        now = self._clock.wall()
        decision = audits.judge(self._record.state, request, call.peer, orchestrator=self._me, now=now)
        for event in decision.events:
            assert isinstance(event, VerdictGiven)
            if self._panels is not None and event.finding == CONVICTED:
                self._panels.check_room(event.validator, event.worker)
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
        await asyncio.shield(self._record.note(event, call.peer))
        self._telemetry.count(names.AUDITS_DUE, reckoning.drawn)
        self._telemetry.count(names.AUDITS_MISSED, reckoning.missed)
        self._telemetry.count(names.AUDITS_UNDRAWN, reckoning.undrawn)
        if reckoning.missed or reckoning.undrawn:
            _log.warning(
                "validator %s… left %d of %d receipts unjudged that it had to audit in epoch %d, and judged %d that it "
                "had not drawn", call.peer.short, reckoning.missed, reckoning.drawn, event.epoch, reckoning.undrawn,
            )  # fmt: skip
        return Taken()

    # --- panels -------------------------------------------------------------------------------------------------------

    async def panels(self, call: Call) -> Message:
        """`audits.panels`."""
        audits.check_validator(call.peer, self._trusted)
        asked = codec.decode(ListPanels, call.argument)
        summons = self._panels.summons(call.peer, self._clock.wall()) if self._panels else []
        told = Summoned(summons, *audits.rulings(self._record.state, asked.since))
        await self._record.settled()
        return told

    async def commit(self, call: Call) -> Message:
        """`audits.commit`."""
        self._sitting(call).commit(codec.decode(Commit, call.argument), call.peer, self._clock.wall())
        return Taken()

    async def show(self, call: Call) -> Message:
        """`audits.show`. The last one that is waited for decides."""
        self._sitting(call).show(codec.decode(Show, call.argument).verdict, call.peer, self._clock.wall())
        self._rule()
        return Taken()

    async def share(self, call: Call) -> Message:
        """`audits.share`."""
        audits.check_validator(call.peer, self._trusted)
        event = audits.share(
            self._record.state, codec.decode(Share, call.argument).ruling, call.peer, believed=self.believed,
            roster=self._panels.roster if self._panels else (), now=self._clock.wall(),
        )  # fmt: skip
        if event is not None:
            written = self._record.note(event, event.worker)
            self._place()
            _log.warning(
                "worker %s was convicted by a panel of another orchestrator; it gets no more work here", event.worker
            )
            await asyncio.shield(written)
        return Taken()

    def _sitting(self, call: Call) -> Panels:
        audits.check_validator(call.peer, self._trusted)
        if self._panels is None:
            raise WrongState("no panels sit here: each validator's word counts alone", call.peer)
        return self._panels

    def _rule(self) -> None:
        """Act on the panels that are over. Where the journal has no room, the next time does."""
        assert self._panels is not None
        with suppress(Overloaded):
            for event, absent in self._panels.ruled(self._clock.wall()):
                self._record.note(event, event.worker)
                self._tell(event, absent)
        self._place()

    def _tell(self, event: PanelRuled, absent: Collection[PeerId]) -> None:
        self._telemetry.count(names.PANELS, finding=event.finding)
        self._telemetry.count(names.PANEL_ABSENCES, len(absent))
        if absent:
            _log.warning("members of the panel about job %s said nothing: %s", event.job, ", ".join(map(str, absent)))
        _log.warning(_RULED[event.finding], event.worker, event.job)
        for validator in event.refuted:
            _log.warning(
                "validator %s said what is not of job %s, as a panel found: its word counts for nothing now",
                validator, event.job,
            )  # fmt: skip

    def _call(self, job: Job, accuser: PeerId, finding: str) -> None:
        """Have a panel look at what one validator said, if it accuses, or if the lot says so."""
        assert self._panels is not None
        now, alarm = self._clock.wall(), finding == CONVICTED
        standings = self._record.state.standings
        if accuser not in self.believed or standings.of(job.attempt.worker, {PANEL}).is_out(now):
            return
        if (alarm or (finding == HONEST and self._panels.looks_at(job))) and not self._panels.call(
            job, accuser, self.believed, now, alarm=alarm
        ):
            _log.warning("no panel about worker %s: one sits, or too few validators are left", job.attempt.worker)

    # --- what follows -------------------------------------------------------------------------------------------------

    def resume(self) -> None:
        """Call the panels again that sat when the process before this one ended."""
        state = self._record.state
        accused = [
            job for job in state.ended.values() if job.attempts and state.standings.is_accused(job.attempt.worker)
        ]
        for job in accused if self._panels is not None else ():
            for validator, evidence in job.verdicts.items():
                if not job.ruled and open_verdict(evidence).payload.finding == CONVICTED:
                    self._call(job, validator, CONVICTED)
        self._place()

    def learn(self, event: Event, job: Job) -> None:
        """Something happened to a job."""
        if not isinstance(event, VerdictGiven):
            return
        self._telemetry.count(names.VERDICTS, finding=event.finding, cause=event.cause or "none")
        if self._panels is not None and not job.ruled:
            self._call(job, event.validator, event.finding)
        self._place()
        if event.finding == CONVICTED:
            said = "accused" if self._panels else "convicted"
            _log.warning(
                "worker %s was %s by validator %s… for job %s (%s)",
                event.worker, said, event.validator.short, event.job, event.cause,
            )  # fmt: skip

    def refresh(self) -> None:
        """Bring panels to the time, and placement up to who is out now."""
        if self._panels is not None:
            self._rule()
        else:
            self._place()

    def _place(self) -> None:
        aside = self._panels.aside() if self._panels else frozenset[PeerId]()
        words = {PANEL} if self._panels else self.believed
        out = frozenset(self._record.state.standings.out(words, self._clock.wall()))
        self._convicted, self._fleet.out = out, out | aside
        self._fleet.strange = self._record.state.standings.incomparable(
            self.believed, liars(each.weight for each in self._panels.roster) if self._panels else 0, self._clock.wall()
        )
        self._telemetry.gauge(names.WORKERS_INCOMPARABLE, len(self._fleet.strange))
        self._telemetry.gauge(names.WORKERS_CONVICTED, len(out))
        self._telemetry.gauge(names.WORKERS_ASIDE, len(aside))
        self._telemetry.gauge(names.PANELS_OPEN, self._panels.count if self._panels else 0)
        withheld = audits.withheld(self._record.state, self._trusted, self._since, self._clock.wall())
        self._telemetry.gauge(names.VALIDATORS_WITHHOLDING, len(withheld))
        self._telemetry.gauge(names.VALIDATORS_REFUTED, len(self._trusted) - len(self.believed))


_RULED = {
    HONEST: "a panel found worker %s honest in job %s",
    CONVICTED: "a panel convicted worker %s for job %s; it gets no more work here",
    UNDECIDED: "a panel came to nothing about worker %s and job %s; all of its answers are audited from now on",
}
