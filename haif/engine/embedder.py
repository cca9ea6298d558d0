"""The inputs a model makes vectors of: each is computed whole, in a batch with others', and leaves at once.

Tenants take turns by tokens: the next input is that of the scope that was served least since it came (start-time fair
queueing, Goyal et al. 1996), so two thousand inputs of one tenant hold up nobody. Where beside others an input would
have other bits than alone, it is computed alone: the self-test (`alike`) decides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from haif.base import limits
from haif.base.errors import ContextTooLong, InvalidRequest, Overloaded, Unsupported
from haif.base.tasks import Task
from haif.engine.embed import Embed
from haif.engine.frames import Batch, EmbedEnd, Part, Refused, refusal_of

Row = npt.NDArray[np.float32]

_PROBES: Final = (17, 5, 29)  # lengths of the self-test's inputs: none a multiple of a vector register


class Model(Protocol):
    """What the embedder needs of a model."""

    @property
    def size(self) -> int:
        """How many tokens the vocabulary has."""

    @property
    def dimensions(self) -> int:
        """Numbers in one vector."""

    @property
    def matryoshka(self) -> tuple[int, ...]:
        """The shorter lengths that vectors may be cut to."""

    def vectors(self, inputs: Sequence[list[int]]) -> list[Row]:
        """The pooled vectors of whole inputs, computed in one batch."""


class _Job:
    """One request: its inputs before `taken` are computed or about to be."""

    __slots__ = (
        "dimensions", "inputs", "number", "scope", "started_ns", "submitted_ns", "taken", "task", "tokens",
    )  # fmt: skip

    def __init__(self, number: int, request: Embed, inputs: list[list[int]], now_ns: int) -> None:
        self.number = number
        self.inputs = inputs
        self.tokens = sum(map(len, inputs))
        self.dimensions = request.dimensions
        self.task = request.task
        self.scope: bytes | int = request.scope or number
        self.taken = 0
        self.submitted_ns = now_ns
        self.started_ns = 0


class Embedder:
    """Up to `slots` inputs in a batch of at most `context_tokens`, and a bounded queue behind it."""

    def __init__(self, model: Model, *, slots: int, context_tokens: int) -> None:
        self._model = model
        self._slots = slots
        self._context_tokens = context_tokens
        self._inputs_max = min(slots, limits.EMBEDDING_BATCH_INPUTS_MAX)
        self._jobs: list[_Job] = []
        self._served: dict[bytes | int, int] = {}  # of scopes that have jobs

    @property
    def busy(self) -> bool:
        """Whether a step would compute anything."""
        return bool(self._jobs)

    def alike(self, *, wanted: bool) -> bool:
        """Self-test: are vectors the same bits again? Where that is wanted, batches are now only what keeps them so.

        Where it is not, nothing is claimed.
        """
        length = self._context_tokens
        probes = [[(7 * place + 3) % self._model.size for place in range(min(count, length))] for count in _PROBES]
        together: list[list[int]] = []
        for probe in probes[: self._inputs_max]:
            if sum(map(len, together)) + len(probe) <= length:
                together.append(probe)
        alone = [self._model.vectors([probe])[0].tobytes() for probe in probes]
        if wanted and alone[: len(together)] != [row.tobytes() for row in self._model.vectors(together)]:
            self._inputs_max = 1
        self._model.vectors([[3 % self._model.size] * length])  # takes the memory of the largest batch now
        return wanted and alone == [self._model.vectors([probe])[0].tobytes() for probe in probes]

    def submit(self, number: int, request: Embed, inputs: list[list[int]], now_ns: int) -> None:
        """Take a request in. Raises `ContextTooLong`, `InvalidRequest`, `Overloaded`, `Unsupported`."""
        param = "documents" if request.task is Task.RERANK else "input"
        for place, tokens in enumerate(inputs):
            if len(tokens) > self._context_tokens:
                raise ContextTooLong(
                    f"{param}[{place}] has {len(tokens)} tokens, more than the {self._context_tokens} that this model "
                    "takes: cut it",
                    param=param,
                )
            if not tokens or max(tokens) >= self._model.size:
                raise InvalidRequest(
                    f"{param}[{place}] has no tokens, or some that the vocabulary of {self._model.size} lacks",
                    param=param,
                )
        job = _Job(number, request, inputs, now_ns)
        if job.tokens > limits.EMBEDDING_TOKENS_MAX:
            raise InvalidRequest(
                f"{job.tokens} tokens are more than {limits.EMBEDDING_TOKENS_MAX} in one request", param=param
            )
        if job.dimensions not in (None, self._model.dimensions, *self._model.matryoshka):
            raise Unsupported(self._lengths(), param="dimensions")
        if len(self._jobs) >= self._slots + limits.ENGINE_QUEUE_MAX:
            raise Overloaded(f"{limits.ENGINE_QUEUE_MAX} requests are waiting at this engine already", retry_after=1.0)
        self._served.setdefault(job.scope, min(self._served.values(), default=0))
        self._jobs.append(job)

    def cancel(self, number: int) -> None:
        """Forget a request, wherever it is."""
        for job in self._jobs:
            if job.number == number:
                self._forget(job)
                return

    def step(self, clock_ns: Callable[[], int]) -> Batch:
        """Compute one batch and say what came of it."""
        picks = self._pick(clock_ns())
        rows = self._model.vectors([job.inputs[place] for job, place in picks])
        parts: list[Part] = []
        refused: list[Refused] = []
        now_ns = clock_ns()
        for (job, place), row in zip(picks, rows, strict=True):
            if job not in self._jobs:
                continue  # refused a moment ago, for an earlier input
            vector = finished(row, job.task, job.dimensions)
            if vector is None:
                refused.append(refusal_of(job.number, _no_vector(place)))
                self._forget(job)
                continue
            end = None
            if place + 1 == len(job.inputs):
                end = EmbedEnd(job.tokens, job.started_ns - job.submitted_ns, now_ns - job.started_ns)
                self._forget(job)
            parts.append(Part(job.number, place, vector, end))
        running = min(len(self._jobs), self._slots)
        return Batch(
            parts=parts, refused=refused, batch_tokens=sum(len(job.inputs[place]) for job, place in picks),
            running=running, queued=len(self._jobs) - running,
        )  # fmt: skip

    def _pick(self, now_ns: int) -> list[tuple[_Job, int]]:
        """The next inputs that fit into one batch, by turns."""
        picks: list[tuple[_Job, int]] = []
        room = self._context_tokens
        while len(picks) < self._inputs_max:
            waiting = [job for job in self._jobs if job.taken < len(job.inputs)]
            if not waiting:
                break
            job = min(waiting, key=lambda job: self._served[job.scope])
            length = len(job.inputs[job.taken])
            if length > room:
                break
            job.started_ns = job.started_ns or now_ns
            picks.append((job, job.taken))
            job.taken += 1
            self._served[job.scope] += length
            room -= length
        return picks

    def _forget(self, job: _Job) -> None:
        self._jobs.remove(job)
        if all(other.scope != job.scope for other in self._jobs):
            del self._served[job.scope]

    def _lengths(self) -> str:
        allowed = ", ".join(map(str, sorted({*self._model.matryoshka, self._model.dimensions})))
        return f"this model's vectors have one of these lengths, as its file says: {allowed}"


def finished(row: Row, task: Task, dimensions: int | None) -> bytes | None:
    """A pooled vector as it is given: a rank's score, or the beginning of an embedding, made 1 long.

    None where it holds what is not a finite number, or has no length to divide by.
    """
    if task is Task.RERANK:
        return row[:1].astype("<f4").tobytes() if np.isfinite(row[0]) else None
    wanted = row[:dimensions].astype(np.float64)
    length = float(np.sqrt(np.square(wanted).sum()))
    if not (np.isfinite(length) and length > 0):
        return None
    return (wanted / length).astype("<f4").tobytes()


def _no_vector(place: int) -> Unsupported:
    return Unsupported(
        f"the model makes nothing of input {place}: its vector has no length, or holds what is not a number",
        param="input",
    )
