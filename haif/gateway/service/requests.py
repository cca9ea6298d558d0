"""Requests under an Idempotency-Key, in SQLite: which were taken on, as which job, and what they were answered."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from haif.base import limits
from haif.base.clock import Clock, WallTime
from haif.base.errors import Overloaded
from haif.base.ids import Digest, JobId
from haif.gateway.once import Kept, Keyed, answer_lost, in_progress, open_answer, reused, seal_answer
from haif.gateway.service.mesh import Mesh
from haif.storage.service import Database

REQUESTS_SCHEMA: Final = (
    """
    CREATE TABLE requests (
        name BLOB PRIMARY KEY, tenant TEXT NOT NULL, content BLOB NOT NULL, jobs BLOB NOT NULL, at INTEGER NOT NULL,
        answered INTEGER NOT NULL, answer BLOB
    ) STRICT;
    CREATE INDEX requests_by_time ON requests (at);
    CREATE INDEX requests_by_tenant ON requests (tenant, at);
    """,
)
_ENDED: Final = "failed"

Jobs = tuple[JobId, ...]
"""The jobs of one request: one for each choice, at least one."""


@dataclass(frozen=True, slots=True)
class _Row:
    content: Digest
    jobs: Jobs
    answered: bool
    answer: bytes | None


class Requests:
    """Remembers for `limits.IDEMPOTENCY_MS`. One gateway has one, over a database opened with `REQUESTS_SCHEMA`."""

    def __init__(self, database: Database, secret: bytes, clock: Clock) -> None:
        self.secret = secret
        self._database = database
        self._clock = clock
        self._open: set[Digest] = set()  # being answered by this process: bounded as its open requests are

    @asynccontextmanager
    async def once(self, request: Keyed, jobs: Jobs, mesh: Mesh) -> AsyncIterator[Kept | None]:
        """The answer this request had; or None, and whoever is in the block answers it, as `jobs`.

        Raises `Rejected`: it is another request than came under this key first, it is being answered, or it was
        answered and the answer is gone. If the block ends without `answered`, the request may be answered anew once
        all its jobs are known to have failed. Raises `Overloaded` when a tenant has used too many keys.
        """
        if request.name in self._open:
            known = await self._find(request.name)
            if known is not None and known.content != request.content:
                raise reused()
            raise in_progress((known.jobs if known else jobs)[0])
        self._open.add(request.name)
        try:
            yield await self._before(request, jobs, mesh)
        finally:
            self._open.discard(request.name)

    async def answered(self, request: Keyed, jobs: Jobs, answer: Kept) -> None:
        """The request was answered so. A long answer is not kept, nor are older ones beyond a tenant's share."""
        sealed = seal_answer(request, jobs[0], answer) if len(answer.body) <= limits.ANSWER_KEPT_BYTES_MAX else None
        await self._database.write(lambda connection: _answered(connection, request, sealed))

    async def _before(self, request: Keyed, jobs: Jobs, mesh: Mesh) -> Kept | None:
        now = self._clock.wall()
        known = await self._database.write(lambda connection: _take(connection, request, jobs, now))
        if known is None:
            return None
        if known.content != request.content:
            raise reused()
        if known.answer is not None:
            return open_answer(request, known.jobs[0], known.answer)
        if known.answered:
            raise answer_lost(known.jobs[0])
        for each in known.jobs:
            await self._check_failed(each, mesh)
        await self._database.write(lambda connection: _take_over(connection, request, jobs))
        return None

    async def _check_failed(self, job: JobId, mesh: Mesh) -> None:
        """Return if an attempt to answer came to nothing for certain: nobody runs it now, nobody is billed for it."""
        view = await mesh.show(job)
        if view is not None and view.state != _ENDED:
            raise in_progress(job) if view.state == "reserved" else answer_lost(job)

    async def _find(self, name: Digest) -> _Row | None:
        rows = await self._database.read(f"{_SELECT} WHERE name = ?", (name,))
        return _row(rows[0]) if rows else None


_SELECT: Final = "SELECT content, jobs, answered, answer FROM requests"


def _row(found: tuple[Any, ...]) -> _Row:
    jobs = tuple(JobId(found[1][start : start + JobId.size]) for start in range(0, len(found[1]), JobId.size))
    return _Row(Digest(found[0]), jobs, bool(found[2]), found[3])


def _take(connection: sqlite3.Connection, request: Keyed, jobs: Jobs, now: WallTime) -> _Row | None:
    """What is known of the request; or None, and from now on it is."""
    connection.execute("DELETE FROM requests WHERE at < ?", (now - limits.IDEMPOTENCY_MS,))
    found = connection.execute(f"{_SELECT} WHERE name = ?", (request.name,)).fetchone()
    if found is not None:
        return _row(found)
    count = connection.execute("SELECT count(*) FROM requests WHERE tenant = ?", (request.tenant,)).fetchone()[0]
    if count >= limits.IDEMPOTENCY_KEYS_MAX:
        raise Overloaded(f"{count} Idempotency-Keys were used within a day; ask without one", retry_after=60.0)
    connection.execute(
        "INSERT INTO requests VALUES (?, ?, ?, ?, ?, 0, NULL)",
        (request.name, request.tenant, request.content, b"".join(jobs), now),
    )
    return None


def _take_over(connection: sqlite3.Connection, request: Keyed, jobs: Jobs) -> None:
    connection.execute("UPDATE requests SET jobs = ? WHERE name = ?", (b"".join(jobs), request.name))


def _answered(connection: sqlite3.Connection, request: Keyed, sealed: bytes | None) -> None:
    connection.execute("UPDATE requests SET answered = 1, answer = ? WHERE name = ?", (sealed, request.name))
    kept = connection.execute(
        "SELECT name, length(answer) FROM requests WHERE tenant = ? AND answer IS NOT NULL ORDER BY at DESC",
        (request.tenant,),
    ).fetchall()
    size = 0
    for name, length in kept:
        size += length
        if size > limits.ANSWERS_KEPT_BYTES_PER_TENANT:
            connection.execute("UPDATE requests SET answer = NULL WHERE name = ?", (name,))
