"""What a model can be asked for. A model's file decides it, its child learns it, an offer says it in one number."""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum
from typing import Final

from haif.base.errors import Malformed


class Task(StrEnum):
    """One kind of request. The value is what people and metrics read; the order is that of the bits of an offer."""

    CHAT = "chat"
    TEXT = "completion"
    INFILL = "infill"
    EMBED = "embedding"
    RERANK = "rerank"


Tasks = frozenset[Task]
VECTORS: Final = frozenset({Task.EMBED, Task.RERANK})
"""Those whose answer is vectors, not text."""


def bits_of(tasks: Collection[Task]) -> int:
    """The tasks as a number: the first of `Task` is its lowest bit."""
    return sum(1 << place for place, task in enumerate(Task) if task in tasks)


def tasks_of(bits: int) -> Tasks:
    """The tasks in a number. Raises `Malformed` for a bit that means nothing here."""
    if not 0 <= bits < 1 << len(Task):
        raise Malformed(f"{bits} names a task that this version does not know")
    return frozenset(task for place, task in enumerate(Task) if bits >> place & 1)


def listed(tasks: Collection[Task]) -> str:
    """For a sentence."""
    return ", ".join(task.value for task in Task if task in tasks) or "nothing"
