"""The sequences a model works on: requests join between steps, each step computes one batch, answers leave.

Synchronous and without a clock: the child's loop feeds it requests, cancellations and the time, and sends what it
returns.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence

from msgspec import structs

from haif.base import limits
from haif.base.errors import ContextTooLong, InvalidRequest, Overloaded, Refusal
from haif.base.ids import Digest
from haif.engine.answer import Answer, Voice
from haif.engine.cache import Cache
from haif.engine.frames import Output, Refused, Step, refusal_of
from haif.engine.model import Model, Rows
from haif.engine.noise import Desk
from haif.engine.pace import Pace
from haif.engine.passes import Span
from haif.engine.request import Generate
from haif.engine.sampler import Rules
from haif.engine.schedule import Work, batch_tokens_max, schedule, victim
from haif.engine.telling import follow, sample
from haif.engine.witness import Witness


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
        if request.resumed:
            told = follow(self._model, answer, request.resumed, now_ns)
            self._retold.append(told)
            if told.end is not None:
                return
        self._queue.append(answer)

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
            output, wrong = sample(self._model, answer, logits, now_ns)
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


def _span(answer: Answer, work: Work) -> Span:
    due = answer.due(work.start, work.length)
    return answer.slot.number, work.start, answer.tokens[work.start : work.start + work.length], due
