"""The dead-letter queue in SQLite: the gateway writes it, its operator reads it and asks for letters to be run again.

The operator's credential is the file: whoever may write the gateway's state folder (0700) may redrive and purge.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from haif.base import codec, limits
from haif.base.clock import Clock, WallTime
from haif.base.ids import JobId
from haif.gateway.letters import Letter, Payload, Standing, Try, cause_of, seal_payload
from haif.runtime.clock import SystemClock
from haif.storage.service import Database

LETTERS_SCHEMA: Final = (
    """
    CREATE TABLE letters (
        job BLOB PRIMARY KEY, tenant TEXT NOT NULL, model TEXT NOT NULL, at INTEGER NOT NULL, cause TEXT NOT NULL,
        standing TEXT NOT NULL, redriven INTEGER NOT NULL, due INTEGER NOT NULL, history BLOB NOT NULL, payload BLOB
    ) STRICT;
    CREATE INDEX letters_by_time ON letters (at);
    CREATE INDEX letters_by_due ON letters (standing, due);
    """,
)
_SELECT: Final = "SELECT job, tenant, model, at, cause, standing, redriven, history, payload FROM letters"


class Letters:
    """The dead letters of one gateway."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    # --- the gateway's side -------------------------------------------------------------------------------------------

    async def bury(
        self, job: JobId, tenant: str, model: str, history: Sequence[Try], payload: Payload | None, secret: bytes
    ) -> None:
        """Keep a request that failed. The oldest letters make room."""
        sealed = None if payload is None else seal_payload(secret, job, payload)
        letter = Letter(
            job, tenant, model, self._clock.wall(), cause_of(tuple(history)), Standing.DEAD, 0, tuple(history), sealed
        )
        await self._database.write(lambda connection: _bury(connection, letter))

    async def failed_again(self, job: JobId, history: Sequence[Try]) -> None:
        """A letter was run again, and failed again: it lies there with all its history."""
        await self._database.write(lambda connection: _failed_again(connection, job, history))

    async def ended(self, job: JobId, standing: Standing) -> None:
        """A run of a letter is over."""
        await self._database.write(
            lambda connection: connection.execute(
                "UPDATE letters SET standing = ? WHERE job = ? AND standing = ?", (standing, job, Standing.RUNNING)
            )
        )

    async def take(self, most: int) -> list[Letter]:
        """At most so many letters that are to be run now. From here on they are."""
        now = self._clock.wall()
        return await self._database.write(lambda connection: _take(connection, now, most))

    async def begin(self) -> None:
        """A gateway starts: what it was running when it was killed is to be run again, and old letters go."""
        now = self._clock.wall()
        await self._database.write(lambda connection: _begin(connection, now))

    # --- the operator's side ------------------------------------------------------------------------------------------

    async def all(self) -> list[Letter]:
        """Every letter, newest first."""
        rows = await self._database.read(f"{_SELECT} ORDER BY at DESC LIMIT ?", (limits.LETTERS_MAX,))
        return [_letter(row) for row in rows]

    async def ask(self, jobs: Sequence[JobId], per_second: float) -> int:
        """Have these letters run again, so many a second; how many can be."""
        now = self._clock.wall()
        return await self._database.write(lambda connection: _ask(connection, jobs, now, per_second))

    async def cancel(self, jobs: Sequence[JobId]) -> int:
        """Take back what was asked for and has not begun; how many."""
        return await self._database.write(lambda connection: _cancel(connection, jobs))

    async def purge(self, jobs: Sequence[JobId]) -> int:
        """Forget letters, requests and all; how many there were."""
        return await self._database.write(lambda connection: _purge(connection, jobs))

    async def depth(self) -> Depth:
        """How many wait for somebody, and for how long the oldest has."""
        rows = await self._database.read("SELECT count(*), min(at) FROM letters WHERE standing = ?", (Standing.DEAD,))
        count, oldest = rows[0]
        return Depth(count, 0.0 if oldest is None else max(0, self._clock.wall() - oldest) / 1000)


@dataclass(frozen=True, slots=True)
class Depth:
    """How many letters are dead, and the age of the oldest in seconds."""

    letters: int
    oldest_seconds: float


