"""Nodes that were told of nobody find each other: by multicast on loopback, and over a cable between two namespaces."""

import asyncio
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

import pytest

from haif.base import limits
from haif.base.errors import Dropped, Reason
from haif.base.ids import NetId, NetKey
from haif.dht.beacon import sign_beacon
from haif.dht.envelope import Envelope
from haif.dht.service import Dht
from haif.dht.service.multicast import GROUP, PORT
from haif.identity.keys import Identity
from haif.runtime.clock import SystemClock, entropy

ROOT = Path(__file__).parents[3]


def node(
    net: NetId, *, host: str = "127.0.0.1", lan: bool = True, key: NetKey | None = None, ephemeral: bool = False,
    dropped: list[Dropped] | None = None,
) -> Dht:  # fmt: skip
    return Dht(
        identity=Identity(entropy(32)), net=net, clock=SystemClock(), entropy=entropy, bootstrap=[], host=host, lan=lan,
        key=key, ephemeral=ephemeral, on_dropped=(dropped if dropped is not None else []).append,
    )  # fmt: skip


@pytest.fixture(autouse=True)
async def patience(monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[None]:
    monkeypatch.setattr(limits, "LAN_ALONE_SECONDS", 0.05)
    async with asyncio.timeout(60):
        yield


@pytest.fixture
def net() -> NetId:
    """A network of this test alone: others may be running on this machine."""
    return NetId(entropy(32))


@pytest.fixture(autouse=True)
def multicast() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        try:
            udp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            udp.bind((GROUP, PORT))
            membership = socket.inet_aton(GROUP) + socket.inet_aton("127.0.0.1")
            udp.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
        except OSError as error:
            pytest.skip(f"no multicast on loopback here: {error}")


async def know(count: int, *nodes: Dht) -> None:
    while any(each.statistics().contacts < count for each in nodes):
        await asyncio.sleep(0)


async def test_three_nodes_that_were_told_of_nobody_find_each_other(net: NetId) -> None:
    async with node(net) as a, node(net) as b, node(net) as c:
        await know(2, a, b, c)


async def test_members_of_a_closed_network_find_each_other_and_others_hear_nothing(net: NetId) -> None:
    key, heard = NetKey(entropy(32)), list[Dropped]()
    async with node(net, key=key) as a, node(net, key=key) as b, node(net, dropped=heard) as stranger:
        await know(1, a, b)
        assert stranger.statistics().contacts == 0


async def test_a_node_that_does_not_want_to_be_found_is_not_and_finds_nobody(net: NetId) -> None:
    async with node(net) as a, node(net) as b, node(net, lan=False) as hidden:
        await know(1, a, b)
        assert hidden.statistics().contacts == 0


async def test_an_ephemeral_node_finds_others_and_is_not_found(net: NetId) -> None:
    async with node(net) as a, node(net) as b:
        await know(1, a, b)
        async with node(net, ephemeral=True) as passing:
            await know(2, passing)
            assert [each.statistics().contacts for each in (a, b)] == [1, 1]


async def test_a_forged_beacon_costs_a_ping_at_most_and_a_bad_one_nothing(net: NetId) -> None:
    dropped: list[Dropped] = []
    mallory = Identity(entropy(32))
    async with node(net, dropped=dropped) as a:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as nobody, _mouth() as mouth:
            nobody.bind(("127.0.0.1", 0))
            nobody.setblocking(False)
            port, now = nobody.getsockname()[1], SystemClock().wall()
            genuine = sign_beacon(mallory, net, port, now)
            mouth.sendto(genuine[:-1] + bytes([genuine[-1] ^ 1]), (GROUP, PORT))
            while Reason.BAD_SIGNATURE not in {each.reason for each in dropped}:
                await asyncio.sleep(0)
            for _ in range(20):
                mouth.sendto(genuine, (GROUP, PORT))
            ping = await asyncio.get_running_loop().sock_recv(nobody, 2000)
            assert len(ping) < 120
            with pytest.raises(BlockingIOError):
                nobody.recv(2000)
        assert a.statistics().contacts == 0


async def test_a_flood_of_beacons_is_cut_off(net: NetId) -> None:
    dropped: list[Dropped] = []
    async with node(net, dropped=dropped):
        beacon = sign_beacon(Identity(entropy(32)), net, 9, SystemClock().wall())
        with _mouth() as mouth:
            while Reason.OVERLOADED not in {each.reason for each in dropped}:
                mouth.sendto(beacon, (GROUP, PORT))
                await asyncio.sleep(0)


async def test_where_there_is_no_multicast_the_node_says_so_and_goes_on(
    net: NetId, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("haif.dht.service.multicast.GROUP", "127.0.0.1")  # which nobody can join
    dropped: list[Dropped] = []
    async with node(net, dropped=dropped) as a:
        assert [each.reason for each in dropped] == [Reason.UNSUPPORTED]
        assert a.statistics().contacts == 0


def test_sealed_beacons_cannot_be_told_from_other_datagrams(net: NetId) -> None:
    beacon = sign_beacon(Identity(entropy(32)), net, 9, SystemClock().wall())
    assert b"HAIF" not in Envelope(NetKey(entropy(32))).seal(beacon)


def _mouth() -> socket.socket:
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
    return udp


# --- two machines on one wire -----------------------------------------------------------------------------------------

_PEER = """
import asyncio, sys
sys.path.insert(0, {root!r})
from tests.unit.dht.test_lan import NetId, node

async def main():
    async with node(NetId(bytes.fromhex({net!r})), host={host!r}) as dht:
        while not dht.statistics().contacts:
            await asyncio.sleep(0.02)
        print("found", flush=True)
        await asyncio.to_thread(sys.stdin.read)

asyncio.run(main())
"""


def _run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True, text=True)


@pytest.fixture(params=["10.77.0.{}/24", "2a10:77::{}/64", "fd77::{}/64"])
def wire(request: pytest.FixtureRequest) -> Iterator[list[tuple[str, str]]]:
    """Two network namespaces, joined by one cable: the name and the address of each."""
    if not shutil.which("ip") or os.geteuid() != 0:
        pytest.skip("network namespaces need `ip` and root")
    tag = entropy(3).hex()
    ends = [(f"haif-{tag}-{side}", request.param.format(number)) for number, side in enumerate("ab", 1)]
    try:
        for name, _ in ends:
            _run("ip", "netns", "add", name)
        links = [f"h{tag}{side}" for side in "ab"]
        _run("ip", "link", "add", links[0], "type", "veth", "peer", "name", links[1])
        for (name, address), link in zip(ends, links, strict=True):
            _run("ip", "link", "set", link, "netns", name)
            _run("ip", "-n", name, "address", "add", address, "dev", link, *["nodad"] * (":" in address))
            _run("ip", "-n", name, "link", "set", link, "up")
    except subprocess.CalledProcessError as error:
        for name, _ in ends:
            subprocess.run(("ip", "netns", "delete", name), check=False, capture_output=True)
        pytest.skip(f"this machine refuses network namespaces: {error.stderr.strip()}")
    yield [(name, address.partition("/")[0]) for name, address in ends]
    for name, _ in ends:
        _run("ip", "netns", "delete", name)


async def test_two_machines_on_one_wire_find_each_other(wire: list[tuple[str, str]], net: NetId) -> None:
    processes = []
    try:
        for name, address in wire:
            script = _PEER.format(root=str(ROOT), net=net.hex(), host=address)
            processes.append(
                await asyncio.create_subprocess_exec(
                    "ip",
                    "netns",
                    "exec",
                    name,
                    sys.executable,
                    "-c",
                    script,
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                )
            )
        for process in processes:
            assert process.stdout is not None
            assert (await process.stdout.readline()).strip() == b"found"
    finally:
        for process in processes:
            assert process.stdin is not None
            process.stdin.close()
        for process in processes:
            await process.wait()
