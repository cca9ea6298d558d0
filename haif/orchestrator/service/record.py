"""What was decided, in memory at once and on disk before anyone knows of it: the state and its journal.

If the journal cannot be written, memory is ahead of the disk: then `stop_when_broken` raises, and what is on disk is
what was.

A start reads the newest snapshot and the entries after it. The entries before it are looked at while work goes on: that
they hold is evidence for others and nothing that the state depends on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from haif.base import limits
from haif.base.clock import Clock
from haif.base.codec import Message
from haif.base.errors import Dropped, HaifError, Overloaded
from haif.base.ids import JobId, PeerId
from haif.orchestrator import events
from haif.orchestrator.apply import apply, fold
from haif.orchestrator.decide import Decision
from haif.orchestrator.events import (
    AttemptFailed,
    AttemptReserved,
    Event,
    JobFailed,
    JobFinalised,
    JobSubmitted,
    LotteryRevealed,
    VerdictGiven,
)
from haif.orchestrator.service.snapshots import follow, restore, write
from haif.orchestrator.state import Job, State
from haif.storage.service import Journal
from haif.telemetry import names
from haif.telemetry.service import Span, Telemetry

_TRANSITIONS: Final[dict[type[Event], str]] = {
    JobSubmitted: "submitted", AttemptReserved: "reserved", AttemptFailed: "retried",
    JobFinalised: "finalised", JobFailed: "failed", VerdictGiven: "judged",
}  # fmt: skip


class Record:
    """The state of all jobs, rebuilt from a journal that others opened, and what follows written to it.

    `state` is what was decided, durable or not; `entries` counts what became durable since the start. `refused` says of
    each snapshot why it was not believed. `on_event` hears of each event of a job as it happens, but not of those that
    the journal brings back.
    """

    def __init__(
        self, journal: Journal, telemetry: Telemetry, clock: Clock, on_event: Callable[[Event, Job], None]
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
        found = await restore(self._journal)
        self.state, self.refused, self._past = found.state, found.refused, found.sequence
        await follow(self._journal, found)
        self._new = found.sequence - self._past
        self._due = asyncio.Event()
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
            except Overloaded as error:  # the journal goes on without; the next one is due after as many entries
                self._telemetry.dropped(Dropped(error.reason, None, "snapshot"))

    async def recall(self, job: JobId) -> Job | None:
        """A job that the state forgot, as the journal has it."""
        if self.state.forgotten == 0 or self.state.find(job) is not None:
            return None
        return fold(State(ended_max=1), await self._journal.about(job)).find(job)

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
        entries = len(decision.events)
        started = self._clock.now()
        with self._telemetry.span(
            names.SPAN_JOURNAL, parent=span.traceparent, attributes={names.JOB: str(job), names.ENTRIES: entries}
        ):
            await asyncio.shield(written)
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
        written = self._journal.append_nowait([events.encode(event) for event in happened], subject=job)
        written.add_done_callback(lambda done: self._written(done, happened))
        return written

    def note(self, event: LotteryRevealed, subject: PeerId) -> asyncio.Future[None]:
        """The same for what is about no job but about a peer."""
        self._journal.check_room()
        apply(self.state, event)
        written = self._journal.append_nowait([events.encode(event)], subject=subject)
        written.add_done_callback(lambda done: self._written(done, []))
        return asyncio.shield(written)

    def _written(self, done: asyncio.Future[None], happened: Sequence[Event]) -> None:
        error = None if done.cancelled() else done.exception()
        if error is None:
            self._tell(happened)
        elif not self._broken.done():
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
