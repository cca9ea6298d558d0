"""An answer before it has words, and what every dialect can say of one: whole, or as a stream of events."""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from haif.base.conversation import Said
from haif.base.hashing import digest
from haif.base.ids import JobId
from haif.base.sampling import Scores
from haif.gateway.errors import Problem
from haif.protocol.inference import Chunk
from haif.protocol.receipts import Receipt

KEEPALIVE: Final = b": haif is waiting for the worker\n\n"
"""A comment: every reader of server-sent events passes over it."""


@dataclass(frozen=True, slots=True)
class Settled:
    """An answer whose receipt was verified and recorded. `proof` is the tenant's: `protocol.receipts.bundle`."""

    receipt: Receipt
    proof: dict[str, str]
    cached_tokens: int
    reasoning_tokens: int = 0
    stopped_by: str = ""  # the stop string that ended it, by the worker's word


@dataclass(frozen=True, slots=True)
class Choice:
    """One whole answer: what it says, its scores where they were asked for, and its receipt."""

    said: Said
    scores: list[Scores]
    settled: Settled


class Stream(Protocol):
    """Encodes the events of one choice."""

    def first(self, *, text: bool = True) -> bytes:
        """What comes before anything is said. `text`: whether the answer begins with some."""

    def chunk(self, chunk: Chunk) -> bytes:
        """The events of what came."""

    def last(self, settled: Settled) -> bytes:
        """What ends the choice."""

    def broken(self, problem: Problem) -> bytes:
        """What ends a stream that failed: nobody takes it for a whole one."""


class Reply(Protocol):
    """One reply in the words of a dialect."""

    @property
    def keepalive(self) -> bytes:
        """What is sent while nothing comes."""

    @property
    def id(self) -> str:
        """The answer's id, made from the job's."""

    def whole(self, choices: Sequence[Choice]) -> bytes:
        """The body of a reply that is not streamed."""

    def stream(self, index: int, job: JobId) -> Stream:
        """The events of one choice."""

    def done(self, settled: Sequence[Settled]) -> bytes:
        """What ends a stream after all choices have ended."""


def call_id(job: JobId, place: int) -> str:
    """The id of a call: nine letters and digits, as some chat templates want them."""
    number = int.from_bytes(digest("haif v1 call id", job, bytes([place]))[:8], "big")
    return "".join(_LETTERS[number // 62**power % 62] for power in range(9))


_LETTERS: Final = string.ascii_letters + string.digits
