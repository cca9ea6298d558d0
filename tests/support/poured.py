"""Answers of a scripted worker, given as the mesh gives them."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from haif.wire.service import Taking

T = TypeVar("T")


@dataclass
class Poured(Generic[T]):
    answers: AsyncIterator[T]

    async def pour(self, take: Callable[[T], Taking | None]) -> None:
        async for answer in self.answers:
            taking = take(answer)
            if taking is not None:
                await taking
