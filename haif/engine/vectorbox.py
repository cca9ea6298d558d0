"""One request for vectors as the parent collects it: every claim of the child is checked, as in `engine.mailbox`."""

from __future__ import annotations

from typing import Final

from haif.base import limits
from haif.base.errors import HaifError, Malformed
from haif.base.tasks import Task
from haif.base.vectors import is_sound
from haif.engine.embed import TOKEN_BYTES, Embed, Embedded, Vectors
from haif.engine.frames import EmbedEnd, Part

_DURATION_NS_MAX: Final = 10**15


class VectorBox:
    """Takes a child's vectors for one request, gives `Vectors` and at last `Embedded`.

    Bounded by what was asked for. `take` raises the error the request failed with, after all that arrived before.
    """

    def __init__(self, request: Embed, *, dimensions: int, context_tokens: int, submitted_ns: int) -> None:
        self._unit = request.task is Task.EMBED
        self._inputs = request.count
        self._bytes = request.vector_bytes(dimensions)
        self._tokens_max = min(limits.EMBEDDING_TOKENS_MAX, self._inputs * context_tokens)
        self._tokens_known = sum(map(len, request.tokens or ())) // TOKEN_BYTES
        self._submitted_ns = submitted_ns
        self._given = 0
        self._vectors: list[bytes] = []
        self._embedded: Embedded | None = None
        self._error: HaifError | None = None
        self.complete = False

    def put(self, part: Part) -> None:
        """Take in what the child says. Raises `Malformed` if that cannot be true."""
        due = self._given + len(self._vectors)
        if self.complete or part.place != due or due >= self._inputs:
            raise Malformed("it sent a vector that was not due")
        if len(part.vector) != self._bytes or not is_sound(part.vector, unit=self._unit):
            raise Malformed("it sent what is no vector of this model")
        if (part.end is not None) != (due + 1 == self._inputs):
            raise Malformed("it ended a request for vectors before or after its last one")
        self._vectors.append(part.vector)
        if part.end is not None:
            self._embedded = self._checked(part.end)
            self.complete = True

    def fail(self, error: HaifError) -> None:
        """Nothing more will come, because of `error`."""
        if not self.complete:
            self._error = error
            self.complete = True

    def take(self) -> Vectors | Embedded | None:
        """What there is: vectors, then the end, then None. None before the end means that nothing has arrived yet."""
        if self._vectors:
            many = max(1, limits.EMBEDDING_CHUNK_BYTES // self._bytes)
            taken = Vectors(self._given, self._vectors[:many])
            self._given += len(taken.vectors)
            del self._vectors[:many]
            return taken
        if self._error is not None:
            raise self._error
        embedded, self._embedded = self._embedded, None
        return embedded

    def _checked(self, end: EmbedEnd) -> Embedded:
        if (
            not self._inputs <= end.prompt_tokens <= self._tokens_max
            or end.prompt_tokens != (self._tokens_known or end.prompt_tokens)
            or not all(0 <= duration <= _DURATION_NS_MAX for duration in (end.queued_ns, end.compute_ns))
        ):
            raise Malformed("its account of a finished request for vectors does not add up")
        return Embedded(end.prompt_tokens, self._submitted_ns, end.queued_ns, end.compute_ns)
