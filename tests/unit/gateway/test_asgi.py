"""The official client, over real HTTP, against a mesh that does what the test says."""

import asyncio
import base64
import dataclasses
import json
from functools import partial
from typing import Any

import openai
import pytest
from msgspec.structs import replace

from haif.base import limits
from haif.base.clock import WallTime
from haif.base.errors import (
    BadSignature,
    ConnectionLost,
    ContextTooLong,
    DigestMismatch,
    EngineDied,
    Expired,
    Forbidden,
    HaifError,
    JournalBroken,
    Malformed,
    Misuse,
    ModelLoading,
    NoWorker,
    Overloaded,
    Oversize,
    Reason,
    Replayed,
    Timeout,
    WrongState,
)
from haif.base.ids import JobId
from haif.gateway.tenants import Tenant
from haif.protocol.inference import NO_TOKEN, Answer, Chunk, OutputHash
from haif.protocol.jobs import JobView
from haif.protocol.receipts import check_bundle
from haif.protocol.sandbox import Sandbox
from haif.validator.verdict import Undecided, signed
from tests.support.scripted_mesh import MODEL, STRANGER, WORKER, Attempt, Hang, ScriptedMesh
from tests.unit.validator.cases import VALIDATOR, case

BODY: dict[str, Any] = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}


def events(text: str) -> list[Any]:
    """The data of each event; every one must be framed exactly."""
    assert text.endswith("\n\n")
    blocks = text[:-2].split("\n\n")
    return [json.loads(block[6:]) if block != "data: [DONE]" else "[DONE]" for block in blocks if block[0] != ":"]


# --- answers ----------------------------------------------------------------------------------------------------------


async def test_a_chat_is_answered_with_usage_and_a_proof_that_checks(house: Any) -> None:
    answer = await house.chat(seed=5, temperature=0)
    choice = answer.choices[0]
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", "Hello world", "stop")
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (5, 2, 7)
    checked = check_bundle(answer.model_extra["haif"], "Hello world")
    assert checked.receipt == house.mesh.finalised[0]
    assert str(MODEL)[:8] in answer.system_fingerprint
    assert house.mesh.seeds == [5]
    assert house.mesh.requests[0].sampling.temperature == 0.0
    assert house.mesh.failures == []


async def test_a_stream_has_one_id_a_role_first_and_done_last(house: Any) -> None:
    reply = await house.post(BODY | {"stream": True})
    first, *middle, last, done = events(reply.text)
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": "", "refusal": None}
    assert [event["choices"][0]["delta"]["content"] for event in middle] == ["Hello", " world"]
    assert (last["choices"][0]["finish_reason"], last["choices"][0]["delta"]) == ("stop", {})
    assert len({(event["id"], event["created"], event["model"]) for event in (first, *middle, last)}) == 1
    check_bundle(last["haif"], "Hello world")
    assert done == "[DONE]"
    assert all("usage" not in event for event in (first, *middle, last))


async def test_the_official_client_reads_the_stream(house: Any) -> None:
    chunks = [chunk async for chunk in await house.chat(stream=True, stream_options={"include_usage": True})]
    assert "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices) == "Hello world"
    assert (chunks[-1].choices, chunks[-1].usage.total_tokens) == ([], 7)
    assert all(chunk.usage is None for chunk in chunks[:-1])


async def test_a_completion_is_answered_whole_and_streamed(house: Any) -> None:
    whole = await house.client.completions.create(model="tiny", prompt="Once")
    assert (whole.choices[0].text, whole.choices[0].finish_reason, whole.usage.total_tokens) == (
        "Hello world",
        "stop",
        7,
    )
    # Not strictly: the client's type wants a finish_reason in every event, where OpenAI itself sends null.
    async with openai.AsyncOpenAI(base_url=f"{house.url}/v1", api_key=house.key, max_retries=0) as lenient:
        stream = await lenient.completions.create(model="tiny", prompt="Once", stream=True)
        chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].text for chunk in chunks) == "Hello world"
    assert (chunks[-1].choices[0].finish_reason, {chunk.object for chunk in chunks}) == ("stop", {"text_completion"})


