"""What an orchestrator needs of whatever keeps its journal: a file of its own, or a database shared with others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from haif.base.errors import ConnectionLost, Misuse
from haif.storage.journal import Head


class Fenced(ConnectionLost):
    """We were silent for longer than our lease, and another took over what is alive in our journal."""


def still_ours() -> Misuse:
    """Why nothing is rejoined."""
    return Misuse("this journal was not lost: its owner is this process")


Refused = Callable[[], None]
"""Called when what was appended is not kept, before anything else happens."""


@dataclass(frozen=True, slots=True)
class Move:
    """A subject, its last entry in the journal it leaves, and its first in the one it comes to."""

    subject: bytes
    left: bytes
    arrived: bytes


class Past(Protocol):
    """What a journal says, of itself and of the snapshots beside it."""

    def replay(self, *, after: int = 0, until: Head | None = None) -> AsyncIterator[tuple[int, bytes]]:
        """Every entry after entry `after`, with its number, to `until`; else to the end, and nobody may append then.

        Raises `JournalBroken`, naming the entry, at the first one that does not hold. What stands before is not looked
        at: entry `after` is taken at its word, and the next one must follow from it.
        """

    async def latest(self, subject: bytes, count: int) -> list[bytes]:
        """The last `count` entries about one subject, newest first. They are checked where they are replayed."""

    async def head(self) -> Head:
        """How far the journal goes."""

    async def kept(self, sequence: int, part: int) -> bytes:
        """A part that was kept. Raises `DigestMismatch` if it is gone."""


class Estate(Protocol):
    """The journal of an owner who died, and the right to move out of it what is still alive."""

    @property
    def chain(self) -> bytes:
        """Whose it was."""

    @property
    def past(self) -> Past:
        """What it says."""

    async def move(self, moves: Sequence[Move], *, last: bool) -> None:
        """End these subjects there and begin them in our own journal: both is durable, or neither.

        After the `last` the journal has no owner until its own comes back. Raises `Conflict` when that happened already
        or somebody else moves them, and `Fenced` when our own journal is not ours any more.
        """


class Store(Past, Protocol):
    """A journal of which this process is the one owner. `shared`: others have journals beside it.

    It detects every entry that was edited, removed, exchanged, inserted or cut off. It cannot detect that someone who
    may write it forged all of it, entries and head.
    """

    @property
    def shared(self) -> bool:
        """Whether what is about a subject may be in another's journal."""

    async def append(self, entries: Sequence[bytes], *, subject: bytes = b"") -> None:
        """Put entries about one subject at the end. They are durable, all or none, when this returns.

        With no entries it returns once everything appended before is durable. Raises `Oversize`, `JournalBroken` when
        head and entries disagree, `Fenced` when this process is not the owner any more, and `Overloaded`.
        """

    def append_nowait(
        self, entries: Sequence[bytes], *, subject: bytes = b"", refused: Refused | None = None
    ) -> asyncio.Future[None]:
        """Give the entries their place in the journal, and return what `append` waits for.

        With `refused` they must be the first about their subject in any journal of the store. If they are not, neither
        they nor what was appended about it since are kept: `refused` is called, and all of it raises `Conflict`.
        """

    def check_room(self) -> None:
        """Return if an `append` called now would be taken on. Raises `Overloaded` otherwise."""

    async def about(self, subject: bytes) -> list[bytes]:
        """The entries about one subject in the journal where it is now, oldest first; one page at most.

        Each is checked against its neighbour. Raises `JournalBroken`.
        """

    async def everywhere(self, subject: bytes) -> list[bytes]:
        """The latest entries about one subject in all journals of the store, `limits.PAUSE_ORDERS_READ` at most.

        In no order. They are checked where they are replayed.
        """

    async def head_at(self, sequence: int) -> Head:
        """How far the journal went when it had so many entries. Raises `JournalBroken` if it never had."""

    async def keep(self, sequence: int, part: int, data: bytes) -> None:
        """Keep a part of what the first `sequence` entries come to. Raises `Overloaded` if there is no room for it."""

    async def discard(self, *, but: Collection[int]) -> None:
        """Forget all parts that are not of the snapshots after these entries."""

    def estates(self) -> AsyncGenerator[Estate]:
        """The journals whose owners died, each as it is found; without end where there may be any.

        Raises `Fenced` when our own journal is not ours any more. Close the generator when done (`aclosing`).
        """

    async def rejoin(self, prepare: Callable[[], Awaitable[None]]) -> None:
        """Be the owner again, under a new token, after `Fenced`: once the heir has what was alive here.

        Nothing is taken on until `prepare`, which may read, is done; then at once, before anybody else has a turn.
        Raises `Misuse` when this process is the owner, or when another of its name has become it, and `Fenced` when it
        was lost again meanwhile.
        """
