"""The data plane's conversation: a gateway redeems a reservation at a worker and receives tokens, then a receipt.

Method `inference.run`, a server stream: the argument is a `Run`; each message back is an `Answer`: chunks in order, and
last an `End`. The request body is opened only after its digest was found in the reservation.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from msgspec import field

from haif.base import codec
from haif.base.codec import Message
from haif.base.conversation import Aside, Said, Setting, Toolbox, Turn
from haif.base.hashing import digest
from haif.base.ids import Digest, JobId, Nonce
from haif.base.sampling import Sampling, Scores

METHOD: Final = "inference.run"
NO_TOKEN: Final = (1 << 32) - 1  # the id of a token whose engine does not tell it


class Request(Message, frozen=True):
    """What the tenant asked for. Exactly one of `chat` and `text` is given.

    `nonce` keeps the digest of a short prompt from being guessed. With `suffix`, the answer is what belongs between
    `text` and it. `stop` strings end the answer and are not part of it. `logprobs`: how many of the likeliest tokens
    of each place are told beside the chosen one; nil for none at all. With `json_schema` the answer is JSON that fits
    it, or the beginning of such. What a worker computed for one `scope` it may use again for requests of the same
    gateway and scope, and for nobody else's: a gateway has one for each tenant. With `fit` an answer ends where the
    context does; without, `tokens_max` that do not fit into it are refused. A chat may offer `tools`; `settings` are
    told to the model's chat template.
    """

    nonce: Nonce
    chat: list[Turn] | None
    text: str | None
    tokens_max: int
    sampling: Sampling
    stop: list[str]
    suffix: str | None = None
    logprobs: int | None = None
    json_schema: str | None = None
    scope: bytes = b""
    fit: bool = False
    tools: Toolbox | None = None
    settings: list[tuple[str, Setting]] = field(default_factory=list)


class Run(Message, frozen=True):
    """The sealed `Reservation` and the encoded `Request` whose digest it names.

    `resumed` are the answer's first tokens, as many as the reservation says: another worker's, to go on after. The
    worker tells them again in its first chunk, with the text it finds them to be.
    """

    reservation: bytes
    request: bytes
    resumed: list[int] = field(default_factory=list)


class Chunk(Message, frozen=True):
    """Tokens `first`, `first + 1`, … and the text they complete. Text never ends inside a UTF-8 character.

    `asides` are what is said beside the text: reasoning, the name of a function that is called, its arguments.

    `scores`, one entry for each token where they were asked for: the token's own logprob, then the likeliest tokens'.
    No signature covers them; who has the model can compute them again.
    """

    first: int
    tokens: list[int]
    text: str
    scores: list[Scores] = field(default_factory=list)
    asides: list[Aside] = field(default_factory=list)


class End(Message, frozen=True):
    """The answer is complete. `finish_reason` is "stop" or "length"; `receipt` is the worker's sealed `Receipt`.

    `cached_tokens` of the prompt had been computed for an earlier request of the same scope, `reasoning_tokens` of the
    completion were reasoning, and `stopped_by` is the stop string that ended it, says the worker.
    """

    finish_reason: str
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    receipt: bytes
    reasoning_tokens: int = 0
    stopped_by: str = ""


class Answer(Message, frozen=True):
    """One message of the stream: a chunk, or the end."""

    chunk: Chunk | None = None
    end: End | None = None


def request_digest(encoded: bytes) -> Digest:
    """How a reservation and a receipt name a request."""
    return digest("haif v1 request", encoded)


def run_correlation(job: JobId, attempt: int) -> str:
    """The correlation id of everything done for one attempt."""
    return f"{job}.{attempt}"


class OutputHash:
    """Digests of an answer as it grows: of the token ids and of what is said. Worker and gateway each keep one."""

    def __init__(self) -> None:
        self._tokens: list[int] = []
        self.said = Said()

    def add(self, chunk: Chunk) -> None:
        """Take in the next chunk. Raises `ValueError` if it does not follow the last."""
        if chunk.first != len(self._tokens):
            raise ValueError(f"chunk starts at token {chunk.first}, {len(self._tokens)} was due")
        self._tokens.extend(chunk.tokens)
        self.said.add(chunk.text, chunk.asides)

    @property
    def tokens(self) -> int:
        """How many tokens there are so far."""
        return len(self._tokens)

    def ids(self) -> list[int]:
        """The tokens so far."""
        return list(self._tokens)

    @property
    def token_ids(self) -> Sequence[int]:
        """The tokens so far."""
        return self._tokens

    def tokens_digest(self) -> Digest:
        """Over the token ids, each as four little-endian bytes."""
        return tokens_digest(self._tokens)

    def text_digest(self) -> Digest:
        """`said_digest` of the whole answer."""
        return said_digest(self.said.text, self.said.reasoning, self.said.calls)


def tokens_digest(tokens: Iterable[int]) -> Digest:
    """How a receipt names tokens: over their ids, each as four little-endian bytes."""
    return digest("haif v1 output tokens", b"".join(token.to_bytes(4, "little") for token in tokens))


def said_digest(text: str, reasoning: str = "", calls: Sequence[tuple[str, str]] = ()) -> Digest:
    """Over the UTF-8 of an answer's text; where it has reasoning or calls (name, arguments), over all of its parts."""
    if not reasoning and not calls:
        return digest("haif v1 output text", text.encode())
    return digest("haif v1 output parts", codec.encode_any([text, reasoning, [list(call) for call in calls]]))


def encode_request(request: Request) -> bytes:
    """The bytes whose digest the reservation names."""
    return codec.encode(request)
