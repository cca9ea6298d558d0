"""What parent and engine child say to one another, and how it is cut into frames: four bytes of length, then msgpack.

    parent → child   Order:  load | submit | embed | cancel
    child → parent   Report: sealed (once), loading (percent, rising), ready (once), step or batch (one per batch),
                             refused (one per request), failed (last)

The child computes on hostile input, so the parent believes nothing here beyond what it checks.
"""

from __future__ import annotations

from typing import Final

from msgspec import field

from haif.base import codec, limits
from haif.base.codec import Message
from haif.base.conversation import Aside
from haif.base.errors import Oversize, Refusal
from haif.base.ids import Digest
from haif.base.sampling import Scores
from haif.engine.embed import Embed
from haif.engine.profile import EXACT, KV_TYPES, Offload, Recipe
from haif.engine.request import Generate

_HEAD: Final = 4


class Load(Message, frozen=True):
    """The model's file was checked: load it."""

    slots: int
    context_tokens: int  # per slot
    threads: int
    profile: str = EXACT
    kv_tokens: int = 0  # of all slots together; 0: as many as their contexts have
    kv: str = KV_TYPES[0]
    offload: Offload = Offload()
    adapters: list[Digest] = field(default_factory=list)  # as the files behind the model's come


class Submit(Message, frozen=True):
    """A request, under a number that is never used again."""

    number: int
    request: Generate


class SubmitEmbed(Message, frozen=True):
    """The same for a request for vectors."""

    number: int
    request: Embed


class Order(Message, frozen=True):
    """Exactly one of these."""

    load: Load | None = None
    submit: Submit | None = None
    cancel: int | None = None
    embed: SubmitEmbed | None = None


class Sealed(Message, frozen=True):
    """What the child put around itself before it read anything it does not trust: `sandbox.layers.Statement`."""

    enforced: list[str]
    missing: dict[str, str]
    notes: list[str]
    pid: int


class Ready(Message, frozen=True):
    """The model is loaded by `recipe`, and the self-test was run where the profile asks for exactness.

    `tasks`: what it can do (`base.tasks`). `dimensions`: numbers in one vector, 0 for a model that makes none.
    """

    name: str
    architecture: str
    parameters: int
    vocabulary: int
    context_trained: int
    has_chat_template: bool
    build: str
    exact: bool
    recipe: Recipe = Recipe()
    tasks: int = 0
    dimensions: int = 0


class End(Message, frozen=True):
    """The last of one answer. `stopped_by` is the stop string that ended it, where one did."""

    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    queued_ns: int
    prefill_ns: int
    decode_ns: int
    cached_tokens: int
    reasoning_tokens: int = 0
    stopped_by: str = ""


class Output(Message, frozen=True):
    """What one step added to one answer; `scores` of each token, where they were asked for; `asides` from its text.

    `rows`: digests of the logits of windows that it completes (`engine.witness`), the last one with the end.
    """

    number: int
    tokens: list[int]
    text: str
    end: End | None
    scores: list[Scores] = field(default_factory=list)
    rows: list[Digest] = field(default_factory=list)
    asides: list[Aside] = field(default_factory=list)


class Refused(Message, frozen=True):
    """A request that cannot be computed. `reason` is a public code of `base.errors`."""

    number: int
    reason: str
    message: str
    param: str | None


def refusal_of(number: int, refusal: Refusal) -> Refused:
    """What the parent is told of a refusal."""
    return Refused(number, refusal.reason.value, refusal.message, refusal.param)


class Step(Message, frozen=True):
    """One batch was computed. `refused`: answers that cannot go on.

    `retold`: of each answer that was resumed, before all else of it: the tokens it was given, and their text.
    """

    outputs: list[Output]
    refused: list[Refused]
    batch_tokens: int
    running: int
    queued: int
    kv_tokens: int
    preempted: int = 0  # answers that gave their cells up, and wait
    retold: list[Output] = field(default_factory=list)


class EmbedEnd(Message, frozen=True):
    """The last of one request for vectors."""

    prompt_tokens: int
    queued_ns: int
    compute_ns: int


class Part(Message, frozen=True):
    """The vector of input `place` of a request, and the end with the last."""

    number: int
    place: int
    vector: bytes
    end: EmbedEnd | None


class Batch(Message, frozen=True):
    """One batch of inputs was computed. `refused`: requests that cannot go on."""

    parts: list[Part]
    refused: list[Refused]
    batch_tokens: int
    running: int
    queued: int


class Failed(Message, frozen=True):
    """The child cannot go on, and why."""

    reason: str
    message: str


class Report(Message, frozen=True):
    """Exactly one of these."""

    sealed: Sealed | None = None
    ready: Ready | None = None
    step: Step | None = None
    refused: Refused | None = None
    failed: Failed | None = None
    loading: int | None = None  # percent of the model
    batch: Batch | None = None


def frame(message: Message) -> bytes:
    """A message with its length in front. Raises `Oversize`."""
    body = codec.encode(message)
    if len(body) > limits.ENGINE_FRAME_BYTES_MAX:
        raise Oversize(f"an engine message of {len(body)} bytes is over the limit of {limits.ENGINE_FRAME_BYTES_MAX}")
    return len(body).to_bytes(_HEAD, "big") + body


class FrameReader:
    """Bytes in, bodies out. The length is checked before the body is waited for."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The bodies that `data` completes. Raises `Oversize`."""
        self._buffer += data
        bodies: list[bytes] = []
        start = 0
        while len(self._buffer) - start >= _HEAD:
            size = int.from_bytes(self._buffer[start : start + _HEAD], "big")
            if size > limits.ENGINE_FRAME_BYTES_MAX:
                raise Oversize(f"an engine frame of {size} bytes is over the limit of {limits.ENGINE_FRAME_BYTES_MAX}")
            if len(self._buffer) - start - _HEAD < size:
                break
            bodies.append(bytes(self._buffer[start + _HEAD : start + _HEAD + size]))
            start += _HEAD + size
        del self._buffer[:start]
        return bodies

    @property
    def waiting(self) -> int:
        """Bytes of an incomplete frame."""
        return len(self._buffer)


def decode_order(body: bytes) -> Order:
    """Raises `Malformed` or `Oversize`."""
    return codec.decode(Order, body, size_max=limits.ENGINE_FRAME_BYTES_MAX)


def decode_report(body: bytes) -> Report:
    """Raises `Malformed` or `Oversize`."""
    return codec.decode(Report, body, size_max=limits.ENGINE_FRAME_BYTES_MAX)
