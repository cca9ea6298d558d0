"""A chain in the database that orchestrators share, as anyone of them may read it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

from haif.base import limits
from haif.base.errors import DigestMismatch, JournalBroken
from haif.base.ids import Digest
from haif.storage.journal import EMPTY, WHAT_NOW, Head, Row, check_end, follow
from haif.storage.service.line import Line


class Chain:
    """One orchestrator's journal and the snapshots beside it. Raises `Overloaded` when the server is gone for long."""

    def __init__(self, line: Line, name: bytes) -> None:
        self.line = line
        self.name = name

    async def replay(self, *, after: int = 0, until: Head | None = None) -> AsyncIterator[tuple[int, bytes]]:
        """Every entry after entry `after`, with its number, to `until`; else to the end, and nobody may append then.

        Raises `JournalBroken`, naming the entry, at the first one that does not hold. What stands before is not looked
        at: entry `after` is taken at its word, and the next one must follow from it.
        """
        recorded = until or await self.head()
        reached = await self.head_at(after)
        last = until.sequence if until else limits.SEQUENCE_MAX
        while rows := await self._fetch(
            "SELECT sequence, subject, entry, digest FROM journal WHERE chain = $1 AND sequence > $2 AND sequence <= $3"
            " ORDER BY sequence LIMIT $4",
            self.name, reached.sequence, last, limits.JOURNAL_PAGE_ENTRIES,
        ):  # fmt: skip
            for row in rows:
                reached = follow(reached, _row(row))
                yield reached.sequence, row[2]
        check_end(reached, recorded)

    async def about(self, subject: bytes) -> list[bytes]:
        """The entries about one subject in the chain where it is now, oldest first; one page at most.

        Each is checked against its neighbour. Raises `JournalBroken`.
        """
        rows = await self._fetch(
            "SELECT j.sequence, j.subject, j.entry, j.digest, p.digest FROM journal j"
            " LEFT JOIN journal p ON p.chain = j.chain AND p.sequence = j.sequence - 1"
            " WHERE j.subject = $1 AND j.chain = coalesce((SELECT chain FROM subjects WHERE subject = $1), $2)"
            " ORDER BY j.sequence LIMIT $3",
            subject, self.name, limits.JOURNAL_PAGE_ENTRIES,
        )  # fmt: skip
        for row in rows:
            follow(Head(row[0] - 1, EMPTY.digest if row[4] is None else digest_of(row[4], row[0] - 1)), _row(row))
        return [row[2] for row in rows]

    async def latest(self, subject: bytes, count: int) -> list[bytes]:
        """The last `count` entries about one subject, newest first. They are checked where they are replayed."""
        rows = await self._fetch(
            "SELECT entry FROM journal WHERE subject = $1 AND chain = $2 ORDER BY sequence DESC LIMIT $3",
            subject, self.name, count,
        )  # fmt: skip
        return [entry for (entry,) in rows]

    async def everywhere(self, subject: bytes) -> list[bytes]:
        """The latest entries about one subject in all chains, `limits.PAUSE_ORDERS_READ` at most, in no order."""
        rows = await self._fetch(
            "SELECT entry FROM journal WHERE subject = $1 ORDER BY sequence DESC LIMIT $2",
            subject, limits.PAUSE_ORDERS_READ,
        )  # fmt: skip
        return [entry for (entry,) in rows]

    async def head(self) -> Head:
        """How far the chain goes."""
        rows = await self._fetch("SELECT sequence, digest FROM chains WHERE chain = $1", self.name)
        return head_of(rows[0]) if rows else EMPTY

    async def head_at(self, sequence: int) -> Head:
        """How far the chain went when it had so many entries. Raises `JournalBroken` if it never had."""
        if sequence == 0:
            return EMPTY
        rows = await self._fetch(
            "SELECT sequence, digest FROM journal WHERE chain = $1 AND sequence = $2", self.name, sequence
        )
        if not rows:
            raise JournalBroken(f"journal entry {sequence} is missing: a snapshot was made after it. {WHAT_NOW}")
        return head_of(rows[0])

    async def kept(self, sequence: int, part: int) -> bytes:
        """A part that was kept. Raises `DigestMismatch` if it is gone."""
        rows = await self._fetch(
            "SELECT data FROM journal_parts WHERE chain = $1 AND sequence = $2 AND part = $3", self.name, sequence, part
        )
        if not rows:
            raise DigestMismatch(f"part {part} of the snapshot after journal entry {sequence} is missing")
        data: bytes = rows[0][0]
        return data

    async def _fetch(self, sql: str, *parameters: object) -> Sequence[Any]:
        rows: Sequence[Any] = await self.line.read(lambda connection: connection.fetch(sql, *parameters))
        return rows


def head_of(found: Sequence[Any]) -> Head:
    """A head as the database has it: sequence, digest. Raises `JournalBroken` for a digest that is none."""
    return Head(found[0], digest_of(found[1], found[0]))


def digest_of(raw: bytes, sequence: int) -> Digest:
    """The digest of an entry. Raises `JournalBroken` for bytes that are none."""
    if len(raw) != Digest.size:
        raise JournalBroken(f"the digest of journal entry {sequence} is not one")
    return Digest(raw)


def _row(found: Sequence[Any]) -> Row:
    return Row(found[0], found[1], found[2], digest_of(found[3], found[0]))
