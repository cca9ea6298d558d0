"""An answer as whoever asked for it reads it: what has arrived, then what arrives."""

from __future__ import annotations

import asyncio
from typing import Generic, Protocol, Self, TypeVar

from haif.base.errors import HaifError

E = TypeVar("E", covariant=True)


class Box(Protocol[E]):
    """What collects an answer: a mailbox of tokens or of vectors."""

    complete: bool

    def take(self) -> E | None:
        """What there is, then the end, then None."""

    def fail(self, error: HaifError) -> None:
        """Nothing more will come."""


class Stream(Generic[E]):
    """An asynchronous iterator over a mailbox."""

    def __init__(self, mailbox: Box[E]) -> None:
        self.mailbox = mailbox
        self._arrived = asyncio.Event()

    def wake(self) -> None:
        """Something arrived in the mailbox."""
        self._arrived.set()

    def fail(self, error: HaifError) -> None:
        """Nothing more will arrive."""
        self.mailbox.fail(error)
        self.wake()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> E:
        while True:
            item = self.mailbox.take()
            if item is not None:
                return item
            if self.mailbox.complete:
                raise StopAsyncIteration
            self._arrived.clear()
            await self._arrived.wait()
