"""A port for one meeting, and several ways of which the first to arrive wins."""

import asyncio
import socket

import pytest

from haif.base.errors import ConnectionLost, Misuse, Timeout
from haif.reach.service.punch import PunchPort
from haif.reach.service.race import race

LOOPBACK = "127.0.0.1"


def port() -> PunchPort:
    return PunchPort(socket.AF_INET, LOOPBACK)


async def test_two_ports_that_dial_each_other_get_one_connection() -> None:
    with port() as one, port() as other:
        a, b = await asyncio.gather(one.meet((LOOPBACK, other.port), 5), other.meet((LOOPBACK, one.port), 5))
        with a, b:
            assert (a.getsockname(), a.getpeername()) == (b.getpeername(), b.getsockname())


async def test_whoever_comes_late_finds_a_listener() -> None:
    with port() as one, port() as other:
        a = await other.dial((LOOPBACK, one.port), 5)
        b = await one.meet((LOOPBACK, other.port), 5)
        with a, b:
            assert a.getsockname() == b.getpeername()


async def test_a_connection_from_elsewhere_is_closed_and_nobody_there_is_a_timeout() -> None:
    with port() as one, PunchPort(socket.AF_INET, "127.0.0.2") as stranger:
        knocking = await stranger.dial((LOOPBACK, one.port), 5)
        with port() as gone:
            nobody = gone.port
        with pytest.raises(Timeout):
            await one.meet((LOOPBACK, nobody), 0.05)
        with knocking:
            assert b"" == await asyncio.get_running_loop().sock_recv(knocking, 1)


async def test_a_port_that_is_closed_refuses_and_a_host_that_is_not_ours_cannot_be_bound() -> None:
    with port() as gone:
        number = gone.port
    with port() as one, pytest.raises(ConnectionLost):
        await one.dial((LOOPBACK, number), 5)
    with pytest.raises(ConnectionLost):
        PunchPort(socket.AF_INET, "192.0.2.1")


async def never() -> str:
    return (await asyncio.Event().wait() and "") or ""


async def fails() -> str:
    raise ConnectionLost("no way")


async def works() -> str:
    return "there"


async def test_the_first_way_that_arrives_wins_and_a_failure_makes_room_at_once() -> None:
    assert "there" == await race([fails, works], stagger=1000, discard=print)
    assert "there" == await race([never, works], stagger=0, discard=print)
    assert "there" == await race([works, never], stagger=1000, discard=print)


async def test_when_all_ways_fail_the_last_one_says_why() -> None:
    with pytest.raises(ConnectionLost, match="no way"):
        await race([fails, fails], stagger=0, discard=print)
    with pytest.raises(Misuse):
        await race([], stagger=0, discard=print)


async def test_a_way_that_arrives_too_late_is_discarded_and_one_that_is_under_way_is_stopped() -> None:
    late, discarded, stopped = asyncio.Event(), list[str](), asyncio.Event()

    async def too_late() -> str:
        try:
            await late.wait()
        except asyncio.CancelledError:
            return "too late"
        return ""

    async def under_way() -> str:
        try:
            return await never()
        finally:
            stopped.set()

    assert "there" == await race([too_late, under_way, works], stagger=0, discard=discarded.append)
    assert ["too late"] == discarded
    assert stopped.is_set()
