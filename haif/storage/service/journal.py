"""The journal on disk: a hash chain of entries in a database that nobody else may open."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Sequence
from functools import partial
from typing import Any, Final

from haif.base import limits
from haif.base.errors import DigestMismatch, JournalBroken, Misuse, Overloaded, Oversize
from haif.base.ids import Digest
from haif.storage.journal import EMPTY, WHAT_NOW, Head, Row, check_end, extend, follow
from haif.storage.service.api import Estate, Refused, still_ours
from haif.storage.service.database import Database

JOURNAL_SCHEMA: Final = """
CREATE TABLE journal (sequence INTEGER PRIMARY KEY, subject BLOB NOT NULL, entry BLOB NOT NULL, digest BLOB NOT NULL)
    STRICT;
CREATE INDEX journal_by_subject ON journal (subject, sequence);
CREATE TABLE journal_head (one INTEGER PRIMARY KEY CHECK (one = 1), sequence INTEGER NOT NULL, digest BLOB NOT NULL)
    STRICT;
CREATE TABLE journal_parts (sequence INTEGER NOT NULL, part INTEGER NOT NULL, data BLOB NOT NULL,
    PRIMARY KEY (sequence, part)) STRICT;
"""
"""The migration a database needs before a `Journal` can be kept in it."""

_NONE: Final[tuple[Estate, ...]] = ()
_READ_HEAD: Final = "SELECT sequence, digest FROM journal_head"


class Journal:
    """One orchestrator's `Store`: a chain in an exclusive `Database` whose migrations include `JOURNAL_SCHEMA`.

    It detects every entry that was edited, removed, exchanged, inserted or cut off. It cannot detect that someone who
    may write the file forged all of it, entries and head.
    """

    shared: Final = False

    def __init__(self, database: Database) -> None:
        if not database.exclusive:
            raise Misuse("a journal has one owner: open its database with exclusive=True")
        if JOURNAL_SCHEMA not in database.migrations:
            raise Misuse("a journal has its tables: open its database with JOURNAL_SCHEMA among the migrations")
        self.database = database

    async def append(self, entries: Sequence[bytes], *, subject: bytes = b"") -> None:
        """Put entries about one subject at the end. They are durable, all or none, when this returns.

        With no entries it returns once everything appended before is durable. Raises `Oversize`, `JournalBroken` when
        head and entries disagree, and what `Database.write` raises.
        """
        await asyncio.shield(self.append_nowait(entries, subject=subject))

    def append_nowait(
        self,
        entries: Sequence[bytes],
        *,
        subject: bytes = b"",
        refused: Refused | None = None,  # noqa: ARG002
    ) -> asyncio.Future[None]:
        """Give the entries their place in the journal, and return what `append` waits for.

        No other journal can have their subject, so nothing is ever `refused`.
        """
        for entry in entries:
            if len(entry) > limits.JOURNAL_ENTRY_BYTES_MAX:
                raise Oversize(
                    f"a journal entry of {len(entry)} bytes is over the limit of {limits.JOURNAL_ENTRY_BYTES_MAX}"
                )
        return self.database.write_nowait(lambda connection: _append(connection, subject, entries))

    def check_room(self) -> None:
        """Return if an `append` called now would be taken on. Raises `Overloaded` otherwise."""
        self.database.check_room()

    async def replay(self, *, after: int = 0, until: Head | None = None) -> AsyncIterator[tuple[int, bytes]]:
        """Every entry after entry `after`, with its number, to `until`; else to the end, and nobody may append then.

        Raises `JournalBroken`, naming the entry, at the first one that does not hold. What stands before is not looked
        at: entry `after` is taken at its word, and the next one must follow from it.
        """
        recorded = until or await self.head()
        reached = await self.head_at(after)
        last = until.sequence if until else limits.SEQUENCE_MAX
        while rows := await self.database.read(
            "SELECT sequence, subject, entry, digest FROM journal WHERE sequence > ? AND sequence <= ?"
            " ORDER BY sequence LIMIT ?",
            (reached.sequence, last, limits.JOURNAL_PAGE_ENTRIES),
        ):
            for row in rows:
                reached = follow(reached, _row(row))
                yield reached.sequence, row[2]
        check_end(reached, recorded)

    async def about(self, subject: bytes) -> list[bytes]:
        """The entries about one subject, oldest first, each checked against its neighbour; one page at most."""
        rows = await self.database.read(
            "SELECT j.sequence, j.subject, j.entry, j.digest, p.digest FROM journal j"
            " LEFT JOIN journal p ON p.sequence = j.sequence - 1 WHERE j.subject = ? ORDER BY j.sequence LIMIT ?",
            (subject, limits.JOURNAL_PAGE_ENTRIES),
        )
        for row in rows:
            follow(Head(row[0] - 1, EMPTY.digest if row[4] is None else _digest(row[4], row[0] - 1)), _row(row))
        return [row[2] for row in rows]

    async def latest(self, subject: bytes, count: int) -> list[bytes]:
        """The last `count` entries about one subject, newest first. They are checked where they are replayed."""
        rows = await self.database.read(
            "SELECT entry FROM journal WHERE subject = ? ORDER BY sequence DESC LIMIT ?", (subject, count)
        )
        return [entry for (entry,) in rows]

    async def everywhere(self, subject: bytes) -> list[bytes]:
        """The latest entries about one subject, `limits.PAUSE_ORDERS_READ` at most: there are no other journals."""
        return await self.latest(subject, limits.PAUSE_ORDERS_READ)

    async def head(self) -> Head:
        """How far the journal goes."""
        rows = await self.database.read(_READ_HEAD)
        return _head(rows[0]) if rows else EMPTY

    async def head_at(self, sequence: int) -> Head:
        """How far the journal went when it had so many entries. Raises `JournalBroken` if it never had."""
        if sequence == 0:
            return EMPTY
        rows = await self.database.read("SELECT sequence, digest FROM journal WHERE sequence = ?", (sequence,))
        if not rows:
            raise JournalBroken(f"journal entry {sequence} is missing: a snapshot was made after it. {WHAT_NOW}")
        return _head(rows[0])

    async def estates(self) -> AsyncGenerator[Estate]:
        """None: there are no other journals here."""
        for estate in _NONE:
            yield estate

    async def rejoin(self, prepare: Callable[[], Awaitable[None]]) -> None:  # noqa: ARG002
        """Raises `Misuse`: a journal in a file has one owner until that closes it."""
        raise still_ours()

    # --- snapshots: bytes kept beside the chain, which only an entry in it makes good --------------------------------

    async def keep(self, sequence: int, part: int, data: bytes) -> None:
        """Keep a part of what the first `sequence` entries come to. Raises `Overloaded` if there is no room for it."""
        try:
            await self.database.write(
                lambda connection: connection.execute(
                    "INSERT OR REPLACE INTO journal_parts VALUES (?, ?, ?)", (sequence, part, data)
                )
            )
        except sqlite3.Error as error:
            what = f"a snapshot could not be written ({error}); the journal goes on"
            raise Overloaded(what, retry_after=limits.ORCHESTRATOR_TICK_SECONDS) from error

    async def kept(self, sequence: int, part: int) -> bytes:
        """A part that was kept. Raises `DigestMismatch` if it is gone."""
        rows = await self.database.read(
            "SELECT data FROM journal_parts WHERE sequence = ? AND part = ?", (sequence, part)
        )
        if not rows:
            raise DigestMismatch(f"part {part} of the snapshot after journal entry {sequence} is missing")
        data: bytes = rows[0][0]
        return data

    async def discard(self, *, but: Collection[int]) -> None:
        """Forget all parts that are not of the snapshots after these entries."""
        for (sequence,) in await self.database.read("SELECT DISTINCT sequence FROM journal_parts"):
            if sequence not in but:
                await self.database.write(partial(_discard, sequence))


def _append(connection: sqlite3.Connection, subject: bytes, entries: Sequence[bytes]) -> None:
    if not entries:
        return
    found = connection.execute(_READ_HEAD).fetchone()
    rows = extend(_head(found) if found else EMPTY, subject, entries)
    try:
        connection.executemany(
            "INSERT INTO journal (sequence, subject, entry, digest) VALUES (?, ?, ?, ?)",
            [(row.sequence, row.subject, row.entry, row.digest) for row in rows],
        )
    except sqlite3.IntegrityError:
        raise JournalBroken(f"journal entry {rows[0].sequence} exists already: the recorded head is wrong") from None
    connection.execute(
        "INSERT INTO journal_head VALUES (1, ?, ?)"
        " ON CONFLICT DO UPDATE SET sequence = excluded.sequence, digest = excluded.digest",
        (rows[-1].sequence, rows[-1].digest),
    )


def _discard(sequence: int, connection: sqlite3.Connection) -> None:
    connection.execute("DELETE FROM journal_parts WHERE sequence = ?", (sequence,))


def _head(found: tuple[Any, ...]) -> Head:
    return Head(found[0], _digest(found[1], found[0]))


def _row(found: tuple[Any, ...]) -> Row:
    return Row(found[0], found[1], found[2], _digest(found[3], found[0]))


def _digest(raw: bytes, sequence: int) -> Digest:
    if len(raw) != Digest.size:
        raise JournalBroken(f"the digest of journal entry {sequence} is not one")
    return Digest(raw)
