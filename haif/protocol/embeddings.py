"""The data plane's other conversation: a gateway redeems a reservation and receives vectors, then a receipt.

Method `inference.embed`, a server stream: the argument is a `Run` whose request is an encoded `EmbedRequest`; each
message back is an `EmbedAnswer`: vectors in the order of the inputs, and last the end. A reservation for vectors is
none for text: the digests of the two kinds of request are made under different names.
"""

from __future__ import annotations

from typing import Final

from haif.base.codec import Message
from haif.base.hashing import digest
from haif.base.ids import Digest, Nonce

METHOD: Final = "inference.embed"


class EmbedRequest(Message, frozen=True):
    """What the tenant asked for: a vector of each text, or of each list of tokens (little-endian 32-bit ids).

    With `query`, the texts are documents, and each vector is one number, the higher the better it answers. `nonce`
    keeps the digest of a short text from being guessed. `dimensions`: how many numbers of each vector, nil for all.
    Within one gateway, tenants that share a `scope` share their turn at the worker.
    """

    nonce: Nonce
    query: str | None
    texts: list[str] | None
    tokens: list[bytes] | None
    dimensions: int | None
    scope: bytes = b""


class Vectors(Message, frozen=True):
    """The vectors of inputs `first`, `first + 1`, …: little-endian IEEE 754 singles."""

    first: int
    vectors: list[bytes]


class Embedded(Message, frozen=True):
    """All vectors were sent. `receipt` is the worker's sealed `Receipt`."""

    prompt_tokens: int
    receipt: bytes


class EmbedAnswer(Message, frozen=True):
    """One message of the stream: vectors, or the end."""

    vectors: Vectors | None = None
    end: Embedded | None = None


def embed_digest(encoded: bytes) -> Digest:
    """How a reservation and a receipt name a request for vectors."""
    return digest("haif v1 embed request", encoded)


def vectors_digest(vectors: list[bytes]) -> Digest:
    """How a receipt names the vectors, in the order of their inputs."""
    return digest("haif v1 output vectors", *vectors)
