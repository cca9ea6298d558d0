"""A SQLite file with one writer, whose waiting writes are committed together.

Group commit: while a transaction is being made durable, the writes that arrive wait, and all of them become the next
transaction. A write is durable when its caller hears of it (WAL, `synchronous=FULL`). One that raises takes back only
its own work (a savepoint) and raises only in its own caller.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import sqlite3
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import aiosqlite

from haif.base import limits
from haif.base.errors import Misuse, Overloaded

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]


@dataclass(frozen=True, slots=True)
class DatabaseStatistics:
    """Counts since the database was opened, and the writes waiting now."""

    writes: int
    commits: int
    failed: int
    waiting: int


class _Connection(aiosqlite.Connection):
    """A connection that lives in its own thread and runs whole functions there."""

    async def run(self, work: Work[T]) -> T:
        result: T = await self._execute(work, self._conn)  # type: ignore[no-untyped-call]
        return result


@dataclass(frozen=True, slots=True)
class _Write(Generic[T]):
    work: Work[T]
    done: asyncio.Future[T]


class Database:
    """An SQLite file, created with mode 0600 in a directory created with mode 0700, open while the block is entered.

    `migrations` are SQL scripts, numbered by their place and run once each, in order, all or none; a script that has
    been released is never changed again. `exclusive` claims the file for this process alone; otherwise other processes
    may open it too, and writes wait for one another.

    Entering raises `Misuse` when the file was written by a newer program or is claimed by another process. Leaving
    makes durable what was queued and closes. SQLite's own errors (such as a full disk) reach the callers concerned.
    """

    def __init__(self, path: Path, migrations: Sequence[str], *, exclusive: bool = False) -> None:
        self.path = path
        self.exclusive = exclusive
        self.migrations = tuple(migrations)
        self._waiting: deque[_Write[Any]] = deque()
        self._wake = asyncio.Event()
        self._open = False
        self._reading = self._writes = self._commits = self._failed = 0

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            stack.callback(os.close, _claim(self.path, exclusive=self.exclusive))
            self._writer, self._reader = _connection(self.path), _connection(self.path)
            await stack.enter_async_context(self._writer)
            await self._writer.run(lambda connection: _prepare(connection, self.path, self.migrations))
            await stack.enter_async_context(self._reader)
            await self._reader.run(lambda connection: connection.execute("PRAGMA query_only = ON"))
            self._writing = asyncio.create_task(self._write_until_closed(), name=f"writer of {self.path.name}")
            self._open = True
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open = False
        self._wake.set()
        try:
            await self._writing
        finally:
            await self._stack.aclose()

    async def write(self, work: Work[T]) -> T:
        """What `work` returned, once it is durable. `work` runs in the writer's thread, inside a transaction.

        Writes take effect in the order of the calls. Once called it happens, even if the caller is cancelled. Raises
        what `work` raised (then nothing of it is kept), `Overloaded` when too many writes wait, and `Misuse` when the
        database is not open or `work` ended the transaction.
        """
        return await asyncio.shield(self.write_nowait(work))

    def write_nowait(self, work: Work[T]) -> asyncio.Future[T]:
        """Queue a write, in its place among all writes, and return what `write` waits for."""
        self.check_room()
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Write(work, done))
        self._wake.set()
        return done

    def check_room(self) -> None:
        """Return if a `write` called now would be taken on. Raises `Overloaded` or `Misuse` otherwise."""
        self._check_open()
        if len(self._waiting) >= limits.DATABASE_WRITES_WAITING_MAX:
            raise Overloaded(f"{len(self._waiting)} writes are waiting for the disk; try again", retry_after=1.0)

    async def read(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of a query, of what is durable now. The caller bounds them (LIMIT).

        Raises `Overloaded` when too many reads wait, and `Misuse` when the database is not open.
        """
        self._check_open()
        if self._reading >= limits.DATABASE_READS_WAITING_MAX:
            raise Overloaded(f"{self._reading} reads are waiting for the disk; try again", retry_after=1.0)
        self._reading += 1
        try:
            return await self._reader.run(lambda connection: list(connection.execute(sql, parameters)))
        finally:
            self._reading -= 1

    def statistics(self) -> DatabaseStatistics:
        """Counts until now."""
        return DatabaseStatistics(self._writes, self._commits, self._failed, len(self._waiting))

    def _check_open(self) -> None:
        if not self._open:
            raise Misuse(f"the database {self.path.name} is not open")

    async def _write_until_closed(self) -> None:
        try:
            while self._open or self._waiting:
                await self._wake.wait()
                self._wake.clear()
                while self._waiting:
                    await self._commit()
        except Exception as error:
            self._open = False
            for write in self._waiting:
                _settle(write.done, _Failed(error))
            raise  # to whoever leaves the block

    async def _commit(self) -> None:
        batch = list(islice(self._waiting, limits.DATABASE_WRITES_PER_COMMIT_MAX))
        outcomes = await self._writer.run(lambda connection: _transaction(connection, [write.work for write in batch]))
        self._commits += 1
        for write, outcome in zip(batch, outcomes, strict=True):
            self._waiting.popleft()
            self._writes += 1
            self._failed += isinstance(outcome, _Failed)
            _settle(write.done, outcome)


