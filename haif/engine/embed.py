"""What is asked of an engine whose model makes vectors, and what it answers.

One vector for each input: an embedding, of length 1, or with a query one number, which says how well the input, a
document, answers it. Vectors are little-endian IEEE 754 singles, as they are signed and as a tenant gets them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from haif.base import limits
from haif.base.codec import Message
from haif.base.errors import InvalidRequest
from haif.base.ids import JobId
from haif.base.tasks import Task
from haif.base.vectors import FLOAT_BYTES

TOKEN_BYTES: Final = 4


class Embed(Message, frozen=True):
    """Inputs to make vectors of: either `texts`, or `tokens`, each the ids of one input, little-endian and of 32 bits.

    With `query`, the texts are documents to score. `dimensions`: how many of each vector are wanted, nil for all.
    Tenants are told apart by `scope`, so that none holds up another.
    """

    id: JobId
    query: str | None
    texts: list[str] | None
    tokens: list[bytes] | None = None
    dimensions: int | None = None
    scope: bytes = b""

    @property
    def count(self) -> int:
        """How many inputs there are."""
        return len(self.texts or self.tokens or ())

    @property
    def task(self) -> Task:
        """What the model must be able to do."""
        return Task.EMBED if self.query is None else Task.RERANK

    def vector_bytes(self, dimensions: int) -> int:
        """Bytes of one vector of the answer, of a model whose vectors have `dimensions`."""
        return FLOAT_BYTES * (1 if self.query is not None else self.dimensions or dimensions)


@dataclass(frozen=True, slots=True)
class Vectors:
    """The vectors of inputs `first`, `first + 1`, …"""

    first: int
    vectors: list[bytes]


@dataclass(frozen=True, slots=True)
class Embedded:
    """All vectors were given. Times as in `request.Finished`; `compute_ns` from the first input's start."""

    prompt_tokens: int
    submitted_ns: int
    queued_ns: int
    compute_ns: int


def check_embed(request: Embed) -> None:
    """Refuse what cannot be computed by anyone. Raises `InvalidRequest` naming the parameter."""
    ranking = request.query is not None
    param = "documents" if ranking else "input"
    if (request.texts is None) == (request.tokens is None) or (ranking and request.texts is None):
        raise InvalidRequest("give either texts or tokens, and documents as texts", param=param)
    if not 1 <= request.count <= limits.EMBEDDING_INPUTS_MAX:
        raise InvalidRequest(f"{param} holds 1 to {limits.EMBEDDING_INPUTS_MAX}", param=param)
    if not all(request.texts or request.tokens or ()) or request.query == "":
        raise InvalidRequest("an empty text or list of tokens has no meaning to compute", param=param)
    if any(len(each) % TOKEN_BYTES for each in request.tokens or ()):
        raise InvalidRequest("a token is a 32-bit number", param=param)
    if request.dimensions is not None and (ranking or not 1 <= request.dimensions <= limits.EMBEDDING_DIMENSIONS_MAX):
        raise InvalidRequest(f"dimensions must be 1 to {limits.EMBEDDING_DIMENSIONS_MAX}", param="dimensions")
    try:
        "".join([*(request.texts or ()), request.query or ""]).encode()
    except UnicodeEncodeError:
        raise InvalidRequest("the text contains half a character (a lone surrogate)", param=param) from None


def pack_tokens(tokens: list[int]) -> bytes:
    """Token ids as an input. Raises `OverflowError` for one that has no 32 bits."""
    return b"".join(token.to_bytes(TOKEN_BYTES, "little") for token in tokens)


def unpack_tokens(packed: bytes) -> list[int]:
    """The ids in an input."""
    return [
        int.from_bytes(packed[place : place + TOKEN_BYTES], "little") for place in range(0, len(packed), TOKEN_BYTES)
    ]