@pytest.mark.parametrize("text", ['"quotes" \\ and\nlines', "ünïcödé 🦉", "data: [DONE]\n\n", "\x00\x1f\u2028", ""])
async def test_any_text_survives_the_framing(house: Any, mesh: ScriptedMesh, text: str) -> None:
    mesh.attempts = [Attempt(["a", text, "b"])]
    chunks = [chunk async for chunk in await house.chat(stream=True)]
    assert "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices) == f"a{text}b"


async def test_an_answer_without_a_token_is_still_an_answer(house: Any, mesh: ScriptedMesh) -> None:
    mesh.attempts = [Attempt([])]
    assert (await house.chat()).choices[0].message.content == ""
    first, _, _ = events((await house.post(BODY | {"stream": True})).text)
    assert first["choices"][0]["delta"]["role"] == "assistant"


async def test_headers_name_request_job_worker_quota_and_what_was_ignored(house: Any) -> None:
    for stream in (False, True):
        headers = (await house.post(BODY | {"stream": stream, "user": "u", "store": False})).headers
        assert headers["x-request-id"].startswith("req_")
        assert JobId.parse(headers["x-haif-job"])
        assert headers["x-haif-worker"] == str(WORKER.peer)
        assert headers["x-haif-model-digest"] == str(MODEL)
        assert headers["x-haif-ignored-params"] == "user, store"
        assert headers["x-ratelimit-limit-requests"] == "10000"
        assert headers["x-ratelimit-remaining-requests"].isdigit()
        assert headers["x-ratelimit-reset-requests"].endswith("s")


async def test_the_callers_trace_is_continued(house: Any, mesh: ScriptedMesh) -> None:
    given = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"
    reply = await house.post(BODY, traceparent=given)
    assert given[:36] == reply.headers["traceparent"][:36] == mesh.traceparents[0][:36]
    other = await house.post(BODY, traceparent="00-nonsense")
    assert other.status_code == 200


# --- models, jobs, operator -------------------------------------------------------------------------------------------


async def test_models_are_listed_and_shown(house: Any) -> None:
    listed = [model async for model in house.client.models.list()]
    assert [model.id for model in listed] == ["tiny", "asleep"]
    assert [model.model_extra["haif"]["tasks"] for model in listed] == [["chat", "completion"], []]
    one = await house.client.models.retrieve("tiny")
    assert (one.owned_by, one.created, one.model_extra["haif"]["workers"]) == ("haif", 1_700_000_000, 1)
    with pytest.raises(openai.NotFoundError):
        await house.client.models.retrieve("nothing")


async def test_a_job_is_shown_to_its_tenant_only(house: Any, mesh: ScriptedMesh) -> None:
    job = JobId(b"j" * 16)
    mesh.jobs[job] = JobView(job, "acme", "tiny", "finalised", 1, WORKER.peer, "", b"receipt", b"counter")
    mine = await house.http.get(f"/haif/v1/jobs/{job}", headers={"authorization": f"Bearer {house.key}"})
    assert (mine.json()["state"], mine.json()["worker"]) == ("finalised", str(WORKER.peer))
    assert base64.urlsafe_b64decode(mine.json()["receipt"] + "==") == b"receipt"
    _, other = await house.store.create(Tenant("nosy", 60, 60))
    refused = await house.http.get(f"/haif/v1/jobs/{job}", headers={"authorization": f"Bearer {other}"})
    unknown = await house.http.get(f"/haif/v1/jobs/{'0' * 32}", headers={"authorization": f"Bearer {other}"})
    assert (refused.status_code, unknown.status_code) == (404, 404)
    assert refused.json()["error"]["code"] == unknown.json()["error"]["code"] == "not_found"
    wrong = await house.http.get("/haif/v1/jobs/xyz", headers={"authorization": f"Bearer {other}"})
    assert wrong.status_code == 400


