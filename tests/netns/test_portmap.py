"""A real router daemon gives ports, by NAT-PMP and by UPnP, and strangers then get in."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.miniupnpd import DAEMON, daemon
from tests.support.netlab import Host, Lab

pytestmark = pytest.mark.xdist_group("netns-portmap")  # one lab
ROOT = Path(__file__).parents[2]
RUN = """
import asyncio, socket, sys
from haif.reach.natpmp import Opcode
from haif.reach.service.portmap import PortMapper

async def main():
    listener = socket.create_server((sys.argv[1], 0))
    port, mapped = listener.getsockname()[1], asyncio.Event()
    def tell(mappings):
        print(*(f"{each.opcode.name} {each.by} {each.outside[0]} {each.outside[1]}" for each in mappings), flush=True)
    ports = (Opcode.TCP, port), (Opcode.UDP, port)
    async with PortMapper(ports, on_mapped=tell, on_dropped=lambda dropped: print(dropped, flush=True)):
        await asyncio.to_thread(sys.stdin.read)

asyncio.run(main())
"""


@pytest.mark.parametrize("protocol", ["natpmp", "upnp"])
def test_a_router_gives_ports_strangers_get_in_and_it_takes_them_back(lab: Lab, protocol: str, tmp_path: Path) -> None:
    if not Path(DAEMON).exists():
        pytest.skip("miniupnpd is not installed (Debian: miniupnpd-nftables)")
    if protocol == "upnp":
        pytest.importorskip("miniupnpc", reason="the extra `nat` is not installed")
    inside, stranger = lab.home("port_restricted")[0], lab.public()
    with daemon(lab.router_of(inside), protocol, tmp_path), subprocess.Popen(
        inside.command(sys.executable, "-c", RUN, inside.address), cwd=ROOT, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as program:  # fmt: skip
        assert program.stdout is not None
        words = program.stdout.readline().split()
        port = words[3]
        by = {"natpmp": "nat-pmp", "upnp": "upnp"}[protocol]
        assert ["TCP", by, inside.outside, port, "UDP", by, inside.outside, port] == words
        assert gets_in(stranger, (str(inside.outside), int(port)), 10)
        program.communicate()
        assert not gets_in(stranger, (str(inside.outside), int(port)), 0.3)


def test_a_router_that_gives_nothing_is_said_to_and_asked_no_more_for_a_while(lab: Lab) -> None:
    inside = lab.home("port_restricted")[0]
    with subprocess.Popen(
        inside.command(sys.executable, "-c", RUN, inside.address), cwd=ROOT, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as program:  # fmt: skip
        assert program.stdout is not None
        assert "Reason.UNSUPPORTED" in program.stdout.readline()
        program.communicate()


def gets_in(stranger: Host, address: tuple[str, int], seconds: float) -> bool:
    with stranger.inside():
        client = socket.socket()
    with client:
        client.settimeout(seconds)
        return client.connect_ex(address) == 0
