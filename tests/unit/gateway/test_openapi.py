"""The document of the API says what is served; requests made from it, right and wrong ones, find no error of ours."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode

from haif.gateway.openapi import document
from haif.gateway.operations import OPERATIONS
from tests.support.scripted_mesh import ASLEEP, CARD, RANKS, VECTORS, ScriptedMesh
from tests.unit.gateway.conftest import open_house

Call = Callable[..., httpx.Response]
SCHEMA = schemathesis.openapi.from_dict(document())
BODIES = [operation.path for operation in OPERATIONS if operation.body is not None]
MODELS = st.sampled_from(["tiny", "asleep", "vectors", "ranks", None])


@pytest.fixture(scope="module")
def call(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Call]:
    """Ask a gateway that runs in a loop of its own, so that one serves all examples."""
    started: Future[Any] = Future()

    async def serve(folder: Path) -> None:
        mesh = ScriptedMesh(models=(CARD, ASLEEP, VECTORS, RANKS))
        async with open_house(folder, mesh, rpm=1_000_000, burst=1_000_000) as house:
            over = asyncio.Event()
            started.set_result((house, asyncio.get_running_loop(), over))
            await over.wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(tmp_path_factory.mktemp("house")),))
    thread.start()
    house, loop, over = started.result()

    def ask(method: str, path: str, **sent: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {house.key}"} | sent.pop("headers", {})
        asking = house.http.request(method, path, headers=headers, **sent)
        return asyncio.run_coroutine_threadsafe(asking, loop).result()

    yield ask
    loop.call_soon_threadsafe(over.set)
    thread.join()


def test_the_document_is_one_and_has_every_operation(call: Call) -> None:
    SCHEMA.validate()
    reply = call("GET", "/openapi.json", headers={"authorization": ""})
    assert reply.json() == document()
    assert {(method.upper(), path) for path, methods in reply.json()["paths"].items() for method in methods} == {
        (operation.method, operation.path) for operation in OPERATIONS
    }
    assert len({operation["operationId"] for methods in reply.json()["paths"].values()
                for operation in methods.values()}) == len(OPERATIONS)  # fmt: skip


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.path)
def test_every_operation_is_served_and_wants_a_key_where_it_says_so(call: Call, operation: Any) -> None:
    path = operation.path.replace("{model}", "tiny").replace("{job}", "0" * 32)
    reply = call(operation.method, path, headers={"authorization": ""}, json={} if operation.body else None)
    assert (reply.status_code == 401) == operation.key
    assert call("PATCH", path).status_code == 405
    assert reply.headers["content-type"].split(";")[0] == "application/json"


def test_what_is_parsed_is_what_is_described() -> None:
    schemas = document()["components"]["schemas"]
    response = schemas["Response"]
    assert response["additionalProperties"] is False
    assert response["properties"]["store"]["enum"] == [None, False]
    assert "previous_response_id" in response["properties"]
    assert {"model", "input"} == set(response["required"])
    assert len(schemas["Embeddings"]["properties"]["input"]["anyOf"]) == 4
    assert schemas["StreamOptions"]["properties"]["include_obfuscation"]["enum"] == [None, False]


def check(reply: httpx.Response, path: str) -> dict[str, Any]:
    """The error, if it is one: of the form of its dialect, and none of ours."""
    assert reply.status_code != 500, reply.text
    if reply.status_code == 200:
        assert reply.headers["content-type"].split(";")[0] in ("application/json", "text/event-stream")
        return {}
    error: dict[str, Any] = reply.json()["error"]
    assert reply.json()["request_id"] == reply.headers["x-request-id"]
    if path == "/v1/messages":
        assert set(error) == {"type", "message", "details"}
        error |= {"code": error["details"]["error_code"], "param": error["details"]["param"]}
    else:
        assert set(error) == {"type", "message", "param", "code"}
    # The scripted worker says hello whatever it is asked, so an answer may be found out.
    assert error["code"] in ("bad_worker_response", "no_worker_available") or reply.status_code < 500, reply.text
    return error


def sent(case: Any) -> dict[str, Any]:
    """How a case's body goes over the wire."""
    if isinstance(case.body, bytes):
        return {"content": case.body, "headers": {"content-type": "application/json"}}
    return {} if case.body is schemathesis.core.NOT_SET else {"json": case.body}


@pytest.mark.parametrize("path", BODIES)
def test_requests_as_the_document_has_them_are_understood(call: Call, path: str) -> None:
    @given(SCHEMA[path]["post"].as_strategy(generation_mode=GenerationMode.POSITIVE), MODELS)
    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    def ask(case: Any, model: str | None) -> None:
        if model is not None:
            case.body["model"] = model
        error = check(call("POST", path, **sent(case)), path)
        assert "this parameter is unknown" not in error.get("message", "")

    ask()


@pytest.mark.parametrize("path", BODIES)
def test_requests_that_break_the_document_are_refused_and_never_an_error_of_ours(call: Call, path: str) -> None:
    @given(SCHEMA[path]["post"].as_strategy(generation_mode=GenerationMode.NEGATIVE), MODELS)
    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    def ask(case: Any, model: str | None) -> None:
        if model is not None and isinstance(case.body, dict):
            case.body["model"] = model
        check(call("POST", path, **sent(case)), path)

    ask()


@given(st.text(max_size=40))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_path_is_an_answer_or_a_refusal(call: Call, name: str) -> None:
    assert call("GET", f"/v1/models/{quote(name, safe='')}").status_code in (200, 401, 404)
