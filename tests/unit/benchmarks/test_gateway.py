"""The load on gateways, and the stub upstream that peers are put before."""

import asyncio
from collections.abc import AsyncIterator

import pytest

pytest.importorskip("uvloop")  # what benchmarks run on

from benchmarks.gateway import Row, table
from benchmarks.http_load import Target, as_fast_as_they_come, at_a_rate, connections
from benchmarks.stub_answers import Beat, wanted
from benchmarks.stub_http import Upstream


@pytest.fixture
async def target() -> AsyncIterator[Target]:
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()
        yield Target(host, port, "none")


def test_a_prompt_says_what_it_wants() -> None:
    assert wanted("ms=20 tokens=100 xxx") == (0.02, 100)
    assert wanted("whole xxx") == (0.0, 0)


async def test_whole_answers_are_counted_and_timed(target: Target) -> None:
    async with connections(target, 3) as opened:
        assert await as_fast_as_they_come(opened, target.request(), 0.05) >= 3
        took = await at_a_rate(opened, target.request(), 200, 0.1)
    assert len(took) == 20
    assert took == sorted(took)


async def test_every_token_of_a_stream_is_counted(target: Target) -> None:
    async with connections(target, 2) as opened:
        await asyncio.gather(*(each.ask(target.request(milliseconds=1, tokens=7)) for each in opened))
        assert [each.tokens for each in opened] == [7, 7]


async def test_what_is_refused_is_no_answer(target: Target) -> None:
    async with connections(target, 1) as (only,):
        asked = only.ask(b"nonsense\r\n\r\n")
        with pytest.raises(RuntimeError, match="closed"):
            await asked


async def test_all_who_wait_at_one_pace_go_on_together() -> None:
    beat, order = Beat(), list[str]()

    async def wait(name: str, times: int) -> None:
        for _ in range(times):
            await beat.wait(0.002)
            order.append(name)

    await asyncio.gather(wait("a", 3), wait("b", 3))
    assert order == ["a", "b"] * 3


def test_the_table_says_what_could_not_be_measured() -> None:
    rows = [Row("haif", {"µs/request": 1234.5, "KB/stream": 40.0}), Row("nginx", {"µs/request": 15.0}, "; not here")]
    assert "| nginx | 15 |  |" in table(rows, "a machine")
    assert "| haif | 1,230 | 40 |" in table(rows, "a machine")
    assert "nginx: not here." in table(rows, "a machine")