async def test_a_tenant_sees_what_validators_said_of_its_answer_and_nothing_else(
    house: Any, mesh: ScriptedMesh
) -> None:
    job = case(1).bundle.receipt.payload.job
    ours, others = (signed(VALIDATOR, case(number), Undecided("recipe"), WallTime(5)).evidence for number in (1, 2))
    mesh.jobs[job] = JobView(
        job, "acme", "tiny", "finalised", 1, WORKER.peer, "", case(1).bundle.receipt.evidence, b"", [b"?", others, ours]
    )
    shown = await house.http.get(f"/haif/v1/jobs/{job}", headers={"authorization": f"Bearer {house.key}"})
    (told,) = shown.json()["verdicts"]
    assert (str(VALIDATOR.peer), "undecided", "recipe") == (told["validator"], told["finding"], told["cause"])
    assert ours == base64.urlsafe_b64decode(told["verdict"] + "==")


async def test_health_is_told_to_anyone_and_readiness_needs_a_worker(house: Any, mesh: ScriptedMesh) -> None:
    assert (await house.http.get("/healthz")).json() == {"status": "ok"}
    assert (await house.http.get("/readyz")).status_code == 200
    mesh.models = mesh.models[1:]
    waiting = await house.http.get("/readyz")
    assert (waiting.status_code, waiting.json()["status"]) == (503, "waiting for a worker")


async def test_metrics_are_not_told_where_tenants_ask(house: Any) -> None:
    assert (await house.http.get("/metrics")).status_code == 404


async def test_metrics_count_requests_by_endpoint_model_and_code(house: Any) -> None:
    await house.chat()
    with pytest.raises(openai.NotFoundError):
        await house.chat(model="made-up-name")
    await house.counted('haif_gateway_requests_total{code="200",endpoint="chat.completions",model="tiny"} 1.0')
    await house.counted('haif_gateway_requests_total{code="404",endpoint="chat.completions",model="unknown"} 1.0')
    text = house.metrics()
    assert 'haif_gateway_tokens_out_total{model="tiny"} 2.0' in text
    assert f'haif_dropped_total{{reason="{Reason.UNKNOWN_MODEL}"}} 1.0' in text
    assert "made-up-name" not in text


# --- refusals ---------------------------------------------------------------------------------------------------------


async def test_a_wrong_missing_or_revoked_key_is_an_authentication_error(house: Any) -> None:
    for key in ("haif-wrong", "haif-" + "A" * 43):
        with pytest.raises(openai.AuthenticationError) as caught:
            await house.client.with_options(api_key=key).models.list()
        assert caught.value.code == "invalid_api_key"
    assert (await house.http.get("/v1/models")).status_code == 401
    await house.store.revoke("acme")
    await house.front.tenants.refresh()
    with pytest.raises(openai.AuthenticationError) as caught:
        await house.chat()
    assert caught.value.code == "revoked_api_key"
    assert f'haif_dropped_total{{reason="{Reason.UNAUTHENTICATED}"}} 4.0' in house.metrics()


async def test_a_key_made_a_moment_ago_works_at_once(house: Any) -> None:
    _, key = await house.store.create(Tenant("late", 60, 60))
    assert (await house.client.with_options(api_key=key).models.list()).data


async def test_over_quota_is_a_rate_limit_error_that_says_when_to_come_back(a_house: Any) -> None:
    async with a_house(rpm=1, burst=2) as house:
        assert (await house.chat()).choices
        second = await house.post(BODY)
        assert second.headers["x-ratelimit-remaining-requests"] == "0"
        with pytest.raises(openai.RateLimitError) as caught:
            await house.chat()
        headers = caught.value.response.headers
        assert caught.value.code == "rate_limit_exceeded"
        assert 1 <= int(headers["retry-after"]) <= 60
        assert int(headers["retry-after-ms"]) <= 60_000
        text = house.metrics()
        assert 'haif_gateway_rate_limited_total{dimension="requests"} 1.0' in text
        assert f'haif_dropped_total{{reason="{Reason.OVER_QUOTA}"}} 1.0' in text


async def test_an_unknown_model_is_not_found_and_one_without_workers_is_unavailable(house: Any) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        await house.chat(model="nothing")
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.InternalServerError) as asleep:
        await house.chat(model="asleep")
    assert (asleep.value.status_code, asleep.value.code) == (503, "no_worker_available")
    assert asleep.value.response.headers["retry-after"] == "3"
    assert asleep.value.response.headers["retry-after-ms"] == "2500"


