"""The metrics endpoint answers GET /metrics and refuses everything else, within bounds."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haif.base import limits
from haif.base.machine import Address
from haif.telemetry import names
from haif.telemetry.service import Telemetry
from haif.telemetry.service.scrape import MetricsServer


@pytest.fixture
async def address() -> AsyncIterator[Address]:
    async with Telemetry(role=names.GATEWAY, instance="g") as telemetry:
        telemetry.count(names.GATEWAY_TOKENS_OUT, 7, model="m")
        yield await telemetry.serve_metrics("127.0.0.1", 0)


async def ask(address: Address, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(*address)
    try:
        writer.write(request)
        return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


async def test_the_metrics_are_served_as_prometheus_reads_them(address: Address) -> None:
    answer = await ask(address, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Content-Type: text/plain; version=0.0.4; charset=utf-8" in head
    assert f"Content-Length: {len(body)}".encode() in head
    assert b'haif_gateway_tokens_out_total{model="m"} 7.0\n' in body


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"GET / HTTP/1.1", b"404"), (b"GET /metrics/ HTTP/1.1", b"404"), (b"GET /metrics?a=b HTTP/1.1", b"404"),
        (b"GET /../metrics HTTP/1.1", b"404"), (b"POST /metrics HTTP/1.1", b"405"), (b"HEAD /metrics HTTP/1.1", b"405"),
        (b"PRI * HTTP/2.0", b"400"), (b"GET /metrics", b"400"), (b"\x16\x03\x01", b"400"), (b"", b"400"),
        (b"GET  /metrics HTTP/1.1", b"400"),
    ],
)  # fmt: skip
async def test_everything_else_is_refused(address: Address, request_line: bytes, status: bytes) -> None:
    answer = await ask(address, request_line + b"\r\n\r\n")
    assert answer.split()[:2] == [b"HTTP/1.1", status]
    assert b"haif_" not in answer


@given(st.lists(st.sampled_from([b"GET", b"POST", b"/metrics", b"/", b"HTTP/1.1", b"HTTP/1.0", b""]) | st.binary()))
def test_only_one_form_of_request_line_is_answered(words: list[bytes]) -> None:
    answer = MetricsServer(lambda: b"haif 1")._answer(words)
    right = words[:2] == [b"GET", b"/metrics"] and words[2:] in ([b"HTTP/1.0"], [b"HTTP/1.1"])
    assert answer.startswith(b"HTTP/1.1 200 " if right else b"HTTP/1.1 4")
    assert answer.endswith(b"haif 1") == right


async def test_a_head_that_never_ends_is_refused(address: Address) -> None:
    answer = await ask(address, b"GET /metrics HTTP/1.1\r\nX: " + b"x" * 4 * limits.METRICS_REQUEST_BYTES_MAX)
    assert b"haif_" not in answer


async def test_a_visitor_who_says_nothing_is_dropped(address: Address, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "METRICS_REQUEST_SECONDS", 0.01)
    assert await ask(address, b"GET /metr") == b""


async def test_more_visitors_than_the_bound_are_sent_away(address: Address) -> None:
    waiting = [await asyncio.open_connection(*address) for _ in range(limits.METRICS_CONNECTIONS_MAX)]
    assert await ask(address, b"") == b""
    for _, writer in waiting:
        writer.close()


async def test_leaving_the_block_drops_visitors_and_frees_the_port() -> None:
    async with Telemetry(role=names.GATEWAY, instance="g") as telemetry:
        address = await telemetry.serve_metrics("127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"GET /metr")
    with contextlib.suppress(ConnectionResetError):
        assert await reader.read() == b""
    writer.close()
    with pytest.raises(OSError):
        await asyncio.open_connection(*address)


async def test_a_port_that_is_taken_is_an_error_that_names_it(address: Address) -> None:
    async with Telemetry(role=names.GATEWAY, instance="g2") as other:
        with pytest.raises(OSError, match=str(address[1])):
            await other.serve_metrics(*address)
