"""The HTTP side: routes, admission, and one place where every error becomes an answer."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import sqlite3
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import msgspec

from haif.base import limits
from haif.base.errors import Dropped, HaifError, OverQuota, Reason, UnknownModel, Unsupported
from haif.base.hashing import digest
from haif.base.ids import JobId, Nonce
from haif.gateway import embeddings, openai
from haif.gateway.admission import (
    Admitted,
    charge,
    check_body,
    check_choices,
    check_quota,
    check_room,
    check_task,
    key_of,
    quota_headers,
)
from haif.gateway.embeddings import VectorAsk
from haif.gateway.errors import INTERNAL, RETRY_SECONDS, Rejected, problem_of
from haif.gateway.letters import Payload
from haif.gateway.once import HEADER, REPLAYED, Kept, Keyed, keyed
from haif.gateway.openai import Ask
from haif.gateway.replies import job_view, model_list, model_object
from haif.gateway.service.embedding import Embedding, Room
from haif.gateway.service.exchange import Disconnected, Exchange, Message, Receive, Send
from haif.gateway.service.inference import Inference, Means
from haif.gateway.service.letters import Letters
from haif.gateway.service.requests import Requests
from haif.gateway.service.tenants import LiveDirectory
from haif.gateway.tenants import Tenant
from haif.protocol.jobs import ModelCard
from haif.telemetry import names

_log = logging.getLogger(__name__)
_TEXT: Final = b"text/plain; version=0.0.4; charset=utf-8"
_CLIENT_CLOSED: Final = 499  # nginx's code for a client that hung up: for metrics only
A = TypeVar("A", Ask, VectorAsk)
_MODEL_PREFIX: Final = "/v1/models/"
_JOB_PREFIX: Final = "/haif/v1/jobs/"


@dataclass(frozen=True, slots=True)
class _Route:
    method: str
    endpoint: str  # as metrics name it
    handler: Callable[[Exchange], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class _Asked(Generic[A]):
    ask: A
    tenant: str
    card: ModelCard | None  # None for a model that nobody offers
    body: bytes


class App:
    """An ASGI application. It is made inside a running event loop; `drain` ends what is still being answered."""

    def __init__(self, *, means: Means, tenants: LiveDirectory, requests: Requests, letters: Letters) -> None:
        self._means = means
        self._tenants = tenants
        self._requests = requests
        self._letters = letters
        self._open = 0
        self._draining = False
        self._empty = asyncio.Event()
        self._empty.set()
        self._routes = {
            "/v1/chat/completions": _Route("POST", "chat.completions", self._chat),
            "/v1/completions": _Route("POST", "completions", self._completion),
            "/v1/embeddings": _Route("POST", "embeddings", self._embeddings),
            "/v1/rerank": _Route("POST", "rerank", self._rerank),
            "/v1/models": _Route("GET", "models", self._models),
            "/healthz": _Route("GET", "health", self._health),
            "/readyz": _Route("GET", "health", self._ready),
            "/metrics": _Route("GET", "metrics", self._metrics),
        }
        self._room = Room()
        self._secret = means.entropy(32)  # so that no worker learns which tenant a scope is
        self._prefixes = {
            _MODEL_PREFIX: _Route("GET", "models", self._model),
            _JOB_PREFIX: _Route("GET", "other", self._job),
        }

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request, whatever happens."""
        exchange = Exchange(scope, receive, send, f"req_{self._means.entropy(12).hex()}")
        begun = self._means.clock.now()
        self._count(+1)
        route = None
        try:
            route = self._route(exchange)
            await route.handler(exchange)
        except HaifError as error:
            await self._refuse(exchange, error)
        except Disconnected:
            exchange.status = _CLIENT_CLOSED
        except Exception:  # noqa: BLE001 -- the top of a request's task: it reports, and the tenant is answered
            _log.exception("request %s failed", exchange.request_id)
            await exchange.refuse(INTERNAL)
        finally:
            self._count(-1)
            self._measure(exchange, route.endpoint if route else "other", self._means.clock.now() - begun)

    async def drain(self) -> None:
        """Refuse new requests, give running ones `limits.GATEWAY_DRAIN_SECONDS`, then end them with an error."""
        self._draining = True
        try:
            async with asyncio.timeout(limits.GATEWAY_DRAIN_SECONDS):
                await self._empty.wait()
        except TimeoutError:
            if not self._means.stopping.done():
                self._means.stopping.set_result(None)

    @property
    def open_requests(self) -> int:
        """How many requests are being answered now."""
        return self._open

    def _route(self, exchange: Exchange) -> _Route:
        """Where a request belongs. Raises `Rejected`: 404 for an unknown path, 405 for another method."""
        route = self._routes.get(exchange.path)
        for prefix, candidate in self._prefixes.items():
            if exchange.path.startswith(prefix) and len(exchange.path) > len(prefix):
                route = candidate
        if route is None:
            raise _unknown_path(exchange)
        if exchange.method != route.method:
            exchange.out.append((b"allow", route.method.encode()))
            message = f"{exchange.method} is not allowed here, only {route.method}"
            raise Rejected(message, code="method_not_allowed", status=405)
        return route

    # --- admission ----------------------------------------------------------------------------------------------------

    async def _admit(self, exchange: Exchange) -> Admitted:
        check_room(self._open - 1, self._draining)
        if exchange.letter is not None:
            tenant = self._tenants.directory.named(exchange.letter.tenant)
        else:
            tenant = await self._tenants.tenant_of(key_of(exchange.headers))
        return self._charge(exchange, tenant, 1)

    def _charge(self, exchange: Exchange, tenant: Tenant, requests: int) -> Admitted:
        admitted = charge(tenant, self._tenants.directory, self._means.clock.now(), requests)
        exchange.out = [each for each in exchange.out if not each[0].startswith(b"x-ratelimit-")]
        exchange.out += quota_headers(admitted)
        check_quota(admitted, requests)
        return admitted

    async def _refuse(self, exchange: Exchange, error: HaifError) -> None:
        self._means.telemetry.dropped(Dropped(error.reason, detail=exchange.path))
        if isinstance(error, OverQuota):
            self._means.telemetry.count(names.GATEWAY_RATE_LIMITED, dimension="requests")
        problem = problem_of(error, in_stream=exchange.streaming)
        if problem.status == 500:
            _log.error("request %s failed: %s", exchange.request_id, error)
        await exchange.refuse(problem)

    # --- inference ----------------------------------------------------------------------------------------------------

    async def _chat(self, exchange: Exchange) -> None:
        await self._infer(exchange, openai.parse_chat)

    async def _completion(self, exchange: Exchange) -> None:
        await self._infer(exchange, openai.parse_completion)

    async def _embeddings(self, exchange: Exchange) -> None:
        await self._vectors(exchange, embeddings.parse_embeddings)

    async def _rerank(self, exchange: Exchange) -> None:
        await self._vectors(exchange, embeddings.parse_rerank)

    async def _infer(self, exchange: Exchange, parse: Callable[[bytes, Nonce], Ask]) -> None:
        asked = await self._asked(exchange, parse)
        tenant, body = asked.tenant, asked.body
        inference = Inference(self._means, exchange, asked.ask, tenant=tenant, model=exchange.model)
        request = keyed(self._requests.secret, tenant, exchange.headers, exchange.path, body)
        try:
            if request is None:
                await inference.answer()
            else:
                await self._once(exchange, request, inference)
        except HaifError:
            await self._bury(exchange, inference, tenant, body)
            raise

    async def _vectors(self, exchange: Exchange, parse: Callable[[bytes, Nonce], VectorAsk]) -> None:
        if HEADER in exchange.headers:
            raise Unsupported(
                "no Idempotency-Key is kept for vectors: asking again gives the same", param="Idempotency-Key"
            )
        asked = await self._asked(exchange, parse)
        embedding = Embedding(
            self._means, exchange, asked.ask, tenant=asked.tenant, model=exchange.model, room=self._room,
            dimensions=asked.card.dimensions if asked.card else 0,
        )  # fmt: skip
        await embedding.answer()

    async def _asked(self, exchange: Exchange, parse: Callable[[bytes, Nonce], A]) -> _Asked[A]:
        """What an admitted tenant asks for, of a model that can do it as far as is known.

        Raises `Unsupported` for one that cannot.
        """
        admitted = await self._admit(exchange)
        check_body(exchange.headers)
        body = await exchange.body()
        ask = parse(body, Nonce(self._means.entropy(Nonce.size)))
        if isinstance(ask, Ask) and ask.choices > 1:
            check_choices(admitted, ask.choices)
            self._charge(exchange, admitted.tenant, ask.choices - 1)
        tenant = admitted.tenant.name
        ask = ask.within(digest("haif v1 tenant scope", self._secret, tenant.encode()))
        ask = ask.confined(admitted.tenant.sandbox_min).executed(self._means.execution)
        for card in self._means.mesh.models:
            if card.name == ask.model:
                exchange.model = ask.model
                check_task(card, ask.task)
                return _Asked(ask, tenant, card, body)
        return _Asked(ask, tenant, None, body)

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

    # --- models and jobs ----------------------------------------------------------------------------------------------

    async def _models(self, exchange: Exchange) -> None:
        await self._admit(exchange)
        await exchange.reply(model_list(list(self._means.mesh.models)))

    async def _model(self, exchange: Exchange) -> None:
        await self._admit(exchange)
        wanted = exchange.path.removeprefix(_MODEL_PREFIX)
        for card in self._means.mesh.models:
            if card.name == wanted:
                return await exchange.reply(msgspec.json.encode(model_object(card)))
        raise UnknownModel(f"the model {wanted[: limits.MODEL_NAME_CHARS_MAX]!r} does not exist here", param="model")

    async def _job(self, exchange: Exchange) -> None:
        """A job of the calling tenant. Another tenant's job looks exactly like none."""
        admitted = await self._admit(exchange)
        try:
            job = JobId.parse(exchange.path.removeprefix(_JOB_PREFIX))
        except ValueError as error:
            raise Rejected(str(error), code="invalid_value", param="job") from None
        view = await self._means.mesh.show(job)
        if view is None or view.tenant != admitted.tenant.name:
            raise Rejected(f"there is no job {job}", code="not_found", status=404, param="job")
        await exchange.reply(job_view(view))

    # --- for the operator ---------------------------------------------------------------------------------------------

    async def _health(self, exchange: Exchange) -> None:
        await exchange.reply(b'{"status":"ok"}')

    async def _ready(self, exchange: Exchange) -> None:
        """Ready is: an orchestrator answers, and at least one model has a live worker."""
        ready = sorted(card.name for card in self._means.mesh.models if card.workers > 0)
        state = "draining" if self._draining else "ready" if ready else "waiting for a worker"
        if state != "ready":
            exchange.out.append((b"retry-after", b"%d" % RETRY_SECONDS))
        body = msgspec.json.encode({"status": state, "models": ready})
        await exchange.reply(body, status=200 if state == "ready" else 503)

    async def _metrics(self, exchange: Exchange) -> None:
        """Metrics say nothing of any tenant, yet are for this machine only; scrape `--metrics-port` from elsewhere."""
        if exchange.client is None or not ipaddress.ip_address(exchange.client[0]).is_loopback:
            raise _unknown_path(exchange)
        await exchange.reply(self._means.telemetry.exposition(), kind=_TEXT)

    # --- bookkeeping --------------------------------------------------------------------------------------------------

    def _count(self, change: int) -> None:
        self._open += change
        self._means.telemetry.gauge(names.GATEWAY_INFLIGHT, self._open)
        if self._open:
            self._empty.clear()
        else:
            self._empty.set()

    def _measure(self, exchange: Exchange, endpoint: str, seconds: float) -> None:
        model = exchange.model
        telemetry = self._means.telemetry
        telemetry.count(names.GATEWAY_REQUESTS, endpoint=endpoint, model=model, code=str(exchange.status))
        if endpoint in {"chat.completions", "completions", "embeddings", "rerank"}:
            telemetry.observe(names.GATEWAY_REQUEST_DURATION, seconds, model=model)


def _unknown_path(exchange: Exchange) -> Rejected:
    return Rejected(f"there is nothing at {exchange.path[:200]}", code="not_found", status=404)