async def test_an_option_that_cannot_be_honoured_is_a_bad_request_that_names_it(house: Any) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await house.chat(store=True)
    assert (caught.value.param, caught.value.code) == ("store", "unsupported_parameter")
    assert f'haif_dropped_total{{reason="{Reason.UNSUPPORTED}"}} 1.0' in house.metrics()


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/chat/completions", 405, "method_not_allowed"), ("POST", "/v1/models", 405, "method_not_allowed"),
        ("DELETE", "/v1/models/tiny", 405, "method_not_allowed"), ("GET", "/", 404, "not_found"),
        ("POST", "/v1/audio/speech", 404, "not_found"), ("GET", "/v1/models/", 404, "not_found"),
        ("GET", "/%00/%ff", 404, "not_found"),
    ],
)  # fmt: skip
async def test_unknown_paths_and_methods_are_told_apart(
    house: Any, method: str, path: str, status: int, code: str
) -> None:
    reply = await house.http.request(method, path)
    assert (reply.status_code, reply.json()["error"]["code"]) == (status, code)
    assert set(reply.json()["error"]) == {"message", "type", "param", "code"}
    assert reply.json()["request_id"] == reply.headers["x-request-id"]


async def test_a_body_of_another_kind_or_size_is_refused(house: Any) -> None:
    other = await house.post(b"model=tiny", content_type="application/x-www-form-urlencoded")
    assert (other.status_code, other.json()["error"]["code"]) == (415, "unsupported_media_type")
    broken = await house.post(b'{"model": "tiny",', content_type="application/json; charset=utf-8")
    assert (broken.status_code, broken.json()["error"]["code"]) == (400, "invalid_json")
    large = await house.post(b" " * (limits.HTTP_BODY_BYTES_MAX + 1))
    assert (large.status_code, large.json()["error"]["code"]) == (413, "payload_too_large")


async def test_a_body_over_the_limit_without_a_length_is_refused_while_it_comes(house: Any) -> None:
    async def endless() -> Any:
        for _ in range(80):
            yield b" " * 16_384

    headers = {"authorization": f"Bearer {house.key}", "content-type": "application/json"}
    reply = await house.http.post("/v1/chat/completions", content=endless(), headers=headers)
    assert reply.status_code == 413


async def test_a_prompt_that_fits_http_but_not_the_wire_is_too_large(house: Any) -> None:
    message = {"role": "user", "content": "x" * (limits.HTTP_BODY_BYTES_MAX - 1000)}
    assert (await house.post(BODY | {"messages": [message]})).status_code == 413


async def test_a_full_gateway_says_so(house: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "GATEWAY_STREAMS_MAX", 0)
    with pytest.raises(openai.InternalServerError) as caught:
        await house.chat()
    assert (caught.value.status_code, caught.value.code) == (503, "server_is_overloaded")
    assert caught.value.response.headers["retry-after"] == "1"
    assert f'haif_dropped_total{{reason="{Reason.OVERLOADED}"}} 1.0' in house.metrics()


# --- failures and retries ---------------------------------------------------------------------------------------------

FAILURES = [
    (EngineDied("the engine was killed"), 502, "worker_failed"),
    (ConnectionLost("the worker is gone"), 502, "worker_failed"),
    (Timeout("too late"), 504, "deadline_exceeded"),
    (Overloaded("the queue is full", retry_after=3.0), 503, "server_is_overloaded"),
    (NoWorker("none left"), 503, "no_worker_available"),
    (ContextTooLong("2000 tokens do not fit into 512"), 400, "context_length_exceeded"),
    (Malformed("not a chunk"), 502, "bad_worker_response"),
    (Oversize("too much"), 502, "bad_worker_response"),
    (Replayed("that ticket again"), 502, "bad_worker_response"),
    (Expired("an old ticket"), 502, "bad_worker_response"),
    (WrongState("not now"), 502, "bad_worker_response"),
    (Forbidden("not your ticket"), 502, "bad_worker_response"),
    (BadSignature("not signed"), 502, "verification_failed"),
    (DigestMismatch("another model"), 502, "verification_failed"),
    (JournalBroken("entry 5"), 500, "internal_error"),
    (Misuse("a bug"), 500, "internal_error"),
]


