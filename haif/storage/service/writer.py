"""The writes of one chain, gathered and made durable together, however often the server is lost meanwhile."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import asyncpg

from haif.base import limits
from haif.base.errors import Conflict, HaifError, JournalBroken, Misuse, Overloaded
from haif.storage.journal import Head, Row, extend
from haif.storage.service.api import Fenced, Refused
from haif.storage.service.chain import head_of
from haif.storage.service.database import DatabaseStatistics
from haif.storage.service.line import LOST, Connection, Line

T = TypeVar("T")


@dataclass(slots=True)
class Write:
    """Entries in their place, each with its subject. With `refused`, the first is about a subject in no chain yet.

    With `leaving`, their subjects leave another chain in the same transaction.
    """

    entries: list[tuple[bytes, bytes]]
    done: asyncio.Future[None]
    refused: Refused | None = None
    leaving: Leaving | None = None

    @property
    def first(self) -> bytes | None:
        """The subject that must be new."""
        return self.entries[0][0] if self.refused else None

    def concerns(self, subjects: Collection[bytes]) -> bool:
        """Whether it is about one of them."""
        return any(subject in subjects for subject, _ in self.entries)


@dataclass(frozen=True, slots=True)
class Leaving:
    """Entries that end subjects in another chain, of which we have the token and know the head."""

    chain: bytes
    token: int
    head: Head
    rows: list[Row]
    last: bool


class Writer:
    """Adds to one chain while its token is ours. `lost` is why nothing more is written, once that is so."""

    def __init__(self, line: Line, name: bytes, token: int, head: Head) -> None:
        self.name = name
        self.token = token
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.lost.add_done_callback(lambda lost: lost.cancelled() or lost.exception())  # whoever asks will hear it
        self._line = line
        self._head = head
        self._waiting: deque[Write] = deque()
        self._wake = asyncio.Event()
        self._open = True
        self._writes = self._commits = self._failed = 0

    async def run(self) -> None:
        """Write what is queued, until closed and done, or lost."""
        try:
            while self._open or self._waiting:
                await self._wake.wait()
                self._wake.clear()
                while self._waiting:
                    await self._commit(self._batch())
        except (HaifError, asyncpg.PostgresError) as error:
            self.lose(error)

    def close(self) -> None:
        """Take nothing new."""
        self._open = False
        self._wake.set()

    def lose(self, error: Exception) -> None:
        """Nothing that was not written will be."""
        if not self.lost.done():
            self.lost.set_exception(error)
        while self._waiting:
            _tell(self._waiting.popleft().done, error)
        self.close()

    def queue(
        self, entries: list[tuple[bytes, bytes]], refused: Refused | None = None, leaving: Leaving | None = None
    ) -> asyncio.Future[None]:
        """Give entries their place. Raises what `check_room` raises."""
        self.check_room()
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(Write(entries, done, refused, leaving))
        self._wake.set()
        return done

    def check_room(self) -> None:
        """Return if a write would be taken on. Raises `Overloaded`, `Misuse`, or why the chain is lost."""
        if self.lost.done():
            self.lost.result()
        if not self._open:
            raise Misuse("the journal is not open")
        if len(self._waiting) >= limits.DATABASE_WRITES_WAITING_MAX:
            raise Overloaded(f"{len(self._waiting)} writes are waiting for the database; try again", retry_after=1.0)

    def statistics(self) -> DatabaseStatistics:
        """Counts until now."""
        return DatabaseStatistics(self._writes, self._commits, self._failed, len(self._waiting))

    def _batch(self) -> list[Write]:
        """The next writes that one statement can carry: a move goes alone."""
        batch: list[Write] = []
        for write in self._waiting:
            if len(batch) >= limits.DATABASE_WRITES_PER_COMMIT_MAX or (batch and write.leaving):
                break
            batch.append(write)
            if write.leaving:
                break
        return batch

    async def _commit(self, batch: list[Write]) -> None:
        """Make a batch durable, however often the server is lost meanwhile; or refuse some, and leave the rest."""
        rows: list[Row] = []
        for write in batch:
            for subject, entry in write.entries:
                rows += extend(end(self._head, rows), subject, [entry])
        after, leaving = end(self._head, rows), batch[0].leaving
        while True:
            try:
                if leaving is None:
                    await self._line.once(lambda connection: self._add(connection, batch, rows, after))
                else:
                    await self._line.once(lambda connection: self._move(connection, leaving, rows, after))
                break
            except asyncpg.UniqueViolationError:
                await self._refuse(batch)
                return
            except Conflict as error:
                self._settle(batch, error)
                return
            except asyncpg.DeadlockDetectedError:
                continue
            except LOST:
                await asyncio.sleep(limits.STORE_AGAIN_SECONDS)
                if rows and await self._has(after):
                    break
        self._head = after
        self._commits += 1
        self._settle(batch, None)

    async def _add(self, connection: Connection, batch: list[Write], rows: list[Row], after: Head) -> None:
        if not rows:
            if not await connection.fetchval(_OURS, self.name, self.token):
                raise fenced()
            return
        firsts = sorted(write.first for write in batch if write.first is not None)  # in one order: no deadlock
        held = await connection.fetchval(
            _ADD, self.name, self.token, self._head.sequence, after.sequence, after.digest, limits.LEASE_SECONDS,
            firsts,
            [row.sequence for row in rows], [row.subject for row in rows], [row.entry for row in rows],
            [row.digest for row in rows],
        )  # fmt: skip
        if held is None:
            await self._explain(connection)

    async def _move(self, connection: Connection, leaving: Leaving, rows: list[Row], after: Head) -> None:
        until = end(leaving.head, leaving.rows)
        async with connection.transaction():
            if not await connection.fetchval(
                "UPDATE chains SET sequence = $4, digest = $5, held = $6 WHERE chain = $1 AND token = $2"
                " AND sequence = $3 RETURNING 1",
                leaving.chain, leaving.token, leaving.head.sequence, until.sequence, until.digest, not leaving.last,
            ):  # fmt: skip
                raise Conflict("another took over that chain, or its owner came back")
            await self._insert(connection, leaving.chain, leaving.rows)
            if not await connection.fetchval(
                "UPDATE chains SET sequence = $4, digest = $5, expires = clock_timestamp() + $6 * interval '1 second'"
                " WHERE chain = $1 AND token = $2 AND sequence = $3 RETURNING 1",
                self.name, self.token, self._head.sequence, after.sequence, after.digest, limits.LEASE_SECONDS,
            ):  # fmt: skip
                await self._explain(connection)
            await self._insert(connection, self.name, rows)
            await connection.execute(
                "UPDATE subjects SET chain = $1 WHERE subject = ANY($2)", self.name, [row.subject for row in rows]
            )

    async def _insert(self, connection: Connection, chain: bytes, rows: list[Row]) -> None:
        await connection.execute(
            "INSERT INTO journal SELECT $1, * FROM unnest($2::bigint[], $3::bytea[], $4::bytea[], $5::bytea[])",
            chain, [row.sequence for row in rows], [row.subject for row in rows], [row.entry for row in rows],
            [row.digest for row in rows],
        )  # fmt: skip

    async def _refuse(self, batch: list[Write]) -> None:
        """Somebody has a subject that we took for new: nothing about it is kept, and the rest is tried again."""
        firsts = [write.first for write in batch if write.first is not None]
        found = await self._until_back(
            lambda connection: connection.fetch("SELECT subject FROM subjects WHERE subject = ANY($1)", firsts)
        )
        taken = {bytes(subject) for (subject,) in found}
        if not taken:
            raise JournalBroken(f"journal entry {self._head.sequence + 1} exists already: the recorded head is wrong")
        error = Conflict("another orchestrator has this job")
        for write in [each for each in self._waiting if each.leaving is None and each.concerns(taken)]:
            self._waiting.remove(write)
            self._failed += 1
            if write.refused is not None:
                write.refused()
            _tell(write.done, error)

    async def _explain(self, connection: Connection) -> None:
        """Raise why our chain does not take what we write."""
        found = await connection.fetchrow("SELECT token, sequence FROM chains WHERE chain = $1", self.name)
        if found is not None and found[0] == self.token:
            raise JournalBroken(
                f"the journal ends with entry {found[1]}, not with {self._head.sequence} as we wrote it"
            )
        raise fenced()

    async def _has(self, after: Head) -> bool:
        """Whether what was being written when the server was lost is there."""
        (found,) = await self._until_back(
            lambda connection: connection.fetch("SELECT sequence, digest FROM chains WHERE chain = $1", self.name)
        )
        return head_of(found) == after

    async def _until_back(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        while True:
            try:
                return await self._line.once(work)
            except LOST:
                await asyncio.sleep(limits.STORE_AGAIN_SECONDS)

    def _settle(self, batch: list[Write], error: Exception | None) -> None:
        if self.lost.done():  # while the last batch was on its way: all have been told
            return
        for write in batch:
            self._waiting.popleft()
            self._writes += 1
            self._failed += error is not None
            _tell(write.done, error)


def fenced() -> Fenced:
    """Why a chain is lost that others have taken over."""
    return Fenced(
        f"this orchestrator was silent for {limits.LEASE_SECONDS:g} s, and another took over its jobs: ask that one",
        retry_after=1.0,
    )


_OURS: Final = "SELECT 1 FROM chains WHERE chain = $1 AND token = $2"
_ADD: Final = """
    WITH held AS (
        UPDATE chains SET sequence = $4, digest = $5, expires = clock_timestamp() + $6 * interval '1 second'
        WHERE chain = $1 AND token = $2 AND sequence = $3 RETURNING chain
    ), named AS (
        INSERT INTO subjects SELECT first, chain FROM held, unnest($7::bytea[]) AS first
    ), added AS (
        INSERT INTO journal SELECT chain, entry.*
        FROM held, unnest($8::bigint[], $9::bytea[], $10::bytea[], $11::bytea[]) AS entry
    )
    SELECT 1 FROM held
"""


def end(head: Head, rows: Sequence[Row]) -> Head:
    """The head after these rows."""
    return Head(rows[-1].sequence, rows[-1].digest) if rows else head


def _tell(done: asyncio.Future[None], error: Exception | None) -> None:
    if done.done():
        return
    if error is None:
        done.set_result(None)
    else:
        done.set_exception(error)
        done.exception()  # nobody may come back for it
