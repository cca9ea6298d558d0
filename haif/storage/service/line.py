"""A connection to PostgreSQL that is made again when it is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import asyncpg

from haif.base import limits
from haif.base.errors import ConnectionLost, Misuse, Overloaded

T = TypeVar("T")
Connection = Any
"""An `asyncpg.Connection`, which has no types."""

LOST: Final = (
    OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.InternalClientError, asyncpg.PostgresConnectionError,
    asyncpg.exceptions.OperatorInterventionError, asyncpg.exceptions.TooManyConnectionsError,
)  # fmt: skip
"""What a call raises when nobody knows whether it took place: the server was stopped, or the way to it is cut."""


class Line:
    """One connection, used by one caller at a time; others wait for their turn."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: Connection | None = None
        self._turn = asyncio.Lock()
        self._closed = False

    async def once(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """What `work` makes of the connection. Raises what it raises, and one of `LOST` where that is so.

        Raises `ConnectionLost` once it was closed.
        """
        async with self._turn:
            try:
                self._check_open()
                if self._connection is None:
                    self._connection = await asyncpg.connect(
                        self._url, timeout=limits.STORE_CALL_SECONDS, command_timeout=limits.STORE_CALL_SECONDS,
                        server_settings={"application_name": "haif"},
                    )  # fmt: skip
                    self._check_open()
                return await work(self._connection)
            except LOST:
                self._hang_up()
                raise

    def _check_open(self) -> None:
        if self._closed:
            self._hang_up()
            raise ConnectionLost("the journal was closed")

    async def read(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """The same for what may be asked twice: until the server is back. Raises `Overloaded` when that takes long."""
        try:
            async with asyncio.timeout(limits.STORE_PATIENCE_SECONDS):
                while True:
                    try:
                        return await self.once(work)
                    except LOST:
                        await asyncio.sleep(limits.STORE_AGAIN_SECONDS)
        except TimeoutError:
            raise Overloaded("the orchestrators' database cannot be reached", retry_after=1.0) from None

    async def close(self) -> None:
        """Say goodbye; who is in the middle of a call hears that the server is lost."""
        self._closed = True
        if self._connection is not None:
            try:
                await self._connection.close(timeout=limits.STORE_AGAIN_SECONDS)
            except LOST:
                self._hang_up()

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None


async def check_server(url: str) -> None:
    """Return if there is a server that takes us. Raises `Misuse`, saying what to change."""
    try:
        connection = await asyncpg.connect(url, timeout=limits.STORE_CALL_SECONDS)
    except (asyncpg.PostgresError, *LOST, ValueError) as error:
        raise Misuse(f"--store: the database does not take us: {error or type(error).__name__}") from None
    await connection.close()
