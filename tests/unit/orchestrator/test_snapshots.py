"""A snapshot is what the journal comes to, or it is not believed; and making one never costs a job."""

import asyncio
import sqlite3
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haif.base import limits
from haif.base.clock import WallTime
from haif.base.errors import DigestMismatch, JournalBroken, Malformed, Overloaded, Reason
from haif.base.ids import Digest
from haif.orchestrator import events
from haif.orchestrator.apply import fold
from haif.orchestrator.events import Event, StateKept
from haif.orchestrator.service import MIGRATIONS, snapshots
from haif.orchestrator.service.record import Record
from haif.orchestrator.snapshots import SUBJECT, check_parts, named, part_digest, parts, take
from haif.orchestrator.state import State
from haif.protocol.jobs import FailJob, RetryJob
from haif.runtime.clock import SystemClock
from haif.storage.service import Database, Journal
from haif.telemetry.service import Telemetry
from tests.unit.orchestrator.scene import Desk, ending, submission

STEPS = st.lists(st.sampled_from(["submit", "retry", "finalise", "fail"]), max_size=30)


def busy_desk(steps: Sequence[str] = ("submit", "submit", "retry", "submit", "finalise", "submit", "fail")) -> Desk:
    """Jobs in every state, as these steps on the newest open one leave them."""
    desk = Desk(state=State(limits.JOBS_ENDED_REMEMBERED_MAX)).staffed(slots=64)
    placed = []
    for number, step in enumerate(steps, 1):
        if step == "submit":
            placed.append(desk.submit(submission(number)))
        elif placed and step == "retry":
            job = next(reversed(desk.state.open.values()))
            if len(job.attempts) < 3:
                placed[-1] = desk.retry(RetryJob(job.id, len(job.attempts), "connection_lost", 2))
        elif placed and step == "finalise":
            desk.finalise(ending(placed.pop()))
        elif placed:
            job = next(reversed(desk.state.open.values()))
            desk.fail(FailJob(job.id, len(job.attempts), "cancelled"))
            placed.pop()
    return desk


def entries(desk: Desk) -> list[bytes]:
    return [events.encode(event) for event in desk.happened]


def empty() -> State:
    return State(limits.JOBS_ENDED_REMEMBERED_MAX)


# --- the parts, as values ---------------------------------------------------------------------------------------------


@given(STEPS, st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_the_parts_of_a_state_make_the_same_state(steps: list[str], size: int) -> None:
    state, made = busy_desk(steps).state, empty()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "SNAPSHOT_PART_JOBS", size)
        for part in parts(state):
            take(made, part)
    assert made == state
    assert list(made.open) == list(state.open)
    assert list(made.ended) == list(state.ended), "the oldest is forgotten first"


def test_a_state_that_forgot_jobs_says_how_many() -> None:
    state = fold(State(ended_max=1), entries(busy_desk()))
    assert state.forgotten == 1
    made = State(ended_max=1)
    for part in parts(state):
        take(made, part)
    assert made == state


def test_parts_that_the_entry_does_not_name_are_refused() -> None:
    digests = [part_digest(part) for part in (b"one", b"two")]
    entry = named(7, digests, WallTime(1))
    assert StateKept(7, 2, entry.digest, 1) == entry
    check_parts(entry, digests)
    for wrong in (digests[:1], digests[::-1], [*digests, digests[0]], [digests[0], Digest(bytes(32))]):
        with pytest.raises(DigestMismatch, match="after journal entry 7") as caught:
            check_parts(entry, wrong)
        assert Reason.DIGEST_MISMATCH is caught.value.reason


def test_the_digest_of_a_snapshot_is_fixed_by_the_format() -> None:
    assert named(7, [part_digest(b"one")], WallTime(1)).digest.hex() == (
        "5bacd634475af82101f1dbf9164a149f3395f80a72a0bdcac5f1beccf5170d25"
    )


@given(st.binary(max_size=200))
def test_bytes_that_are_no_part_are_refused(part: bytes) -> None:
    with pytest.raises(Malformed):
        take(empty(), part)


# --- beside a journal -------------------------------------------------------------------------------------------------


def opened(folder: Path) -> Database:
    return Database(folder / "journal", MIGRATIONS, exclusive=True)


async def fill(journal: Journal, happened: Sequence[Event]) -> None:
    for event in happened:
        await journal.append([events.encode(event)], subject=event.job)


