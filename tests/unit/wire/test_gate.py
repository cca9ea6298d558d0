"""The gate and its puzzles: strangers cost a hash, crowds pay, and nobody pays twice or for another."""

import pytest

from haif.base import limits
from haif.base.clock import Instant
from haif.base.errors import BadSignature, Overloaded, Reason
from haif.wire.gate import Gate, Shares
from haif.wire.noise import Pattern
from haif.wire.opening import First, mac, mac_key, preamble
from haif.wire.puzzle import PUZZLE_BYTES, TICKET_BYTES, Puzzle, Search, solved
from tests.support.wire_pair import CLIENT, CLIENT_KEY, NET, SERVER, Pair, dialling, door, listening

T0 = Instant(100.0)
KEY = mac_key(NET, SERVER.peer)
GOLDEN_MAC = "9a3c5baadd371ac311f4f4e239d94fc3"
GOLDEN_SOLUTION = "000000000000000a"


def gate() -> Gate:
    return Gate(NET, SERVER.peer, b"k" * 32, T0)


def first(ticket: bytes = b"", message: bytes = bytes(32), key: bytes = KEY) -> First:
    opening = preamble(NET, ticket=bool(ticket))
    return First(opening, mac(key, opening, ticket, message), ticket, message)


def work(puzzle: Puzzle) -> bytes:
    search = Search(puzzle)
    while (ticket := search.ticket()) is None:
        pass
    return ticket


def crowd(subject: Gate, count: int, source: str = "192.0.2.1", now: Instant = T0) -> list[Puzzle | None]:
    return [subject.judge(first(), source, now) for _ in range(count)]


def test_who_knows_whom_it_dials_comes_in() -> None:
    assert gate().judge(first(), "192.0.2.1", T0) is None


@pytest.mark.parametrize(
    "bad",
    [
        first(key=mac_key(NET, CLIENT.peer)),
        First(preamble(NET), bytes(16), b"", bytes(32)),
        First(preamble(NET), first().mac, b"", b"\1" + bytes(31)),
        First(preamble(NET, pattern=Pattern.IK), first().mac, b"", bytes(32)),
        First(preamble(NET, ticket=True), first().mac, bytes(TICKET_BYTES), bytes(32)),
    ],
    ids=["another responder", "no mac", "another message", "another preamble", "a ticket added"],
)
def test_h_s1_a_stranger_is_refused_before_any_public_key_work(bad: First) -> None:
    subject = gate()
    with pytest.raises(BadSignature) as caught:
        subject.judge(bad, "192.0.2.1", T0)
    assert caught.value.reason is Reason.BAD_SIGNATURE
    assert len(subject._sources) == 0


def test_one_address_beyond_its_budget_is_asked_to_work_and_others_are_not() -> None:
    subject = gate()
    answers = crowd(subject, int(limits.GATE_SOURCE_BURST) + 1)
    assert [answer is None for answer in answers] == [True] * int(limits.GATE_SOURCE_BURST) + [False]
    assert subject.judge(first(), "198.51.100.1", T0) is None
    assert subject.judge(first(), "192.0.2.1", Instant(T0 + 1.1 / limits.GATE_SOURCE_PER_SECOND)) is None


@pytest.mark.parametrize(
    "address", ["192.0.2.{}", "::ffff:192.0.2.{}", "2001:db8:1:{:x}::1"], ids=["/24", "mapped /24", "/48"]
)
def test_one_subnet_beyond_its_budget_is_asked_to_work(address: str) -> None:
    subject = gate()
    answers = [subject.judge(first(), address.format(number), T0) for number in range(1, 41)]
    assert sum(answer is None for answer in answers) == limits.GATE_SUBNET_BURST


def test_an_ipv6_host_is_its_slash_64() -> None:
    subject = gate()
    answers = [subject.judge(first(), f"2001:db8:1:1::{number:x}", T0) for number in range(1, 41)]
    assert sum(answer is None for answer in answers) == limits.GATE_SOURCE_BURST


def test_everybody_together_has_a_budget_too_and_this_machine_has_only_that() -> None:
    subject = gate()
    answers = crowd(subject, int(limits.GATE_TOTAL_BURST) + 10, "127.0.0.1")
    assert sum(answer is None for answer in answers) == limits.GATE_TOTAL_BURST
    assert subject.judge(first(), "192.0.2.1", T0) is not None
    assert len(subject._sources) == 1


def test_sources_are_remembered_within_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "GATE_SOURCES_MAX", 10)
    shares = Shares(1.0, 1.0)
    for number in range(50):
        assert shares.take(str(number), T0)
    assert len(shares) == 10


def asked(subject: Gate, source: str = "192.0.2.1") -> Puzzle:
    puzzle = crowd(subject, int(limits.GATE_SOURCE_BURST) + 1, source)[-1]
    assert puzzle is not None
    return puzzle


def test_a_solved_puzzle_lets_its_solver_in_once() -> None:
    subject = gate()
    ticket = work(asked(subject))
    assert subject.judge(first(ticket), "192.0.2.1", T0) is None
    with pytest.raises(Overloaded, match="redeemed before") as caught:
        subject.judge(first(ticket), "192.0.2.1", T0)
    assert caught.value.reason is Reason.OVERLOADED


def test_a_ticket_is_worth_nothing_elsewhere_later_or_altered() -> None:
    subject = gate()
    ticket = work(asked(subject))
    with pytest.raises(Overloaded, match="this address"):
        subject.judge(first(ticket), "192.0.2.2", T0)
    with pytest.raises(Overloaded, match="too old"):
        subject.judge(first(ticket), "192.0.2.1", Instant(T0 + limits.PUZZLE_SECONDS + 1))
    for position in range(PUZZLE_BYTES):
        altered = bytearray(ticket)
        altered[position] ^= 1
        with pytest.raises(Overloaded, match="this address"):
            subject.judge(first(bytes(altered)), "192.0.2.1", T0)
    with pytest.raises(Overloaded, match="this address"):
        Gate(NET, SERVER.peer, b"K" * 32, T0).judge(first(ticket), "192.0.2.1", T0)