@asynccontextmanager
async def open_letters(folder: Path, *, instance: str = "gateway") -> AsyncIterator[Letters]:
    """The letters of the gateway instance whose files are under the state folder `folder`."""
    async with Database(folder / instance / "letters.sqlite", LETTERS_SCHEMA) as database:
        yield Letters(database, SystemClock())


def _letter(row: tuple[Any, ...]) -> Letter:
    job, tenant, model, at, cause, standing, redriven, history, payload = row
    return Letter(
        JobId(job), tenant, model, WallTime(at), cause, Standing(standing), redriven, _history(history), payload
    )


def _history(encoded: bytes) -> tuple[Try, ...]:
    return tuple(codec.decode(Try, each) for each in codec.decode_any(encoded))


def _encoded(history: Sequence[Try]) -> bytes:
    return codec.encode_any([codec.encode(each) for each in history[-limits.LETTER_TRIES_MAX :]])


def _bury(connection: sqlite3.Connection, letter: Letter) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO letters VALUES (?, ?, ?, ?, ?, ?, ?, 0, ?, ?)",
        (
            letter.job, letter.tenant, letter.model, letter.at, letter.cause, letter.standing, letter.redriven,
            _encoded(letter.history), letter.payload,
        ),
    )  # fmt: skip
    _make_room(connection, letter.at)


def _make_room(connection: sqlite3.Connection, now: int) -> None:
    connection.execute("DELETE FROM letters WHERE at < ?", (now - limits.LETTERS_KEPT_MS,))
    connection.execute("UPDATE letters SET payload = NULL WHERE at < ?", (now - limits.IDEMPOTENCY_MS,))
    connection.execute(
        "DELETE FROM letters WHERE job IN (SELECT job FROM letters ORDER BY at DESC LIMIT -1 OFFSET ?)",
        (limits.LETTERS_MAX,),
    )


def _failed_again(connection: sqlite3.Connection, job: JobId, history: Sequence[Try]) -> None:
    row = connection.execute("SELECT history FROM letters WHERE job = ?", (job,)).fetchone()
    if row is not None:
        whole = (*_history(row[0]), *history)
        connection.execute(
            "UPDATE letters SET history = ?, cause = ?, standing = ? WHERE job = ?",
            (_encoded(whole), cause_of(tuple(history)), Standing.DEAD, job),
        )


def _take(connection: sqlite3.Connection, now: int, most: int) -> list[Letter]:
    rows = connection.execute(
        f"{_SELECT} WHERE standing = ? AND due <= ? ORDER BY due LIMIT ?",
        (Standing.ASKED, now, most),
    ).fetchall()
    for row in rows:
        connection.execute(
            "UPDATE letters SET standing = ?, redriven = redriven + 1 WHERE job = ?", (Standing.RUNNING, row[0])
        )
    return [_letter(row) for row in rows]


def _begin(connection: sqlite3.Connection, now: int) -> None:
    connection.execute("UPDATE letters SET standing = ? WHERE standing = ?", (Standing.ASKED, Standing.RUNNING))
    _make_room(connection, now)


def _ask(connection: sqlite3.Connection, jobs: Sequence[JobId], now: WallTime, per_second: float) -> int:
    asked = 0
    for job in jobs:
        row = connection.execute(f"{_SELECT} WHERE job = ?", (job,)).fetchone()
        if row is not None and _letter(row).redrivable(now):
            due = now + int(asked * 1000 / per_second)
            connection.execute("UPDATE letters SET standing = ?, due = ? WHERE job = ?", (Standing.ASKED, due, job))
            asked += 1
    return asked


def _cancel(connection: sqlite3.Connection, jobs: Sequence[JobId]) -> int:
    return sum(
        connection.execute(
            "UPDATE letters SET standing = ? WHERE job = ? AND standing = ?", (Standing.DEAD, job, Standing.ASKED)
        ).rowcount
        for job in jobs
    )


def _purge(connection: sqlite3.Connection, jobs: Sequence[JobId]) -> int:
    return sum(connection.execute("DELETE FROM letters WHERE job = ?", (job,)).rowcount for job in jobs)
