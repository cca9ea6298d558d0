"""Every code an answer may carry is provoked once, and the official client, unchanged, sees class, type and code."""

import ast
import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import openai
import pytest

import haif.gateway
from haif.base import limits
from haif.base.errors import (
    BadProof,
    Conflict,
    ConnectionLost,
    ContextTooLong,
    EngineDied,
    Forbidden,
    Malformed,
    Misuse,
    ModelLoading,
    MustWait,
    NoWorker,
    Timeout,
)
from haif.gateway.errors import _CATALOGUE, _IN_STREAM, _SPECIFIC
from haif.gateway.tenants import ANYTHING, Scope, Tenant
from tests.support.scripted_mesh import Attempt, Hang, ScriptedMesh

Provoke = Callable[[Any, ScriptedMesh, pytest.MonkeyPatch], Awaitable[Any]]
KEYED = {"extra_headers": {"Idempotency-Key": "k1"}}


def chat(**options: Any) -> Provoke:
    return lambda house, mesh, _: house.chat(**options)


def worker(error: Any, *before: Any, **options: Any) -> Provoke:
    """Every worker that is asked fails so."""

    async def provoke(house: Any, mesh: ScriptedMesh, _: pytest.MonkeyPatch) -> Any:
        mesh.attempts = [Attempt([*before, error])] * limits.ATTEMPTS_MAX
        made = await house.chat(**options)
        return [chunk async for chunk in made]

    return provoke


def raw(content: bytes, **headers: str) -> Provoke:
    async def provoke(house: Any, _: ScriptedMesh, __: pytest.MonkeyPatch) -> Any:
        sent = {"Content-Type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
        return await house.client.post("/chat/completions", cast_to=object, content=content, options={"headers": sent})

    return provoke


async def revoked(house: Any, _: ScriptedMesh, __: pytest.MonkeyPatch) -> Any:
    await house.store.revoke("acme")
    await house.front.tenants.refresh()
    return await house.chat()


async def slow_body(house: Any, _: ScriptedMesh, patch: pytest.MonkeyPatch) -> Any:
    patch.setattr(limits, "HTTP_BODY_SECONDS", 0.02)

    async def never_whole() -> Any:
        """A body of which the rest comes when the gateway has given it up."""
        yield b"{"
        for is_open in (False, True):
            while bool(house.front.app.open_requests) == is_open:
                await asyncio.sleep(0)

    headers = {"Content-Type": "application/json"}
    return await house.client.post(
        "/chat/completions", cast_to=object, content=never_whole(), options={"headers": headers}
    )


async def still_answered(house: Any, mesh: ScriptedMesh, _: pytest.MonkeyPatch) -> Any:
    mesh.attempts = [Attempt([Hang()])]
    first = asyncio.create_task(house.chat(**KEYED))
    try:
        await mesh.running.wait()
        return await house.chat(**KEYED)
    finally:
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)


async def answer_gone(house: Any, _: ScriptedMesh, patch: pytest.MonkeyPatch) -> Any:
    patch.setattr(limits, "ANSWER_KEPT_BYTES_MAX", 1)
    await house.chat(**KEYED)
    while True:
        try:
            return await house.chat(**KEYED)
        except openai.ConflictError as error:  # the first may not have left the gateway yet
            if error.code != "idempotency_in_progress":
                raise


async def key_reused(house: Any, _: ScriptedMesh, __: pytest.MonkeyPatch) -> Any:
    await house.chat(**KEYED)
    return await house.chat(**KEYED, temperature=0)


async def full(house: Any, _: ScriptedMesh, patch: pytest.MonkeyPatch) -> Any:
    patch.setattr(limits, "GATEWAY_STREAMS_MAX", 0)
    return await house.chat()


async def late(house: Any, mesh: ScriptedMesh, _: pytest.MonkeyPatch) -> Any:
    mesh.attempts = [Attempt([Hang()])]
    return await house.chat(extra_headers={"x-haif-deadline-ms": "20"})


