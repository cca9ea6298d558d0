"""One answer on its way: the tokens there are, what of them is computed, and how they are told apart as text."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from haif.base import limits
from haif.engine.frames import End
from haif.engine.noise import Desk
from haif.engine.request import Generate
from haif.engine.sampler import Rules, Sampler
from haif.engine.slots import Slot, realm
from haif.engine.speech import Speech
from haif.engine.text import TextStream
from haif.engine.witness import Witness

_NOWHERE: Final = Slot(-1)  # where an answer is that waits


@dataclass(frozen=True, slots=True)
class Voice:
    """How an answer with parts is told apart, the texts of the control tokens that mark them, and perhaps a grammar."""

    speech: Speech
    markers: Mapping[int, bytes]
    lark: str | None = None
    param: str = "tools"


class Answer:
    """One request on its way: `tokens` are its prompt and what was sampled; the first `computed` are in the cache.

    The first `resumed` of those that were sampled were sampled elsewhere. Behind the first `sure` may stand some of the
    `draft`: tokens somebody says will be sampled. They are computed in one go and kept as far as they are sampled
    indeed, so that they make an answer cheaper and never another one.
    """

    __slots__ = (
        "adapter", "cached", "computed", "draft", "first_ns", "grammar", "logprobs", "markers", "number",
        "prompt_tokens", "realm", "resumed", "sampler", "scope", "slot", "started_ns", "submitted_ns", "sure", "text",
        "tokens", "tokens_max", "witness",
    )  # fmt: skip

    def __init__(
        self,
        number: int,
        request: Generate,
        prompt: list[int],
        grammar: Rules | None,
        desk: Desk,
        now_ns: int,
        voice: Voice | None = None,
    ) -> None:
        self.number = number
        self.tokens = prompt
        self.prompt_tokens = self.sure = len(prompt)
        self.draft = deque(request.draft)
        self.witness: Witness | None = None
        self.tokens_max = request.tokens_max
        self.computed = self.cached = self.resumed = 0
        self.scope = request.scope
        self.adapter = request.adapter
        self.realm = realm(request.scope, request.adapter)
        self.slot = _NOWHERE
        self.grammar = grammar
        self.sampler = Sampler(request.seed, request.sampling, prompt, desk)
        self.logprobs = request.logprobs
        self.text = voice.speech if voice else TextStream(request.stop)
        self.markers: Mapping[int, bytes] = voice.markers if voice else {}
        self.submitted_ns = now_ns
        self.started_ns = self.first_ns = 0

    @property
    def wanted(self) -> int:
        """How many tokens there are to compute."""
        return len(self.tokens)

    def due(self, start: int, length: int) -> int:
        """Of how many of these tokens, the last ones, logits are due."""
        return max(0, start + length - max(start, self.sure - 1))

    def look_ahead(self) -> None:
        """Put some of the draft behind what is sure, once the rest is on its way."""
        end = min(self.sure + limits.DRAFT_TOKENS_AHEAD, self.prompt_tokens + self.tokens_max)
        while self.draft and self.wanted < end:
            self.tokens.append(self.draft.popleft())

    def draw_in(self) -> None:
        """Take what is not sure off again: it is computed later, if at all."""
        self.draft.extendleft(reversed(self.tokens[self.sure :]))
        del self.tokens[self.sure :]

    def take(self, token: int) -> bool:
        """The token that was sampled is sure now. Whether another one stood there: then all behind it is void."""
        ahead = self.sure < self.wanted
        if not ahead:
            self.tokens.append(self.draft.popleft() if self.draft else token)
        wrong = self.tokens[self.sure] != token
        if wrong:
            self.tokens[self.sure :] = [token]
            self.draft.clear()
        self.sure += 1
        return wrong and ahead

    def end(self, reason: str, now_ns: int) -> End:
        """What is said last."""
        return End(
            finish_reason=reason,
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self.sure - self.prompt_tokens,
            queued_ns=self.started_ns - self.submitted_ns,
            prefill_ns=self.first_ns - self.started_ns,
            decode_ns=now_ns - self.first_ns,
            cached_tokens=self.cached,
            reasoning_tokens=self.text.reasoning_tokens,
            stopped_by=self.text.stopped_by if reason == "stop" else "",
        )