@dataclass(frozen=True, slots=True)
class _Failed:
    error: Exception


def _settle(done: asyncio.Future[Any], outcome: Any) -> None:
    """Tell the caller, if it still wants to know."""
    if done.cancelled():
        return
    if isinstance(outcome, _Failed):
        done.set_exception(outcome.error)
        done.exception()  # nobody may come back for it
    else:
        done.set_result(outcome)


def _connection(path: Path) -> _Connection:
    def connect() -> sqlite3.Connection:
        return sqlite3.connect(path, isolation_level=None, timeout=limits.DATABASE_BUSY_SECONDS)

    return _Connection(connect, iter_chunk_size=limits.JOURNAL_PAGE_ENTRIES)


def _claim(path: Path, *, exclusive: bool) -> int:
    """The open lock file beside the database. The lock goes with the process, however that ends."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    path.chmod(0o600)
    lock = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise Misuse(f"{path} is in use by another process: stop that one, or use another state directory") from None
    return lock


def _prepare(connection: sqlite3.Connection, path: Path, migrations: Sequence[str]) -> None:
    """Set the promises of durability, then bring the schema up to date in one transaction."""
    try:
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    except sqlite3.DatabaseError as error:
        raise Misuse(f"{path} cannot be opened as a database ({error}): keep it, and restore a backup") from error
    if mode != "wal":
        raise Misuse(f"{path} cannot keep a write-ahead log (its file system does not support one): move it")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("BEGIN IMMEDIATE")
    try:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > len(migrations):
            raise Misuse(
                f"{path} was written by a newer program (schema {version}, this one knows {len(migrations)}): "
                "upgrade this program, or use another state directory"
            )
        for script in migrations[version:]:
            for statement in _statements(script):
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {len(migrations)}")
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _statements(script: str) -> list[str]:
    """A script as single statements: `executescript` would commit before it begins."""
    statements: list[str] = []
    begun = ""
    for piece in script.split(";"):
        begun += piece + ";"
        if sqlite3.complete_statement(begun):
            statements.append(begun)
            begun = ""
    assert not begun.strip("; \n"), f"a migration ends inside a statement: {begun!r}"
    return statements


def _transaction(connection: sqlite3.Connection, works: Sequence[Work[Any]]) -> Sequence[Any]:
    """Do all of it in one durable transaction: what each work returned, or a `_Failed` in its place."""
    try:
        connection.execute("BEGIN IMMEDIATE")
        outcomes = [_within_savepoint(connection, work) for work in works]
        connection.execute("COMMIT")
    except (sqlite3.Error, Misuse) as error:  # none of it can be kept: a full disk, a file locked for too long
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        return [_Failed(error)] * len(works)
    return outcomes


def _within_savepoint(connection: sqlite3.Connection, work: Work[Any]) -> Any:
    connection.execute("SAVEPOINT one_write")
    try:
        outcome = work(connection)
    except Exception as error:  # whatever it is, it is told to the caller whose work this was
        if not connection.in_transaction:
            raise  # SQLite has taken back the whole transaction
        connection.execute("ROLLBACK TO one_write")
        outcome = _Failed(error)
    if not connection.in_transaction:
        raise Misuse("a write ended the transaction it was running in")
    connection.execute("RELEASE one_write")
    return outcome
