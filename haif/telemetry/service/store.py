"""The local span store: one bounded SQLite file per process, written by one thread and readable meanwhile."""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, Self

import msgspec

from haif.base import limits
from haif.base.errors import Misuse
from haif.telemetry import names
from haif.telemetry.rows import SpanRow, in_order
from haif.telemetry.spans import Ended

_log = logging.getLogger(__name__)
_VERSION: Final = 1
_SCHEMA: Final = """
    CREATE TABLE span (
        id INTEGER PRIMARY KEY,
        trace TEXT NOT NULL, span TEXT NOT NULL, parent TEXT NOT NULL,
        role TEXT NOT NULL, instance TEXT NOT NULL, name TEXT NOT NULL,
        start_ns INTEGER NOT NULL, end_ns INTEGER NOT NULL,
        reason TEXT NOT NULL, job TEXT, attributes TEXT NOT NULL
    ) STRICT;
    CREATE INDEX span_trace ON span (trace);
    CREATE INDEX span_job ON span (job) WHERE job IS NOT NULL;
"""
_INSERT: Final = """
    INSERT INTO span (trace, span, parent, role, instance, name, start_ns, end_ns, reason, job, attributes)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_FORGET: Final = "DELETE FROM span WHERE id <= (SELECT max(id) FROM span) - ?"
_TRACES: Final = "SELECT DISTINCT trace FROM span WHERE job = ? LIMIT ?"
_SPANS: Final = """
    SELECT trace, span, parent, role, instance, name, start_ns, end_ns, reason, attributes
    FROM span WHERE trace = ? ORDER BY id LIMIT ?
"""


class _Damaged(Exception):
    """The file is no database, or not whole."""


class SpanStore:
    """Keeps finished spans; the oldest are forgotten beyond `stored_max`.

    A power cut may cost the last spans (WAL, synchronous=NORMAL): they are for people, evidence is kept in the journal.
    So a file that is damaged is moved aside, to `*.damaged`, and a new one begun: no role stays down for it.
    Raises `Misuse` where the file is another program's or cannot be written.
    """

    def __init__(self, path: Path, *, role: str, instance: str, stored_max: int = limits.SPANS_STORED_MAX) -> None:
        self._origin = (role, instance)
        self._stored_max = stored_max
        self._lock = threading.Lock()
        try:
            self._database = _opened_for_writing(path)
        except _Damaged as damage:
            _log.warning("%s; it was moved to %s, and a new one begun", damage, _move_aside(path))
            self._database = _opened_for_writing(path)

    def write(self, spans: Sequence[Ended]) -> None:
        """Make the spans readable. Raises `sqlite3.Error`."""
        rows = [_row(span, self._origin) for span in spans]
        with self._lock, self._database:
            self._database.executemany(_INSERT, rows)
            self._database.execute(_FORGET, (self._stored_max,))

    def close(self) -> None:
        """Write the log back into the file and let go of it."""
        with self._lock:
            self._database.close()


def read_trace(stores: Sequence[Path], job: str) -> list[SpanRow]:
    """All spans of every trace in which a span carries `haif.job` = `job`, oldest first.

    A store that does not exist, or is being created, holds nothing. Reads at most `limits.TRACES_PER_JOB_MAX` traces
    and `limits.SPANS_PER_TRACE_MAX` spans of each per store. Raises `Misuse` where a file is no span store, or damaged.
    """
    with ExitStack() as stack:
        readers = [stack.enter_context(_Reader(path)) for path in stores if path.exists()]
        bound = limits.TRACES_PER_JOB_MAX
        traces = sorted({row[0] for reader in readers for row in reader.rows(_TRACES, job, bound)})[:bound]
        return in_order(
            SpanRow(*(*row[:-1], json.loads(row[-1])))
            for reader in readers
            for trace in traces
            for row in reader.rows(_SPANS, trace, limits.SPANS_PER_TRACE_MAX)
        )


class _Reader:
    """A store opened for reading only."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._database = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
        self._version = 0

    def __enter__(self) -> Self:
        try:
            self._version = _version(self._database, self._path)
        except (Misuse, _Damaged) as error:
            self._database.close()
            raise Misuse(f"{error}: move it away, or name another file") from None
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def rows(self, sql: str, *parameters: str | int) -> list[tuple[Any, ...]]:
        if self._version == 0:
            return []
        try:
            return self._database.execute(sql, parameters).fetchall()
        except sqlite3.Error as error:
            raise Misuse(
                f"the span store {self._path} is damaged ({error}): move it away; its role makes a new one"
            ) from None


def _row(span: Ended, origin: tuple[str, str]) -> tuple[str | int | None, ...]:
    job = span.attributes.get(names.JOB)
    return (
        span.trace, span.span, span.parent, *origin, span.name, span.start_ns, span.end_ns, span.reason,
        None if job is None else str(job), msgspec.json.encode(span.attributes).decode(),
    )  # fmt: skip


def _move_aside(path: Path) -> Path:
    """Take a damaged database out of the way, with what belongs to it; where it is now."""
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    return path.replace(path.with_name(f"{path.name}.damaged"))


def _opened_for_writing(path: Path) -> sqlite3.Connection:
    try:
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))  # spans name tenants
        database = sqlite3.connect(path, check_same_thread=False)  # opened here, then used by the writing thread alone
    except (OSError, sqlite3.Error) as error:
        raise Misuse(
            f"the span store {path} cannot be opened ({error}); check that its folder may be written"
        ) from None
    try:
        _prepare(database, path)
    except (Misuse, _Damaged):
        database.close()
        raise
    return database


def _prepare(database: sqlite3.Connection, path: Path) -> None:
    version = _version(database, path)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=NORMAL")
    if version == 0:
        database.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version={_VERSION}; COMMIT;")


def _version(database: sqlite3.Connection, path: Path) -> int:
    """The version of the schema; 0 for a file in which nothing is yet. Raises `Misuse` or `_Damaged` for others."""
    try:
        version = database.execute("PRAGMA user_version").fetchone()[0]
        tables = database.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    except sqlite3.DatabaseError as error:
        raise _Damaged(f"{path} is no span store ({error})") from None
    if version not in {0, _VERSION} or (version == 0 and tables):
        raise Misuse(f"{path} is no span store of this version of HAIF")
    return int(version)
