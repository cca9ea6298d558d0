"""What every store of an orchestrator promises, in a file of its own and in a database shared with others."""

import asyncio
import re
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest

import haif
from haif.base import limits
from haif.base.errors import DigestMismatch, JournalBroken, Misuse, Oversize, Reason
from haif.storage.journal import EMPTY
from haif.storage.service import JOURNAL_SCHEMA, Database, Journal, Store
from haif.storage.service.postgres import PostgresJournal

ROOT = Path(haif.__file__).parents[1]
ANNE = b"a" * 32


@dataclass
class Place:
    """Where a journal is kept: how to open it, what to change behind its back, and what to open it with elsewhere."""

    open: Callable[[], AbstractAsyncContextManager[Store]]
    change: Callable[[str], Awaitable[None]]
    where: str


@asynccontextmanager
async def in_a_file(path: Path) -> AsyncIterator[Store]:
    async with Database(path, [JOURNAL_SCHEMA], exclusive=True) as database:
        yield Journal(database)


def opened(where: str) -> AbstractAsyncContextManager[Store]:
    return PostgresJournal(where, ANNE) if where.startswith("postgresql:") else in_a_file(Path(where))


@pytest.fixture(params=["sqlite", "postgresql"])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "sqlite":
        where = str(tmp_path / "journal")

        async def change(script: str) -> None:
            connection = sqlite3.connect(where)
            connection.executescript(script)
            connection.close()
    else:
        where = await request.getfixturevalue("postgres").database()

        async def change(script: str) -> None:
            connection = await asyncpg.connect(where)
            script = re.sub(r"x'(\w*)'", r"'\\x\1'::bytea", script.replace("journal_head", "chains"))
            await connection.execute(script)
            await connection.close()

    return Place(lambda: opened(where), change, where)


async def test_what_was_not_lost_is_not_rejoined(place: Place) -> None:
    async def prepare() -> None:
        raise AssertionError("nothing is prepared for that")

    async with place.open() as store:
        with pytest.raises(Misuse, match="was not lost"):
            await store.rejoin(prepare)


async def test_entries_about_a_subject_are_found_in_whichever_journal(place: Place) -> None:
    await write_some(place)
    async with place.open() as store:
        assert {b"a1", b"a2", b"a3"} == set(await store.everywhere(b"a"))
        assert [] == await store.everywhere(b"nothing")


async def replayed(store: Store, **options: object) -> list[tuple[int, bytes]]:
    return [entry async for entry in store.replay(**options)]  # type: ignore[arg-type]


async def write_some(place: Place) -> None:
    async with place.open() as store:
        await store.append([b"a1", b"a2"], subject=b"a")
        await store.append([b"b1"], subject=b"b")
        await store.append([b"a3"], subject=b"a")


SOME = [(1, b"a1"), (2, b"a2"), (3, b"b1"), (4, b"a3")]


async def test_replay_gives_back_what_was_appended_after_reopening(place: Place) -> None:
    await write_some(place)
    async with place.open() as store:
        assert SOME == await replayed(store)


async def test_an_empty_journal_replays_nothing(place: Place) -> None:
    async with place.open() as store:
        assert await replayed(store) == []
        await store.append([])
        assert await store.about(b"") == []
        assert await store.latest(b"", 9) == []
        assert EMPTY == await store.head() == await store.head_at(0)


async def test_replay_crosses_pages(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "JOURNAL_PAGE_ENTRIES", 3)
    async with place.open() as store:
        await store.append([b"%d" % n for n in range(10)])
        assert [entry for _, entry in await replayed(store)] == [b"%d" % n for n in range(10)]


async def test_replay_begins_after_an_entry_and_goes_as_far_as_it_was_told(place: Place) -> None:
    await write_some(place)
    async with place.open() as store:
        assert SOME[2:] == await replayed(store, after=2)
        assert SOME[1:3] == await replayed(store, after=1, until=await store.head_at(3))
        assert await store.head() == await store.head_at(4)
        with pytest.raises(JournalBroken, match="entry 5 is missing"):
            await replayed(store, after=5)


async def test_entries_are_found_by_their_subject(place: Place) -> None:
    await write_some(place)
    async with place.open() as store:
        assert await store.about(b"a") == [b"a1", b"a2", b"a3"]
        assert await store.about(b"b") == [b"b1"]
        assert await store.latest(b"a", 2) == [b"a3", b"a2"]


async def test_appends_at_once_are_one_chain_and_few_commits(place: Place) -> None:
    async with place.open() as store:
        await asyncio.gather(*(store.append([b"%d" % n]) for n in range(100)))
        assert [entry for _, entry in await replayed(store)] == [b"%d" % n for n in range(100)]
        counted = store.database.statistics() if isinstance(store, Journal) else store.statistics()  # type: ignore[attr-defined]
        assert counted.writes == 100
        assert counted.commits <= 3


async def test_an_entry_over_the_limit_is_refused(place: Place) -> None:
    async with place.open() as store:
        with pytest.raises(Oversize):
            await store.append([bytes(limits.JOURNAL_ENTRY_BYTES_MAX + 1)])