def scoped(scope: Scope = ANYTHING, milliseconds: int | None = None, **limits_of_it: Any) -> Provoke:
    """A tenant with these limits asks with a key of this scope, until which it has passed."""

    async def provoke(house: Any, mesh: ScriptedMesh, _: pytest.MonkeyPatch) -> Any:
        expires = None if milliseconds is None else house.front._clock.wall() + milliseconds
        _, key = await house.store.create(Tenant("narrow", 60, 10, **limits_of_it), scope, expires)
        while expires is not None and house.front._clock.wall() < expires:
            await asyncio.sleep(0)
        asked = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}
        return await house.client.with_options(api_key=key).chat.completions.create(**asked)

    return provoke


async def crowded(house: Any, mesh: ScriptedMesh, _: pytest.MonkeyPatch) -> Any:
    mesh.attempts = [Attempt([Hang()])]
    _, key = await house.store.create(Tenant("narrow", 60, 10, concurrency=1))
    client = house.client.with_options(api_key=key)
    asked = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}
    first = asyncio.create_task(client.chat.completions.create(**asked))
    try:
        await mesh.running.wait()
        return await client.chat.completions.create(**asked)
    finally:
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)


async def hasty(house: Any, _: ScriptedMesh, __: pytest.MonkeyPatch) -> Any:
    _, key = await house.store.create(Tenant("hasty", 1, 1))
    for _ in range(2):
        await house.client.with_options(api_key=key).models.list()


IMAGE: list[Any] = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]
BUSY, SERVER, INVALID = "service_unavailable_error", "server_error", "invalid_request_error"
ERRORS: list[tuple[str, type[openai.APIError], int, str, Provoke]] = [
    ("invalid_json", openai.BadRequestError, 400, INVALID, raw(b"{")),
    ("missing_required_parameter", openai.BadRequestError, 400, INVALID, raw(b"{}")),
    ("invalid_type", openai.BadRequestError, 400, INVALID, chat(temperature="hot")),
    ("invalid_value", openai.BadRequestError, 400, INVALID, chat(temperature=5)),
    ("unsupported_parameter", openai.BadRequestError, 400, INVALID, chat(store=True)),
    ("unsupported_content", openai.BadRequestError, 400, INVALID, chat(messages=IMAGE)),
    ("context_length_exceeded", openai.BadRequestError, 400, INVALID, worker(ContextTooLong("2000 into 512"))),
    ("invalid_api_key", openai.AuthenticationError, 401, INVALID, chat(extra_headers={"Authorization": "Bearer x"})),
    ("expired_api_key", openai.AuthenticationError, 401, INVALID, scoped(milliseconds=50)),
    ("ip_not_authorized", openai.AuthenticationError, 401, INVALID, scoped(Scope(networks=("192.0.2.0/24",)))),
    ("policy_denied", openai.PermissionDeniedError, 403, "permission_error", scoped(Scope(endpoints=("embeddings",)))),
    ("model_not_allowed", openai.PermissionDeniedError, 403, "permission_error", scoped(Scope(models=("other",)))),
    ("model_not_allowed", openai.PermissionDeniedError, 403, "permission_error", scoped(models=("other",))),
    ("concurrency_limit_exceeded", openai.RateLimitError, 429, "rate_limit_error", crowded),
    ("insufficient_quota", openai.RateLimitError, 429, "insufficient_quota", scoped(budget=1)),
    ("revoked_api_key", openai.AuthenticationError, 401, INVALID, revoked),
    ("model_not_found", openai.NotFoundError, 404, INVALID, chat(model="nobody")),
    ("not_found", openai.NotFoundError, 404, INVALID, lambda house, *_: house.client.files.list()),
    ("method_not_allowed", openai.APIStatusError, 405, INVALID, lambda house, *_: house.client.models.delete("tiny")),
    ("request_body_timeout", openai.APIStatusError, 408, "timeout_error", slow_body),
    ("idempotency_in_progress", openai.ConflictError, 409, "conflict_error", still_answered),
    ("idempotency_answer_lost", openai.ConflictError, 409, "conflict_error", answer_gone),
    ("conflict", openai.ConflictError, 409, INVALID, worker(Conflict("another is there"))),
    ("payload_too_large", openai.APIStatusError, 413, INVALID, raw(b" " * (limits.HTTP_BODY_BYTES_MAX + 1))),
    ("unsupported_media_type", openai.APIStatusError, 415, INVALID, raw(b"{}", Content_Type="text/plain")),
    ("headers_too_large", openai.APIStatusError, 431, INVALID, chat(extra_headers={"x-long": "x" * 20_000})),
    ("idempotency_key_reused", openai.UnprocessableEntityError, 422, INVALID, key_reused),
    ("rate_limit_exceeded", openai.RateLimitError, 429, "rate_limit_error", hasty),
    ("internal_error", openai.InternalServerError, 500, SERVER, worker(Misuse("a bug"))),
    ("worker_failed", openai.InternalServerError, 502, SERVER, worker(EngineDied("killed"))),
    ("bad_worker_response", openai.InternalServerError, 502, SERVER, worker(Malformed("not a chunk"))),
    ("verification_failed", openai.InternalServerError, 502, SERVER, worker(BadProof("another answer"))),
    ("server_is_overloaded", openai.InternalServerError, 503, BUSY, full),
    ("server_is_overloaded", openai.InternalServerError, 503, BUSY, worker(MustWait("in a moment", retry_after=1.0))),
    ("no_worker_available", openai.InternalServerError, 503, BUSY, chat(model="asleep")),
    ("no_worker_available", openai.InternalServerError, 503, BUSY, worker(NoWorker("none"))),
    ("model_loading", openai.InternalServerError, 503, BUSY, worker(ModelLoading("soon"))),
    ("deadline_exceeded", openai.InternalServerError, 504, "timeout_error", late),
    ("deadline_exceeded", openai.InternalServerError, 504, "timeout_error", worker(Timeout("late"))),
]  # fmt: skip
ELSEWHERE = {
    "request_header_timeout",  # no client sends half of its headers: `test_server.py`
    "worker_lost",  # in a stream: below
    "read_only",
    "version_changed",
    "version_required",  # told to operators alone: `test_admin.py`
}


