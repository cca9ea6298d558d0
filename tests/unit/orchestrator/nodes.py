"""Orchestrators without a wire: each decides on its own state, over a journal of a real store."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from haif.base.codec import Message
from haif.base.ids import JobId
from haif.identity.keys import Identity
from haif.orchestrator import decide
from haif.orchestrator.decide import Decision
from haif.orchestrator.service import MIGRATIONS
from haif.orchestrator.service.record import Record
from haif.orchestrator.state import Job
from haif.protocol.jobs import FailJob, FinaliseJob, Placed, RetryJob, SubmitJob
from haif.runtime.clock import SystemClock
from haif.storage.service import Database, Journal, Store
from haif.storage.service.postgres import PostgresJournal
from haif.telemetry.service import Telemetry
from tests.unit.orchestrator.scene import CATALOGUE, GATEWAY, HEIR, ORCHESTRATOR, Desk

ANNE, BOB = ORCHESTRATOR, HEIR
Open = Callable[[], AbstractAsyncContextManager[Store]]


class Node(Desk):
    """One orchestrator: what is asked of it goes the way it goes in `orchestrator.service`."""

    def __init__(self, identity: Identity, store: Store) -> None:
        self.telemetry = Telemetry(role="orchestrator", instance="test")
        self.record = Record(store, self.telemetry, SystemClock(), lambda *_: None)
        super().__init__(state=self.record.state)
        self.identity = identity
        self.store = store
        self.staffed(slots=64)

    async def begin(self) -> None:
        await self.record.remember()
        self.state = self.record.state

    async def submit_durably(self, request: SubmitJob) -> Placed:
        placed = await self._carry_out(
            request.job,
            lambda past: decide.submit(
                self.state, self.fleet, request, GATEWAY.peer, past=past, catalogue=CATALOGUE,
                identity=self.identity, now=self.now, entropy=self.entropy,
            ),
        )  # fmt: skip
        assert isinstance(placed, Placed)
        return placed

    async def retry_durably(self, request: RetryJob) -> Placed:
        placed = await self._carry_out(
            request.job,
            lambda past: decide.retry(
                self.state, self.fleet, request, GATEWAY.peer, past=past, identity=self.identity, now=self.now,
                entropy=self.entropy,
            ),
        )  # fmt: skip
        assert isinstance(placed, Placed)
        return placed

    async def finalise_durably(self, request: FinaliseJob) -> Message:
        return await self._carry_out(
            request.job, lambda past: decide.finalise(self.state, request, GATEWAY.peer, past=past, now=self.wall)
        )

    async def fail_durably(self, request: FailJob) -> Message:
        return await self._carry_out(
            request.job, lambda past: decide.fail(self.state, request, GATEWAY.peer, past=past, now=self.wall)
        )

    async def _carry_out(self, job: JobId, decided: Callable[[Job | None], Decision]) -> Message:
        with self.telemetry.span("test") as span:
            past = await self.record.recall(job)
            return await self.record.carry_out(job, decided(past), span)


@asynccontextmanager
async def node(identity: Identity, opened: Open) -> AsyncIterator[Node]:
    async with opened() as store:
        made = Node(identity, store)
        await made.begin()
        yield made


def shared(url: str, identity: Identity) -> Open:
    """The journal of this orchestrator in a database."""
    return lambda: PostgresJournal(url, bytes(identity.peer))


def alone(path: Path) -> Open:
    """A journal in a file."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[Store]:
        async with Database(path, MIGRATIONS, exclusive=True) as database:
            yield Journal(database)

    return opened