def test_an_unsolved_ticket_is_refused() -> None:
    subject = gate()
    minted, number, bits = int(T0), 9, 12
    puzzle = Puzzle(minted, number, bits, subject._cookie(minted, number, bits, "192.0.2.1"))
    unsolved = next(t for n in range(99) if not solved(t := puzzle.pack() + n.to_bytes(8, "big")))
    with pytest.raises(Overloaded, match="solve"):
        subject.judge(first(unsolved), "192.0.2.1", T0)


def test_the_price_rises_from_nothing_to_the_most_as_the_reserve_empties_and_falls_again() -> None:
    subject = gate()
    prices = [subject.price(T0)]
    for number in range(int(limits.GATE_PAID_BURST)):
        bits = subject.price(T0)
        cookie = subject._cookie(int(T0), number, bits, "192.0.2.1")
        subject._paid, _ = subject._paid.take(1, T0)
        assert len(cookie) == 16
        prices.append(subject.price(T0))
    assert (prices[0], prices[-1]) == (0, limits.PUZZLE_BITS_MAX)
    assert prices == sorted(prices)
    assert subject.price(Instant(T0 + limits.GATE_PAID_BURST / limits.GATE_PAID_PER_SECOND)) == 0


def test_tickets_hoarded_while_they_were_cheap_are_asked_anew_when_the_price_has_risen() -> None:
    subject = gate()
    ticket = work(asked(subject))
    subject._paid, _ = subject._paid.take(limits.GATE_PAID_BURST / 2, T0)
    puzzle = subject.judge(first(ticket), "192.0.2.1", T0)
    assert puzzle is not None
    assert puzzle.bits == limits.PUZZLE_BITS_MAX // 2
    assert subject.judge(first(work(puzzle)), "192.0.2.1", T0) is None


def test_when_even_the_reserve_is_empty_the_paying_are_told_when_to_come_back() -> None:
    subject = gate()
    minted, number, bits = int(T0), 1, 20
    puzzle = Puzzle(minted, number, bits, subject._cookie(minted, number, bits, "192.0.2.1"))
    subject._paid, _ = subject._paid.take(limits.GATE_PAID_BURST, T0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("haif.wire.gate.solved", lambda _: True)
        with pytest.raises(Overloaded) as caught:
            subject.judge(first(puzzle.pack() + bytes(8)), "192.0.2.1", T0)
    assert caught.value.retry_after == pytest.approx(1 / limits.GATE_PAID_PER_SECOND)


def test_spent_tickets_are_forgotten_once_they_are_too_old_to_come_again() -> None:
    subject = gate()
    later = Instant(T0 + limits.PUZZLE_SECONDS + 2)
    for now in (T0, later):
        puzzle = crowd(subject, int(limits.GATE_SOURCE_BURST) + 1, now=now)[-1]
        assert subject.judge(first(work(puzzle)), "192.0.2.1", now) is None
    assert len(subject._spent) == 1


@pytest.mark.parametrize("bits", [0, 1, 8, 12])
def test_a_search_finds_what_solves(bits: int) -> None:
    ticket = work(Puzzle(1, 2, bits, b"c" * 16))
    assert len(ticket) == TICKET_BYTES
    assert solved(ticket)
    assert Puzzle.unpack(ticket[:PUZZLE_BYTES]) == Puzzle(1, 2, bits, b"c" * 16)


def test_the_search_is_cut_into_slices_and_ends() -> None:
    search = Search(Puzzle(1, 2, 20, b"c" * 16))
    assert search.ticket() is None
    search._next = limits.PUZZLE_TRIES_MAX
    with pytest.raises(Overloaded, match="reasonable"):
        search.ticket()


def test_nobody_works_for_more_than_the_limit() -> None:
    with pytest.raises(Overloaded, match="21 bits"):
        Search(Puzzle(1, 2, limits.PUZZLE_BITS_MAX + 1, b"c" * 16))


def test_a_puzzle_and_its_solution_have_their_golden_bytes() -> None:
    puzzle = Puzzle(0x01020304, 5, 8, b"c" * 16)
    assert puzzle.pack().hex() == "01020304" + "0000000000000005" + "08" + "63" * 16
    assert first().mac.hex() == GOLDEN_MAC
    assert work(puzzle)[PUZZLE_BYTES:].hex() == GOLDEN_SOLUTION


def test_two_machines_a_puzzle_between_them() -> None:
    """Over budget: asked, solved, dialled again with the ticket, in."""
    at = door()
    crowd(at.gate, int(limits.GATE_SOURCE_BURST))
    turned_away = Pair(dialling(), listening(at=at))
    turned_away.settle()
    assert turned_away.server.closed.reason is Reason.OVERLOADED
    assert turned_away.client.closed.reason is Reason.OVERLOADED
    puzzle = turned_away.client.puzzle
    assert puzzle is not None
    pair = Pair(dialling(ticket=work(puzzle)), listening(at=at))
    pair.settle(piece=1)
    assert pair.client.established
    assert pair.server.established


def test_h_s1_a_bogus_first_message_leaves_no_handshake_behind() -> None:
    pair = Pair(dialling(expected=CLIENT.peer))
    pair.settle()
    assert pair.server.closed.reason is Reason.BAD_SIGNATURE
    assert pair.server._handshake._noise is None
    assert CLIENT_KEY.public not in pair.server.certificate
