"""What is asked of an engine, and what it answers.

The tokens of all pieces, in order, are every token that was sampled, the end-of-generation token included: it is
counted in `completion_tokens` and has no text. So an auditor can recompute where and why an answer ended, and two
parties who digest the tokens of the same answer get the same digest.
"""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import field as dataclass_field
from typing import Final, Literal

from msgspec import field

from haif.base import limits
from haif.base.codec import Message
from haif.base.conversation import Aside, Setting, Toolbox, Turn, check_settings, check_toolbox, check_turns
from haif.base.errors import InvalidRequest, Unsupported
from haif.base.ids import Digest, JobId, Seed
from haif.base.sampling import Sampling, Scores, check_sampling
from haif.base.tasks import Task, Tasks

SAMPLER: Final = "haif-sampler-v1"
FinishReason = Literal["stop", "length"]


class Generate(Message, frozen=True):
    """One answer to compute. Exactly one of `chat` and `text` is given.

    With `suffix`, the answer is what belongs between `text` and it. `seed` and the position determine every sampled
    token. A stop string ends the answer and is not part of its text. `logprobs`: how many of the likeliest tokens of
    each place are told beside the chosen one; None for no logprobs at all. With `json_schema` the answer is JSON that
    fits it, or the beginning of such. What is computed for one scope is reused only in it, and what has none is not
    reused. `resumed` are the answer's first tokens, chosen elsewhere: it goes on after them as if they had been chosen
    here. With `fit` an answer ends where the context does; without, `tokens_max` that do not fit are refused. `draft`:
    what the answer's next tokens are said to be; it is computed the faster the more of them are right, and is the same
    whatever they are. A chat may offer `tools`, and tell the template further `settings`. `adapter`: which of those
    that the engine has is on the model.
    """

    id: JobId
    chat: list[Turn] | None
    text: str | None
    tokens_max: int
    sampling: Sampling
    stop: list[str]
    seed: Seed
    suffix: str | None = None
    logprobs: int | None = None
    json_schema: str | None = None
    scope: bytes = b""
    resumed: list[int] = field(default_factory=list)
    fit: bool = False
    draft: list[int] = field(default_factory=list)
    tools: Toolbox | None = None
    settings: list[tuple[str, Setting]] = field(default_factory=list)
    adapter: Digest | None = None

    @property
    def task(self) -> Task:
        """What the model must be able to do."""
        if self.chat is not None:
            return Task.CHAT
        return Task.TEXT if self.suffix is None else Task.INFILL


@dataclass(frozen=True, slots=True)
class Piece:
    """Tokens `first`, `first + 1`, … and the text they complete, which never ends inside a UTF-8 character.

    Text that may yet turn out to begin a stop string is withheld, so a piece may have tokens and no text. `scores` are
    those of each token, where they were asked for. An answer that was resumed begins with one piece of just the tokens
    it was given, without scores. `asides` are what is said beside the text.
    """

    first: int
    tokens: list[int]
    text: str
    scores: list[Scores]
    asides: list[Aside] = dataclass_field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Finished:
    """The answer is complete.

    `submitted_ns` is nanoseconds since the epoch by the parent's clock; the three durations follow one another from
    there: waiting for a slot, computing the prompt, computing the answer. They are the child's own measurements.
    """

    finish_reason: FinishReason
    prompt_tokens: int
    cached_tokens: int  # of the prompt, computed for an earlier request of the same scope
    completion_tokens: int
    submitted_ns: int
    queued_ns: int
    prefill_ns: int
    decode_ns: int
    rows: tuple[Digest, ...] = ()  # of the logits its tokens were chosen from, a digest for each window
    reasoning_tokens: int = 0  # of the completion's
    stopped_by: str = ""  # the stop string that ended it, where one is known to have


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What the child loaded and how it runs it. Strings come from the model's file: show them, never trust them."""

    name: str
    architecture: str
    parameters: int
    vocabulary: int
    context_trained: int
    context_tokens: int  # per slot
    has_chat_template: bool
    engine: str  # build and execution profile, and whether the start-up self-test found it exact
    exact: bool
    tasks: Tasks
    dimensions: int  # of its vectors; 0 for a model that makes none
    sandbox: str  # the level: "full", "reduced" or "none"; see sandbox.layers
    enforced: tuple[str, ...]
    missing: tuple[str, ...]  # layers of a full jail that this one lacks
    residual: tuple[str, ...]  # what may go wrong for that, one sentence each
    verifiable: bool = True  # False: nobody can tell by recomputing whether it ran what it says


