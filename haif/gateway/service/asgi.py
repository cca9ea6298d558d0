"""The HTTP side: routes, and one place where every error becomes an answer in the words of its dialect."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

import msgspec

from haif.base import limits
from haif.base.errors import Dropped, HaifError, OverQuota, UnknownModel
from haif.base.ids import JobId
from haif.gateway import openapi
from haif.gateway.embeddings import parse_embeddings, parse_rerank
from haif.gateway.errors import (
    INTERNAL,
    RETRY_SECONDS,
    BudgetSpent,
    OverAddress,
    OverTokens,
    Rejected,
    TooManyAtOnce,
    problem_of,
)
from haif.gateway.messages import check_version, parse_message
from haif.gateway.messages_replies import broken, refused
from haif.gateway.openai import parse_chat, parse_completion
from haif.gateway.operations import OPERATIONS, Operation
from haif.gateway.replies import job_view, model_list, model_object
from haif.gateway.responses import parse_response
from haif.gateway.service.asking import Asking
from haif.gateway.service.door import Door
from haif.gateway.service.exchange import Disconnected, Exchange, Message, Receive, Send
from haif.gateway.service.inference import Means
from haif.gateway.service.letters import Letters
from haif.gateway.service.live import LiveDirectory
from haif.gateway.service.requests import Requests
from haif.gateway.service.sockets import Sockets
from haif.gateway.service.treasury import Treasury
from haif.telemetry import names

_log = logging.getLogger(__name__)
_CLIENT_CLOSED: Final = 499  # nginx's code for a client that hung up: for metrics only
_TIMED: Final = frozenset({"chat.completions", "completions", "responses", "messages", "embeddings", "rerank"})
_MESSAGES: Final = "/v1/messages"
_NOT_HERE: Final = {
    "/v1/messages/count_tokens": "tokens are not counted here: only workers have the model's tokenizer, "
    "and an answer's usage says what its prompt had",
}
_DIMENSION: Final[dict[type[HaifError], str]] = {
    OverAddress: "address", OverTokens: "tokens", TooManyAtOnce: "streams", BudgetSpent: "budget",
}  # fmt: skip
_MODEL_PREFIX: Final = "/v1/models/"
_JOB_PREFIX: Final = "/haif/v1/jobs/"

Handler = Callable[[Exchange], Awaitable[None]]


class App:
    """An ASGI application. It is made inside a running event loop; `drain` ends what is still being answered."""

    def __init__(
        self, *, means: Means, tenants: LiveDirectory, treasury: Treasury, requests: Requests, letters: Letters,
        address_rpm: int, origins: tuple[str, ...],
    ) -> None:  # fmt: skip
        self._means = means
        self._door = Door(means, tenants, treasury, address_rpm)
        self._sockets = Sockets(self, tenants, origins)
        self.asking = asking = Asking(means, self._door, requests, letters)
        handlers: dict[str, Handler] = {
            "/v1/chat/completions": partial(asking.infer, parse=parse_chat),
            "/v1/completions": partial(asking.infer, parse=parse_completion),
            "/v1/responses": partial(asking.infer, parse=parse_response),
            _MESSAGES: self._message,
            "/v1/embeddings": partial(asking.vectors, parse=parse_embeddings),
            "/v1/rerank": partial(asking.vectors, parse=parse_rerank),
            "/v1/models": self._models, f"{_MODEL_PREFIX}{{model}}": self._model,
            f"{_JOB_PREFIX}{{job}}": self._job,
            "/openapi.json": self._document, "/healthz": self._health, "/readyz": self._ready,
        }  # fmt: skip
        routes = {each.path.partition("{")[0]: (each, handlers[each.path]) for each in OPERATIONS}
        self._routes = {path: route for path, route in routes.items() if not path.endswith("/")}
        self._prefixes = {path: route for path, route in routes.items() if path.endswith("/")}

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request, whatever happens; or serve a WebSocket until it ends."""
        if scope["type"] == "websocket":
            await self._sockets(scope, receive, send)
            return
        exchange = Exchange(scope, receive, send, f"req_{self._means.entropy(12).hex()}")
        begun = self._means.clock.now()
        self._door.count(+1)
        if exchange.path == _MESSAGES or exchange.path.startswith(f"{_MESSAGES}/"):
            exchange.refusal, exchange.broken = refused, broken
            exchange.out.append((b"request-id", exchange.request_id.encode()))
        try:
            operation, handler = self._route(exchange)
            exchange.endpoint = operation.endpoint
            await handler(exchange)
        except HaifError as error:
            await self._refuse(exchange, error)
        except Disconnected:
            exchange.status = _CLIENT_CLOSED
        except Exception:  # noqa: BLE001 -- the top of a request's task: it reports, and the tenant is answered
            _log.exception("request %s failed", exchange.request_id)
            await exchange.refuse(INTERNAL)
        finally:
            self._door.count(-1)
            self._measure(exchange, self._means.clock.now() - begun)

    async def drain(self) -> None:
        """Refuse new requests, give running ones `limits.GATEWAY_DRAIN_SECONDS`, then end them with an error."""
        await self._door.drain()

    @property
    def open_requests(self) -> int:
        """How many requests are being answered now."""
        return self._door.open_requests

    def _route(self, exchange: Exchange) -> tuple[Operation, Handler]:
        """Where a request belongs. Raises `Rejected`: 404 for an unknown path, 405 for another method."""
        route = self._routes.get(exchange.path)
        for prefix, candidate in self._prefixes.items():
            if exchange.path.startswith(prefix) and len(exchange.path) > len(prefix):
                route = candidate
        if route is None:
            raise _unknown_path(exchange)
        method = route[0].method
        if exchange.method != method:
            exchange.out.append((b"allow", method.encode()))
            message = f"{exchange.method} is not allowed here, only {method}"
            raise Rejected(message, code="method_not_allowed", status=405)
        return route

    async def _refuse(self, exchange: Exchange, error: HaifError) -> None:
        self._means.telemetry.dropped(Dropped(error.reason, detail=exchange.path))
        if isinstance(error, OverQuota):
            self._means.telemetry.count(names.GATEWAY_RATE_LIMITED, dimension=_DIMENSION.get(type(error), "requests"))
        problem = problem_of(error, in_stream=exchange.streaming)
        if problem.status == 500:
            _log.error("request %s failed: %s", exchange.request_id, error)
        await exchange.refuse(problem)

    async def _message(self, exchange: Exchange) -> None:
        check_version(exchange.headers)
        await self.asking.infer(exchange, parse_message)

    # --- models and jobs ----------------------------------------------------------------------------------------------

    async def _models(self, exchange: Exchange) -> None:
        grant = (await self._door.admit(exchange)).grant
        await exchange.reply(model_list([card for card in self._means.mesh.models if grant.allows(card.name)]))

    async def _model(self, exchange: Exchange) -> None:
        grant = (await self._door.admit(exchange)).grant
        wanted = exchange.path.removeprefix(_MODEL_PREFIX)
        grant.check_model(wanted[: limits.MODEL_NAME_CHARS_MAX])
        for card in self._means.mesh.models:
            if card.name == wanted:
                return await exchange.reply(msgspec.json.encode(model_object(card)))
        raise UnknownModel(f"the model {wanted[: limits.MODEL_NAME_CHARS_MAX]!r} does not exist here", param="model")

    async def _job(self, exchange: Exchange) -> None:
        """A job of the calling tenant. Another tenant's job looks exactly like none."""
        admitted = await self._door.admit(exchange)
        try:
            job = JobId.parse(exchange.path.removeprefix(_JOB_PREFIX))
        except ValueError as error:
            raise Rejected(str(error), code="invalid_value", param="job") from None
        view = await self._means.mesh.show(job)
        if view is None or view.tenant != admitted.tenant.name:
            raise Rejected(f"there is no job {job}", code="not_found", status=404, param="job")
        await exchange.reply(job_view(view))

    # --- for the operator ---------------------------------------------------------------------------------------------

    async def _document(self, exchange: Exchange) -> None:
        await exchange.reply(openapi.encoded())

    async def _health(self, exchange: Exchange) -> None:
        await exchange.reply(b'{"status":"ok"}')

    async def _ready(self, exchange: Exchange) -> None:
        """Ready is: an orchestrator answers, and at least one model has a live worker."""
        ready = sorted(card.name for card in self._means.mesh.models if card.workers > 0)
        state = "draining" if self._door.draining else "ready" if ready else "waiting for a worker"
        if state != "ready":
            exchange.out.append((b"retry-after", b"%d" % RETRY_SECONDS))
        body = msgspec.json.encode({"status": state, "models": ready})
        await exchange.reply(body, status=200 if state == "ready" else 503)

    # --- bookkeeping --------------------------------------------------------------------------------------------------

    def _measure(self, exchange: Exchange, seconds: float) -> None:
        model, endpoint = exchange.model, exchange.endpoint
        telemetry = self._means.telemetry
        telemetry.count(names.GATEWAY_REQUESTS, endpoint=endpoint, model=model, code=str(exchange.status))
        if endpoint in _TIMED:
            telemetry.observe(names.GATEWAY_REQUEST_DURATION, seconds, model=model)


def _unknown_path(exchange: Exchange) -> Rejected:
    why = _NOT_HERE.get(exchange.path, f"there is nothing at {exchange.path[:200]}")
    return Rejected(why, code="not_found", status=404)