async def test_a_journal_has_one_owner(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("LEASE_SECONDS", 1.0), ("LEASE_RENEW_SECONDS", 0.01), ("LEASE_WATCH_SECONDS", 0.01)):
        monkeypatch.setattr(limits, name, seconds)
    async with place.open():
        with pytest.raises(Misuse, match=r"use by another process|up already") as caught:
            await place.open().__aenter__()
        assert Reason.MISUSE is caught.value.reason


async def test_a_store_of_a_newer_program_is_refused(place: Place) -> None:
    async with place.open():
        pass
    if place.where.startswith("postgresql:"):
        await place.change("INSERT INTO haif_schema VALUES (99)")
    else:
        await place.change("PRAGMA user_version = 99")
    with pytest.raises(Misuse, match=r"newer program .*: upgrade"):
        await place.open().__aenter__()


async def test_parts_are_kept_until_they_are_discarded(place: Place) -> None:
    async with place.open() as store:
        for sequence, part, data in ((1, 0, b"x"), (1, 1, b"y"), (2, 0, b"z"), (1, 0, b"again")):
            await store.keep(sequence, part, data)
        assert (b"again", b"y", b"z") == (await store.kept(1, 0), await store.kept(1, 1), await store.kept(2, 0))
        await store.discard(but={2})
        assert await store.kept(2, 0) == b"z"
        with pytest.raises(DigestMismatch, match="part 1 of the snapshot after journal entry 1 is missing"):
            await store.kept(1, 1)


TAMPERED = {
    "an edited entry": ("UPDATE journal SET entry = x'78' WHERE sequence = 2", "entry 2 is not what was written"),
    "an edited subject": ("UPDATE journal SET subject = x'62' WHERE sequence = 2", "entry 2 is not what was written"),
    "an edited digest": (f"UPDATE journal SET digest = x'{'00' * 32}' WHERE sequence = 2", "entry 2 is not what"),
    "a digest of another size": ("UPDATE journal SET digest = x'78' WHERE sequence = 2", "entry 2 is not one"),
    "a deleted entry": ("DELETE FROM journal WHERE sequence = 2", "entry 2 is missing"),
    "the first deleted": ("DELETE FROM journal WHERE sequence = 1", "entry 1 is missing"),
    "the end cut off": ("DELETE FROM journal WHERE sequence > 2", "entry 3 is missing: 4 were written"),
    "all entries deleted": ("DELETE FROM journal", "entry 1 is missing: 4 were written"),
    "the head put back": ("UPDATE journal_head SET sequence = 3", "entry 4 is not the one recorded"),
    "two exchanged": (
        "UPDATE journal SET entry = CASE sequence WHEN 2 THEN x'6231' ELSE x'6132' END WHERE sequence IN (2, 3)",
        "entry 2 is not what was written",
    ),
}


@pytest.mark.parametrize("how", TAMPERED)
async def test_tampering_is_found_and_the_entry_named(place: Place, how: str) -> None:
    script, message = TAMPERED[how]
    await write_some(place)
    await place.change(script)
    async with place.open() as store:
        with pytest.raises(JournalBroken, match=message):
            await replayed(store)


async def test_looking_up_a_tampered_entry_finds_it_out(place: Place) -> None:
    await write_some(place)
    await place.change("UPDATE journal SET entry = x'78' WHERE sequence = 4")
    async with place.open() as store:
        assert await store.about(b"b") == [b"b1"]
        with pytest.raises(JournalBroken, match="entry 4 is not"):
            await store.about(b"a")


async def test_appending_to_a_journal_whose_head_was_put_back_is_refused(place: Place) -> None:
    await write_some(place)
    await place.change("UPDATE journal_head SET sequence = 3")
    async with place.open() as store:
        with pytest.raises(JournalBroken, match="exists already"):
            await store.append([b"more"])


APPENDER = """
import asyncio, sys
from tests.unit.storage.test_stores import opened

async def main():
    async with opened(sys.argv[1]) as store:
        async def append(lane):
            n = 0
            while True:
                await store.append([b"%d.%d" % (lane, n)])
                print(f"{lane}.{n}", flush=True)
                n += 1
        await asyncio.gather(*(append(lane) for lane in range(8)))

asyncio.run(main())
"""


async def test_killing_the_process_amid_appends_loses_nothing_acknowledged(place: Place) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", APPENDER, place.where, stdout=subprocess.PIPE, cwd=ROOT
    )
    assert process.stdout is not None
    acknowledged = [(await process.stdout.readline()).strip() for _ in range(300)]
    process.kill()
    acknowledged += [line.strip() for line in (await process.stdout.read()).splitlines(True) if line.endswith(b"\n")]
    await process.wait()
    async with place.open() as store:  # the lock goes with the process, a lease after a while
        found = {entry for _, entry in await replayed(store)}
    assert set(acknowledged) <= found
    for lane in range(8):  # and nothing was kept out of order
        mine = sorted(int(entry.split(b".")[1]) for entry in found if entry.startswith(b"%d." % lane))
        assert mine == list(range(len(mine)))
