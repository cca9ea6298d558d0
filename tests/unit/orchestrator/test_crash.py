"""kill -9 at any point: what was told is in the journal, and asking again gives what was decided, not another run.

A child process decides, makes durable and answers as the orchestrator does, and says so line by line; it is killed in
the middle of its work, or held exactly between the append and its effect and killed there.
"""

import asyncio
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from haif.base.errors import HaifError
from haif.base.ids import JobId
from haif.orchestrator.decide import Decision
from haif.orchestrator.events import AttemptReserved
from haif.orchestrator.service import MIGRATIONS
from haif.orchestrator.service.record import Record
from haif.protocol.jobs import Placed, RetryJob
from haif.runtime.clock import SystemClock
from haif.storage.service import Database, Journal
from haif.telemetry.service import Telemetry
from tests.unit.orchestrator.scene import Desk, ending, submission, ticket

JOBS = 40


class Durable(Desk):
    """A desk whose decisions are in a journal before they are told."""

    def __init__(self, record: Record) -> None:
        super().__init__(state=record.state)
        self._record = record
        self.staffed()

    def carry_out(self, decision: Decision) -> object:
        """Queued here, and durable once `settled`; a desk has no telemetry."""
        for event in decision.events:
            self.happened.append(event)
        if decision.events:
            self._record.apply(decision.events[0].job, decision.events)
        if isinstance(decision.answer, Exception):
            raise decision.answer
        return decision.answer


async def work(folder: Path, hold_after: int) -> None:
    """In the child: place, retry, end, over and over. Each line is said when what it says is durable."""
    async with Database(folder / "journal", MIGRATIONS, exclusive=True) as database:
        record = Record(Journal(database), Telemetry(role="orchestrator", instance="child"), SystemClock(), ignore)
        await record.remember()
        desk, steps = Durable(record), 0
        for number in range(1, JOBS + 1):
            placed: object = None
            for step in ("submit", "retry", "finalise"):
                with suppress(HaifError):
                    if step == "submit":
                        placed = desk.submit(submission(number))
                    elif step == "retry":
                        placed = desk.retry(RetryJob(submission(number).job, 1, "connection_lost", 2))
                    elif isinstance(placed, Placed):
                        desk.finalise(ending(placed))
                await record.settled()
                steps += 1
                if steps == hold_after:
                    print("held", flush=True)
                    await asyncio.Event().wait()
                said = placed.reservation.hex() if step != "finalise" and isinstance(placed, Placed) else "-"
                print(step, number, said, flush=True)


def ignore(*_: object) -> None:
    """Nobody learns here."""


async def killed(folder: Path, *, hold_after: int = 0, lines: int = 0) -> list[list[str]]:
    """What the child said before it was killed: where it was held, or after it said so many lines."""
    program = "import asyncio, sys, pathlib; from tests.unit.orchestrator.test_crash import work; "
    program += "asyncio.run(work(pathlib.Path(sys.argv[1]), int(sys.argv[2])))"
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, str(folder), str(hold_after), stdout=asyncio.subprocess.PIPE
    )
    assert child.stdout is not None
    told: list[list[str]] = []
    while line := (await child.stdout.readline()).decode().split():
        if line == ["held"]:
            break
        told.append(line)
        if lines and len(told) >= lines:
            break
    child.kill()
    told += [line.decode().split() for line in (await child.stdout.read()).splitlines(keepends=True) if b"\n" in line]
    await child.wait()
    return [line for line in told if line != ["held"]]


async def check(folder: Path, told: list[list[str]]) -> None:
    """Everything told is known; asking for it again gives the same ticket; no attempt was placed twice."""
    async with Database(folder / "journal", MIGRATIONS, exclusive=True) as database:
        record = Record(Journal(database), Telemetry(role="orchestrator", instance="test"), SystemClock(), ignore)
        await record.remember()
        desk = Durable(record)
        for step, number, said in told:
            job = record.state.find(JobId(int(number).to_bytes(16, "big")))
            assert job is not None, f"job {number} was told of and is lost"
            if said != "-":
                assert said in {attempt.reservation.hex() for attempt in job.attempts}
            if step == "finalise":
                assert not job.is_open
        for job in list(record.state.open.values()):
            number = int.from_bytes(job.id, "big")
            again = desk.submit(submission(number)) if len(job.attempts) == 1 else desk.retry(
                RetryJob(job.id, len(job.attempts) - 1, "connection_lost", 2)
            )  # fmt: skip
            assert again.reservation == job.attempt.reservation
            assert ticket(again).attempt == len(job.attempts)
        assert [event for event in desk.happened if isinstance(event, AttemptReserved)] == []


@pytest.mark.parametrize("hold_after", [1, 2, 3, 5])
async def test_killed_between_the_append_and_its_effect_nothing_runs_twice(tmp_path: Path, hold_after: int) -> None:
    told = await killed(tmp_path, hold_after=hold_after)
    assert len(told) == hold_after - 1
    await check(tmp_path, told)


async def test_killed_again_and_again_no_job_is_lost(tmp_path: Path) -> None:
    told: list[list[str]] = []
    for lines in (1, 7, 20, 50):
        told += await killed(tmp_path, lines=lines)
        await check(tmp_path, told)
