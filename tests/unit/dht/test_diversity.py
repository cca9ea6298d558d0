"""Diversity: how much of a routing table one network may hold."""

from random import Random

import pytest

from haif.base import limits
from haif.base.clock import Instant
from haif.base.ids import PeerId
from haif.dht.contact import Contact, node_id
from haif.dht.diversity import Census, Scope, networks
from haif.dht.table import ID_BITS, RoutingTable

OWN = PeerId(b"o" * 32)
NOW = Instant(1000.0)


def prefix(peer: PeerId) -> int:
    return ID_BITS - (node_id(OWN) ^ node_id(peer)).bit_length()


def far_peers(count: int, seed: int = 1) -> list[PeerId]:
    """Peers that all belong into bucket 0."""
    random, found = Random(seed), list[PeerId]()
    while len(found) < count:
        peer = PeerId(random.randbytes(32))
        if prefix(peer) == 0:
            found.append(peer)
    return found


@pytest.mark.parametrize(
    ("host", "other", "narrow", "wide"),
    [
        ("8.1.1.1", "8.1.1.200", True, True),
        ("8.1.1.1", "8.1.2.1", False, True),
        ("8.1.1.1", "8.2.1.1", False, False),
        ("2a00:1:2:3::1", "2a00:1:2:4::1", True, True),
        ("2a00:1:2::1", "2a00:1:3::1", False, True),
        ("2a00:1:2::1", "2a00:2:2::1", False, False),
        ("8.1.1.1", "::ffff:8.1.1.2", True, True),  # mapped
        ("8.1.1.1", "2002:801:109::1", True, True),  # 6to4
        ("8.1.1.1", "2a00:1:2::1", False, False),
    ],
)
def test_a_network_is_a_24_or_a_48_and_a_wide_one_a_16_or_a_32(host: str, other: str, narrow: bool, wide: bool) -> None:
    one, two = networks((host, 1)), networks((other, 2))
    assert (one.narrow == two.narrow, one.wide == two.wide) == (narrow, wide)


@pytest.mark.parametrize(
    ("host", "scope"),
    [("127.3.2.1", Scope.LOOPBACK), ("::1", Scope.LOOPBACK),
     ("10.0.0.1", Scope.PRIVATE), ("192.168.1.1", Scope.PRIVATE),
     ("fd00::1", Scope.PRIVATE), ("fe80::1%eth0", Scope.PRIVATE),
     ("8.8.8.8", Scope.PUBLIC), ("2a00::1", Scope.PUBLIC)],
)  # fmt: skip
def test_an_address_knows_how_far_it_reaches(host: str, scope: Scope) -> None:
    assert networks((host, 1)).scope is scope


@pytest.mark.parametrize(
    ("exempt", "loopback", "private"),
    [(Scope.NOTHING, 2, 2), (Scope.LOOPBACK, 9, 2), (Scope.PRIVATE, 9, 9)],
)
def test_only_what_is_exempt_is_not_counted(exempt: Scope, loopback: int, private: int) -> None:
    for host, expected in (("127.0.0.1", loopback), ("10.0.0.1", private), ("8.8.8.8", 2)):
        table = RoutingTable(OWN, exempt=exempt)
        for port, peer in enumerate(far_peers(9)):
            table.heard(Contact(peer, (host, port + 1)), NOW)
        assert len(table) == expected


def test_a_bucket_takes_three_of_a_16() -> None:
    table = RoutingTable(OWN)
    for number, peer in enumerate(far_peers(9)):
        table.heard(Contact(peer, (f"8.8.{number}.1", 1)), NOW)
    assert len(table) == limits.DHT_PER_WIDE_NETWORK_AND_BUCKET_MAX


def test_a_place_that_becomes_free_goes_to_a_waiting_contact_that_still_may() -> None:
    table, peers = RoutingTable(OWN), far_peers(limits.DHT_K + 3)
    contacts = [Contact(peer, (f"{20 + number}.1.1.1", 1)) for number, peer in enumerate(peers)]
    contacts[-1] = Contact(peers[-1], ("20.1.1.7", 1))  # the network of the first
    contacts[1] = Contact(peers[1], ("20.1.1.8", 1))
    for contact in contacts[:1] + contacts[2 : limits.DHT_K + 1]:
        table.heard(contact, NOW)
    assert len(table) == limits.DHT_K
    for contact in contacts[limits.DHT_K + 1 :]:
        table.heard(contact, NOW)  # two wait
    table.drop(contacts[2].peer)
    assert contacts[-1].peer in table  # the latest
    table.drop(contacts[3].peer)
    assert contacts[-2].peer in table
    assert len(table) == limits.DHT_K


def test_the_waiting_contacts_of_one_network_do_not_crowd_out_the_others() -> None:
    table, peers = RoutingTable(OWN), far_peers(limits.DHT_K + 50)
    known = [Contact(peer, (f"{20 + number}.1.1.1", 1)) for number, peer in enumerate(peers[: limits.DHT_K + 1])]
    for contact in known:
        table.heard(contact, NOW)
    for port, peer in enumerate(peers[limits.DHT_K + 1 :]):
        table.heard(Contact(peer, ("99.1.1.1", port + 1)), NOW)
    table.drop(known[0].peer)
    table.drop(known[1].peer)
    assert known[-1].peer in table


def test_a_peer_that_moved_into_a_full_network_keeps_its_old_address() -> None:
    table, peers = RoutingTable(OWN), far_peers(3)
    home = [Contact(peer, ("8.8.8.8", port + 1)) for port, peer in enumerate(peers[:2])]
    moving = Contact(peers[2], ("9.9.9.9", 1))
    for contact in (*home, moving):
        table.heard(contact, NOW)
    table.failed(moving)
    table.heard(Contact(moving.peer, ("8.8.8.8", 9)), NOW)
    assert moving in table.closest(0, 5)
    table.failed(home[0])
    table.failed(home[0])
    table.heard(Contact(moving.peer, ("8.8.8.8", 9)), NOW)  # there is room now
    assert Contact(moving.peer, ("8.8.8.8", 9)) in table.closest(0, 5)


def test_a_census_that_everybody_has_left_is_empty() -> None:
    census = Census(Scope.NOTHING)
    for _ in range(2):
        census.enter(3, ("8.8.8.8", 1))
    assert not census.admits(3, ("8.8.8.9", 1))
    for _ in range(2):
        census.leave(3, ("8.8.8.8", 1))
    assert census.admits(3, ("8.8.8.9", 1))
    assert not census._table
    assert not census._buckets
