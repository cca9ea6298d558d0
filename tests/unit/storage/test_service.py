"""What the database promises: durable when it returns, one caller's error is its own, one owner, forward only."""

import asyncio
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import haif
from haif.base import limits
from haif.base.errors import JournalBroken, Misuse, Overloaded, Oversize, Reason
from haif.storage.service import JOURNAL_SCHEMA, Database, Journal

ROOT = Path(haif.__file__).parents[1]
NUMBERS = "CREATE TABLE numbers (n INTEGER PRIMARY KEY) STRICT;"


def insert(n: int) -> Callable[[sqlite3.Connection], int]:
    def work(connection: sqlite3.Connection) -> int:
        connection.execute("INSERT INTO numbers VALUES (?)", (n,))
        return n

    return work


async def kept(database: Database) -> list[int]:
    return [n for (n,) in await database.read("SELECT n FROM numbers ORDER BY n")]


async def test_a_write_returns_what_its_work_returned_and_can_be_read(tmp_path: Path) -> None:
    async with Database(tmp_path / "db", [NUMBERS]) as database:
        assert await database.write(insert(7)) == 7
        assert await kept(database) == [7]


async def test_what_was_written_is_there_after_reopening(tmp_path: Path) -> None:
    async with Database(tmp_path / "db", [NUMBERS]) as database:
        await database.write(insert(1))
    async with Database(tmp_path / "db", [NUMBERS]) as database:
        assert await kept(database) == [1]


async def test_writes_that_wait_share_a_commit_and_keep_their_order(tmp_path: Path) -> None:
    order: list[int] = []

    def noting(n: int) -> Callable[[sqlite3.Connection], int]:
        return lambda connection: (order.append(n), insert(n)(connection))[1]

    async with Database(tmp_path / "db", [NUMBERS]) as database:
        assert await asyncio.gather(*(database.write(noting(n)) for n in range(200))) == list(range(200))
        assert order == list(range(200))
        assert database.statistics().writes == 200
        assert database.statistics().commits <= 3


async def test_an_error_reaches_only_its_caller_and_takes_back_only_its_work(tmp_path: Path) -> None:
    def fails(connection: sqlite3.Connection) -> None:
        insert(50)(connection)
        raise LookupError("mine")

    async with Database(tmp_path / "db", [NUMBERS]) as database:
        one, error, two = await asyncio.gather(
            database.write(insert(1)), database.write(fails), database.write(insert(2)), return_exceptions=True
        )
        assert (one, two) == (1, 2)
        assert isinstance(error, LookupError)
        assert await kept(database) == [1, 2]
        assert database.statistics().failed == 1


async def test_a_write_that_ends_the_transaction_is_refused_and_the_database_goes_on(tmp_path: Path) -> None:
    async with Database(tmp_path / "db", [NUMBERS]) as database:
        with pytest.raises(Misuse, match="ended the transaction"):
            await database.write(lambda connection: connection.execute("ROLLBACK"))
        await database.write(insert(3))
        assert await kept(database) == [3]


async def test_a_full_disk_reaches_the_callers_concerned_and_the_database_goes_on(tmp_path: Path) -> None:
    def grow(connection: sqlite3.Connection) -> None:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}")
        connection.executemany("INSERT INTO numbers VALUES (?)", [(n,) for n in range(1000, 9000)])

    async with Database(tmp_path / "db", [NUMBERS]) as database:
        with pytest.raises(sqlite3.OperationalError, match="full"):
            await database.write(grow)
        await database.write(insert(4))
        assert await kept(database) == [4]


async def test_a_cancelled_caller_does_not_cancel_its_write(tmp_path: Path) -> None:
    async with Database(tmp_path / "db", [NUMBERS]) as database:
        caller = asyncio.create_task(database.write(insert(5)))
        await asyncio.sleep(0)
        assert database.statistics().waiting == 1
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        await database.write(insert(6))
        assert await kept(database) == [5, 6]


async def test_a_write_whose_outcome_nobody_wants_happens_all_the_same(tmp_path: Path) -> None:
    async with Database(tmp_path / "db", [NUMBERS]) as database:
        database.write_nowait(insert(5)).cancel()
        await database.write(insert(6))
        assert await kept(database) == [5, 6]