@pytest.mark.parametrize(("error", "status", "code"), FAILURES, ids=lambda value: type(value).__name__)
async def test_a_worker_that_fails_every_time_is_a_clear_error(
    house: Any, mesh: ScriptedMesh, error: HaifError, status: int, code: str
) -> None:
    mesh.attempts = [Attempt([error])] * limits.ATTEMPTS_MAX
    for stream in (False, True):
        reply = await house.post(BODY | {"stream": stream})
        assert (reply.status_code, reply.json()["error"]["code"]) == (status, code)
        assert ("retry-after" in reply.headers) == (status == 503)
        assert ("x-should-retry" in reply.headers) == (code == "verification_failed")
    tries = 1 if isinstance(error, ContextTooLong) else limits.ATTEMPTS_MAX
    assert [attempt for attempt, _ in mesh.failures] == [tries, tries]
    assert len(mesh.retried) == 2 * (tries - 1)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_model_that_only_one_worker_has_and_is_loading_says_when_to_come_back(
    house: Any, mesh: ScriptedMesh, stream: bool
) -> None:
    mesh.attempts = [Attempt([ModelLoading("tiny is being loaded", retry_after=7.0)])]
    reply = await house.post(BODY | {"stream": stream})
    assert (reply.status_code, reply.json()["error"]["code"]) == (503, "model_loading")
    assert reply.headers["retry-after"] == "7"
    assert mesh.retried == [Reason.MODEL_LOADING]


@pytest.mark.parametrize("stream", [False, True])
async def test_an_attempt_that_fails_before_its_first_token_is_tried_elsewhere(
    house: Any, mesh: ScriptedMesh, stream: bool
) -> None:
    mesh.attempts = [Attempt([EngineDied("killed")]), Attempt([ConnectionLost("gone")]), Attempt()]
    reply = await house.post(BODY | {"stream": stream})
    assert reply.status_code == 200
    assert [Reason.ENGINE_DIED, Reason.CONNECTION_LOST] == mesh.retried
    assert mesh.failures == []
    assert mesh.finalised[0].payload.attempt == 3
    assert f'haif_gateway_retries_total{{reason="{Reason.ENGINE_DIED}"}} 1.0' in house.metrics()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_worker_that_dies_in_an_answer_is_taken_over_from(house: Any, mesh: ScriptedMesh, stream: bool) -> None:
    mesh.attempts = [
        Attempt(["one ", "two ", EngineDied("killed")]), Attempt([ConnectionLost("gone")]), Attempt(["three"]),
    ]  # fmt: skip
    reply = await house.post(BODY | {"stream": stream})
    if stream:
        *told, last, done = events(reply.text)
        assert [each["choices"][0]["delta"]["content"] for each in told] == ["", "one ", "two ", "three"]
        assert done == "[DONE]"
        proof = last["haif"]
    else:
        assert reply.json()["choices"][0]["message"]["content"] == "one two three"
        proof = reply.json()["haif"]
    said = check_bundle(proof, "one two three").receipt.payload
    assert (said.attempt, said.resumed, said.completion_tokens) == (3, 2, 3)
    assert f'haif_gateway_resumed_total{{reason="{Reason.ENGINE_DIED}"}} 1.0' in house.metrics()


async def test_a_worker_that_falls_silent_in_an_answer_is_taken_over_from(a_house: Any, mesh: ScriptedMesh) -> None:
    mesh.attempts = [Attempt(["one ", Hang()]), Attempt([Hang()]), Attempt(["two"])]
    async with a_house(first_token_seconds=0.05, token_seconds=0.05) as house:
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in await house.chat(stream=True)])
    assert text == "one two"
    assert [Reason.TIMEOUT, Reason.TIMEOUT] == mesh.retried
    assert mesh.cancelled.is_set()


async def test_an_answer_of_a_liar_that_nobody_saw_yet_is_started_over(house: Any, mesh: ScriptedMesh) -> None:
    mesh.attempts = [Attempt(["half an ans", Answer(chunk=Chunk(5, [1], "gap"))]), Attempt(["whole"])]
    assert (await house.chat()).choices[0].message.content == "whole"
    assert mesh.finalised[0].payload.resumed == 0


