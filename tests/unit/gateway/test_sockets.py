"""Over a WebSocket all is as over HTTP, answers, streams, errors, hanging up; and nobody holds more than may be."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from haif.base import limits
from haif.base.errors import NoWorker
from haif.gateway.errors import Rejected
from haif.gateway.service import door, sockets
from haif.gateway.socket import PATH, SUBPROTOCOL, Teller, parse
from haif.wire.crowd import origin
from tests.support.scripted_mesh import Attempt, Hang, ScriptedMesh

CHAT: dict[str, Any] = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}
CHATS, MESSAGES = "/v1/chat/completions", "/v1/messages"


@asynccontextmanager
async def opened(house: Any, path: str = PATH, **options: Any) -> AsyncIterator[ClientConnection]:
    wanted = {"subprotocols": [SUBPROTOCOL], "additional_headers": {"Authorization": f"Bearer {house.key}"}} | options
    async with connect(house.url.replace("http", "ws") + path, **wanted) as socket:
        yield socket


async def say(socket: ClientConnection, **message: Any) -> None:
    await socket.send(json.dumps(message))


async def hear(socket: ClientConnection) -> dict[str, Any]:
    async with asyncio.timeout(10):
        told: dict[str, Any] = json.loads(await socket.recv())
        return told


async def hear_out(socket: ClientConnection) -> list[dict[str, Any]]:
    told = [await hear(socket)]
    while not told[-1].get("done"):
        told.append(await hear(socket))
    return told


async def test_an_answer_is_the_one_of_http(house: Any) -> None:
    over_http = (await house.post(CHAT)).json()
    async with opened(house) as socket:
        assert socket.subprotocol == SUBPROTOCOL
        await say(socket, id="a", path=CHATS, body=CHAT)
        told = await hear(socket)
    assert (told["id"], told["status"], told["headers"]["content-type"]) == ("a", 200, "application/json")
    assert told["body"]["choices"] == over_http["choices"]
    assert told["body"]["haif"].keys() == over_http["haif"].keys()


async def test_a_stream_comes_event_by_event_in_the_words_of_its_dialect(house: Any) -> None:
    async with opened(house) as socket:
        await say(socket, id="a", path=CHATS, body=CHAT | {"stream": True})
        head, *events, done = await hear_out(socket)
        await say(socket, id="b", path=MESSAGES, body=CHAT | {"stream": True, "max_tokens": 9})
        named = (await hear_out(socket))[1:-1]
    assert (head["status"], done) == (200, {"id": "a", "done": True})
    text = "".join(each["data"]["choices"][0]["delta"].get("content") or "" for each in events)
    assert text == "Hello world"
    assert [named[0]["event"], named[-1]["event"]] == ["message_start", "message_stop"]
    assert all(each["event"] == each["data"]["type"] for each in named)


async def test_several_are_answered_at_a_time_and_each_may_be_cancelled(house: Any, mesh: ScriptedMesh) -> None:
    mesh.attempts = [Attempt(["Hello", Hang()])]
    async with opened(house) as socket:
        for name in ("a", "b"):
            await say(socket, id=name, path=CHATS, body=CHAT | {"stream": True})
        seen: set[str] = set()
        while seen != {"a", "b"}:
            told = await hear(socket)
            seen |= {told["id"]} if "data" in told else set()
        await say(socket, id="a", path=CHATS, body=CHAT)
        while "body" not in (told := await hear(socket)):
            pass
        assert (told["status"], told["body"]["error"]["param"]) == (400, "id")
        await say(socket, id="b", cancel=True)
        while (told := await hear(socket)) != {"id": "b", "done": True}:
            pass
        async with asyncio.timeout(10):
            await mesh.failed.wait()
        assert mesh.failures == [(1, "cancelled")]
        mesh.failed.clear()
    async with asyncio.timeout(10):  # and the other ends with the connection
        await mesh.failed.wait()
    assert mesh.failures == [(1, "cancelled")] * 2


async def test_errors_are_those_of_http(house: Any, mesh: ScriptedMesh) -> None:
    mesh.attempts = [Attempt([NoWorker("none")])] * limits.ATTEMPTS_MAX
    async with opened(house) as socket:
        for path, body, status, code in (
            (CHATS, CHAT | {"model": "nobody's"}, 404, "model_not_found"),
            (CHATS, {}, 400, "missing_required_parameter"),
            (CHATS, CHAT, 503, "no_worker_available"), ("/v1/models", None, 405, "method_not_allowed"),
            ("/nothing", {}, 404, "not_found"), (PATH, {}, 404, "not_found"),
        ):  # fmt: skip
            await say(socket, id="a", path=path, body=body)
            told = await hear(socket)
            assert (told["status"], told["body"]["error"]["code"]) == (status, code), path


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"id":""}', '{"id":"a"}', '{"id":"a","path":"/x","cancel":true}', '{"id":"a","more":1}',
     '{"id":"a","path":"x"}', '{"id":"a","path":"/x","headers":{"Authorization":"Bearer y"}}',
     '{"id":"a","path":"/x","headers":{"x":"a\\r\\nb: c"}}', json.dumps({"id": "a" * 65, "path": "/x"}), "[" * 100_000],
)  # fmt: skip
async def test_what_is_no_request_is_refused_and_the_connection_goes_on(house: Any, text: str) -> None:
    async with opened(house) as socket:
        await socket.send(text)
        told = await hear(socket)
        assert (told["status"], told["body"]["error"]["type"]) == (400, "invalid_request_error")
        await say(socket, id="a", path=CHATS, body=CHAT)
        assert (await hear(socket))["status"] == 200


async def test_an_idempotency_key_goes_with_one_request(house: Any, mesh: ScriptedMesh) -> None:
    async with opened(house) as socket:
        for _ in range(2):
            await say(socket, id="a", path=CHATS, body=CHAT, headers={"Idempotency-Key": "k"})
            assert (await hear(socket))["status"] == 200
            async with asyncio.timeout(10):
                while house.front.app.open_requests:
                    await asyncio.sleep(0)
    assert len(mesh.requests) == 1


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"additional_headers": {}}, 401),
        ({"additional_headers": {"Authorization": "Bearer haif-" + "A" * 43}}, 401),
        ({"subprotocols": None}, 400),
        ({"subprotocols": ["haif.v2"]}, 400),
        ({"origin": "https://evil.example"}, 403),
        ({"path": "/v1/chat/completions"}, 404),
    ],
)
async def test_who_may_not_come_in_is_told_so_before_a_connection_is_open(
    house: Any, options: dict[str, Any], status: int
) -> None:
    with pytest.raises(InvalidStatus) as caught:
        async with opened(house, **options):
            pass
    assert caught.value.response.status_code == status
    assert json.loads(caught.value.response.body or b"")["error"]["code"]
    assert house.front._server._doorkeeper.crowd.inside <= 1


async def test_pages_of_a_named_origin_are_let_in(a_house: Any) -> None:
    async with a_house(cors_origins=("https://app.example",)) as house, opened(
        house, origin="https://app.example"
    ) as socket:  # fmt: skip
        await say(socket, id="a", path=CHATS, body=CHAT)
        assert (await hear(socket))["status"] == 200


async def test_a_key_that_is_revoked_asks_nothing_more(house: Any) -> None:
    async with opened(house) as socket:
        await house.store.revoke("acme")
        await house.front.tenants.refresh()
        await say(socket, id="a", path=CHATS, body=CHAT)
        told = await hear(socket)
        assert (told["status"], told["body"]["error"]["code"]) == (401, "revoked_api_key")


async def test_n_8_an_address_has_ten_open_and_not_one_more(house: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for room in (sockets, door):
        monkeypatch.setattr(room, "origin", lambda source: replace(origin(source), here=False))
    async with asyncio.timeout(60):
        held = [opened(house) for _ in range(limits.WEBSOCKETS_PER_ADDRESS_MAX)]
        assert len(held) == 10
        for each in held:
            await each.__aenter__()
        with pytest.raises(InvalidStatus) as caught:
            async with opened(house):
                pass
        assert caught.value.response.status_code == 429
        assert json.loads(caught.value.response.body or b"")["error"]["code"] == "concurrency_limit_exceeded"
        async with opened(house, local_addr=("127.0.0.2", 0)):
            pass
        await held.pop().__aexit__(None, None, None)
        while True:  # until its end was noticed
            try:
                async with opened(house):
                    break
            except InvalidStatus:
                continue
        for each in held:
            await each.__aexit__(None, None, None)


async def test_one_connection_does_not_ask_for_everything_at_a_time(
    house: Any, mesh: ScriptedMesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "WEBSOCKET_REQUESTS_MAX", 2)
    mesh.gate = asyncio.Event()
    async with opened(house) as socket:
        for name in ("a", "b", "c"):
            await say(socket, id=name, path=CHATS, body=CHAT)
        told = await hear(socket)
        assert (told["id"], told["status"], told["body"]["error"]["code"]) == ("c", 503, "server_is_overloaded")
        mesh.gate.set()
        assert {(await hear(socket))["id"] for _ in range(2)} == {"a", "b"}


async def test_messages_too_large_or_in_too_many_pieces_or_no_text_end_the_connection(house: Any) -> None:
    async def pieces() -> AsyncIterator[str]:
        for _ in range(limits.WEBSOCKET_PIECES_MAX + 2):
            yield "x"

    for message, code in ((b"binary", 1003), ("x" * (limits.WEBSOCKET_MESSAGE_BYTES_MAX + 1), 1009), (pieces(), 1009)):
        async with opened(house) as socket:
            with pytest.raises(ConnectionClosed) as caught:
                await socket.send(message)  # type: ignore[arg-type]
                async with asyncio.timeout(10):
                    await socket.recv()
            assert caught.value.rcvd is not None
            assert caught.value.rcvd.code == code


async def test_connections_are_given_back_however_they_end(house: Any) -> None:
    crowd = house.front._server._doorkeeper.crowd
    async with opened(house):
        assert crowd.inside >= 1
    reader, writer = await asyncio.open_connection(*house.front.address)
    writer.write(b"GET /haif/v1/socket HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
    async with asyncio.timeout(10):
        assert (await reader.read()).startswith(b"HTTP/1.1 4")
    writer.close()
    one = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"
    reader, writer = await asyncio.open_connection(*house.front.address)
    writer.write(one + b"GET /haif/v1/socket HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
    async with asyncio.timeout(10):
        await reader.read()
        writer.close()
        await house.http.aclose()
        await house.client.close()
        while crowd.inside:
            await asyncio.sleep(0)


@given(st.text() | st.recursive(st.none() | st.booleans() | st.text(), lambda each: st.dictionaries(
    st.sampled_from(["id", "path", "body", "headers", "cancel"]), each)).map(json.dumps))  # fmt: skip
def test_a_message_is_read_or_refused(text: str) -> None:
    try:
        assert parse(text).id
    except Rejected as refused:
        assert refused.status == 400


@given(
    st.lists(st.sampled_from([b"data: 1\n\n", b": here\n\n", b"event: x\ndata: 2\n\n", b"data: [DONE]\n\n"])), st.data()
)
def test_events_are_told_whole_however_they_were_cut(events: list[bytes], data: Any) -> None:
    def told(parts: list[bytes]) -> list[bytes]:
        teller = Teller("a")
        said = list(teller.head(200, [(b"content-type", b"text/event-stream; charset=utf-8")]))
        for part in parts:
            said += teller.part(part, more=True)
        return said + list(teller.part(b"", more=False))

    body = b"".join(events)
    cut = data.draw(st.integers(0, len(body)))
    assert told([body]) == told([body[:cut], body[cut:]])