async def test_when_the_writer_breaks_everyone_waiting_hears_of_it(tmp_path: Path) -> None:
    async def break_it() -> None:
        async with Database(tmp_path / "db", [NUMBERS]) as database:
            outcomes = await asyncio.gather(
                database.write(lambda connection: connection.close()),
                database.write(insert(1)),
                return_exceptions=True,
            )
            assert [sqlite3.ProgrammingError] * 2 == [type(outcome) for outcome in outcomes]
            with pytest.raises(Misuse, match="not open"):
                await database.write(insert(2))

    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        await break_it()


async def test_leaving_makes_durable_what_was_queued(tmp_path: Path) -> None:
    async with Database(tmp_path / "db", [NUMBERS]) as database:
        writes = [asyncio.create_task(database.write(insert(n))) for n in range(20)]
        await asyncio.sleep(0)
        assert database.statistics().waiting == 20
    assert await asyncio.gather(*writes) == list(range(20))
    async with Database(tmp_path / "db", [NUMBERS]) as database:
        assert await kept(database) == list(range(20))


async def test_a_database_that_is_not_open_refuses(tmp_path: Path) -> None:
    database = Database(tmp_path / "db", [NUMBERS])
    async with database:
        pass
    for attempt in (database.write(insert(1)), database.read("SELECT 1")):
        with pytest.raises(Misuse, match="not open"):
            await attempt


async def test_the_queues_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "DATABASE_WRITES_WAITING_MAX", 2)
    monkeypatch.setattr(limits, "DATABASE_READS_WAITING_MAX", 1)
    async with Database(tmp_path / "db", [NUMBERS]) as database:
        outcomes = await asyncio.gather(*(database.write(insert(n)) for n in range(3)), return_exceptions=True)
        assert outcomes[:2] == [0, 1]
        assert isinstance(outcomes[2], Overloaded)
        assert outcomes[2].retry_after == 1.0
        reads = await asyncio.gather(*(database.read("SELECT 1") for _ in range(2)), return_exceptions=True)
        assert reads[0] == [(1,)]
        assert isinstance(reads[1], Overloaded)
        assert Reason.OVERLOADED is reads[1].reason


async def test_reading_cannot_write(tmp_path: Path) -> None:
    async with Database(tmp_path / "db", [NUMBERS]) as database:
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            await database.read("INSERT INTO numbers VALUES (1)")


async def test_only_the_owner_may_read_the_files(tmp_path: Path) -> None:
    path = tmp_path / "state" / "db"
    async with Database(path, [NUMBERS]) as database:
        await database.write(insert(1))
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        for file in path.parent.iterdir():
            assert stat.S_IMODE(file.stat().st_mode) == 0o600, file


async def test_migrations_run_once_each_and_in_order(tmp_path: Path) -> None:
    async with Database(tmp_path / "db", [NUMBERS]) as database:
        await database.write(insert(1))
    later = "ALTER TABLE numbers ADD COLUMN word TEXT; UPDATE numbers SET word = 'a;b';"
    for _ in range(2):
        async with Database(tmp_path / "db", [NUMBERS, later]) as database:
            assert await database.read("SELECT n, word FROM numbers") == [(1, "a;b")]


async def test_a_failed_migration_leaves_everything_as_it_was(tmp_path: Path) -> None:
    with pytest.raises(sqlite3.OperationalError):
        await Database(
            tmp_path / "db", [NUMBERS, "CREATE TABLE more (n); INSERT INTO nowhere VALUES (1);"]
        ).__aenter__()
    async with Database(tmp_path / "db", [NUMBERS]) as database:
        assert await kept(database) == []


async def test_a_file_of_a_newer_program_is_refused(tmp_path: Path) -> None:
    async with Database(tmp_path / "db", [NUMBERS, "CREATE TABLE more (n);"]):
        pass
    with pytest.raises(Misuse, match=r"newer program .*: upgrade"):
        await Database(tmp_path / "db", [NUMBERS]).__aenter__()