@pytest.mark.parametrize(
    "retold",
    [
        lambda chunk: replace(chunk, text="One "), lambda chunk: replace(chunk, tokens=[8]),
        lambda chunk: replace(chunk, first=1), lambda chunk: replace(chunk, tokens=[*chunk.tokens, 9]),
    ],
)  # fmt: skip
async def test_a_worker_that_tells_another_beginning_is_not_believed(
    house: Any, mesh: ScriptedMesh, retold: Any
) -> None:
    mesh.attempts = [Attempt(["one ", EngineDied("killed")]), Attempt(["LIE"], retold=retold), Attempt(["two"])]
    text = (await house.post(BODY | {"stream": True})).text
    assert "LIE" not in text
    assert mesh.finalised[0].payload.attempt == 3
    assert f'haif_dropped_total{{reason="{Reason.MALFORMED}"}} 1.0' in house.metrics()


async def test_a_worker_that_cannot_go_on_is_not_the_tenants_fault(house: Any, mesh: ScriptedMesh) -> None:
    mesh.attempts = [Attempt(["one ", EngineDied("killed")]), Attempt([ContextTooLong("mine is small")]), Attempt()]
    assert "[DONE]" in (await house.post(BODY | {"stream": True})).text


async def test_a_stream_that_breaks_says_so_and_does_not_pretend_to_be_done(house: Any, mesh: ScriptedMesh) -> None:
    mesh.attempts = [Attempt(["half", ConnectionLost("gone")])]
    *_, half, error = events((await house.post(BODY | {"stream": True})).text)
    assert half["choices"][0]["delta"]["content"] == "half"
    assert (error["error"]["code"], set(error["error"])) == ("worker_lost", {"message", "type", "param", "code"})
    with pytest.raises(openai.APIError, match="gone"):
        [chunk async for chunk in await house.chat(stream=True)]
    assert mesh.failures == [(1, "connection_lost")] * 2
    assert mesh.retried == ["connection_lost"] * 2


@pytest.mark.parametrize(
    "attempt",
    [
        Attempt(alter=lambda receipt: replace(receipt, completion_tokens=3)),
        Attempt(alter=lambda receipt: replace(receipt, output_text=receipt.output_tokens)),
        Attempt(alter=lambda receipt: replace(receipt, attempt=9)),
        Attempt(alter=lambda receipt: replace(receipt, prompt_tokens=99)),
        Attempt(alter=lambda receipt: replace(receipt, finish_reason="tired")),
        Attempt(alter=lambda receipt: replace(receipt, sandbox=Sandbox("full", ["seccomp"]))),
        Attempt(end=lambda end: replace(end, receipt=end.receipt[:-1] + bytes([end.receipt[-1] ^ 1]))),
        Attempt(end=lambda end: replace(end, receipt=b"")),
        Attempt(end=lambda end: replace(end, stopped_by="never asked for")),
        Attempt(end=lambda _: None),
        Attempt(["a", Answer()]),
        Attempt(["a", Answer(chunk=Chunk(5, [1], "gap"))]),
        Attempt(["a", Answer(chunk=Chunk(1, [-1], "b"))]),
        Attempt(["a", Answer(chunk=Chunk(1, [1 << 32], "b"))]),
        Attempt(["a", Answer(chunk=Chunk(1, [1] * 300, "b"))]),
        Attempt(["a", Answer(chunk=Chunk(1, [1], "b" * 200_000))]),
        Attempt([""] * 600),
        Attempt(finish_reason="length"),
    ],
)
async def test_an_answer_that_does_not_verify_is_never_done(house: Any, mesh: ScriptedMesh, attempt: Attempt) -> None:
    mesh.attempts = [attempt]
    text = (await house.post(BODY | {"stream": True, "max_tokens": 256})).text
    assert "[DONE]" not in text
    assert '"error"' in text
    assert mesh.finalised == []
    assert len(mesh.failures) == 1


_JAILS = (Sandbox("none", ["seccomp"]), Sandbox("reduced", ["cgroups"]), Sandbox("full", []))