@pytest.mark.parametrize(("code", "kind", "status", "type_", "provoke"), ERRORS, ids=[each[0] for each in ERRORS])
async def test_an_error_is_seen_by_the_official_client_as_what_it_is(
    house: Any, mesh: ScriptedMesh, monkeypatch: pytest.MonkeyPatch, code: str, kind: type[openai.APIError],
    status: int, type_: str, provoke: Provoke,
) -> None:  # fmt: skip
    with pytest.raises(openai.APIStatusError) as caught:
        await provoke(house, mesh, monkeypatch)
    error = caught.value
    assert (code, type_, status) == (error.code, error.type, error.status_code)
    assert isinstance(error, kind)
    assert ("retry-after" in error.response.headers) == (
        (status in (429, 503) and code != "insufficient_quota") or code == "idempotency_in_progress"
    )


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConnectionLost("gone"), "worker_lost"), (EngineDied("killed"), "worker_lost"),
        (Timeout("late"), "deadline_exceeded"), (BadProof("another answer"), "verification_failed"),
        (Malformed("not a chunk"), "bad_worker_response"),
    ],
)  # fmt: skip
async def test_an_error_in_a_stream_is_an_api_error_with_its_code(
    house: Any, mesh: ScriptedMesh, monkeypatch: pytest.MonkeyPatch, error: Any, code: str
) -> None:
    with pytest.raises(openai.APIError) as caught:
        await worker(error, "half ", stream=True)(house, mesh, monkeypatch)
    assert caught.value.code == code


async def test_a_worker_that_refuses_its_ticket_is_not_the_tenants_lack_of_permission(
    house: Any, mesh: ScriptedMesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(openai.InternalServerError) as caught:
        await worker(Forbidden("not your ticket"))(house, mesh, monkeypatch)
    assert caught.value.code == "bad_worker_response"


def test_every_code_of_the_catalogue_is_provoked() -> None:
    spoken = {code for _, _, code in (*_CATALOGUE.values(), *_SPECIFIC.values())} | set(_IN_STREAM.values())
    for path in Path(haif.gateway.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                codes = [each.value for each in node.keywords if each.arg == "code"]
                if getattr(node.func, "id", "") == "Problem" and len(node.args) > 2:
                    codes.append(node.args[2])
                spoken |= {each.value for each in codes if isinstance(each, ast.Constant)}
    assert spoken == {each[0] for each in ERRORS} - {"invalid_type"} | ELSEWHERE
