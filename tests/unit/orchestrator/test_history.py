"""Whatever clients do at the same time and whatever fails meanwhile, what was told holds: on both stores, by seed.

Clients ask two orchestrators of one PostgreSQL, or one over SQLite, for the same few jobs: to place, place again,
finalise, give up. Meanwhile orchestrators crash, are paused so long that others take their jobs over, and the server is
stopped or crashes. Afterwards the journals are read, and every answer that was given is held against them:

    lost        a job that was placed is in no journal, or a ticket that was handed out is not among its attempts
    twice       a job is in two journals, or an attempt of it was placed on two tickets
    undone      a job that was finalised has another receipt or none; one that was given up has one
"""

import asyncio
import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
import pytest

from haif.base.errors import ConnectionLost, Elsewhere, HaifError, Misuse, Overloaded
from haif.base.ids import JobId
from haif.identity.keys import Identity
from haif.orchestrator.state import Job, JobState
from haif.protocol.jobs import FailJob, FinaliseJob, Placed, RetryJob
from haif.storage.service.postgres import PostgresJournal
from tests.support.postgres import Server, server
from tests.unit.orchestrator.nodes import ANNE, BOB, Node, Open, alone, node, shared
from tests.unit.orchestrator.scene import ending, submission, ticket

JOBS, CLIENTS, STEPS, FAULTS = 40, 6, 60, 4


@dataclass
class Told:
    """What clients were told, and the newest ticket they have for each job."""

    placed: list[Placed] = field(default_factory=list)
    finalised: dict[JobId, FinaliseJob] = field(default_factory=dict)
    failed: set[JobId] = field(default_factory=set)
    newest: dict[JobId, Placed] = field(default_factory=dict)

    def place(self, placed: Placed) -> None:
        self.placed.append(placed)
        self.newest[ticket(placed).job] = placed


@dataclass
class Keeper:
    """Keeps one orchestrator up: when it crashes or loses its lease it is begun again."""

    identity: Identity
    opened: Open
    now: Node | None = None
    crash: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        while True:
            with suppress(ConnectionLost, Misuse, Overloaded):  # as a supervisor would
                async with node(self.identity, self.opened) as self.now:
                    inheriting = asyncio.create_task(self.now.record.inherit(self.identity.peer))
                    ends = [
                        asyncio.create_task(self.crash.wait()), asyncio.create_task(self.now.record.stop_when_broken()),
                        *([inheriting] if self.now.store.shared else []),
                    ]  # fmt: skip
                    try:
                        await asyncio.wait(ends, return_when="FIRST_COMPLETED")
                        self._drop(self.now)
                    finally:
                        self.crash.clear()
                        for task in (inheriting, *ends):
                            task.cancel()
                        await asyncio.gather(inheriting, *ends, return_exceptions=True)

    @staticmethod
    def _drop(dead: Node) -> None:
        """As a process that is killed: nothing more is written, and no lease is given back."""
        store = dead.store
        if isinstance(store, PostgresJournal):
            store.writer.token = -1
            store.writer.lose(ConnectionLost("crashed"))


async def client(rng: random.Random, keepers: list[Keeper], told: Told) -> None:
    done = 0
    while done < STEPS:
        keeper = rng.choice(keepers)
        try:
            if keeper.now is not None:
                await step(rng, keeper.now, told)
        except (ConnectionLost, Elsewhere, Misuse, Overloaded):  # nobody there, or not there: somebody else is asked
            pass
        except HaifError:
            done += 1
        else:
            done += keeper.now is not None
        await asyncio.sleep(0)


async def step(rng: random.Random, here: Node, told: Told) -> None:
    number, choice, tokens = rng.randint(1, JOBS), rng.random(), rng.randint(3, 8)
    job = submission(number).job
    known = told.newest.get(job)
    if choice < 0.5 or known is None:
        told.place(await here.submit_durably(submission(number)))
    elif choice < 0.75:
        told.place(await here.retry_durably(RetryJob(job, ticket(known).attempt, "connection_lost", 2)))
    elif choice < 0.9:
        request = ending(known, tokens=tokens)
        await here.finalise_durably(request)
        assert told.finalised.setdefault(job, request) == request, "undone: two receipts were taken for one job"
    else:
        await here.fail_durably(FailJob(job, ticket(known).attempt, "cancelled"))
        told.failed.add(job)