@pytest.mark.parametrize(("demanded", "attempt"), [("none", 1), ("reduced", 2), ("full", 3)])
async def test_a_jail_that_is_demanded_is_passed_on_and_looked_for_in_the_receipt(
    house: Any, mesh: ScriptedMesh, demanded: str, attempt: int
) -> None:
    mesh.attempts = [Attempt(alter=partial(replace, sandbox=said)) for said in _JAILS]
    assert (await house.post(BODY | {"haif": {"sandbox": demanded}})).status_code == 200
    assert [demanded] == mesh.demands
    assert mesh.finalised[0].payload.attempt == attempt


async def test_a_tenant_may_have_a_demand_of_its_own_and_a_request_more(house: Any, mesh: ScriptedMesh) -> None:
    _, key = await house.store.create(Tenant("careful", 60, 60, "reduced"))
    mesh.attempts = [Attempt(alter=partial(replace, sandbox=_JAILS[2]))]
    for asked in ({}, {"haif": {"sandbox": "none"}}, {"haif": {"sandbox": "full"}}):
        assert (await house.post(BODY | asked, authorization=f"Bearer {key}")).status_code == 200
    assert ["reduced", "reduced", "full"] == mesh.demands


# --- answers that nobody can verify -----------------------------------------------------------------------------------

_FOREIGN = partial(replace, verifiable=False)


async def test_an_unverifiable_answer_is_refused_unless_the_tenant_allows_it(house: Any, mesh: ScriptedMesh) -> None:
    mesh.attempts = [Attempt(alter=_FOREIGN), Attempt()]
    first = await house.post(BODY)
    assert first.json()["haif"]["execution"] == "verifiable"
    assert mesh.finalised[0].payload.attempt == 2
    allowed = await house.post(BODY | {"haif": {"execution": "any"}})
    assert allowed.json()["haif"]["execution"] == "unverifiable"
    check_bundle(allowed.json()["haif"], allowed.json()["choices"][0]["message"]["content"])
    mesh.attempts = [Attempt(), Attempt(alter=_FOREIGN)]
    demanded = await house.post(BODY | {"haif": {"execution": "unverifiable"}})
    assert demanded.json()["haif"]["execution"] == "unverifiable"
    assert mesh.executions == ["verifiable", "any", "unverifiable"]
    assert (await house.post(BODY | {"haif": {"execution": "maybe"}})).status_code == 400


async def test_an_operator_may_allow_them_to_whoever_demands_nothing(house: Any, mesh: ScriptedMesh) -> None:
    asking = house.front.app.asking
    asking._means = dataclasses.replace(asking._means, execution="any")
    mesh.attempts = [Attempt(alter=_FOREIGN)]
    assert (await house.post(BODY)).json()["haif"]["execution"] == "unverifiable"
    assert (await house.post(BODY | {"haif": {"execution": "verifiable"}})).status_code == 503
    assert mesh.executions == ["any", "verifiable"]


async def test_nobody_goes_on_after_tokens_that_have_no_ids(house: Any, mesh: ScriptedMesh) -> None:
    nameless = Answer(chunk=Chunk(0, [NO_TOKEN], "once "))
    mesh.attempts = [Attempt([nameless, ConnectionLost("gone")]), Attempt()]
    whole = await house.post(BODY | {"haif": {"execution": "any"}})  # nothing was shown: from the beginning
    assert not whole.json()["choices"][0]["message"]["content"].startswith("once ")
    text = (await house.post(BODY | {"haif": {"execution": "any"}, "stream": True})).text
    assert "once " in text
    assert "[DONE]" not in text
    assert events(text)[-1]["error"]["code"] == "worker_lost"


async def test_who_signs_for_verifiable_tokens_names_them(house: Any, mesh: ScriptedMesh) -> None:
    chunk = Chunk(0, [NO_TOKEN], "once")
    output = OutputHash()
    output.add(chunk)
    claim = partial(
        replace, output_tokens=output.tokens_digest(), output_text=output.text_digest(), completion_tokens=1
    )
    mesh.attempts = [Attempt([Answer(chunk=chunk)], alter=claim, end=lambda end: replace(end, completion_tokens=1))]
    refused = await house.post(BODY | {"stream": True})
    assert events(refused.text)[-1]["error"]["code"] == "bad_worker_response"
    assert mesh.finalised == []


