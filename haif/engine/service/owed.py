"""The answers that a child owes: each goes to whoever asked for it, if it can be one at all.

All of what a child says may be a lie: a count that cannot be, or an answer to nothing that was asked, is `Malformed`.
"""

from __future__ import annotations

from collections.abc import Callable

from haif.base import limits
from haif.base.clock import Instant
from haif.base.errors import EngineDied, HaifError, Malformed, Refusal, from_reason
from haif.engine.embed import Embed, Embedded, Vectors
from haif.engine.frames import Batch, Output, Ready, Refused, Step
from haif.engine.mailbox import Mailbox
from haif.engine.meter import Meter
from haif.engine.request import Finished, Generate, Piece
from haif.engine.service.settings import EngineSettings, context_tokens, kv_tokens
from haif.engine.service.stream import Stream
from haif.engine.vectorbox import VectorBox


class Owed:
    """By the numbers they were asked for under; `asked` counts all so far, those that were cancelled too."""

    def __init__(self, settings: EngineSettings, meter: Meter) -> None:
        self.answers: dict[int, Stream[Piece | Finished] | Stream[Vectors | Embedded]] = {}
        self.last: Step | None = None
        self.asked = 0
        self.settled = True  # all that was asked was answered to its end
        self._withdrawn = False  # somebody left since the child last owed nothing; a step may still be under way
        self._settings = settings
        self._meter = meter
        self._vocabulary = self._context = self._dimensions = 0
        self._exact = False

    def ready(self, ready: Ready) -> None:
        """What was loaded. Raises `Malformed` for what no model is."""
        self._vocabulary = ready.vocabulary
        self._exact = ready.exact
        self._context = context_tokens(self._settings, ready)
        self._dimensions = ready.dimensions
        if not 0 <= ready.dimensions <= limits.EMBEDDING_DIMENSIONS_MAX:
            raise Malformed(f"vectors of {ready.dimensions} numbers, which no model makes")

    def text(self, request: Generate, submitted_ns: int) -> tuple[int, Stream[Piece | Finished]]:
        """A new number, and the stream of the answer."""
        mailbox = Mailbox(
            request, vocabulary=self._vocabulary, context_tokens=self._context, submitted_ns=submitted_ns,
            witnessed=self._exact,
        )  # fmt: skip
        stream = Stream[Piece | Finished](mailbox)
        return self._add(stream), stream

    def vectors(self, request: Embed, submitted_ns: int) -> tuple[int, Stream[Vectors | Embedded]]:
        """The same for vectors."""
        box = VectorBox(
            request, dimensions=self._dimensions, context_tokens=self._context, submitted_ns=submitted_ns
        )  # fmt: skip
        stream = Stream[Vectors | Embedded](box)
        return self._add(stream), stream

    def _add(self, stream: Stream[Piece | Finished] | Stream[Vectors | Embedded]) -> int:
        self._withdrawn = self._withdrawn and bool(self.answers)
        self.answers[self.asked] = stream
        self.settled = False
        self.asked += 1
        return self.asked - 1

    def withdraw(self, number: int) -> bool:
        """Forget a request; whether an answer to it was still owed."""
        found = self.answers.pop(number, None) is not None
        self._withdrawn |= found
        return found

    def fail(self, error: HaifError) -> None:
        """Nobody gets an answer any more."""
        for stream in self.answers.values():
            stream.fail(EngineDied(error.message, retry_after=limits.ENGINE_RESPAWN_SECONDS_MIN))
        self.answers.clear()

    def step(self, step: Step, now: Instant) -> None:
        """What a batch of answers came to."""
        self._count(step, self._settings.slots + limits.PREFILL_CHUNK_TOKENS)
        for output in step.retold:
            self._deliver(output, Mailbox.retell)
        for output in step.outputs:
            self._deliver(output, Mailbox.put)
        for refused in step.refused:
            self.refused(refused)
        self._meter.preemptions += step.preempted
        self._meter.add(now, len(step.outputs), step.batch_tokens)

    def batch(self, batch: Batch, now: Instant) -> None:
        """What a batch of vectors came to."""
        step = Step([], [], batch.batch_tokens, batch.running, batch.queued, 0)
        self._count(step, self._context)
        for part in batch.parts:
            stream = self._answer(part.number)
            if stream is not None:
                if not isinstance(stream.mailbox, VectorBox):
                    raise Malformed("it answered a request for text with vectors")
                stream.mailbox.put(part)
                if part.end is not None:
                    self._done(part.number)
                    self._meter.prompt_tokens += part.end.prompt_tokens
                stream.wake()
        for refused in batch.refused:
            self.refused(refused)
        self._meter.add(now, 0, batch.batch_tokens)

    def refused(self, refused: Refused) -> None:
        """A request gets no answer, for a reason that must be one."""
        param = refused.param and refused.param[: limits.PARAMETER_CHARACTERS_MAX]
        error = from_reason(refused.reason, refused.message[:400], param=param)
        if not isinstance(error, Refusal):
            raise Malformed(f"{refused.reason[:40]!r} is no reason to refuse a request")
        stream = self._answer(refused.number)
        if stream is not None:
            self._done(refused.number)
            stream.fail(error)

    def _deliver(self, output: Output, take: Callable[[Mailbox, Output], None]) -> None:
        stream = self._answer(output.number)
        if stream is None:
            return
        if not isinstance(stream.mailbox, Mailbox):
            raise Malformed("it answered a request for vectors with tokens")
        take(stream.mailbox, output)
        if output.end is not None:
            self._done(output.number)
            self._meter.prompt_tokens += output.end.prompt_tokens
            self._meter.cached_tokens += output.end.cached_tokens
        stream.wake()

    def _done(self, number: int) -> None:
        del self.answers[number]
        self.settled = not self.answers and not self._withdrawn

    def _count(self, step: Step, batch_tokens_max: int) -> None:
        slots = self._settings.slots
        for value, most in (
            (step.batch_tokens, batch_tokens_max),
            (step.running, slots),
            (step.queued, limits.ENGINE_QUEUE_MAX + slots),  # those that were preempted among them
            (step.kv_tokens, kv_tokens(self._settings, self._context)),
            (step.preempted, slots),
        ):
            if not 0 <= value <= most:
                raise Malformed(f"a count of {value} where at most {most} is possible")
        self.last = step

    def _answer(self, number: int) -> Stream[Piece | Finished] | Stream[Vectors | Embedded] | None:
        """The stream of a request, or None if it was cancelled meanwhile. Raises `Malformed` for one never made."""
        if not 0 <= number < self.asked:
            raise Malformed("an answer to a request that was never made")
        return self.answers.get(number)
