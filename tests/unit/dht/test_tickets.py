"""How long a record waits, and the ticket that says so: golden bytes, arbitrary input, and whoever did not wait."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haif.base import limits
from haif.base.clock import Instant
from haif.base.ids import Digest, PeerId
from haif.dht.messages import TICKET_BYTES
from haif.dht.tickets import Claim, TicketOffice, Wait, occupancy, waiting_seconds

CLAIM = Claim(Digest(b"t" * 32), PeerId(b"o" * 32), ("20.1.2.3", 4000))
WAIT = Wait(Instant(100.0), Instant(130.0))
LIFE = limits.RECORD_TTL_MS_MAX / 1000
SHARES = st.floats(0, 1)


def office(key: bytes = b"k") -> TicketOffice:
    return TicketOffice(lambda count: key * count)


# --- the formula ------------------------------------------------------------------------------------------------------


def test_the_waiting_time_is_the_published_formula() -> None:
    assert waiting_seconds(occupied=0.0, share=0.5, similarity=0.25) == pytest.approx(LIFE * 0.7500001)
    assert waiting_seconds(occupied=0.5, share=0.0, similarity=0.0) == pytest.approx(LIFE * 1024 * 1e-7)
    assert waiting_seconds(occupied=0.9, share=0.01, similarity=0.0) == pytest.approx(LIFE * 1e10 * 0.0100001)


def test_the_first_half_is_free_and_a_full_store_is_full() -> None:
    assert [occupancy(held, 64) for held in (0, 32, 48, 64)] == [-1.0, 0.0, 0.5, 1.0]
    assert waiting_seconds(occupied=occupancy(31, 64), share=1.0, similarity=1.0) == 0.0
    assert waiting_seconds(occupied=1.0, share=0.0, similarity=0.0) == math.inf


@given(st.floats(0, 0.99), SHARES, SHARES, SHARES)
def test_nobody_waits_less_where_more_is_taken_or_more_is_alike(o: float, s: float, i: float, more: float) -> None:
    wait = waiting_seconds(occupied=o, share=s, similarity=i)
    assert wait > 0
    assert waiting_seconds(occupied=o + (1 - o) * more, share=s, similarity=i) >= wait
    assert waiting_seconds(occupied=o, share=s + more, similarity=i) >= wait
    assert waiting_seconds(occupied=o, share=s, similarity=i + more) >= wait


@given(st.floats(0, 0.99), SHARES, st.floats(0.01, 1))
def test_one_network_waits_as_many_times_longer_as_it_is_more_alike(o: float, share: float, alike: float) -> None:
    new = waiting_seconds(occupied=o, share=share, similarity=0.0)
    flood = waiting_seconds(occupied=o, share=share, similarity=alike)
    assert flood / new == pytest.approx((share + alike + 1e-7) / (share + 1e-7))


# --- the ticket -------------------------------------------------------------------------------------------------------


def test_a_ticket_has_these_bytes() -> None:
    ticket = office().issue(CLAIM, WAIT)
    assert ticket == bytes.fromhex("00000000000186a0 000000000001fbd0 74bbcfc92bccdb10b92794b5c3d986f0")
    assert len(ticket) == TICKET_BYTES


def test_a_ticket_says_since_when_its_bearer_waits() -> None:
    desk = office()
    assert desk.read(desk.issue(CLAIM, WAIT), CLAIM, Instant(131.0)) == WAIT
    assert (desk.given, desk.redeemed, desk.void) == (1, 1, 0)


def test_before_its_time_a_ticket_is_worth_what_it_was_and_long_after_it_nothing() -> None:
    desk = office()
    ticket = desk.issue(CLAIM, WAIT)
    assert desk.read(ticket, CLAIM, Instant(101.0)) == WAIT
    assert desk.redeemed == 0
    assert desk.read(ticket, CLAIM, Instant(130.0 + limits.TICKET_WINDOW_SECONDS)) == WAIT
    assert desk.read(ticket, CLAIM, Instant(130.1 + limits.TICKET_WINDOW_SECONDS)) is None
    assert desk.void == 1


@pytest.mark.parametrize(
    "other",
    [
        Claim(Digest(b"u" * 32), CLAIM.owner, CLAIM.source),
        Claim(CLAIM.topic, PeerId(b"p" * 32), CLAIM.source),
        Claim(CLAIM.topic, CLAIM.owner, ("20.1.2.4", 4000)),
        Claim(CLAIM.topic, CLAIM.owner, ("2001:db8::1", 4000)),
    ],
    ids=["another topic", "another owner", "another address", "another family"],
)
def test_a_ticket_cannot_be_handed_on(other: Claim) -> None:
    desk = office()
    assert desk.read(desk.issue(CLAIM, WAIT), other, Instant(131.0)) is None
    assert desk.void == 1


def test_another_port_of_the_same_address_is_the_same_bearer() -> None:
    desk = office()
    moved = Claim(CLAIM.topic, CLAIM.owner, ("20.1.2.3", 999))
    assert desk.read(desk.issue(CLAIM, WAIT), moved, Instant(131.0)) == WAIT


def test_a_ticket_of_another_node_is_none() -> None:
    assert office(b"k").read(office(b"j").issue(CLAIM, WAIT), CLAIM, Instant(131.0)) is None


@given(st.integers(0, TICKET_BYTES * 8 - 1))
def test_a_ticket_with_any_bit_changed_is_none(bit: int) -> None:
    desk = office()
    ticket = bytearray(desk.issue(CLAIM, WAIT))
    ticket[bit // 8] ^= 1 << bit % 8
    assert desk.read(bytes(ticket), CLAIM, Instant(131.0)) is None


@given(st.binary(max_size=80))
def test_any_bytes_are_a_ticket_or_none(data: bytes) -> None:
    desk = office()
    assert desk.read(data, CLAIM, Instant(131.0)) is None
    assert desk.void == bool(data), "whoever has no ticket shows none"


@given(st.floats(0, 1e7), st.floats(0, 1e6))
def test_whoever_comes_when_told_is_not_told_to_have_waited_longer(since: float, more: float) -> None:
    desk = office()
    ticket = desk.issue(CLAIM, Wait(Instant(since), Instant(since + more)))
    read = desk.read(ticket, CLAIM, Instant(since + more))
    assert read is not None
    assert since <= read.since < since + 0.002
    assert read.due < since + more + 0.002


def test_the_key_is_drawn_once() -> None:
    drawn: list[int] = []

    def entropy(count: int) -> bytes:
        drawn.append(count)
        return bytes(count)

    desk = TicketOffice(entropy)
    desk.issue(CLAIM, WAIT)
    desk.issue(CLAIM, WAIT)
    assert drawn == [32]