def record(journal: Journal) -> Record:
    return Record(journal, Telemetry(role="orchestrator", instance="test"), SystemClock(), lambda *_: None)


async def remembered(journal: Journal) -> Record:
    made = record(journal)
    await made.remember()
    return made


async def test_a_start_takes_the_newest_snapshot_and_what_came_after(tmp_path: Path) -> None:
    first = ["submit", "submit", "retry", "submit", "finalise"]
    then, now = busy_desk(first), busy_desk([*first, "submit", "fail", "finalise"])
    async with opened(tmp_path) as database:
        journal = Journal(database)
        await fill(journal, then.happened)
        kept = await snapshots.write(journal, SystemClock())
        assert len(then.happened) == kept.sequence
        await fill(journal, now.happened[len(then.happened) :])
        found = await snapshots.restore(journal)
        assert (kept.sequence, ()) == (found.sequence, found.refused)
        assert then.state == found.state
        assert now.state == (await remembered(journal)).state


async def test_what_stands_before_the_snapshot_is_not_read_for_a_start_but_looked_at_later(tmp_path: Path) -> None:
    async with opened(tmp_path) as database:
        journal = Journal(database)
        await fill(journal, busy_desk().happened)
        await snapshots.write(journal, SystemClock())
    change(tmp_path, "UPDATE journal SET entry = x'78' WHERE sequence = 2")
    async with opened(tmp_path) as database:
        begun = await remembered(Journal(database))
        assert busy_desk().state == begun.state
        with pytest.raises(JournalBroken, match="entry 2 is not what was written"):
            await begun.check_past()


DAMAGED = {
    "a bit of a part": "UPDATE journal_parts SET data = CAST(data || x'00' AS BLOB)",
    "a part gone": "DELETE FROM journal_parts WHERE part = 1",
    "all parts gone": "DELETE FROM journal_parts",
    "the parts of another snapshot": "UPDATE journal_parts SET data = (SELECT data FROM journal_parts WHERE part = 1)",
}


def change(folder: Path, script: str) -> None:
    connection = sqlite3.connect(folder / "journal")
    connection.executescript(script)
    connection.close()


@pytest.mark.parametrize("how", DAMAGED)
async def test_a_damaged_snapshot_is_refused_and_the_journal_read_instead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(limits, "SNAPSHOT_PART_JOBS", 2)
    desk = busy_desk()
    async with opened(tmp_path) as database:
        await fill(Journal(database), desk.happened)
        await snapshots.write(Journal(database), SystemClock())
    change(tmp_path, DAMAGED[how])
    async with opened(tmp_path) as database:
        begun = await remembered(Journal(database))
        assert desk.state == begun.state
        assert len(begun.refused) == 1
        assert f"after journal entry {len(desk.happened)}" in begun.refused[0]
        assert "the journal itself is read instead" in begun.refused[0]


async def test_with_the_newest_damaged_the_one_before_it_serves(tmp_path: Path) -> None:
    desk = busy_desk()
    async with opened(tmp_path) as database:
        await fill(Journal(database), desk.happened)
        first = await snapshots.write(Journal(database), SystemClock())
        second = await snapshots.write(Journal(database), SystemClock())
    change(tmp_path, f"DELETE FROM journal_parts WHERE sequence = {second.sequence}")
    async with opened(tmp_path) as database:
        found = await snapshots.restore(Journal(database))
        assert first.sequence == found.sequence
        assert len(found.refused) == 1
        assert desk.state == (await remembered(Journal(database))).state


async def test_an_entry_that_names_a_forged_snapshot_breaks_the_chain(tmp_path: Path) -> None:
    async with opened(tmp_path) as database:
        await fill(Journal(database), busy_desk().happened)
        kept = await snapshots.write(Journal(database), SystemClock())
    forged = next(parts(empty()))
    entry = events.encode(named(kept.sequence, [part_digest(forged)], WallTime(1)))
    change(
        tmp_path,
        f"UPDATE journal SET entry = x'{entry.hex()}' WHERE sequence = {kept.sequence + 1};"
        f"UPDATE journal_parts SET data = x'{forged.hex()}'",
    )
    async with opened(tmp_path) as database:
        with pytest.raises(JournalBroken, match=f"entry {kept.sequence + 1} is not what was written"):
            await remembered(Journal(database))


