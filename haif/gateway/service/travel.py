"""A journey made: placed, run, checked, countersigned and recorded; or failed, and that recorded."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any, Final

from haif.base import limits
from haif.base.errors import (
    ConnectionLost,
    Dropped,
    EngineDied,
    HaifError,
    Malformed,
    ModelLoading,
    NoWorker,
    Overloaded,
    PeerFault,
)
from haif.gateway.errand import Errand, Ticket
from haif.gateway.service.mesh import Answers, Mesh, Trip
from haif.gateway.service.patience import Patience
from haif.gateway.session import Journey, blames_worker
from haif.gateway.told import Settled
from haif.policy.backoff import full_jitter
from haif.protocol.embeddings import Embedded
from haif.protocol.inference import End
from haif.protocol.receipts import bundle
from haif.telemetry import names
from haif.telemetry.service import Telemetry
from haif.wire.service import Taking

Deliver = Callable[[Any], Taking | None]
"""Hands on a chunk, or vectors, as the journey's worker sends; what it returns is awaited before the next."""

_ENDS: Final = (End, Embedded)


async def travel(
    journey: Errand, mesh: Mesh, trip: Trip, telemetry: Telemetry, deliver: Deliver, entropy: Callable[[int], bytes]
) -> Settled:
    """Bring back an answer whose receipt was verified and whose end is recorded.

    Chunks go to `deliver` as they come, each token once: after a failed attempt the next worker goes on where it ended,
    as long as `journey.failed` allows. Vectors are made anew. However else this ends, cancelled included, the worker's
    stream is closed and the failure reported. Raises the error that ended it.
    """
    reason = "cancelled"
    try:
        with telemetry.span(names.SPAN_PLACE, parent=trip.traceparent):
            ticket = await mesh.submit(journey, trip)
        while True:
            try:
                end = await _attempt(journey, ticket, mesh, trip, telemetry, deliver)
                receipt = journey.settled(end)
                break
            except HaifError as error:
                _note(error, ticket, telemetry)
                if not journey.failed(error):
                    raise
                telemetry.count(names.GATEWAY_RETRIES, reason=error.reason.value)
                await asyncio.sleep(_pause(ticket.attempt, entropy))
                ticket = await _again(journey, error, mesh, trip, telemetry)
        with telemetry.span(names.SPAN_FINALISE, parent=trip.traceparent):
            countersignature = await mesh.finalise(ticket, receipt, trip, journey.payload(receipt))
        reason = ""
    except HaifError as error:
        reason = error.reason.value
        raise
    finally:
        if reason and journey.ticket is not None:
            mesh.report_failure(journey.ticket, reason)
    proof = bundle(receipt, ticket.reservation, countersignature) | journey.transcript()
    if not isinstance(end, End):
        return Settled(receipt.payload, proof, 0, 0)
    return Settled(receipt.payload, proof, end.cached_tokens, end.reasoning_tokens, end.stopped_by)


def _pause(attempt: int, entropy: Callable[[int], bytes]) -> float:
    """The first time at once: a tenant is waiting, and one failed worker is no storm."""
    if attempt == 1:
        return 0.0
    return full_jitter(attempt - 1, entropy, first=limits.RETRY_SECONDS_FIRST, most=limits.RETRY_SECONDS_MAX)


async def _again(journey: Errand, error: HaifError, mesh: Mesh, trip: Trip, telemetry: Telemetry) -> Ticket:
    """The ticket of the next attempt. To a tenant who has seen a part, that nobody is left means: it broke off.

    Where nobody else can, a worker that is loading the model has said when it can.
    """
    try:
        with telemetry.span(names.SPAN_PLACE, parent=trip.traceparent):
            ticket = await mesh.retry(journey, error.reason, trip)
    except (NoWorker, Overloaded, EngineDied) as refusal:
        if journey.shown or isinstance(error, ModelLoading):
            raise error from refusal
        raise
    if ticket.resumed:
        telemetry.count(names.GATEWAY_RESUMED, reason=error.reason.value)
    return ticket


async def _attempt(
    journey: Errand, ticket: Ticket, mesh: Mesh, trip: Trip, telemetry: Telemetry, deliver: Deliver
) -> End | Embedded:
    attributes: dict[str, str | int | float | bool] = {
        names.ATTEMPT: ticket.attempt, names.WORKER_PEER: str(ticket.worker),
        names.MODEL_DIGEST: str(ticket.reservation.payload.model),
    }  # fmt: skip
    with telemetry.span(names.SPAN_STREAM, parent=trip.traceparent, attributes=attributes) as span:
        inner = replace(trip, traceparent=span.traceparent)
        try:
            async with _redeem(journey, mesh, ticket, inner) as answers:
                return await _Hearing(journey, trip, deliver).out(answers)
        except HaifError as error:
            raise blames_worker(error, ticket) from error


def _redeem(journey: Errand, mesh: Mesh, ticket: Ticket, trip: Trip) -> AbstractAsyncContextManager[Answers[Any]]:
    run = mesh.run if isinstance(journey, Journey) else mesh.embed
    return run(ticket, journey.encoded, trip)


class _Hearing:
    """Hears an attempt's stream to its end, so that no worker is cancelled between its last word and its goodbye."""

    def __init__(self, journey: Errand, trip: Trip, deliver: Deliver) -> None:
        self._journey, self._deliver = journey, deliver
        self._patience = Patience(trip.first_token_seconds)
        self._token_seconds = trip.token_seconds
        self._end: End | Embedded | None = None

    async def out(self, answers: Answers[Any]) -> End | Embedded:
        """The stream's end. Raises `Timeout` where the worker is silent for too long, and what is wrong with it."""
        async with self._patience as patience:
            patience.wait()
            await answers.pour(self._take)
        if self._end is None:
            raise ConnectionLost("the worker ended its answer without a receipt")
        return self._end

    def _take(self, answer: Any) -> Taking | None:
        if self._end is not None:
            raise Malformed("the worker goes on after the end of its answer")
        taken, patience = self._journey.take(answer), self._patience
        if isinstance(taken, _ENDS):
            self._end = taken
        elif taken is not None:
            patience.seconds = self._token_seconds
            delivering = self._deliver(taken)
            if delivering is not None:
                patience.heard()
                return _Delivering(delivering, patience)
        patience.wait()
        return None


class _Delivering:
    """The tenant reads as fast as it likes: meanwhile nothing is waited for."""

    def __init__(self, delivering: Taking, patience: Patience) -> None:
        self._delivering, self._patience = delivering, patience

    def __await__(self) -> Generator[Any, None, None]:
        yield from self._delivering.__await__()
        self._patience.wait()

    def close(self) -> None:
        """The tenant will not have it."""
        self._delivering.close()


def _note(error: HaifError, ticket: Ticket, telemetry: Telemetry) -> None:
    """A worker that broke the protocol, or whose receipt did not verify, is counted by reason."""
    if isinstance(error, PeerFault):
        telemetry.dropped(Dropped(error.reason, ticket.worker, error.message))
