"""Who gives way when a house is full."""

import pytest

from haif.wire.crowd import origin, thickest, yielding

ELSEWHERE = origin("198.51.100.1")


def inside(*sources: str) -> dict[int, object]:
    return {number: origin(source) for number, source in enumerate(sources)}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("192.0.2.1", "192.0.2.200"), ("192.0.2.1", "::ffff:192.0.2.7"), ("2001:db8:1:1::1", "2001:db8:1:2::9"),
        ("fe80::1%eth0", "fe80::2"),
    ],
)  # fmt: skip
def test_a_slash_24_or_48_is_one_subnet(one: str, other: str) -> None:
    assert origin(one).subnet == origin(other).subnet


def test_an_address_is_one_of_ipv4_or_a_slash_64_and_this_machine_is_known() -> None:
    assert origin("2001:db8::1").address == origin("2001:db8::2").address != origin("2001:db8:0:1::1").address
    assert [origin(each).here for each in ("127.0.0.1", "127.66.0.1", "::1", "192.0.2.1")] == [True, True, True, False]


def test_the_crowd_is_that_of_the_thickest_address_in_the_thickest_subnet_the_oldest_first() -> None:
    sources = ("203.0.113.1", "192.0.2.1", "203.0.113.1", "192.0.2.2", "192.0.2.1", "203.0.113.1", "192.0.2.3")
    assert [1, 4] == thickest(inside(*sources))


def test_a_newcomer_from_elsewhere_finds_room_in_the_crowd() -> None:
    assert [0, 1, 2] == yielding(inside("192.0.2.1", "192.0.2.1", "192.0.2.1", "203.0.113.1"), ELSEWHERE, 2)


def test_no_subnet_falls_below_its_share() -> None:
    assert [] == yielding(inside("192.0.2.1", "192.0.2.2", "192.0.2.3", "203.0.113.1"), ELSEWHERE, 3)


def test_a_crowd_makes_no_room_for_itself_nor_for_one_as_thick() -> None:
    full = inside("192.0.2.1", "192.0.2.1", "192.0.2.1", "198.51.100.1", "198.51.100.2")
    assert [] == yielding(full, origin("192.0.2.1"), 1) == yielding(full, ELSEWHERE, 1)


def test_within_a_subnet_the_thickest_address_makes_room_for_the_others_of_it() -> None:
    full = inside("192.0.2.1", "192.0.2.1", "192.0.2.2", "192.0.2.1")
    assert [0, 1, 3] == yielding(full, origin("192.0.2.3"), 64)
    assert [] == yielding(full, origin("192.0.2.1"), 1)
