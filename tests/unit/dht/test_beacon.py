"""Beacons: golden bytes, arbitrary input, and what a forged, replayed or foreign one can cost."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haif.base import limits
from haif.base.clock import Instant, WallTime
from haif.base.errors import BadSignature, Expired, Malformed, PeerFault, Refusal, Unauthenticated
from haif.base.ids import NetId, PeerId
from haif.dht.beacon import BEACON_BYTES, concerns, open_beacon, sign_beacon
from haif.dht.contact import Contact
from haif.dht.diversity import Scope
from haif.dht.node import Node
from haif.identity.keys import Identity

NET = NetId(b"n" * 32)
ANNA = Identity(b"a" * 32)
NOW = WallTime(1_700_000_000_000)
NEARBY = ("192.168.1.7", 50_000)


def opened(data: bytes, now: int = NOW, source: tuple[str, int] = NEARBY) -> Contact:
    return open_beacon(data, source, net=NET, now=WallTime(now))


def test_a_beacon_has_these_bytes() -> None:
    beacon = sign_beacon(ANNA, NET, 4000, NOW)
    assert beacon[:5] == b"HAIF\x01"
    assert beacon[5:13].hex() == "d0dbb9a61aa09814"
    assert beacon[13:55] == ANNA.peer + b"\x0f\xa0" + NOW.to_bytes(8, "big")
    assert beacon[55:63].hex() == "a34c3bcdca67d763"
    assert len(beacon) == BEACON_BYTES == 119


def test_it_names_the_node_at_the_address_it_came_from() -> None:
    assert opened(sign_beacon(ANNA, NET, 4000, NOW)) == Contact(ANNA.peer, ("192.168.1.7", 4000))


def test_what_does_not_hold_is_refused() -> None:
    beacon = sign_beacon(ANNA, NET, 4000, NOW)
    for data, error in (
        (b"", Malformed),
        (beacon[:-1], Malformed),
        (beacon + b"\0", Malformed),
        (sign_beacon(ANNA, NetId(bytes(32)), 4000, NOW), Malformed),
        (sign_beacon(ANNA, NET, 0, NOW), Malformed),
        (beacon[:13] + b"p" * 32 + beacon[45:], BadSignature),
    ):
        with pytest.raises(error):
            opened(data)


def test_a_beacon_of_yesterday_or_tomorrow_is_refused() -> None:
    beacon = sign_beacon(ANNA, NET, 4000, NOW)
    for now in (NOW + limits.CLOCK_SKEW_MS + 1, NOW - limits.CLOCK_SKEW_MS - 1):
        with pytest.raises(Expired):
            opened(beacon, now)


def test_nobody_makes_a_network_ping_a_stranger_on_the_internet() -> None:
    with pytest.raises(Unauthenticated):
        opened(sign_beacon(ANNA, NET, 4000, NOW), source=("8.8.8.8", 53))


def test_of_ipv6_a_beacon_counts_from_our_own_link_alone() -> None:
    beacon, here = sign_beacon(ANNA, NET, 4000, NOW), "2a10:1:2:3::1"
    for source in ("2a10:1:2:3::9", "fd00::7"):
        found = open_beacon(beacon, (source, 50_000), own=here, net=NET, now=NOW)
        assert Contact(ANNA.peer, (source, 4000)) == found
    for source in ("2a10:1:2:4::9", "fe80::1%2", "fe80::1"):
        with pytest.raises(Unauthenticated):
            open_beacon(beacon, (source, 50_000), own=here, net=NET, now=NOW)
    with pytest.raises(Unauthenticated):
        opened(beacon, source=("2a10:1:2:3::9", 50_000))


@given(st.integers(0, BEACON_BYTES * 8 - 1))
def test_a_beacon_with_any_bit_changed_is_refused(bit: int) -> None:
    data = bytearray(sign_beacon(ANNA, NET, 4000, NOW))
    data[bit // 8] ^= 1 << bit % 8
    with pytest.raises(PeerFault):
        opened(bytes(data))


@given(st.binary(max_size=200))
def test_any_bytes_are_a_beacon_or_refused(data: bytes) -> None:
    assert not concerns(data, NET)
    with pytest.raises((PeerFault, Refusal)):
        opened(data)


def test_a_thousand_beacons_of_invented_nodes_are_ten_pings_and_nobody_in_the_table() -> None:
    draw = Random(3)
    node = Node(ANNA, NET, entropy=draw.randbytes, wall=lambda: NOW, now=Instant(0.0), exempt=Scope.PRIVATE)
    for number in range(1000):
        node.meet(Contact(PeerId(draw.randbytes(32)), (f"10.0.{number % 250}.1", 4000)), Instant(0.0))
    assert len(list(node.outgoing(Instant(0.0)))) == limits.DHT_CHALLENGES_MAX
    assert len(node.table) == 0
