"""Which addresses of a peer are dialled, and in which order."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haif.base import limits
from haif.base.machine import Address
from haif.reach.candidates import is_somebodys, may_meet, order

HOME, OUTSIDE = "192.168.1.5", "11.1.0.2"
SIX = "2a10:1::2"


def test_addresses_alternate_between_families_beginning_with_ipv6_in_the_order_given() -> None:
    four = [("11.2.0.2", 1), ("11.3.0.2", 2), ("11.4.0.2", 3)]
    six = [("2a10:2::2", 4), ("2a10:3::2", 5)]
    wanted = (six[0], four[0], six[1], four[1])
    assert wanted == order([*four, *six], [OUTSIDE] * 3 + [SIX] * 2)
    assert limits.CANDIDATES_MAX == len(wanted)


def test_an_address_named_twice_is_dialled_once_and_one_that_no_way_leads_to_is_left_out() -> None:
    there = ("11.2.0.2", 1)
    assert (there,) == order([there, there, ("2a10:2::2", 4)], [OUTSIDE, OUTSIDE, ""])


@pytest.mark.parametrize(
    ("address", "own", "dialled"),
    [
        (("127.0.0.1", 80), "127.0.0.1", True),
        (("127.0.0.1", 80), HOME, False),
        (("::1", 80), "::1", True),
        (("::1", 80), SIX, False),
        (("192.168.1.7", 80), HOME, True),
        (("192.168.2.7", 80), HOME, False),
        (("10.0.0.1", 80), HOME, False),
        (("192.168.1.7", 80), OUTSIDE, False),
        (("fe80::1", 80), "fe80::2", True),
        (("11.2.0.2", 80), HOME, True),
    ],
)
def test_a_private_address_is_dialled_only_on_our_own_lan_and_loopback_only_from_loopback(
    address: Address, own: str, dialled: bool
) -> None:
    assert (address,) * dialled == order([address], [own])


def test_in_a_mesh_of_one_site_every_private_address_may_be_a_peer() -> None:
    assert (("10.0.0.1", 80),) == order([("10.0.0.1", 80)], [HOME], site=True)


@given(st.text(max_size=40), st.integers(-1, 70_000))
def test_whatever_a_record_says_is_a_literal_address_or_nobodys(host: str, port: int) -> None:
    assert is_somebodys((host, port)) in {True, False}


@pytest.mark.parametrize(
    "address", [("example.org", 80), ("0.0.0.0", 80), ("::", 80), ("224.0.0.1", 80), ("11.1.0.2", 0), ("240.0.0.1", 80)]
)
def test_names_and_addresses_that_no_single_peer_can_have_are_not_dialled(address: Address) -> None:
    assert not is_somebodys(address)
    assert () == order([address], [OUTSIDE], site=True)


@pytest.mark.parametrize(
    ("address", "relay", "allowed"),
    [
        ("11.2.0.2", "11.1.0.2", True), ("192.168.1.7", "11.1.0.2", False), ("127.0.0.1", "11.1.0.2", False),
        ("127.0.0.1", "192.168.1.1", False), ("192.168.1.7", "192.168.1.1", True), ("127.0.0.1", "127.0.0.1", True),
        ("11.2.0.2", "192.168.1.1", True), ("::1", "2a10:1::2", False),
    ],
)  # fmt: skip
def test_a_relay_can_have_seen_only_what_is_as_far_away_as_itself(address: str, relay: str, allowed: bool) -> None:
    assert allowed == may_meet((address, 80), (relay, 443))
