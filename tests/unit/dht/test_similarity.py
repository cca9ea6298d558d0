"""How much an address resembles those that hold places already."""

from ipaddress import IPv4Address
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haif.base.machine import Address
from haif.dht.similarity import Crowd

ADDRESSES = st.one_of(st.integers(0, 2**32 - 1), st.integers(0, 2**10)).map(lambda n: (str(IPv4Address(n)), 4000))


def crowd(*hosts: str) -> Crowd:
    result = Crowd()
    for host in hosts:
        result.add((host, 4000))
    return result


def similarity(held: Crowd, host: str) -> float:
    return held.similarity((host, 1))


def test_nobody_resembles_an_empty_crowd() -> None:
    assert similarity(Crowd(), "20.1.2.3") == 0.0


def test_two_of_one_network_are_no_crowd_and_three_are() -> None:
    assert similarity(crowd("20.1.2.3", "20.1.2.3"), "20.1.2.3") == 0.0
    assert similarity(crowd(*["20.1.2.3"] * 3), "20.1.2.3") == 29 / 32


def test_of_an_ipv6_address_what_lies_between_the_12_and_the_64_counts() -> None:
    held = crowd(*["2001:db8::1"] * 40)
    assert similarity(held, "2001:db8::ffff") == 50 / 52, "whoever has a /64 has all of it"
    assert similarity(held, "2011:db8::1") == 0.0


def test_whoever_has_a_48_of_ipv6_resembles_itself_wherever_in_it_it_stands() -> None:
    held = crowd(*(f"2a10:6:6:{2_000 * number:x}::1" for number in range(32)))
    assert similarity(held, "2a10:6:6:ffff::1") > 0.6
    assert similarity(held, "2a10:7:6:ffff::1") < 0.4


def test_the_measure_is_the_share_of_prefixes_that_hold_more_than_an_even_spread_would() -> None:
    held = crowd(*(f"20.1.2.{host}" for host in range(32)))
    assert similarity(held, "20.1.2.200") == 22 / 32
    assert similarity(held, "20.1.3.1") == 21 / 32
    assert similarity(held, "21.1.2.3") == 5 / 32
    assert similarity(held, "60.1.2.3") == 0.0
    assert similarity(held, "200.1.2.3") == 0.0


def test_in_an_even_spread_nobody_is_similar() -> None:
    held = crowd(*(f"{first}.0.0.1" for first in range(0, 256, 8)))
    assert max(similarity(held, f"{first}.0.0.1") for first in range(0, 256, 4)) == 0.0


def test_honest_addresses_are_no_even_spread_and_not_taken_for_a_flood() -> None:
    draw = Random(7)
    held = crowd(*(f"{draw.randrange(1, 224)}.{draw.randrange(256)}.0.1" for _ in range(60)))
    newcomers = [similarity(held, f"{draw.randrange(1, 224)}.{draw.randrange(256)}.0.1") for _ in range(200)]
    assert max(newcomers) == 0.0


def test_honest_ipv6_addresses_of_one_part_of_the_world_are_not_taken_for_a_flood() -> None:
    draw = Random(8)
    hosts = [f"2a0{draw.randrange(16):x}:{draw.randrange(1 << 16):x}::1" for _ in range(260)]
    held = crowd(*hosts[:60])
    alike = [found for host in hosts[60:] if (found := similarity(held, host))]
    assert len(alike) <= 2, "by chance"
    assert max(alike, default=0.0) <= 3 / 52


def test_an_ipv4_address_inside_an_ipv6_one_is_an_ipv4_address() -> None:
    held = crowd(*["20.1.2.3"] * 40)
    assert similarity(held, "::ffff:20.1.2.3") == similarity(held, "2002:1401:0203::1") == 30 / 32


def test_the_families_are_measured_apart() -> None:
    held = crowd(*["20.1.2.3"] * 50)
    assert similarity(held, "2001:db8::1") == 0.0
    assert len(held) == 50


@given(st.lists(ADDRESSES, max_size=40), ADDRESSES)
def test_it_is_a_share_and_nobody_gains_by_sending_more_from_one_address(
    held: list[Address], newcomer: Address
) -> None:
    found = Crowd()
    for address in held:
        found.add(address)
    before = found.similarity(newcomer)
    assert 0.0 <= before <= 1.0
    found.add(newcomer)
    assert found.similarity(newcomer) >= before


@given(st.lists(ADDRESSES, max_size=40), ADDRESSES)
def test_whoever_leaves_was_never_there(held: list[Address], passing: Address) -> None:
    found, without = Crowd(), Crowd()
    for address in held:
        found.add(address)
        without.add(address)
    found.add(passing)
    found.remove(passing)
    assert found._families == without._families


def test_nobody_leaves_who_has_not_entered() -> None:
    held = crowd("20.1.2.3", "20.1.2.5")
    with pytest.raises(AssertionError):
        held.remove(("20.1.2.4", 4000))
