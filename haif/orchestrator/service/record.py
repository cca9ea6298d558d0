"""What was decided, in memory at once and on disk before anyone knows of it: the state and its journal.

If the journal cannot be written, memory is ahead of the disk: then `stop_when_broken` raises, and what is on disk is
what was. If another orchestrator took over what was alive in it, this one forgets what it believed, reads its journal
anew and goes on with an empty desk (`inherit`).

A start reads the newest snapshot and the entries after it. The entries before it are looked at while work goes on: that
they hold is evidence for others and nothing that the state depends on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing
from functools import partial
from itertools import islice
from typing import Final

from haif.base import limits
from haif.base.clock import Clock
from haif.base.codec import Message
from haif.base.errors import Conflict, Dropped, Elsewhere, HaifError, JournalBroken, Overloaded
from haif.base.ids import JobId, PeerId
from haif.orchestrator import events
from haif.orchestrator.apply import apply, fold, withdraw
from haif.orchestrator.decide import Decision
from haif.orchestrator.events import (
    AttemptFailed,
    AttemptReserved,
    Event,
    JobArrived,
    JobFailed,
    JobFinalised,
    JobLeft,
    JobSubmitted,
    LotteryRevealed,
    PanelRuled,
    VerdictGiven,
)
from haif.orchestrator.keeping import kept
from haif.orchestrator.service.snapshots import follow, restore, write
from haif.orchestrator.state import Job, State
from haif.storage.service import Estate, Fenced, Move, Store
from haif.telemetry import names
from haif.telemetry.service import Span, Telemetry

_TRANSITIONS: Final[dict[type[Event], str]] = {
    JobSubmitted: "submitted", AttemptReserved: "reserved", AttemptFailed: "retried",
    JobFinalised: "finalised", JobFailed: "failed", VerdictGiven: "judged",
}  # fmt: skip


def _anothers() -> Elsewhere:
    return Elsewhere("this job is with another orchestrator: ask that one, or again in a moment", retry_after=0.5)


class Record:
    """The state of all jobs, rebuilt from a journal that others opened, and what follows written to it.

    `state` is what was decided, durable or not; `entries` counts what became durable since the start. `refused` says of
    each snapshot why it was not believed. `on_event` hears of each event of a job as it happens, but not of those that
    the journal brings back.
    """

    def __init__(
        self, journal: Store, telemetry: Telemetry, clock: Clock, on_event: Callable[[Event, Job], None]
    ) -> None:
        self.state = State(limits.JOBS_ENDED_REMEMBERED_MAX)
        self.entries = 0
        self.refused: tuple[str, ...] = ()
        self._journal = journal
        self._telemetry = telemetry
        self._clock = clock
        self._on_event = on_event

    async def remember(self) -> None:
        """Rebuild the state from the journal, before anything else. Raises `JournalBroken` if it does not hold."""
        self._broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._due = asyncio.Event()
        await self._read()

    async def _read(self) -> None:
        found = await restore(self._journal)
        refused, past = found.refused, found.sequence
        await follow(self._journal, found)
        self.state, self.refused, self._past = found.state, refused, past
        self._new = found.sequence - past
        self._count(0)

    async def check_past(self) -> None:
        """Look at the entries before the snapshot that `remember` used. Raises `JournalBroken` if they do not hold."""
        if self._past == 0:
            return
        async for number, _ in self._journal.replay(until=await self._journal.head_at(self._past)):
            if number % limits.SNAPSHOT_SLICE_ENTRIES == 0:
                await asyncio.sleep(0)

    async def keep_snapshots(self) -> None:
        """Write one whenever so many entries came that a start would take long, until cancelled."""
        while True:
            await self._due.wait()
            self._due.clear()
            self._new = 0
            try:
                await write(self._journal, self._clock)
                self._telemetry.count(names.SNAPSHOTS)
            except (Overloaded, Fenced) as error:  # it goes on without; the next one is due after as many entries
                self._telemetry.dropped(Dropped(error.reason, None, "snapshot"))

    async def recall(self, job: JobId) -> Job | None:
        """A job that the state does not know, as the store has it: it ended, here or with another orchestrator.

        Raises `Elsewhere` for one that is another's and open: that one is to be asked, or, should it be dead, we
        will have its jobs in a moment.
        """
        if self.state.find(job) is not None or not (self.state.forgotten or self._journal.shared):
            return None
        found = fold(State(ended_max=1), await self._journal.about(job)).find(job)
        if found is not None and found.is_open and self.state.find(job) is None:
            raise _anothers()
        return found

    async def inherit(self, own: PeerId) -> None:
        """Take over the open jobs of orchestrators that died, until cancelled or until there can be none.

        When others took over ours, forget them and go on. Whatever was decided on what is forgotten here was refused by
        the journal, or is in it. Raises `Misuse` when somebody else goes by our name now.
        """
        lost = True
        while lost:
            lost = False
            try:
                await self._inherit_while_ours(own)
            except Fenced as error:
                lost = True
                self._telemetry.dropped(Dropped(error.reason, own, "lease"))
                await self._rejoin(own)

    async def _inherit_while_ours(self, own: PeerId) -> None:
        async with aclosing(self._journal.estates()) as estates:
            async for estate in estates:
                try:
                    await self._take_over(estate, own)
                except (JournalBroken, Conflict, Overloaded) as error:  # somebody else's damage or luck: no end of ours
                    self._telemetry.dropped(Dropped(error.reason, PeerId(estate.chain), "takeover"))

    async def _rejoin(self, own: PeerId) -> None:
        away = True
        while away:
            try:
                await self._journal.rejoin(self._read)
                away = False
            except (Fenced, Overloaded) as error:  # lost again, or the server does not answer
                self._telemetry.dropped(Dropped(error.reason, own, "rejoining"))
        self._telemetry.count(names.REJOINS)

    async def _take_over(self, estate: Estate, own: PeerId) -> None:
        found = await restore(estate.past)
        await follow(estate.past, found)
        jobs = iter(found.state.open.values())
        last = False
        while not last:
            some, now = list(islice(jobs, limits.ESTATE_MOVES_MAX)), self._clock.wall()
            last = len(some) < limits.ESTATE_MOVES_MAX
            arrived = [JobArrived(job.id, PeerId(estate.chain), kept(job), now) for job in some]
            left = [JobLeft(job.id, own, now) for job in some]
            pairs = zip(left, arrived, strict=True)
            await estate.move([Move(l.job, events.encode(l), events.encode(a)) for l, a in pairs], last=last)
            for event in arrived:
                apply(self.state, event)
            self._count(len(arrived))
            self._telemetry.count(names.TAKEOVERS, len(arrived))

    @property
    def is_broken(self) -> bool:
        """Whether memory is ahead of a disk that takes no more."""
        return self._broken.done()

    async def stop_when_broken(self) -> None:
        """Wait until the journal could not be written, and raise why."""
        await self._broken

    async def settled(self) -> None:
        """Wait until what was decided so far is durable."""
        await self._journal.append([])

    async def carry_out(self, job: JobId, decision: Decision, span: Span) -> Message:
        """Apply, record, answer. Up to the first `await` nothing else runs: what was decided still holds when applied.

        A decision without events also waits: its answer may rest on events that are not durable yet. Raises the
        decision's own refusal, and `Overloaded` before anything changed.
        """
        written = self.apply(job, decision.events)
        entries, subject = len(decision.events), self.state.find(job)
        started = self._clock.now()
        with self._telemetry.span(
            names.SPAN_JOURNAL, parent=span.traceparent, attributes={names.JOB: str(job), names.ENTRIES: entries}
        ):
            try:
                await asyncio.shield(written)
            except Conflict:
                raise _anothers() from None
        if subject is not None and subject.is_open and self.state.find(job) is None:
            raise _anothers()  # what this answer rests on was refused while we waited
        self._telemetry.observe(names.JOURNAL_APPEND, self._clock.now() - started)
        if isinstance(decision.answer, HaifError):
            raise decision.answer
        return decision.answer

    def apply(self, job: JobId, happened: Sequence[Event]) -> asyncio.Future[None]:
        """Fold events into the state and queue them for the journal. Raises `Overloaded` before anything changed."""
        self._journal.check_room()
        for event in happened:
            apply(self.state, event)
            subject = self.state.find(job)
            assert subject is not None, "what just happened is remembered"
            self._on_event(event, subject)
        begins = any(isinstance(event, JobSubmitted) for event in happened)
        refused = partial(withdraw, self.state, job) if begins else None
        entries = [events.encode(event) for event in happened]
        written = self._journal.append_nowait(entries, subject=job, refused=refused)
        written.add_done_callback(lambda done: self._written(done, happened))
        return written

    def note(self, event: LotteryRevealed | PanelRuled, subject: PeerId) -> asyncio.Future[None]:
        """The same for what is about no job but about a peer."""
        self._journal.check_room()
        apply(self.state, event)
        written = self._journal.append_nowait([events.encode(event)], subject=subject)
        written.add_done_callback(lambda done: self._written(done, []))
        return written

    def _written(self, done: asyncio.Future[None], happened: Sequence[Event]) -> None:
        error = None if done.cancelled() else done.exception()
        if error is None:
            self._tell(happened)
        elif not isinstance(error, Conflict | Fenced) and not self._broken.done():
            self._broken.set_exception(error)

    def _count(self, entries: int) -> None:
        self.entries += entries
        self._new += entries
        if self._new >= limits.SNAPSHOT_ENTRIES:
            self._due.set()

    def _tell(self, happened: Sequence[Event]) -> None:
        self._count(len(happened))
        self._telemetry.count(names.JOURNAL_ENTRIES, len(happened))
        for event in happened:
            self._telemetry.count(names.JOB_TRANSITIONS, state=_TRANSITIONS[type(event)])
            if isinstance(event, AttemptReserved):
                self._telemetry.count(names.PLACEMENTS)
        self._telemetry.gauge(names.JOBS_OPEN, len(self.state.open))
