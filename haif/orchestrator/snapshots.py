"""A snapshot: the state after so many journal entries, in parts small enough to be made and read between two answers.

    digest = BLAKE3("haif v1 snapshot"; sequence as u64 big-endian, BLAKE3("haif v1 snapshot part"; part) for each part)

The parts prove nothing by themselves. A journal entry (`StateKept`) names their digest, so they are as good as the
chain: a part that was damaged, exchanged, or left over from a snapshot that was never finished does not fit it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import Final, TypeVar

from haif.base import codec, limits
from haif.base.clock import WallTime
from haif.base.codec import Message
from haif.base.errors import DigestMismatch
from haif.base.hashing import digest
from haif.base.ids import Digest, PeerId
from haif.orchestrator.events import JobKept, StandingKept, StateKept
from haif.orchestrator.keeping import kept, put, restored
from haif.orchestrator.state import State

T = TypeVar("T")

SUBJECT: Final = b"snapshot"
"""What the journal entries that name snapshots are about."""


class _Part(Message, frozen=True):
    """Some jobs and some standings.

    In the first part, too, how many jobs were forgotten, and which validators revealed what and were refuted.
    """

    forgotten: int
    jobs: list[JobKept]
    standings: list[StandingKept]
    revealed: list[tuple[PeerId, int]]
    refuted: list[tuple[PeerId, int]]


def parts(state: State) -> Iterator[bytes]:
    """The parts of a snapshot of this state, at least one. The state must not change meanwhile."""
    jobs, standings = chain(state.open.values(), state.ended.values()), state.standings.kept()
    forgotten, revealed = state.forgotten, list(state.revealed.items())
    refuted = list(state.standings.refuted.items())
    some, known = _some(jobs), _some(standings)
    while True:
        yield codec.encode(_Part(forgotten, [kept(job) for job in some], known, revealed, refuted))
        forgotten, revealed, refuted, some, known = 0, [], [], _some(jobs), _some(standings)
        if not some and not known:
            return


def _some(values: Iterator[T]) -> list[T]:
    return list(islice(values, limits.SNAPSHOT_PART_JOBS))


def named(sequence: int, digests: Sequence[Digest], now: WallTime) -> StateKept:
    """The entry that makes a snapshot of parts with these digests good."""
    return StateKept(sequence, len(digests), _whole(sequence, digests), now)


def part_digest(part: bytes) -> Digest:
    """The digest of one part."""
    return digest("haif v1 snapshot part", part)


def check_parts(named: StateKept, digests: Sequence[Digest]) -> None:
    """Return if these are the digests of the parts that the entry named. Raises `DigestMismatch`."""
    if named.digest != _whole(named.sequence, digests):
        raise DigestMismatch(f"the snapshot after journal entry {named.sequence} is not what was written there")


def take(state: State, part: bytes) -> None:
    """Put the jobs of a part into the state. Raises `Malformed` or `Oversize` for what is no part."""
    read = codec.decode(_Part, part, size_max=limits.SNAPSHOT_PART_BYTES_MAX)
    state.forgotten += read.forgotten
    state.revealed.update(read.revealed)
    state.standings.refuted.update(read.refuted)
    state.standings.restore(read.standings)
    for each in read.jobs:
        put(state, restored(each))


def _whole(sequence: int, digests: Sequence[Digest]) -> Digest:
    return digest("haif v1 snapshot", sequence.to_bytes(8, "big"), *digests)