async def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "db").write_bytes(b"not a database at all" * 100)
    with pytest.raises(Misuse, match="cannot be opened as a database"):
        await Database(tmp_path / "db", [NUMBERS]).__aenter__()


@pytest.mark.parametrize(("first", "second"), [(True, True), (True, False), (False, True)])
async def test_an_exclusive_database_has_one_owner(tmp_path: Path, first: bool, second: bool) -> None:
    async with Database(tmp_path / "db", [NUMBERS], exclusive=first):
        with pytest.raises(Misuse, match="in use by another process") as caught:
            await Database(tmp_path / "db", [NUMBERS], exclusive=second).__aenter__()
        assert Reason.MISUSE is caught.value.reason
    async with Database(tmp_path / "db", [NUMBERS], exclusive=second):
        pass


async def test_a_shared_database_may_be_written_by_two(tmp_path: Path) -> None:
    async with Database(tmp_path / "db", [NUMBERS]) as ours, Database(tmp_path / "db", [NUMBERS]) as theirs:
        await asyncio.gather(*((ours if n % 2 else theirs).write(insert(n)) for n in range(40)))
        assert await kept(ours) == await kept(theirs) == list(range(40))


# --- the journal ------------------------------------------------------------------------------------------------------


def open_journal(path: Path) -> Database:
    return Database(path / "journal", [JOURNAL_SCHEMA], exclusive=True)


async def replayed(database: Database) -> list[tuple[int, bytes]]:
    return [entry async for entry in Journal(database).replay()]


async def write_some(path: Path) -> None:
    async with open_journal(path) as database:
        journal = Journal(database)
        await journal.append([b"a1", b"a2"], subject=b"a")
        await journal.append([b"b1"], subject=b"b")
        await journal.append([b"a3"], subject=b"a")


async def test_replay_gives_back_what_was_appended_after_reopening(tmp_path: Path) -> None:
    await write_some(tmp_path)
    async with open_journal(tmp_path) as database:
        assert await replayed(database) == [(1, b"a1"), (2, b"a2"), (3, b"b1"), (4, b"a3")]


async def test_an_empty_journal_replays_nothing(tmp_path: Path) -> None:
    async with open_journal(tmp_path) as database:
        assert await replayed(database) == []
        await Journal(database).append([])
        assert await Journal(database).about(b"") == []


async def test_replay_crosses_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "JOURNAL_PAGE_ENTRIES", 3)
    async with open_journal(tmp_path) as database:
        await Journal(database).append([b"%d" % n for n in range(10)])
        assert [entry for _, entry in await replayed(database)] == [b"%d" % n for n in range(10)]


async def test_entries_are_found_by_their_subject(tmp_path: Path) -> None:
    await write_some(tmp_path)
    async with open_journal(tmp_path) as database:
        assert await Journal(database).about(b"a") == [b"a1", b"a2", b"a3"]
        assert await Journal(database).about(b"b") == [b"b1"]


async def test_appends_at_once_are_one_chain(tmp_path: Path) -> None:
    async with open_journal(tmp_path) as database:
        journal = Journal(database)
        await asyncio.gather(*(journal.append([b"%d" % n]) for n in range(100)))
        assert [entry for _, entry in await replayed(database)] == [b"%d" % n for n in range(100)]
        assert database.statistics().commits <= 3


async def test_an_entry_over_the_limit_is_refused(tmp_path: Path) -> None:
    async with open_journal(tmp_path) as database:
        with pytest.raises(Oversize):
            await Journal(database).append([bytes(limits.JOURNAL_ENTRY_BYTES_MAX + 1)])


def test_a_journal_needs_a_database_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match="exclusive=True"):
        Journal(Database(tmp_path / "db", [JOURNAL_SCHEMA]))
    with pytest.raises(Misuse, match="JOURNAL_SCHEMA"):
        Journal(Database(tmp_path / "db", [NUMBERS], exclusive=True))