@dataclass(frozen=True, slots=True)
class EngineStatistics:
    """A snapshot. Totals count since the engine was entered, over all its children."""

    slots: int
    running: int
    queued: int
    kv_tokens: int
    kv_tokens_max: int
    tokens_per_second: float  # sampled, over the last few seconds
    batch_tokens: float  # mean tokens per batch, over the last few seconds
    steps: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    preemptions: int
    deaths: int
    usable: bool  # whether a new request would be worked on now


def check(request: Generate) -> None:
    """Refuse what cannot be computed by anyone. Raises `InvalidRequest` naming the parameter."""
    if (request.chat is None) == (request.text is None):
        raise InvalidRequest("give either chat messages or a text to continue, not both or neither", param="messages")
    if request.suffix is not None and request.text is None:
        raise InvalidRequest("a suffix belongs to a text completion", param="suffix")
    _check_unicode(request)
    if request.chat is not None:
        check_turns(request.chat)
    elif request.tools is not None or request.settings:
        raise InvalidRequest("tools and settings of the template belong to a chat", param="tools")
    if request.tools is not None:
        _check_tools(request)
    check_settings(request.settings)
    if not 1 <= request.tokens_max <= limits.COMPLETION_TOKENS_MAX:
        raise InvalidRequest(f"max_tokens must be 1 to {limits.COMPLETION_TOKENS_MAX}", param="max_tokens")
    if not all(0 <= token < limits.VOCABULARY_MAX for token in request.draft):
        raise InvalidRequest("a draft consists of token ids", param="draft")
    if len(request.resumed) + len(request.draft) > request.tokens_max:
        raise InvalidRequest(f"{len(request.resumed)} tokens are given already, more than were asked for")
    if not 0 <= (request.logprobs or 0) <= limits.LOGPROBS_MAX:
        raise InvalidRequest(f"at most {limits.LOGPROBS_MAX} alternatives are told", param="top_logprobs")
    check_sampling(request.sampling)
    _check_stop(request.stop)
    if len((request.json_schema or "").encode()) > limits.JSON_SCHEMA_BYTES_MAX:
        raise InvalidRequest(f"a JSON schema has at most {limits.JSON_SCHEMA_BYTES_MAX} bytes", param="response_format")


def _check_tools(request: Generate) -> None:
    assert request.tools is not None
    check_toolbox(request.tools)
    if request.json_schema is not None:
        raise InvalidRequest("an answer fits a schema or may call tools, not both", param="response_format")
    if request.logprobs is not None:
        raise Unsupported("logprobs of answers that may call tools cannot be told", param="logprobs")


def _check_unicode(request: Generate) -> None:
    tools = (
        [text for tool in request.tools.tools for text in (tool.name, tool.description or "", tool.parameters)]
        if request.tools
        else []
    )
    turns = [text for turn in request.chat or () for text in (turn.content, turn.name, turn.call_id, turn.reasoning)]
    turns += [
        text for turn in request.chat or () for call in turn.calls for text in (call.id, call.name, call.arguments)
    ]
    texts = [request.text or "", request.suffix or "", request.json_schema or "", *request.stop, *tools, *turns]
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        raise InvalidRequest("the text contains half a character (a lone surrogate)", param="messages") from None


def _check_stop(stop: list[str]) -> None:
    if len(stop) > limits.STOP_STRINGS_MAX:
        raise InvalidRequest(f"at most {limits.STOP_STRINGS_MAX} stop strings", param="stop")
    for text in stop:
        if not 1 <= len(text.encode()) <= limits.STOP_STRING_BYTES_MAX:
            raise InvalidRequest(f"a stop string has 1 to {limits.STOP_STRING_BYTES_MAX} bytes", param="stop")
