"""A mesh of one orchestrator and one worker that do what a test wrote down, with real keys and real signatures."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

from haif.base.conversation import Aside, merged
from haif.base.errors import HaifError, NoWorker, Reason, UnknownModel
from haif.base.ids import JobId, ModelDigest
from haif.base.tasks import Task
from haif.gateway.errand import Errand, Ticket
from haif.gateway.service.mesh import Trip
from haif.gateway.session import Journey
from haif.identity.keys import Identity
from haif.identity.signing import Domain, Verified, seal
from haif.protocol.audits import Payload
from haif.protocol.embeddings import EmbedAnswer, Embedded, EmbedRequest, Vectors, vectors_digest
from haif.protocol.inference import Answer, Chunk, End, OutputHash, Request, tokens_digest
from haif.protocol.jobs import JobView, ModelCard, Placed, Reservation
from haif.protocol.reach import Place
from haif.protocol.receipts import Countersignature, Receipt
from haif.protocol.sandbox import Sandbox
from haif.protocol.seeds import given_seed
from haif.runtime.clock import SystemClock
from tests.support.poured import Poured

GATEWAY, ORCHESTRATOR, WORKER, STRANGER = (Identity(bytes([n]) * 32) for n in range(1, 5))
T = TypeVar("T")
MODEL = ModelDigest(b"m" * 32)
CARD = ModelCard(
    name="tiny", digest=MODEL, context_tokens=512, workers=1, published=1_700_000_000_000, tasks=[Task.CHAT, Task.TEXT]
)
VECTORS = ModelCard(
    name="vectors", digest=MODEL, context_tokens=512, workers=1, published=0, tasks=[Task.EMBED], dimensions=2
)
RANKS = ModelCard(name="ranks", digest=MODEL, context_tokens=512, workers=1, published=0, tasks=[Task.RERANK])
ASLEEP = ModelCard(name="asleep", digest=ModelDigest(b"a" * 32), context_tokens=512, workers=0, published=0)


@dataclass(frozen=True)
class Hang:
    """The worker says nothing more, or nothing until something happens."""

    until: asyncio.Event = field(default_factory=asyncio.Event)


Step = str | Hang | HaifError | Answer | list[Aside]


@dataclass
class Attempt:
    """What the worker does: texts and asides (one token each), then the end, unless something else is written down.

    A later attempt goes on after what came, having told it again.
    """

    steps: list[Step] = field(default_factory=lambda: ["Hello", " world"])
    finish_reason: str = "stop"
    signer: Identity = WORKER
    alter: Callable[[Receipt], Receipt] = lambda receipt: receipt
    end: Callable[[End], End | None] = lambda end: end
    vectors: list["Vectors | Hang | HaifError"] = field(default_factory=list)  # and then the end
    embedded: Callable[[Embedded], Embedded | None] = lambda end: end
    retold: Callable[[Chunk], Chunk] = lambda chunk: chunk


@dataclass
class ScriptedMesh:
    """Implements `gateway.service.mesh.Mesh`."""

    attempts: list[Attempt] = field(default_factory=lambda: [Attempt()])
    of_choice: dict[int, Attempt] = field(default_factory=dict)  # what happens to one of several choices instead
    jobs_of: dict[JobId, int] = field(default_factory=dict)
    models: tuple[ModelCard, ...] = (CARD, ASLEEP)
    alter_reservation: Callable[[Reservation], Reservation] = lambda terms: terms
    finalise_error: HaifError | None = None
    jobs: dict[JobId, JobView] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    embeds: list[EmbedRequest] = field(default_factory=list)
    seeds: list[int | None] = field(default_factory=list)
    demands: list[str] = field(default_factory=list)
    executions: list[str] = field(default_factory=list)
    traceparents: list[str] = field(default_factory=list)
    finalised: list[Verified[Receipt]] = field(default_factory=list)
    payloads: list[Payload | None] = field(default_factory=list)  # what a validator might be given of each
    failures: list[tuple[int, str]] = field(default_factory=list)
    retried: list[str] = field(default_factory=list)
    spoken: dict[JobId, list[tuple[str, list[Aside]]]] = field(default_factory=dict)  # token by token
    gate: asyncio.Event | None = None  # where there is one, the worker waits for it
    running: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    failed: asyncio.Event = field(default_factory=asyncio.Event)

    async def submit(self, journey: Errand, trip: Trip) -> Ticket:
        known = {card.name: card for card in self.models}
        if journey.order.model not in known:
            raise UnknownModel(f"nobody here offers {journey.order.model!r}")
        if not known[journey.order.model].workers:
            raise NoWorker("no live worker offers this model", retry_after=2.5)
        self.traceparents.append(trip.traceparent)
        self.seeds.append(journey.submission(1.0).tenant_seed)
        self.jobs_of[journey.job] = journey.choice if isinstance(journey, Journey) else 0
        self.demands.append(journey.submission(1.0).sandbox_min)
        self.executions.append(journey.submission(1.0).execution)
        return self._place(journey, 1)

    async def retry(self, journey: Errand, reason: Reason, trip: Trip) -> Ticket:
        self.retried.append(reason.value)
        assert journey.ticket is not None
        if journey.ticket.attempt >= len(self.attempts):
            raise NoWorker("every live worker was tried", retry_after=5.0)
        return self._place(journey, journey.ticket.attempt + 1)

    def _place(self, journey: Errand, attempt: int) -> Ticket:
        now = SystemClock().wall()
        terms = self.alter_reservation(
            Reservation(
                job=journey.job,
                attempt=attempt,
                gateway=GATEWAY.peer,
                worker=WORKER.peer,
                model=MODEL,
                request_digest=journey.digest,
                tokens_max=journey.order.tokens_max,
                seed=given_seed(0),
                tenant_seed=0,
                seed_proof=b"",
                issued=now,
                expires=now + 30_000,
                deadline=now + 60_000,
                resumed=journey.tokens,
            )
        )
        return journey.placed(
            Placed(seal(ORCHESTRATOR, Domain.RESERVATION, terms), Place((("127.0.0.1", 1),)), b""),
            {ORCHESTRATOR.peer},
            now,
        )

    @asynccontextmanager
    async def run(self, ticket: Ticket, request: bytes, trip: Trip) -> AsyncIterator[Poured[Answer]]:
        self.requests.append(msgspec.msgpack.decode(request, type=Request, dec_hook=lambda kind, raw: kind(raw)))
        choice = self.jobs_of[ticket.reservation.payload.job]
        attempt = self.of_choice.get(choice, self.attempts[ticket.attempt - 1])
        async with self._open(self._answers(ticket, attempt)) as answers:
            yield answers

    @asynccontextmanager
    async def _open(self, answers: AsyncGenerator[T, None]) -> AsyncIterator[Poured[T]]:
        """A stream of answers that notes when whoever reads it is cancelled or raises."""
        try:
            yield Poured(answers)
        except BaseException:
            self.cancelled.set()
            raise
        finally:
            await answers.aclose()

    async def _answers(self, ticket: Ticket, attempt: Attempt) -> AsyncGenerator[Answer, None]:
        self.running.set()
        if self.gate is not None:
            await self.gate.wait()
        output = OutputHash()
        spoken = self.spoken.setdefault(ticket.reservation.payload.job, [])
        del spoken[len(ticket.resumed) :]
        if ticket.resumed:
            asides = merged([aside for _, asides in spoken for aside in asides])
            given = Chunk(0, list(ticket.resumed), "".join(text for text, _ in spoken), [], asides)
            output.add(given)
            yield Answer(chunk=attempt.retold(given))
        for step in attempt.steps:
            if isinstance(step, Hang):
                await step.until.wait()
            elif isinstance(step, HaifError):
                raise step
            elif isinstance(step, Answer):
                yield step
            else:
                text, asides = (step, []) if isinstance(step, str) else ("", step)
                chunk = Chunk(output.tokens, [output.tokens + 7], text, [], asides)
                output.add(chunk)
                spoken.append((text, asides))
                yield Answer(chunk=chunk)
        end = attempt.end(self._end(ticket, attempt, output))
        if end is not None:
            yield Answer(end=end)

    def _end(self, ticket: Ticket, attempt: Attempt, output: OutputHash) -> End:
        terms = ticket.reservation.payload
        receipt = attempt.alter(
            Receipt(
                job=terms.job,
                attempt=terms.attempt,
                gateway=GATEWAY.peer,
                reservation=ticket.reservation.digest,
                request=terms.request_digest,
                model=terms.model,
                prompt_tokens=5,
                completion_tokens=output.tokens,
                finish_reason=attempt.finish_reason,
                output_tokens=output.tokens_digest(),
                output_text=output.text_digest(),
                engine="test-engine",
                sandbox=Sandbox("none", ["seccomp"]),
                started=1,
                finished=2,
                resumed=len(ticket.resumed),
                earlier=tokens_digest(ticket.resumed) if ticket.resumed else None,
            )
        )
        return End(attempt.finish_reason, 5, 3, output.tokens, seal(attempt.signer, Domain.RECEIPT, receipt))

    @asynccontextmanager
    async def embed(self, ticket: Ticket, request: bytes, trip: Trip) -> AsyncIterator[Poured[EmbedAnswer]]:
        self.embeds.append(msgspec.msgpack.decode(request, type=EmbedRequest, dec_hook=lambda kind, raw: kind(raw)))
        async with self._open(self._vectors(ticket, self.attempts[ticket.attempt - 1])) as answers:
            yield answers

    async def _vectors(self, ticket: Ticket, attempt: Attempt) -> AsyncGenerator[EmbedAnswer, None]:
        self.running.set()
        vectors: list[bytes] = []
        for step in attempt.vectors:
            if isinstance(step, Hang):
                await asyncio.Event().wait()
            elif isinstance(step, HaifError):
                raise step
            else:
                vectors += step.vectors
                yield EmbedAnswer(vectors=step)
        terms, nothing = ticket.reservation.payload, OutputHash()
        receipt = attempt.alter(
            Receipt(
                job=terms.job, attempt=terms.attempt, gateway=GATEWAY.peer, reservation=ticket.reservation.digest,
                request=terms.request_digest, model=terms.model, prompt_tokens=5, completion_tokens=0,
                finish_reason="stop", output_tokens=nothing.tokens_digest(), output_text=nothing.text_digest(),
                engine="test-engine", sandbox=Sandbox("none", ["seccomp"]), started=1, finished=2,
                output_vectors=vectors_digest(vectors),
            )
        )  # fmt: skip
        end = attempt.embedded(Embedded(5, seal(attempt.signer, Domain.RECEIPT, receipt)))
        if end is not None:
            yield EmbedAnswer(end=end)

    async def finalise(
        self, ticket: Ticket, receipt: Verified[Receipt], trip: Trip, payload: Payload | None = None
    ) -> bytes:
        if self.finalise_error is not None:
            raise self.finalise_error
        self.finalised.append(receipt)
        self.payloads.append(payload)
        return seal(GATEWAY, Domain.COUNTERSIGNATURE, Countersignature(receipt.payload.job, receipt.digest))

    def report_failure(self, ticket: Ticket, reason: str) -> None:
        self.failures.append((ticket.attempt, reason))
        self.failed.set()

    async def show(self, job: JobId) -> JobView | None:
        return self.jobs.get(job)
