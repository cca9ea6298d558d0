"""The sequences a model works on: requests join between steps, each step computes one batch, answers leave.

Synchronous and without a clock: the child's loop feeds it requests, cancellations and the time, and sends what it
returns.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from msgspec import structs

from haif.base import limits
from haif.base.conversation import merged
from haif.base.errors import ContextTooLong, InvalidRequest, Overloaded, Refusal
from haif.base.ids import Digest
from haif.base.sampling import Likelihood, Scores
from haif.engine.cache import Cache, Memory
from haif.engine.frames import End, Output, Refused, Step, refusal_of
from haif.engine.noise import Desk
from haif.engine.pace import Pace
from haif.engine.passes import Span
from haif.engine.request import Generate
from haif.engine.sampler import Rules, Sampler, logprobs, top
from haif.engine.schedule import Work, schedule, victim
from haif.engine.slots import Slot, realm
from haif.engine.speech import Speech
from haif.engine.text import TextStream
from haif.engine.witness import Witness

Rows = npt.NDArray[np.float32]


_NOWHERE = Slot(-1)  # where an answer is that waits


class Model(Memory, Protocol):
    """What the core needs of a model."""

    @property
    def size(self) -> int:
        """How many tokens the vocabulary has."""

    @property
    def apart(self) -> bool:
        """Whether a batch of sequences costs each of them what the longest costs, so that prompts go by themselves."""

    def decode(self, spans: Sequence[Span], adapter: Digest | None = None) -> Rows:
        """Compute one batch with an adapter on the model, or none; the logits that are due, one row each, in order.

        Valid until the next call.
        """

    def piece(self, token: int) -> bytes:
        """The bytes a token stands for; none for a control token."""

    def ends(self, token: int) -> bool:
        """Whether the token ends a generation."""

    def grammar(self, schema: str) -> Rules:
        """What an answer that fits a JSON schema may say. Raises `InvalidRequest`."""

    def rules(self, lark: str, param: str, scope: bytes) -> Rules:
        """What an answer may say by a grammar that `param` made necessary. Raises `InvalidRequest`."""


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


class Core:
    """Up to `slots` answers at work and a bounded queue behind them.

    `cells`: how many KV cells all of them share, at least `context_tokens`; 0 where each slot has its own. When they
    run out, the youngest answer of the scope with most at work is preempted: its cells are freed, and it comes back
    when there is room, to compute again what it had and to go on with the next token. The oldest never is, so
    every answer ends. `witnessed`: whether logits are digested, which says something where they are exact.
    """

    def __init__(
        self, model: Model, *, slots: int, context_tokens: int, cells: int = 0, witnessed: bool = True
    ) -> None:
        assert cells == 0 or cells >= context_tokens, "the longest answer must fit when it is alone"
        self._model = model
        self._context_tokens = context_tokens
        self._witnessed = witnessed
        self._batch_tokens_max = batch_tokens_max(slots)
        self._cache = Cache(model, slots, cells)
        self._desk = Desk()
        self._blocked = -1  # how many slots had become free when the next answer had no room
        self._pace = Pace()
        self._running: list[Answer] = []
        self._queue: deque[Answer] = deque()
        self._retold: list[Output] = []
        self._adapter: Digest | None = None  # that the last batch had on

    @property
    def busy(self) -> bool:
        """Whether a step would compute anything, or say something."""
        return bool(self._running or self._queue or self._retold)

    def submit(
        self, number: int, request: Generate, prompt: list[int], now_ns: int, voice: Voice | None = None
    ) -> None:
        """Take a request in, with the voice of an answer that may have parts.

        Raises `ContextTooLong`, `InvalidRequest`, `Overloaded`.
        """
        if any(token >= self._model.size for token, _ in request.sampling.bias):
            raise InvalidRequest(
                f"logit_bias names a token that the vocabulary of {self._model.size} tokens does not have",
                param="logit_bias",
            )
        if any(token >= self._model.size for token in request.draft):
            raise InvalidRequest("the draft has a token that the vocabulary does not have", param="draft")
        room = self._context_tokens - len(prompt)
        tokens_max = min(request.tokens_max, max(room, 1)) if request.fit else request.tokens_max
        if tokens_max > room:
            raise ContextTooLong(
                f"the prompt has {len(prompt)} tokens and the answer may have {tokens_max}, together more than the "
                f"context of {self._context_tokens}: shorten the prompt or ask for less",
                param="max_tokens",
            )
        if len(self._queue) >= limits.ENGINE_QUEUE_MAX:
            raise Overloaded(f"{limits.ENGINE_QUEUE_MAX} requests are waiting at this engine already", retry_after=1.0)
        grammar: Rules | None = None
        if voice is not None and voice.lark is not None:
            grammar = self._model.rules(voice.lark, voice.param, request.scope)
        elif request.json_schema:
            grammar = self._model.grammar(request.json_schema)
        request = structs.replace(request, tokens_max=tokens_max)
        answer = Answer(number, request, prompt, grammar, self._desk, now_ns, voice)
        if self._witnessed:
            answer.witness = Witness()
        if request.resumed and self._follow(answer, request.resumed, now_ns):
            return
        self._queue.append(answer)

    def _follow(self, answer: Answer, given: Sequence[int], now_ns: int) -> bool:
        """Bring an answer to where it stood after the tokens it is given; whether it was over with them.

        Text, stop strings, penalties and grammar are what they would be had the tokens been chosen here; the next one
        is computed from the prompt and them. Raises `InvalidRequest` for what cannot be the beginning of this answer.
        """
        text, reason = "", None
        for place, token in enumerate(given):
            if reason is not None or not 0 <= token < self._model.size:
                raise InvalidRequest("the tokens to go on after are not the beginning of an answer", param="resumed")
            answer.sampler.follow(token, answer.grammar)
            told, reason = self._told(answer, token, last=place + 1 == answer.tokens_max)
            text += told
        answer.tokens = [*answer.tokens, *given]
        answer.sure += len(given)
        answer.resumed = len(given)
        if reason is not None:
            answer.started_ns = answer.first_ns = now_ns
        end = None if reason is None else answer.end(reason, now_ns)
        self._retold.append(Output(answer.number, list(given), text, end, asides=merged(answer.text.asides())))
        return end is not None

    def cancel(self, number: int) -> None:
        """Forget a request, wherever it is; its slot is free at once."""
        for answer in self._running:
            if answer.number == number:
                self._cache.release(answer.slot, keep=True)
                self._running.remove(answer)
                return
        self._queue = deque(answer for answer in self._queue if answer.number != number)
        self._blocked = -1
        self._retold = [output for output in self._retold if output.number != number]

    def step(self, clock_ns: Callable[[], int], cost_ns: Callable[[], int] = lambda: 0) -> Step:
        """Compute one batch and say what came of it. `cost_ns`: processor time; without it prompts never wait."""
        retold, self._retold = self._retold, []
        self._join(clock_ns())
        works, preempted = self._plan()
        outputs: list[Output] = []
        refused: list[Refused] = []
        for batch, beside in self._batches(works, self._streams()):
            before = cost_ns()
            self._adapter = batch[0][0].adapter
            rows = self._model.decode([_span(answer, work) for answer, work in batch], self._adapter)
            self._pace.learn(beside, sum(work.length for _, work in batch) - beside, cost_ns() - before)
            self._collect(batch, rows, clock_ns(), outputs, refused)
        return Step(
            outputs=outputs,
            refused=refused,
            batch_tokens=sum(work.length for work in works),
            running=len(self._running),
            queued=len(self._queue),
            kv_tokens=self._cache.used,
            preempted=preempted,
            retold=retold,
        )

    def _batches(self, works: Sequence[Work], streams: int) -> Iterator[tuple[list[tuple[Answer, Work]], int]]:
        """What to compute at once, by slot (see `slots`), and how many streams are in it: all, or prompts apart.

        llama.cpp has one adapter on for a whole batch, so a step has a batch for each that is wanted; that of the step
        before first, which need not be put on again. Everybody's turn is the same step, whatever the adapter.
        """
        pairs = [(self._running[work.place], work) for work in works]
        adapters = dict.fromkeys(answer.adapter for answer, _ in pairs)
        for adapter in sorted(adapters, key=lambda each: each != self._adapter):
            mine = [pair for pair in pairs[:streams] if pair[0].adapter == adapter]
            prompts = [pair for pair in pairs[streams:] if pair[0].adapter == adapter]
            batches = ((mine, len(mine)), (prompts, 0)) if self._model.apart else ((mine + prompts, len(mine)),)
            for batch, beside in batches:
                if batch:
                    yield sorted(batch, key=lambda pair: pair[0].slot.number), beside

    def _join(self, now_ns: int) -> None:
        while self._queue and self._cache.free and self._blocked != self._cache.freed:
            place = self._next()
            answer = self._queue[place]
            due = sum(each.wanted - each.computed for each in self._running)
            if self._running and not self._cache.holds(answer.realm, answer.tokens, due + 1):
                self._blocked = self._cache.freed  # nobody overtakes it: a long prompt must not wait for ever
                return
            del self._queue[place]
            self._settle(answer)
            answer.started_ns = answer.started_ns or now_ns
            answer.look_ahead()
            self._running.append(answer)

    def _next(self) -> int:
        """Where in the queue it is: who has waited longest among those whose scope has the fewest answers running."""
        running = Counter(answer.scope for answer in self._running)
        return min(range(len(self._queue)), key=lambda place: running[self._queue[place].scope])

    def _plan(self) -> tuple[list[Work], int]:
        """The work of the next step, and how many answers had to be preempted for it."""
        preempted = 0
        while True:
            streams = self._streams()
            room = self._pace.room(streams, prompts=len(self._running) - streams)
            works = schedule(self._running, batch_tokens_max=self._batch_tokens_max, prefill_tokens_max=room)
            if self._cache.make_room(sum(work.length for work in works)):
                return works, preempted
            answer = victim(self._running)
            self._cache.release(answer.slot, keep=False)
            self._running.remove(answer)
            answer.draw_in()
            self._queue.appendleft(answer)
            preempted += 1

    def _streams(self) -> int:
        """Answers that wait for nothing but their next token."""
        return sum(answer.wanted - answer.computed == 1 for answer in self._running)

    def _settle(self, answer: Answer) -> None:
        """Give an answer a slot, with the cells of its prompt's beginning where some slot has them."""
        answer.slot, answer.computed = self._cache.take(answer.realm, answer.tokens)
        if not answer.started_ns:
            answer.cached = min(answer.computed, answer.prompt_tokens - 1)

    def _collect(
        self, batch: Sequence[tuple[Answer, Work]], rows: Rows, now_ns: int, outputs: list[Output],
        refused: list[Refused],
    ) -> None:  # fmt: skip
        """Take in what was computed; answers that ended leave."""
        row = 0
        for answer, work in batch:
            due = answer.due(work.start, work.length)
            answer.computed += work.length
            self._cache.computed(answer.slot, work.length)
            try:
                ended = self._advance(answer, rows[row : row + due], now_ns, outputs)
            except Refusal as refusal:  # nothing can follow that fits the schema
                refused.append(refusal_of(answer.number, refusal))
                ended = True
            row += due
            if ended:
                self._cache.release(answer.slot, keep=True)
                self._running.remove(answer)

    def _advance(self, answer: Answer, rows: Rows, now_ns: int, outputs: list[Output]) -> bool:
        """Sample a token of each row, until the draft turns out wrong; whether the answer is over."""
        for logits in rows:
            output, wrong = self._sample(answer, logits, now_ns)
            outputs.append(output)
            if wrong:
                self._take_back(answer)
            if output.end is not None:
                return True
            if wrong:
                break
        answer.look_ahead()
        return False

    def _take_back(self, answer: Answer) -> None:
        """Free the cells of a draft that was wrong: all but those of the tokens before the last."""
        count = answer.sure - 1
        answer.computed = self._cache.cut(answer.slot, count)

    def _sample(self, answer: Answer, logits: Rows, now_ns: int) -> tuple[Output, bool]:
        """Sample one token and see whether the answer ends with it, and whether the draft was wrong."""
        place = answer.sure - answer.prompt_tokens
        if place == answer.resumed:
            answer.first_ns = now_ns
        token = answer.sampler.choose(logits, place, answer.grammar)
        scores = [] if answer.logprobs is None else [self._scores(logits, token, answer.logprobs)]
        wrong = answer.take(token)
        text, reason = self._told(answer, token, last=place + 1 == answer.tokens_max)
        end = None if reason is None else answer.end(reason, now_ns)
        rows = [] if answer.witness is None else answer.witness.see(logits, last=end is not None)
        return Output(answer.number, [token], text, end, scores, rows, answer.text.asides()), wrong

    def _told(self, answer: Answer, token: int, *, last: bool) -> tuple[str, str | None]:
        """The text that a token completes, and why the answer ends with it, if it does."""
        if self._model.ends(token):
            return answer.text.finish(), "stop"
        text = answer.text.feed(answer.markers.get(token) or self._model.piece(token))
        if last and not answer.text.stopped:
            text += answer.text.finish()
        if answer.text.stopped:
            return text, "stop"
        return text, "length" if last else None

    def _scores(self, logits: Rows, token: int, alternatives: int) -> Scores:
        """What the model itself gave the chosen token, and the likeliest here."""
        likely = top(logits, min(alternatives, len(logits))).tolist() if alternatives else []
        ids: list[int] = [token, *sorted(likely, key=lambda each: (-logits[each], each))]
        values = logprobs(logits, ids)
        return [Likelihood(i, value, self._model.piece(i)) for i, value in zip(ids, values, strict=True)]


def _span(answer: Answer, work: Work) -> Span:
    due = answer.due(work.start, work.length)
    return answer.slot.number, work.start, answer.tokens[work.start : work.start + work.length], due


def batch_tokens_max(slots: int) -> int:
    """The most tokens one batch can have: one of every running answer, and one chunk of prompts.

    llama.cpp aborts its process when a batch is larger than the context was made for, so both sides use this number.
    """
    return slots + limits.PREFILL_CHUNK_TOKENS
