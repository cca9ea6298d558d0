"""The hash chain: every journal entry carries a digest over itself and all entries before it.

    digest(n) = BLAKE3("haif v1 journal"; digest(n - 1), n as u64 big-endian, subject, entry);  digest(0) is zeroes

The last sequence number and digest (the head) are kept apart from the entries and change with them. An entry edited,
removed, exchanged or inserted breaks a link; entries cut off or glued on at the end disagree with the head. Whoever can
rewrite entries *and* head can still forge a whole new chain: only a head witnessed elsewhere could show that.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from haif.base.errors import JournalBroken
from haif.base.hashing import digest
from haif.base.ids import Digest


@dataclass(frozen=True, slots=True)
class Head:
    """How far a journal goes: the number of its last entry, and that entry's digest."""

    sequence: int
    digest: Digest


EMPTY: Final = Head(0, Digest(bytes(Digest.size)))


@dataclass(frozen=True, slots=True)
class Row:
    """One entry as it is kept. `subject` is what the entry is about (such as a job id): the key to find it by."""

    sequence: int
    subject: bytes
    entry: bytes
    digest: Digest


def link(previous: Digest, sequence: int, subject: bytes, entry: bytes) -> Digest:
    """The digest of entry `sequence`, given that of the entry before it."""
    return digest("haif v1 journal", previous, sequence.to_bytes(8, "big"), subject, entry)


def extend(head: Head, subject: bytes, entries: Iterable[bytes]) -> list[Row]:
    """The rows that put `entries` after `head`."""
    rows: list[Row] = []
    sequence, last = head.sequence, head.digest
    for entry in entries:
        sequence += 1
        last = link(last, sequence, subject, entry)
        rows.append(Row(sequence, subject, entry, last))
    return rows


def follow(head: Head, row: Row) -> Head:
    """The head after `row`. Raises `JournalBroken`, naming the entry, if it is not the one that belongs there."""
    due = head.sequence + 1
    if row.sequence != due:
        raise JournalBroken(f"journal entry {due} is missing: entry {row.sequence} stands in its place. {WHAT_NOW}")
    if row.digest != link(head.digest, due, row.subject, row.entry):
        raise JournalBroken(f"journal entry {due} is not what was written there. {WHAT_NOW}")
    return Head(due, row.digest)


def check_end(reached: Head, recorded: Head) -> None:
    """Return if the chain ends where the recorded head says. Raises `JournalBroken` otherwise."""
    if reached.sequence < recorded.sequence:
        raise JournalBroken(
            f"journal entry {reached.sequence + 1} is missing: {recorded.sequence} were written. {WHAT_NOW}"
        )
    if reached != recorded:
        raise JournalBroken(f"journal entry {reached.sequence} is not the one recorded as the last. {WHAT_NOW}")


WHAT_NOW: Final = "Someone changed the file: keep it as evidence and restore a backup"
