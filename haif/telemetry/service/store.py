"""The local span store: one bounded SQLite file per process, written by one thread and readable meanwhile."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from opentelemetry.sdk.trace import ReadableSpan

from haif.base import limits
from haif.base.errors import Misuse
from haif.telemetry import names
from haif.telemetry.rows import SpanRow, in_order

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


class SpanStore:
    """Keeps finished spans; the oldest are forgotten beyond `stored_max`.

    A power cut may cost the last spans (WAL, synchronous=NORMAL): they are for people, evidence is kept in the journal.
    Raises `Misuse` where the file is something else or cannot be written.
    """

    def __init__(self, path: Path, *, role: str, instance: str, stored_max: int = limits.SPANS_STORED_MAX) -> None:
        self._origin = (role, instance)
        self._stored_max = stored_max
        self._lock = threading.Lock()
        self._database = _opened_for_writing(path)

    def write(self, spans: Sequence[ReadableSpan]) -> None:
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

    A store that does not exist holds nothing. Reads at most `limits.TRACES_PER_JOB_MAX` traces and
    `limits.SPANS_PER_TRACE_MAX` spans of each per store. Raises `Misuse` where a file is no span store.
    """
    databases = [_opened_for_reading(path) for path in stores if path.exists()]
    try:
        bound = limits.TRACES_PER_JOB_MAX
        traces = sorted({row[0] for database in databases for row in database.execute(_TRACES, (job, bound))})[:bound]
        return in_order(
            SpanRow(*(*row[:-1], json.loads(row[-1])))
            for database in databases
            for trace in traces
            for row in database.execute(_SPANS, (trace, limits.SPANS_PER_TRACE_MAX))
        )
    finally:
        for database in databases:
            database.close()


def _row(span: ReadableSpan, origin: tuple[str, str]) -> tuple[str | int | None, ...]:
    context, attributes = span.context, dict(span.attributes or {})
    assert context is not None, "a span that ended has ids"
    job, reason = attributes.get(names.JOB), attributes.get(names.ERROR_TYPE, "")
    return (
        f"{context.trace_id:032x}",
        f"{context.span_id:016x}",
        f"{span.parent.span_id:016x}" if span.parent else "",
        *origin,
        span.name,
        span.start_time or 0,
        span.end_time or 0,
        str(reason),
        None if job is None else str(job),
        json.dumps(attributes),
    )


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
    except (Misuse, sqlite3.Error) as error:
        database.close()
        raise error if isinstance(error, Misuse) else _not_a_store(path) from None
    return database


def _prepare(database: sqlite3.Connection, path: Path) -> None:
    version = database.execute("PRAGMA user_version").fetchone()[0]
    tables = database.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    if version not in (0, _VERSION) or (version == 0 and tables):
        raise _not_a_store(path)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=NORMAL")
    if version == 0:
        database.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version={_VERSION}; COMMIT;")


def _opened_for_reading(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
    try:
        if database.execute("PRAGMA user_version").fetchone()[0] == _VERSION:
            return database
    except sqlite3.Error:
        pass  # answered below, like any other file that is none
    database.close()
    raise _not_a_store(path)


def _not_a_store(path: Path) -> Misuse:
    return Misuse(f"{path} is no span store of this version of HAIF: move it away, or name another file")