async def test_only_the_newest_snapshots_are_kept(tmp_path: Path) -> None:
    async with opened(tmp_path) as database:
        journal = Journal(database)
        await fill(journal, busy_desk().happened)
        written = [await snapshots.write(journal, SystemClock()) for _ in range(4)]
        left = [sequence for (sequence,) in await database.read("SELECT DISTINCT sequence FROM journal_parts")]
        assert [entry.sequence for entry in written[-limits.SNAPSHOTS_KEPT :]] == sorted(left)


async def test_a_snapshot_is_due_after_so_many_entries_also_of_the_time_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SNAPSHOT_ENTRIES", 5)
    desk = busy_desk()
    async with opened(tmp_path) as database:
        journal = Journal(database)
        await fill(journal, desk.happened)
        begun = await remembered(journal)
        keeping = asyncio.create_task(begun.keep_snapshots())
        while not await journal.latest(SUBJECT, 1):
            await asyncio.sleep(0)
        for event in busy_desk(["submit"] * 12).happened[-6:]:
            begun.apply(event.job, [event])
        await begun.settled()
        while len(await journal.latest(SUBJECT, 9)) < 2:
            await asyncio.sleep(0)
        keeping.cancel()
        assert begun.state == (await remembered(journal)).state


async def test_a_disk_that_takes_no_snapshot_takes_the_journal_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SNAPSHOT_ENTRIES", 5)
    async with opened(tmp_path) as database:
        journal = Journal(database)
        await fill(journal, busy_desk().happened)
        await database.write(lambda connection: connection.execute("DROP TABLE journal_parts"))
        with pytest.raises(Overloaded, match=r"no such table.*the journal goes on"):
            await snapshots.write(journal, SystemClock())
        telemetry = Telemetry(role="orchestrator", instance="test")
        begun = Record(journal, telemetry, SystemClock(), lambda *_: None)
        await begun.remember()
        keeping = asyncio.create_task(begun.keep_snapshots())
        while b'reason="overloaded"' not in telemetry.exposition():
            await asyncio.sleep(0)
        await begun.settled()
        assert not keeping.done()
        keeping.cancel()


# --- kill -9 ----------------------------------------------------------------------------------------------------------


class Held(Journal):
    """A journal whose snapshot stops for ever at its nth step: each part, the name, the old parts discarded."""

    def __init__(self, database: Database, hold_at: int) -> None:
        super().__init__(database)
        self.left = hold_at

    async def _step(self) -> None:
        self.left -= 1
        if self.left == 0:
            print("held", flush=True)
            await asyncio.Event().wait()

    async def keep(self, sequence: int, part: int, data: bytes) -> None:
        await super().keep(sequence, part, data)
        await self._step()

    async def append(self, entries: Sequence[bytes], *, subject: bytes = b"") -> None:
        await super().append(entries, subject=subject)
        if subject == SUBJECT:
            await self._step()

    async def discard(self, *, but: object) -> None:
        await super().discard(but=but)  # type: ignore[arg-type]
        await self._step()


async def snap(folder: Path, hold_at: int) -> None:
    """In the child: a snapshot, held at one of its steps, while jobs go on."""
    async with opened(folder) as database:
        journal = Held(database, hold_at)
        writing = asyncio.create_task(snapshots.write(journal, SystemClock()))
        await fill(Journal(database), busy_desk().happened[-2:])
        print("told", flush=True)
        await writing


@pytest.mark.parametrize("hold_at", range(1, 7))  # four parts, the name, the old ones discarded
async def test_killed_at_any_step_of_a_snapshot_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hold_at: int
) -> None:
    desk = busy_desk()
    async with opened(tmp_path) as database:
        await fill(Journal(database), desk.happened[:-2])
        await snapshots.write(Journal(database), SystemClock())
    program = "import asyncio, sys, pathlib; from haif.base import limits; limits.SNAPSHOT_PART_JOBS = 1; "
    program += "from tests.unit.orchestrator.test_snapshots import snap; "
    program += "asyncio.run(snap(pathlib.Path(sys.argv[1]), int(sys.argv[2])))"
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, str(tmp_path), str(hold_at), stdout=asyncio.subprocess.PIPE
    )
    assert child.stdout is not None
    assert {(await child.stdout.readline()).decode().strip() for _ in range(2)} == {"held", "told"}
    child.kill()
    await child.wait()
    async with opened(tmp_path) as database:
        begun = await remembered(Journal(database))
        assert desk.state == begun.state
        assert () == begun.refused
        await begun.check_past()
        await snapshots.write(Journal(database), SystemClock())
        assert desk.state == (await remembered(Journal(database))).state
