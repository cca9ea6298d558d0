"""What a tenant asks of models: heard in its dialect, answered once, and kept as a letter where that failed."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from haif.base.errors import Dropped, HaifError, Reason, Unsupported
from haif.base.hashing import digest
from haif.base.ids import Nonce
from haif.gateway.admission import Admitted, check_body, check_choices, check_task
from haif.gateway.allowance import FREE, Cost, cost_of, vectors_cost
from haif.gateway.ask import Ask
from haif.gateway.embeddings import VectorAsk
from haif.gateway.letters import Payload
from haif.gateway.once import HEADER, REPLAYED, Kept, Keyed, keyed
from haif.gateway.service.door import Door
from haif.gateway.service.embedding import Embedding, Room
from haif.gateway.service.exchange import Disconnected, Exchange
from haif.gateway.service.inference import Inference, Means
from haif.gateway.service.letters import Letters
from haif.gateway.service.requests import Requests
from haif.protocol.jobs import ModelCard

_log = logging.getLogger(__name__)
A = TypeVar("A", Ask, VectorAsk)
Parse = Callable[[bytes, Nonce], A]


@dataclass(frozen=True, slots=True)
class _Asked(Generic[A]):
    ask: A
    admitted: Admitted
    card: ModelCard | None  # None for a model that nobody offers
    body: bytes

    @property
    def cost(self) -> Cost:
        """What it may come to."""
        tenant, ask = self.admitted.tenant, self.ask
        if not (tenant.tpm or tenant.budget):
            return FREE
        if isinstance(ask, Ask):
            context = self.card.context_tokens if self.card else None
            return cost_of(len(self.body), ask.request.tokens_max, ask.choices, context)
        return vectors_cost(len(self.body), ask.count, len((ask.request.query or "").encode()))


class Asking:
    """Answers what came in through `door`."""

    def __init__(self, means: Means, door: Door, requests: Requests, letters: Letters) -> None:
        self._means = means
        self._door = door
        self._requests = requests
        self._letters = letters
        self._room = Room()
        self._secret = means.entropy(32)  # so that no worker learns which tenant a scope is

    async def infer(self, exchange: Exchange, parse: Parse[Ask]) -> None:
        """Answer a request for text, which `parse` reads."""
        asked = await self._asked(exchange, parse)
        tenant, body = asked.admitted.tenant.name, asked.body
        inference = Inference(self._means, exchange, asked.ask, tenant=tenant, model=exchange.model)
        request = keyed(self._requests.secret, tenant, exchange.headers, exchange.path, body)
        hold = await self._door.begin(exchange, asked.admitted.tenant, asked.cost)
        taken = 0
        try:
            if request is None:
                await inference.answer()
            else:
                await self._once(exchange, request, inference)
        except Disconnected:
            taken = inference.taken and inference.taken + len(body) // 4  # and about what the prompt has
            raise
        except HaifError:
            await self._bury(exchange, inference, tenant, body)
            raise
        finally:
            self._door.end(hold, exchange.model, inference.receipts, taken)

    async def vectors(self, exchange: Exchange, parse: Parse[VectorAsk]) -> None:
        """Answer a request for vectors, which `parse` reads."""
        if HEADER in exchange.headers:
            raise Unsupported(
                "no Idempotency-Key is kept for vectors: asking again gives the same", param="Idempotency-Key"
            )
        asked = await self._asked(exchange, parse)
        embedding = Embedding(
            self._means, exchange, asked.ask, tenant=asked.admitted.tenant.name, model=exchange.model, room=self._room,
            dimensions=asked.card.dimensions if asked.card else 0,
        )  # fmt: skip
        hold = await self._door.begin(exchange, asked.admitted.tenant, asked.cost)
        try:
            await embedding.answer()
        finally:
            self._door.end(hold, exchange.model, embedding.receipts)

    async def _asked(self, exchange: Exchange, parse: Parse[A]) -> _Asked[A]:
        """What an admitted tenant asks for, of a model that can do it as far as is known.

        Raises `Unsupported` for one that cannot, and `Forbidden` for one that it may not use.
        """
        admitted = await self._door.admit(exchange)
        check_body(exchange.headers)
        body = await exchange.body()
        ask = parse(body, Nonce(self._means.entropy(Nonce.size)))
        admitted.grant.check_model(ask.model)
        if isinstance(ask, Ask) and ask.choices > 1:
            check_choices(admitted, ask.choices)
            self._door.charge(exchange, admitted.grant, ask.choices - 1)
        tenant = admitted.tenant.name
        ask = ask.under(
            scope=digest("haif v1 tenant scope", self._secret, tenant.encode()), execution=self._means.execution,
            tenant=admitted.tenant,
        )  # fmt: skip
        for card in self._means.mesh.models:
            if card.name == ask.model:
                exchange.model = ask.model
                check_task(card, ask.task)
                return _Asked(ask, admitted, card, body)
        return _Asked(ask, admitted, None, body)

    async def _bury(self, exchange: Exchange, inference: Inference, tenant: str, body: bytes) -> None:
        """Keep what was tried of a request that failed, and the request if its tenant will ask for the answer."""
        history = inference.history
        if not history:
            return
        key = exchange.headers.get(HEADER)
        payload = None if key is None else Payload(exchange.path, key, body)
        try:
            if exchange.letter is not None:
                await self._letters.failed_again(exchange.letter.job, history)
            else:
                job, secret = inference.jobs[0], self._requests.secret
                await self._letters.bury(job, tenant, exchange.model, history, payload, secret)
        except (HaifError, sqlite3.Error) as error:  # the tenant is told of its own failure all the same
            _log.warning("a dead letter could not be kept: %s", error)
            self._means.telemetry.dropped(Dropped(getattr(error, "reason", Reason.MISUSE), detail="letters"))

    async def _once(self, exchange: Exchange, request: Keyed, inference: Inference) -> None:
        """Answer a request under an Idempotency-Key, or give it the answer it had."""
        async with self._requests.once(request, inference.jobs, self._means.mesh) as before:
            if before is not None:
                exchange.out.append(REPLAYED)
                await exchange.reply(before.body, status=before.status, kind=before.kind)
                return

            async def keep(body: bytes) -> None:
                await self._requests.answered(request, inference.jobs, Kept(exchange.status, exchange.kind, body))

            exchange.keep(keep)
            await inference.answer_for_later()