async def trouble(
    rng: random.Random, told: Told, faults: list[Callable[[], Awaitable[None]]], asking: list[asyncio.Task[None]]
) -> None:
    for number in range(1, FAULTS + 1):
        while len(told.placed) < 25 * number and not all(task.done() for task in asking):
            await asyncio.sleep(0)
        await rng.choice(faults)()


def check(told: Told, journals: list[dict[JobId, Job]]) -> None:
    """Hold every answer against what is in the journals now."""
    found: dict[JobId, Job] = {}
    for jobs in journals:
        assert not found.keys() & jobs.keys(), "twice: in two journals"
        found |= jobs
    for placed in told.placed:
        terms = ticket(placed)
        assert terms.job in found, "lost: a job"
        attempts = found[terms.job].attempts
        assert placed.reservation == attempts[terms.attempt - 1].reservation, "lost or twice: a ticket"
    for name, request in told.finalised.items():
        assert (JobState.FINALISED, request.receipt) == (found[name].state, found[name].receipt), "undone"
    for name in told.failed:
        assert JobState.FAILED is found[name].state, "undone"


async def live_through(
    seed: int, keepers: list[Keeper], faults: Callable[[random.Random], list[Callable[[], Awaitable[None]]]]
) -> None:
    rng, told = random.Random(seed), Told()
    async with asyncio.TaskGroup() as group:
        running = [group.create_task(keeper.run()) for keeper in keepers]
        asking = [group.create_task(client(random.Random(rng.random()), keepers, told)) for _ in range(CLIENTS)]
        await asyncio.gather(trouble(rng, told, faults(rng), asking), *asking)
        for task in running:
            task.cancel()
    journals = []
    for keeper in keepers:
        async with node(keeper.identity, keeper.opened) as last:
            journals.append(last.state.open | dict(last.state.ended))
    assert len(told.placed) > 25, "there was something to hold them against"
    check(told, journals)


@pytest.mark.parametrize("seed", range(6))
async def test_what_was_told_holds_over_sqlite(tmp_path: Path, seed: int) -> None:
    keeper = Keeper(ANNE, alone(tmp_path / "journal"))

    async def crash() -> None:
        keeper.crash.set()

    await live_through(seed, [keeper], lambda _: [crash])


@pytest.fixture(scope="module")
def own() -> AsyncIterator[Server]:
    with server() as made:
        yield made


@pytest.mark.parametrize("seed", range(6))
async def test_what_was_told_holds_over_postgresql(own: Server, seed: int) -> None:
    url = await own.database()
    keepers = [Keeper(each, shared(url, each)) for each in (ANNE, BOB)]

    @asynccontextmanager
    async def connection() -> AsyncIterator[asyncpg.Connection]:
        made = await asyncpg.connect(url)
        try:
            yield made
        finally:
            await made.close()

    def faults(rng: random.Random) -> list[Callable[[], Awaitable[None]]]:
        async def crash() -> None:
            keeper = rng.choice(keepers)
            keeper.crash.set()
            await lapse(keeper)

        async def pause() -> None:  # silent for longer than its lease
            await lapse(rng.choice(keepers))

        async def lapse(keeper: Keeper) -> None:
            async with connection() as ours:
                await ours.execute(
                    "UPDATE chains SET expires = clock_timestamp() - interval '1 second' WHERE chain = $1",
                    bytes(keeper.identity.peer),
                )

        async def restart() -> None:
            await asyncio.to_thread(own.stop, rng.choice([signal.SIGINT, signal.SIGQUIT]))
            await asyncio.to_thread(own.start)

        return [crash, crash, pause, restart]

    await live_through(seed, keepers, faults)
