"""The journal of one orchestrator in a PostgreSQL database that it shares with others.

Each orchestrator has a chain of its own, named by its key, and is its one owner by a lease:

1. claim    the chain is nobody's, or its lease ran out: the token goes up by one, and the lease begins
2. hold     the lease is renewed before it ends, and by every write
3. write    one statement moves the head and adds the entries, on condition that the token is still ours: who was
            silent for too long and lost the chain (paused, cut off) cannot write to it any more, until it forgot what
            it believed, claimed the chain anew and read it
4. inherit  a lease that ran out is claimed by whoever sees it first; what is still alive in that chain ends there and
            begins in the heir's in one transaction, under both tokens

Time is the database's: the clocks of the orchestrators do not matter. When the server was lost in the middle of a write
nobody knows whether it took place; the head tells, because it names the digest of everything up to it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Final, Self

import asyncpg

from haif.base import limits
from haif.base.errors import ConnectionLost, Misuse, Overloaded, Oversize
from haif.storage.journal import EMPTY, Head, Row, extend
from haif.storage.service.api import Move, Refused, still_ours
from haif.storage.service.chain import Chain, head_of
from haif.storage.service.database import DatabaseStatistics
from haif.storage.service.line import LOST, Connection, Line, check_server
from haif.storage.service.migrations import migrate
from haif.storage.service.writer import Leaving, Writer, end, fenced


class PostgresJournal(Chain):
    """A hash-chained log of which this process is the one owner while the block is entered.

    `url` is a libpq URL, `name` the owner's key. Entering brings the schema up to date and claims the chain; it waits
    for the lease of an owner of the same name who died, and raises `Misuse` if that one lives, or if the server cannot
    be used. Leaving makes durable what was queued and lets the others have what is left.
    """

    shared: Final = True

    def __init__(self, url: str, name: bytes) -> None:
        super().__init__(Line(url), name)
        self._url = url
        self._writing, self._lease = Line(url), Line(url)
        self._estate: Inheritance | None = None
        self._away = float("-inf")  # when the server was last seen to be gone

    async def __aenter__(self) -> Self:
        await check_server(self._url)
        try:
            await self._writing.read(migrate)
            token, head = await self._claim_own(2 * limits.LEASE_SECONDS)
        except BaseException:
            await self._writing.close()
            raise
        self._begin(self._claimed(token, head))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.writer.close()
        try:
            await asyncio.wait([self._run], timeout=limits.STORE_FAREWELL_SECONDS)
        finally:
            await self._stop()
            self.writer.lose(ConnectionLost("the journal was closed"))
            with suppress(*LOST):
                await self._lease.once(self._release)
            for line in (self.line, self._writing, self._lease):
                await line.close()

    # --- write --------------------------------------------------------------------------------------------------------

    async def append(self, entries: Sequence[bytes], *, subject: bytes = b"") -> None:
        """Put entries about one subject at the end. They are durable, all or none, when this returns.

        With no entries it returns once everything appended before is durable and this process is still the owner.
        Raises `Oversize`, `JournalBroken` when head and entries disagree, `Fenced` when this process is not the owner
        any more, and `Overloaded`.
        """
        await asyncio.shield(self.append_nowait(entries, subject=subject))

    def append_nowait(
        self, entries: Sequence[bytes], *, subject: bytes = b"", refused: Refused | None = None
    ) -> asyncio.Future[None]:
        """Give the entries their place in the journal, and return what `append` waits for.

        With `refused` they must be the first about their subject in any chain. If they are not, neither they nor what
        was appended about it since are kept: `refused` is called, and all of it raises `Conflict`.
        """
        for entry in entries:
            if len(entry) > limits.JOURNAL_ENTRY_BYTES_MAX:
                raise Oversize(
                    f"a journal entry of {len(entry)} bytes is over the limit of {limits.JOURNAL_ENTRY_BYTES_MAX}"
                )
        return self.writer.queue([(subject, entry) for entry in entries], refused)

    def check_room(self) -> None:
        """Return if an `append` called now would be taken on. Raises `Overloaded`, `Misuse` or `ConnectionLost`."""
        self.writer.check_room()

    def statistics(self) -> DatabaseStatistics:
        """Counts until now."""
        return self.writer.statistics()

    async def keep(self, sequence: int, part: int, data: bytes) -> None:
        """Keep a part of what the first `sequence` entries come to. Raises `Overloaded` if that cannot be."""
        try:
            await self.line.read(
                lambda connection: connection.execute(
                    "INSERT INTO journal_parts VALUES ($1, $2, $3, $4)"
                    " ON CONFLICT (chain, sequence, part) DO UPDATE SET data = excluded.data",
                    self.name, sequence, part, data,
                )
            )  # fmt: skip
        except asyncpg.PostgresError as error:
            what = f"a snapshot could not be written ({error}); the journal goes on"
            raise Overloaded(what, retry_after=limits.ORCHESTRATOR_TICK_SECONDS) from error

    async def discard(self, *, but: Collection[int]) -> None:
        """Forget all parts that are not of the snapshots after these entries."""
        await self.line.read(
            lambda connection: connection.execute(
                "DELETE FROM journal_parts WHERE chain = $1 AND sequence <> ALL($2::bigint[])", self.name, list(but)
            )
        )

    # --- own ----------------------------------------------------------------------------------------------------------

    async def rejoin(self, prepare: Callable[[], Awaitable[None]]) -> None:
        """Be the owner again, under a new token, after `Fenced`: once the heir has what was alive here.

        Nothing is taken on until `prepare`, which may read, is done; then at once, before anybody else has a turn.
        Raises `Misuse` when this process is the owner, or when another of its name has become it, and `Fenced` when it
        was lost again meanwhile.
        """
        if not self.writer.lost.done():
            raise still_ours()
        await self._stop()
        fresh = self._claimed(*await self._claim_own(limits.REJOIN_SECONDS))
        await prepare()
        fresh.check_room()
        self._begin(fresh)

    def _claimed(self, token: int, head: Head) -> Writer:
        """A writer whose lease is kept from now on, and that does not run yet."""
        writer = Writer(self._writing, self.name, token, head)
        self._lease_of = asyncio.create_task(self._hold(writer), name="journal lease")
        return writer

    def _begin(self, writer: Writer) -> None:
        self.writer = writer
        self._run = asyncio.create_task(writer.run(), name="journal writer")

    async def _stop(self) -> None:
        for task in (self._run, self._lease_of):
            task.cancel()
        await asyncio.gather(self._run, self._lease_of, return_exceptions=True)

    async def _claim_own(self, patience: float) -> tuple[int, Head]:
        """Our token and head, once no other has our chain."""
        end = asyncio.get_running_loop().time() + patience
        while True:
            found = await self._writing.read(
                lambda connection: connection.fetchrow(_CLAIM, self.name, EMPTY.digest, limits.LEASE_SECONDS)
            )
            if found is not None:
                return found[0], head_of(found[1:])
            if asyncio.get_running_loop().time() > end:
                raise Misuse("an orchestrator with this key is up already: stop it, or start this one under a --name")
            await asyncio.sleep(limits.LEASE_WATCH_SECONDS)

    async def _hold(self, writer: Writer) -> None:
        """Renew our lease, and that of the chain we are moving jobs out of."""
        while True:
            await asyncio.sleep(limits.LEASE_RENEW_SECONDS)
            try:
                if not await self._lease.once(partial(_renew, self.name, writer.token)):
                    writer.lose(fenced())
                    return
                if self._estate is not None:
                    await self._lease.once(partial(_renew, self._estate.chain, self._estate.token))
            except LOST:
                self._away = asyncio.get_running_loop().time()
            except asyncpg.PostgresError as error:
                writer.lose(error)
                return

    async def _release(self, connection: Connection) -> None:
        await connection.execute(
            "UPDATE chains SET expires = clock_timestamp() WHERE chain = $1 AND token = $2",
            self.name,
            self.writer.token,
        )

    # --- inherit ------------------------------------------------------------------------------------------------------

    async def estates(self) -> AsyncGenerator[Inheritance]:
        """The chains whose owners died, each as it is found, without end.

        After the server itself was away nobody is taken for dead until they had time to come back. Raises `Fenced` when
        our own chain is not ours any more.
        """
        while True:
            await asyncio.wait([self.writer.lost], timeout=limits.LEASE_WATCH_SECONDS)
            if self.writer.lost.done():
                self.writer.lost.result()
            if asyncio.get_running_loop().time() - self._away < limits.LEASE_SECONDS:
                continue
            try:
                found = await self._lease.once(self._seize)
            except LOST:
                self._away = asyncio.get_running_loop().time()
                continue
            if found is not None:
                self._estate = found
                try:
                    yield found
                finally:
                    self._estate = None

    async def _seize(self, connection: Connection) -> Inheritance | None:
        found = await connection.fetchrow(_SEIZE, self.name, limits.LEASE_SECONDS)
        return None if found is None else Inheritance(self, found[0], found[1], head_of(found[2:]))


class Inheritance:
    """A chain that we claimed because its owner died: whose it was, what it says, and our token for it."""

    def __init__(self, journal: PostgresJournal, chain: bytes, token: int, head: Head) -> None:
        self.chain = chain
        self.past = Chain(journal.line, chain)
        self.token = token
        self._head = head
        self._journal = journal

    async def move(self, moves: Sequence[Move], *, last: bool) -> None:
        """End these subjects there and begin them in our own journal: both is durable, or neither.

        After the `last` the chain has no owner until its own comes back. Raises `Conflict` when that happened already
        or somebody else moves them, and `Fenced` when our own journal is not ours any more.
        """
        rows: list[Row] = []
        for each in moves:
            rows += extend(end(self._head, rows), each.subject, [each.left])
        leaving = Leaving(self.chain, self.token, self._head, rows, last)
        arrived = [(each.subject, each.arrived) for each in moves]
        await asyncio.shield(self._journal.writer.queue(arrived, leaving=leaving))
        self._head = end(self._head, rows)


_CLAIM: Final = """
    INSERT INTO chains VALUES ($1, 0, $2, 1, true, clock_timestamp() + $3 * interval '1 second')
    ON CONFLICT (chain) DO UPDATE SET token = chains.token + 1, held = true, expires = excluded.expires
    WHERE NOT chains.held OR chains.expires < clock_timestamp()
    RETURNING token, sequence, digest
"""
_SEIZE: Final = """
    UPDATE chains SET token = token + 1, expires = clock_timestamp() + $2 * interval '1 second'
    WHERE chain = (
        SELECT chain FROM chains WHERE held AND expires < clock_timestamp() AND chain <> $1
        LIMIT 1 FOR UPDATE SKIP LOCKED
    )
    RETURNING chain, token, sequence, digest
"""


async def _renew(chain: bytes, token: int, connection: Connection) -> bool:
    """Not flushed to a disk that may be busy for longer than a lease: one that a crash loses only ends early."""
    async with connection.transaction():
        await connection.execute("SET LOCAL synchronous_commit TO off")
        return bool(
            await connection.fetchval(
                "UPDATE chains SET expires = clock_timestamp() + $3 * interval '1 second'"
                " WHERE chain = $1 AND token = $2 RETURNING 1",
                chain, token, limits.LEASE_SECONDS,
            )
        )  # fmt: skip