TAMPERED = {
    "an edited entry": ("UPDATE journal SET entry = 'x' WHERE sequence = 2", "entry 2 is not what was written"),
    "an edited subject": ("UPDATE journal SET subject = 'b' WHERE sequence = 2", "entry 2 is not what was written"),
    "an edited digest": ("UPDATE journal SET digest = zeroblob(32) WHERE sequence = 2", "entry 2 is not what"),
    "a digest of another size": ("UPDATE journal SET digest = 'x' WHERE sequence = 2", "entry 2 is not one"),
    "a deleted entry": ("DELETE FROM journal WHERE sequence = 2", "entry 2 is missing"),
    "the first deleted": ("DELETE FROM journal WHERE sequence = 1", "entry 1 is missing"),
    "the end cut off": ("DELETE FROM journal WHERE sequence > 2", "entry 3 is missing: 4 were written"),
    "all entries deleted": ("DELETE FROM journal", "entry 1 is missing: 4 were written"),
    "the head deleted": ("DELETE FROM journal_head", "entry 4 is not the one recorded"),
    "an entry added": (
        "INSERT INTO journal SELECT 5, subject, entry, digest FROM journal WHERE sequence = 1",
        "entry 5",
    ),
    "two exchanged": (
        "UPDATE journal SET entry = CASE sequence WHEN 2 THEN x'6231' ELSE x'6132' END WHERE sequence IN (2, 3)",
        "entry 2 is not what was written",
    ),
}


def tamper(path: Path, script: str) -> None:
    connection = sqlite3.connect(path / "journal")
    connection.executescript(script.replace("'x'", "x'78'").replace("'b'", "x'62'"))
    connection.close()


@pytest.mark.parametrize("how", TAMPERED)
async def test_tampering_is_found_and_the_entry_named(tmp_path: Path, how: str) -> None:
    script, message = TAMPERED[how]
    await write_some(tmp_path)
    tamper(tmp_path, script)
    async with open_journal(tmp_path) as database:
        with pytest.raises(JournalBroken, match=message):
            await replayed(database)


async def test_looking_up_a_tampered_entry_finds_it_out(tmp_path: Path) -> None:
    await write_some(tmp_path)
    tamper(tmp_path, "UPDATE journal SET entry = 'x' WHERE sequence = 4")
    async with open_journal(tmp_path) as database:
        assert await Journal(database).about(b"b") == [b"b1"]
        with pytest.raises(JournalBroken, match="entry 4 is not"):
            await Journal(database).about(b"a")


async def test_appending_to_a_journal_without_its_head_is_refused(tmp_path: Path) -> None:
    await write_some(tmp_path)
    tamper(tmp_path, "DELETE FROM journal_head")
    async with open_journal(tmp_path) as database:
        with pytest.raises(JournalBroken, match="exists already"):
            await Journal(database).append([b"more"])


APPENDER = """
import asyncio, sys
from pathlib import Path
from haif.storage.service import JOURNAL_SCHEMA, Database, Journal

async def main():
    async with Database(Path(sys.argv[1]), [JOURNAL_SCHEMA], exclusive=True) as database:
        journal = Journal(database)
        async def append(lane):
            n = 0
            while True:
                await journal.append([b"%d.%d" % (lane, n)])
                print(f"{lane}.{n}", flush=True)
                n += 1
        await asyncio.gather(*(append(lane) for lane in range(8)))

asyncio.run(main())
"""


async def test_killing_the_process_amid_appends_loses_nothing_acknowledged(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", APPENDER, str(tmp_path / "journal"), stdout=subprocess.PIPE, cwd=ROOT
    )
    assert process.stdout is not None
    acknowledged = [(await process.stdout.readline()).strip() for _ in range(300)]
    process.kill()
    acknowledged += [line.strip() for line in (await process.stdout.read()).splitlines(True) if line.endswith(b"\n")]
    await process.wait()
    async with open_journal(tmp_path) as database:  # the lock went with the process
        found = {entry for _, entry in await replayed(database)}
    assert set(acknowledged) <= found
    for lane in range(8):  # and nothing was kept out of order
        mine = sorted(int(entry.split(b".")[1]) for entry in found if entry.startswith(b"%d." % lane))
        assert mine == list(range(len(mine)))
