"""One request for vectors, from its parsed body to the last byte of its answer, which is whole or none."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from haif.base import limits
from haif.base.clock import Deadline
from haif.base.errors import Overloaded
from haif.base.ids import JobId
from haif.base.tasks import Task
from haif.gateway.admission import seconds_allowed
from haif.gateway.embeddings import VectorAsk
from haif.gateway.gathering import Gathering
from haif.gateway.service.exchange import Exchange
from haif.gateway.service.inference import Means
from haif.gateway.service.mesh import Trip
from haif.gateway.service.travel import travel
from haif.gateway.service.wanted import while_wanted
from haif.gateway.told import Settled
from haif.gateway.vector_replies import around, entries
from haif.protocol.embeddings import Vectors
from haif.protocol.receipts import Receipt
from haif.telemetry import names
from haif.telemetry.service import Span

_AT_ONCE: Final = 32  # entries written between two looks at the event loop
_IN_FIGURES: Final = 7  # bytes held for each byte of a vector: itself, and its number in the answer
_IN_BASE64: Final = 3


class Room:
    """How many bytes of vectors the gateway holds for everybody."""

    def __init__(self) -> None:
        self._taken = 0

    @contextmanager
    def held(self, size: int) -> Iterator[None]:
        """Hold so many more inside the block. Raises `Overloaded`."""
        if self._taken + size > limits.GATEWAY_VECTOR_BYTES_MAX:
            raise Overloaded("this gateway holds as many vectors as it may; ask again shortly", retry_after=1.0)
        self._taken += size
        try:
            yield
        finally:
            self._taken -= size


class Embedding:
    """Answers one request. Raises what ended it."""

    def __init__(
        self, means: Means, exchange: Exchange, ask: VectorAsk, *, tenant: str, model: str, dimensions: int, room: Room
    ) -> None:
        """`model` is the model's name as it may be recorded: "unknown" where nobody offers it.

        `dimensions`: of its vectors, as its workers say. Raises `Rejected` for more than goes at once.
        """
        self._means = means
        self._exchange = exchange
        self._ask = ask
        self._model = model
        self._room = room
        self._begun = means.clock.now()
        self._job = JobId(means.entropy(JobId.size))
        self.receipts: list[Receipt] = []  # of the answer, once it is whole
        self._gathering = Gathering(ask, job=self._job, tenant=tenant, gateway=means.peer, dimensions=dimensions)

    async def answer(self) -> None:
        """Answer while the tenant listens, at most until its deadline."""
        means, seconds = self._means, seconds_allowed(self._exchange.headers)
        parent = self._exchange.headers.get(b"traceparent", b"").decode("latin-1")
        operation = names.EMBEDDINGS if self._ask.task is Task.EMBED else names.RERANK
        name = names.inference_span(operation, self._model)
        with means.telemetry.span(name, parent=parent, attributes=self._attributes(operation)) as span:
            self._announce(span)
            deadline, patience = Deadline.after(seconds, self._begun), means.first_token_seconds
            trip = Trip(deadline, span.traceparent, patience, patience)  # the next vector may take as long as the first
            with self._room.held(self._gathering.bytes_of_all * (_IN_BASE64 if self._ask.base64 else _IN_FIGURES)):
                settled = await while_wanted(
                    self._whole(trip), self._exchange, _idle, means.keepalive_seconds, means.stopping,
                    seconds=seconds,
                )  # fmt: skip
            span.set(names.INPUT_TOKENS, settled.receipt.prompt_tokens)
            means.telemetry.count(names.GATEWAY_TOKENS_IN, settled.receipt.prompt_tokens, model=self._model)

    async def _whole(self, trip: Trip) -> Settled:
        def keep(_: Vectors) -> None:
            """Nothing: the gathering keeps them, and nothing is shown before all are there."""

        means = self._means
        settled = await travel(self._gathering, means.mesh, trip, means.telemetry, keep, means.entropy)
        self.receipts.append(settled.receipt)
        ticket = self._gathering.ticket
        assert ticket is not None, "what is settled was placed"
        self._exchange.out += [
            (b"x-haif-worker", str(ticket.worker).encode()),
            (b"x-haif-model-digest", str(ticket.reservation.payload.model).encode()),
        ]
        await self._exchange.reply(await self._body(settled))
        return settled

    async def _body(self, settled: Settled) -> bytes:
        parts: list[bytes] = []
        for place, entry in enumerate(entries(self._ask, self._gathering.vectors), start=1):
            parts.append(entry)
            if place % _AT_ONCE == 0:
                await asyncio.sleep(0)  # others are waiting for their tokens
        before, after = around(self._ask, settled)
        return before + b",".join(parts) + after

    def _announce(self, span: Span) -> None:
        out = self._exchange.out
        out += [(b"x-haif-job", str(self._job).encode()), (b"traceparent", span.traceparent.encode())]
        if self._ask.ignored:
            out.append((b"x-haif-ignored-params", ", ".join(self._ask.ignored).encode()))

    def _attributes(self, operation: str) -> dict[str, str | int | float | bool]:
        return {
            names.JOB: str(self._job), names.TENANT: self._gathering.tenant, names.OPERATION: operation,
            names.PROVIDER: "haif", names.REQUEST_MODEL: self._model, names.REQUEST_INPUTS: self._ask.count,
        }  # fmt: skip


async def _idle() -> None:
    """Nothing can be shown before all is there."""
