"""The lab's NATs are of the kinds they claim to be, and nothing of a lab stays behind."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import netlab
from tests.support.netlab import KINDS, Host, Kind, Lab

pytestmark = pytest.mark.xdist_group("netns-netlab")  # one lab
ROOT = Path(__file__).parents[2]
STREAM, DATAGRAM = socket.SOCK_STREAM, socket.SOCK_DGRAM
LONG, SHORT = 10.0, 0.3  # how long a packet is waited for that must come, and one that must not


def opened(host: Host, kind: socket.SocketKind, port: int = 0) -> socket.socket:
    with host.inside():
        made = socket.socket(socket.AF_INET, kind)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.bind((host.address, port))
    made.settimeout(LONG)
    return made


def check(expected: bool, receiver: socket.socket, sender: socket.socket, address: tuple[str, int]) -> None:
    """A datagram to this address arrives, or does not."""
    sender.sendto(b"?", address)
    receiver.settimeout(LONG if expected else SHORT)
    try:
        receiver.recvfrom(16)
        arrived = True
    except TimeoutError:
        arrived = False
    receiver.settimeout(LONG)
    assert expected == arrived


def seen_over_tcp(host: Host, server: Host, port: int) -> tuple[tuple[str, int], int]:
    """The address that `server` sees of a connection made from `port` (0: any), and the port used."""
    with opened(server, STREAM) as listener, opened(host, STREAM, port) as client:
        listener.listen()
        client.connect(listener.getsockname())
        accepted, address = listener.accept()
        accepted.close()
        return address, client.getsockname()[1]


@pytest.mark.parametrize("kind", KINDS)
def test_a_nat_maps_and_filters_datagrams_as_its_kind_says(lab: Lab, kind: Kind) -> None:
    inside = lab.home(kind)[0]
    asked, other = lab.public(), lab.public()
    with (
        opened(inside, DATAGRAM) as mine, opened(asked, DATAGRAM) as one, opened(asked, DATAGRAM) as same_address,
        opened(other, DATAGRAM) as another,
    ):  # fmt: skip
        mine.sendto(b"?", one.getsockname())
        _, seen = one.recvfrom(16)
        assert inside.outside == seen[0]
        check(True, mine, one, seen)
        check(kind in {"full_cone", "restricted"}, mine, same_address, seen)
        check(kind == "full_cone", mine, another, seen)
        mine.sendto(b"?", another.getsockname())
        assert (kind != "symmetric") == (another.recvfrom(16)[1] == seen)


@pytest.mark.parametrize("kind", KINDS)
def test_a_nat_maps_connections_as_its_kind_says(lab: Lab, kind: Kind) -> None:
    inside, one, other = lab.home(kind)[0], lab.public(), lab.public()
    seen, port = seen_over_tcp(inside, one, 0)
    again, _ = seen_over_tcp(inside, other, port)
    assert (kind != "symmetric") == (again == seen)


def test_two_hosts_of_a_home_meet_outside_where_the_nat_hairpins_and_only_there(lab: Lab) -> None:
    server = lab.public()
    for hairpin in (True, False):
        anna, ben = lab.home("port_restricted", hosts=2, hairpin=hairpin)
        with opened(anna, DATAGRAM) as a, opened(ben, DATAGRAM) as b, opened(server, DATAGRAM) as outside:
            a.sendto(b"?", outside.getsockname())
            seen = outside.recvfrom(16)[1]
            check(hairpin, a, b, seen)
            if hairpin:
                b.sendto(b"?", seen)
                assert a.recvfrom(16)[1] == (ben.outside, b.getsockname()[1]), "RFC 4787, REQ-9: from outside, it seems"


def test_behind_a_carrier_two_nats_keep_one_port_and_the_outer_filters(lab: Lab) -> None:
    inside, server = lab.carrier("port_restricted"), lab.public()
    with opened(inside, DATAGRAM) as mine, opened(server, DATAGRAM) as one, opened(server, DATAGRAM) as stranger:
        mine.sendto(b"?", one.getsockname())
        seen = one.recvfrom(16)[1]
        assert (inside.outside, mine.getsockname()[1]) == seen
        check(True, mine, one, seen)
        check(False, mine, stranger, seen)


def test_ipv6_reaches_hosts_that_have_nothing_else_but_not_through_a_firewall(lab: Lab) -> None:
    asker, shown, walled = lab.public6(), lab.public6(), lab.public6(firewall=True)
    for host, reached in ((shown, True), (walled, False)):
        with asker.inside():
            client = socket.socket(socket.AF_INET6, STREAM)
        with host.inside():
            listener = socket.create_server((host.address, 0), family=socket.AF_INET6)
        with client, listener:
            client.settimeout(LONG if reached else SHORT)
            assert reached == (client.connect_ex(listener.getsockname()[:2]) == 0)


def test_the_namespaces_of_a_maker_that_was_killed_are_swept_away(lab: Lab) -> None:
    del lab
    program = (
        "import os, signal\n"
        "from tests.support.netlab import Lab\n"
        "made = Lab().__enter__(); made.public()\n"
        "print(made.public().namespace, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    died = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True, cwd=ROOT)
    name = died.stdout.strip()
    assert Path("/run/netns", name).exists(), died.stderr
    netlab.sweep()
    assert not Path("/run/netns", name).exists()


def test_a_closed_lab_leaves_nothing_behind_and_ends_what_ran_inside() -> None:
    reason = netlab.why_not()
    if reason:
        pytest.skip(reason)
    with Lab() as made:
        host = made.public()
        runs = subprocess.Popen(host.command("sleep", "600"))
        assert Path("/run/netns", host.namespace).exists()
    assert runs.wait(10) == -9
    assert not [path for path in Path("/run/netns").iterdir() if path.name.startswith(made.prefix)]
