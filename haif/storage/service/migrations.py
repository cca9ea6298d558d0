"""The schema of the database that orchestrators share, which only ever goes forward."""

from __future__ import annotations

from typing import Final

from haif.base.errors import Misuse
from haif.storage.service.line import Connection

MIGRATIONS: Final = (
    """
    CREATE TABLE chains (
        chain BYTEA PRIMARY KEY, sequence BIGINT NOT NULL, digest BYTEA NOT NULL,
        token BIGINT NOT NULL, held BOOLEAN NOT NULL, expires TIMESTAMPTZ NOT NULL
    );
    CREATE TABLE journal (
        chain BYTEA NOT NULL, sequence BIGINT NOT NULL, subject BYTEA NOT NULL,
        entry BYTEA NOT NULL, digest BYTEA NOT NULL, PRIMARY KEY (chain, sequence)
    );
    CREATE INDEX journal_by_subject ON journal (subject, chain, sequence);
    CREATE TABLE journal_parts (
        chain BYTEA NOT NULL, sequence BIGINT NOT NULL, part INTEGER NOT NULL, data BYTEA NOT NULL,
        PRIMARY KEY (chain, sequence, part)
    );
    CREATE TABLE subjects (subject BYTEA PRIMARY KEY, chain BYTEA NOT NULL);
    """,
)
"""Numbered by their place and run once each, in order; a script that has been released is never changed again."""

_ONE_AT_A_TIME: Final = 0x48414946  # the advisory lock of whoever brings the schema up to date


async def migrate(connection: Connection, migrations: tuple[str, ...] = MIGRATIONS) -> None:
    """Bring the schema up to date in one transaction. Raises `Misuse` when a newer program has been here."""
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _ONE_AT_A_TIME)
        await connection.execute("CREATE TABLE IF NOT EXISTS haif_schema (version INTEGER NOT NULL)")
        version = await connection.fetchval("SELECT max(version) FROM haif_schema") or 0
        if version > len(migrations):
            raise Misuse(
                f"--store: the database was written by a newer program (schema {version}, this one knows "
                f"{len(migrations)}): upgrade this program, or use another database"
            )
        for number, script in enumerate(migrations[version:], version + 1):
            await connection.execute(script)
            await connection.execute("INSERT INTO haif_schema VALUES ($1)", number)