async def test_a_receipt_by_another_worker_is_counted_and_refused(house: Any, mesh: ScriptedMesh) -> None:
    mesh.attempts = [Attempt(signer=STRANGER)]
    *_, error = events((await house.post(BODY | {"stream": True})).text)
    assert error["error"]["code"] == "verification_failed"
    assert (
        f'haif_dropped_total{{reason="{Reason.BAD_SIGNATURE}"}} 2.0' in house.metrics()
    )  # by the journey and as answer


async def test_done_waits_for_the_job_to_be_recorded(house: Any, mesh: ScriptedMesh) -> None:
    mesh.finalise_error = ConnectionLost("the orchestrator is gone")
    text = (await house.post(BODY | {"stream": True})).text
    assert "Hello" in text
    assert "[DONE]" not in text
    assert '"code":"worker_lost"' in text


async def test_our_own_bug_is_an_internal_error_without_details(
    house: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("haif.gateway.service.inference.seconds_allowed", lambda _: 1 / 0)
    reply = await house.post(BODY)
    assert (reply.status_code, reply.json()["error"]["code"]) == (500, "internal_error")
    assert "division" not in reply.text
    assert reply.json()["request_id"] in caplog.text


# --- waiting, hanging up, stopping ------------------------------------------------------------------------------------


async def test_a_tenant_who_hangs_up_cancels_the_worker_and_the_job(house: Any, mesh: ScriptedMesh) -> None:
    mesh.attempts = [Attempt(["first", Hang()])]
    stream = await house.chat(stream=True)
    await anext(aiter(stream))
    await stream.close()
    async with asyncio.timeout(5):
        await mesh.cancelled.wait()
        await mesh.failed.wait()
    assert mesh.failures == [(1, "cancelled")]
    assert mesh.retried == []


async def test_hanging_up_before_the_first_token_cancels_too(house: Any, mesh: ScriptedMesh) -> None:
    mesh.attempts = [Attempt([Hang()])]
    asking = asyncio.create_task(house.chat())
    await mesh.running.wait()
    asking.cancel()
    async with asyncio.timeout(5):
        await mesh.failed.wait()
    assert mesh.failures == [(1, "cancelled")]


async def test_a_tenant_who_waits_is_told_that_somebody_is_here(a_house: Any, mesh: ScriptedMesh) -> None:
    mesh.attempts = [Attempt([Hang()])]
    async with a_house(keepalive_seconds=0.02) as house:
        headers = {"authorization": f"Bearer {house.key}"}
        async with house.http.stream(
            "POST", "/v1/chat/completions", json=BODY | {"stream": True}, headers=headers
        ) as reply:
            lines = reply.aiter_lines()
            assert (await anext(lines)).startswith(": ")
            assert (await anext(lines)) == ""
            assert (await anext(lines)).startswith(": ")


async def test_a_deadline_the_tenant_sets_is_kept(house: Any, mesh: ScriptedMesh) -> None:
    mesh.attempts = [Attempt([Hang()])]
    reply = await house.post(BODY, x_haif_deadline_ms="20")
    assert (reply.status_code, reply.json()["error"]["code"]) == (504, "deadline_exceeded")
    assert mesh.failures == [(1, "cancelled")]


async def test_a_gateway_that_stops_ends_its_streams_with_an_error(
    a_house: Any, mesh: ScriptedMesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "GATEWAY_DRAIN_SECONDS", 0.02)
    mesh.attempts = [Attempt(["first", Hang()])]
    async with a_house() as house:
        stream = aiter(await house.chat(stream=True))
        await anext(stream)
        draining = asyncio.create_task(house.front.app.drain())
        with pytest.raises(openai.APIError, match="shutting down"):
            [chunk async for chunk in stream]
        await draining
        with pytest.raises(openai.InternalServerError):
            await house.chat()
        assert (await house.http.get("/readyz")).json()["status"] == "draining"
    assert mesh.failures == [(1, "cancelled")]


async def test_many_tenants_are_answered_at_once(house: Any) -> None:
    answers = await asyncio.gather(*(house.chat(stream=False) for _ in range(50)))
    assert {answer.choices[0].message.content for answer in answers} == {"Hello world"}
    assert len({answer.id for answer in answers}) == 50
    assert house.front.app.open_requests == 0
