"""What reaches the gateway as bytes: hostile, slow, oversize or broken HTTP."""

import asyncio
import socket
from typing import Any

import pytest

from haif.base import limits
from haif.base.errors import Misuse
from haif.gateway.service.server import HttpServer
from tests.support.scripted_mesh import Attempt, Hang, ScriptedMesh


async def talk(house: Any, *pieces: bytes) -> bytes:
    """Send pieces, each as a packet of its own, and read until the server closes."""
    reader, writer = await asyncio.open_connection(*house.front.address)
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        async with asyncio.timeout(10):
            return await reader.read()
    finally:
        writer.close()


async def test_headers_without_end_are_431(house: Any) -> None:
    field = b"x: " + b"y" * limits.HTTP_HEADER_BYTES_MAX
    for request in (b"GET / HTTP/1.1\r\n" + field + b"\r\n", b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n",
                    b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 4000 + b"\r\n"):  # fmt: skip
        answer = await talk(house, request)
        assert answer.startswith(b"HTTP/1.1 431 ")
        assert b'"code":"headers_too_large"' in answer


async def test_one_header_that_grows_without_end_is_431(house: Any) -> None:
    answer = await talk(house, b"GET / HTTP/1.1\r\nx: ", *[b"y" * 8000] * 4)
    assert answer.startswith(b"HTTP/1.1 431 ")


async def test_slow_headers_are_408(house: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HTTP_HEADER_SECONDS", 0.02)
    assert (await talk(house, b"GET / HTTP/1.1\r\nhost: ")).startswith(b"HTTP/1.1 408 ")
    assert (await talk(house)).startswith(b"HTTP/1.1 408 ")


async def test_a_slow_body_is_408(house: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HTTP_BODY_SECONDS", 0.02)
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    head += b"authorization: Bearer " + house.key.encode() + b"\r\ncontent-length: 50\r\n\r\n{"
    answer = await talk(house, head)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"code":"request_body_timeout"' in answer


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET / HTTP/9.9\r\n\r\n", b"G@T / HTTP/1.1\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        b"POST / HTTP/1.1\r\ncontent-length: -1\r\n\r\n", b"GET / HTTP/1.1\r\nhost : x\r\n\r\n",
    ],
    ids=["TLS", "version", "method", "both framings", "two lengths", "negative length", "space before colon"],
)  # fmt: skip
async def test_broken_and_ambiguous_requests_are_400_and_the_connection_ends(house: Any, request_bytes: bytes) -> None:
    answer = await talk(house, request_bytes)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1 ") == 1


async def test_a_request_cut_at_every_point_is_still_one_request(house: Any) -> None:
    request = b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    for cut in range(1, len(request)):
        answer = await talk(house, request[:cut], request[cut:])
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert answer.count(b"HTTP/1.1 ") == 1


async def test_pipelined_requests_are_answered_in_order(house: Any) -> None:
    one = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"
    last = b"GET /nothing HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    answer = await talk(house, one * 3 + last)
    assert [part[:3] for part in answer.split(b"HTTP/1.1 ")[1:]] == [b"200", b"200", b"200", b"404"]


async def test_many_small_requests_in_one_packet_are_not_one_large_header(house: Any) -> None:
    one = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"
    many = 2 * limits.HTTP_HEADER_BYTES_MAX // len(one)
    last = b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    reader, writer = await asyncio.open_connection(*house.front.address)
    writer.write(one * many + last[:9])
    async with asyncio.timeout(10):
        answer = await reader.readuntil(b'{"status":"ok"}')
        writer.write(last[9:])
        answer += await reader.read()
    writer.close()
    assert answer.count(b"HTTP/1.1 200 ") == many + 1
    assert b"HTTP/1.1 431 " not in answer


async def test_hanging_up_cancels_the_request_that_is_answered_though_another_is_queued_behind_it(
    house: Any, mesh: ScriptedMesh
) -> None:
    mesh.attempts = [Attempt(["Hello", Hang()])]
    body = b'{"model":"tiny","stream":true,"messages":[{"role":"user","content":"hi"}]}'
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    head += b"authorization: Bearer %s\r\ncontent-length: %d\r\n\r\n" % (house.key.encode(), len(body))
    reader, writer = await asyncio.open_connection(*house.front.address)
    writer.write(head + body + b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
    await reader.readuntil(b"Hello")
    writer.close()
    async with asyncio.timeout(10):
        await mesh.cancelled.wait()
        await mesh.failed.wait()
    assert mesh.failures == [(1, "cancelled")]


@pytest.mark.parametrize("more", [b"no HTTP\r\n\r\n", b"GET / HTTP/1.1\r\n"], ids=["broken", "slow"])
async def test_a_refusal_is_never_written_into_a_running_answer(
    house: Any, mesh: ScriptedMesh, monkeypatch: pytest.MonkeyPatch, more: bytes
) -> None:
    mesh.attempts = [Attempt(["Hello", Hang()])]
    body = b'{"model":"tiny","stream":true,"messages":[{"role":"user","content":"hi"}]}'
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    head += b"authorization: Bearer %s\r\ncontent-length: %d\r\n\r\n" % (house.key.encode(), len(body))
    reader, writer = await asyncio.open_connection(*house.front.address)
    writer.write(head + body)
    answer = await reader.readuntil(b"Hello")
    monkeypatch.setattr(limits, "HTTP_HEADER_SECONDS", 0.02)
    writer.write(more)
    async with asyncio.timeout(10):
        answer += await reader.read()
    writer.close()
    assert answer.count(b"HTTP/1.1 ") == 1


async def test_connections_beyond_the_limit_are_closed(house: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HTTP_CONNECTIONS_MAX", 0)
    assert await talk(house) == b""


async def test_small_writes_leave_at_once(house: Any) -> None:
    _, writer = await asyncio.open_connection(*house.front.address)
    connections = house.front._server._server.server_state.connections
    while not connections:
        await asyncio.sleep(0)
    for connection in connections:
        opened = connection.transport.get_extra_info("socket")
        assert opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
    writer.close()


async def test_a_port_that_is_taken_is_a_wrong_setting(house: Any) -> None:
    host, port = house.front.address
    with pytest.raises(Misuse, match="choose another port"):
        HttpServer(house.front.app, host, port)
    with pytest.raises(Misuse, match="cannot listen"):
        HttpServer(house.front.app, "no.such.host.invalid", 0)
