"""Snapshots of the state beside the journal: made of the journal alone, off the hot path, believed if it says so.

1. read     the newest snapshot there is, and the entries after it
2. write    the parts of what they come to, each in its place among other writes
3. name     the digest of the parts, as an entry of the chain: from here on it is the newest snapshot
4. discard  the parts of older ones

A process that ends before 3 leaves parts that nothing names: the next snapshot discards them.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from haif.base import limits
from haif.base.clock import Clock
from haif.base.errors import DigestMismatch, JournalBroken, Malformed, Oversize
from haif.orchestrator import events
from haif.orchestrator.apply import apply
from haif.orchestrator.events import StateKept
from haif.orchestrator.snapshots import SUBJECT, check_parts, named, part_digest, parts, take
from haif.orchestrator.state import State
from haif.storage.journal import Head
from haif.storage.service import Past, Store


@dataclass(slots=True)
class Restored:
    """A state, after how many entries it is the state, and why newer snapshots were not believed."""

    state: State
    sequence: int
    refused: tuple[str, ...]


async def restore(journal: Past) -> Restored:
    """The newest snapshot that is what the journal says it is; else the empty state, from which to replay it all."""
    refused: list[str] = []
    for entry in await journal.latest(SUBJECT, limits.SNAPSHOTS_KEPT):
        try:
            kept = _named(entry)
            return Restored(await _read(journal, kept), kept.sequence, tuple(refused))
        except (DigestMismatch, Malformed, Oversize) as error:
            refused.append(f"{error.message}; the journal itself is read instead")
    return Restored(State(limits.JOBS_ENDED_REMEMBERED_MAX), 0, tuple(refused))


async def follow(journal: Past, restored: Restored, until: Head | None = None) -> None:
    """Take in what came after. Raises `JournalBroken`, naming the entry, if that does not hold."""
    async for number, entry in journal.replay(after=restored.sequence, until=until):
        try:
            apply(restored.state, events.decode(entry))
        except (Malformed, KeyError) as error:
            raise JournalBroken(f"journal entry {number} makes no sense after those before it: {error}") from error
        restored.sequence = number
        if number % limits.SNAPSHOT_SLICE_ENTRIES == 0:
            await asyncio.sleep(0)


async def write(journal: Store, clock: Clock) -> StateKept:
    """Make a snapshot of what is durable now. Raises `Overloaded` if it cannot be kept, and `JournalBroken`."""
    made = await restore(journal)
    await follow(journal, made, until=await journal.head())
    digests = []
    for number, part in enumerate(parts(made.state)):
        await journal.keep(made.sequence, number, part)
        digests.append(part_digest(part))
    entry = named(made.sequence, digests, clock.wall())
    await journal.append([events.encode(entry)], subject=SUBJECT)
    await journal.discard(but=await _good(journal))
    return entry


async def _read(journal: Past, kept: StateKept) -> State:
    """The parts are all checked against the chain before any of them is decoded into jobs."""
    found = [await journal.kept(kept.sequence, number) for number in range(kept.parts)]
    check_parts(kept, [part_digest(part) for part in found])
    state = State(limits.JOBS_ENDED_REMEMBERED_MAX)
    for part in found:
        take(state, part)
        await asyncio.sleep(0)
    return state


async def _good(journal: Past) -> set[int]:
    return {_named(entry).sequence for entry in await journal.latest(SUBJECT, limits.SNAPSHOTS_KEPT)}


def _named(entry: bytes) -> StateKept:
    kept = events.decode(entry)
    if not isinstance(kept, StateKept):
        raise Malformed("a journal entry about snapshots names none")
    return kept
