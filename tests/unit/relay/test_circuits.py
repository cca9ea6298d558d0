"""Places, circuits, tokens and meters, without a socket."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haif.base import limits
from haif.base.clock import Instant
from haif.base.errors import ConnectionLost, HaifError, Overloaded, OverQuota, Reason, Timeout, Unauthenticated
from haif.base.ids import PeerId
from haif.relay.circuits import Allowance, Circuit, Meter, Switchboard

NOW = Instant(1000.0)
HOME = "192.0.2.1"


def peer(number: int) -> PeerId:
    return PeerId(number.to_bytes(32, "big"))


ALICE, BOB, CAROL = peer(1), peer(2), peer(3)


def board(**allowance: int) -> Switchboard:
    counter = itertools.count(1)
    return Switchboard(Allowance(**allowance), lambda size: next(counter).to_bytes(size, "big"))


def joined(at: Switchboard, caller: PeerId = ALICE, callee: PeerId = BOB, now: Instant = NOW) -> Circuit:
    at.reserve(callee, HOME, now)
    circuit = at.connect(caller, HOME, callee, now)
    for side, token in enumerate(circuit.tokens):
        assert at.show(token, now) == (circuit, side)
    return circuit


def later(seconds: float) -> Instant:
    return Instant(NOW + seconds)


# --- places -----------------------------------------------------------------------------------------------------------


def test_only_a_peer_that_holds_a_place_can_be_called() -> None:
    at = board()
    with pytest.raises(ConnectionLost):
        at.connect(ALICE, HOME, BOB, NOW)
    at.reserve(BOB, HOME, NOW)
    assert at.connect(ALICE, HOME, BOB, NOW).callee == BOB
    at.release(BOB)
    with pytest.raises(ConnectionLost):
        at.connect(ALICE, HOME, BOB, NOW)


def test_a_place_lapses_unless_it_is_renewed() -> None:
    at = board()
    assert at.reserve(BOB, HOME, NOW) == NOW + limits.RELAY_RESERVATION_SECONDS
    at.reserve(CAROL, HOME, NOW)
    at.reserve(BOB, HOME, later(300))
    assert [*at.overdue(later(limits.RELAY_RESERVATION_SECONDS))] == []
    assert at.places == (BOB,)
    with pytest.raises(ConnectionLost):
        at.connect(ALICE, HOME, BOB, later(300 + limits.RELAY_RESERVATION_SECONDS))


def test_places_are_bounded_in_all_and_for_each_address(monkeypatch: pytest.MonkeyPatch) -> None:
    at = board()
    for number in range(limits.RELAY_RESERVATIONS_PER_ADDRESS_MAX):
        at.reserve(peer(number), HOME, NOW)
    with pytest.raises(OverQuota) as caught:
        at.reserve(peer(99), HOME, NOW)
    assert caught.value.reason is Reason.OVER_QUOTA
    at.reserve(peer(0), HOME, NOW)
    monkeypatch.setattr(limits, "RELAY_RESERVATIONS_MAX", len(at.places) + 1)
    at.reserve(peer(99), "198.51.100.1", NOW)
    with pytest.raises(Overloaded):
        at.reserve(peer(98), "198.51.100.2", NOW)


@pytest.mark.parametrize(
    ("first", "second", "together"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("127.0.0.1", "127.0.0.1", False),
        ("::1", "::1", False),
    ],
)
def test_an_ipv6_64_is_one_address_and_loopback_is_none(first: str, second: str, together: bool) -> None:
    at = board()
    for number in range(limits.RELAY_RESERVATIONS_PER_ADDRESS_MAX):
        at.reserve(peer(number), first, NOW)
    if together:
        with pytest.raises(OverQuota):
            at.reserve(peer(99), second, NOW)
    else:
        at.reserve(peer(99), second, NOW)


# --- tokens -----------------------------------------------------------------------------------------------------------


def test_a_token_is_good_for_one_connection() -> None:
    at = board()
    at.reserve(BOB, HOME, NOW)
    circuit = at.connect(ALICE, HOME, BOB, NOW)
    assert len({*circuit.tokens}) == 2
    at.show(circuit.tokens[0], NOW)
    with pytest.raises(Unauthenticated) as caught:
        at.show(circuit.tokens[0], NOW)
    assert caught.value.reason is Reason.UNAUTHENTICATED
    assert circuit.meter is None


@given(st.binary(max_size=64))
def test_no_other_bytes_are_a_token(noise: bytes) -> None:
    at = board()
    at.reserve(BOB, HOME, NOW)
    circuit = at.connect(ALICE, HOME, BOB, NOW)
    if noise not in circuit.tokens:
        with pytest.raises(Unauthenticated):
            at.show(noise, NOW)
    assert at.circuits == (circuit,)


def test_the_tokens_of_a_circuit_that_ended_are_of_no_use() -> None:
    at = board()
    at.reserve(BOB, HOME, NOW)
    circuit = at.connect(ALICE, HOME, BOB, NOW)
    assert at.end(circuit)
    assert not at.end(circuit)
    for token in circuit.tokens:
        with pytest.raises(Unauthenticated):
            at.show(token, NOW)


# --- how many ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "error"),
    [
        ("RELAY_CIRCUITS_PER_CALLER_MAX", OverQuota),
        ("RELAY_CIRCUITS_PER_CALLEE_MAX", OverQuota),
        ("RELAY_CIRCUITS_PER_ADDRESS_MAX", OverQuota),
    ],
)
def test_circuits_are_bounded_for_each_caller_callee_and_address(
    limit: str, error: type[HaifError], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, limit, 2)
    at = board()
    first, _ = joined(at), joined(at)
    with pytest.raises(error):
        joined(at)
    at.end(first)
    joined(at)


def test_circuits_are_bounded_in_all() -> None:
    at = board(circuits=2)
    joined(at), joined(at, CAROL)
    with pytest.raises(Overloaded) as caught:
        joined(at)
    assert caught.value.reason is Reason.OVERLOADED


def test_who_asks_too_often_is_told_when_to_come_back() -> None:
    at = board()
    at.reserve(BOB, HOME, NOW)
    for _ in range(int(limits.RELAY_CONNECTS_BURST)):
        at.end(at.connect(ALICE, HOME, BOB, NOW))
    with pytest.raises(OverQuota) as caught:
        at.connect(ALICE, HOME, BOB, NOW)
    assert caught.value.retry_after == 1 / limits.RELAY_CONNECTS_PER_SECOND
    at.connect(CAROL, HOME, BOB, NOW)
    at.connect(ALICE, HOME, BOB, later(1.0))


def test_a_relay_that_leaves_takes_nobody_new() -> None:
    at = board()
    at.reserve(BOB, HOME, NOW)
    at.leaving = True
    with pytest.raises(Overloaded, match="leaving"):
        at.reserve(CAROL, HOME, NOW)
    with pytest.raises(Overloaded, match="leaving"):
        at.connect(ALICE, HOME, BOB, NOW)


# --- how long and how much --------------------------------------------------------------------------------------------


def overdue(at: Switchboard, now: Instant) -> list[tuple[Circuit, str]]:
    found = [*at.overdue(now)]
    assert all(isinstance(error, Timeout) for _, error in found)
    return [(circuit, str(error)) for circuit, error in found]


def test_a_circuit_of_which_one_end_never_comes_is_given_up() -> None:
    at = board()
    at.reserve(BOB, HOME, NOW)
    circuit = at.connect(ALICE, HOME, BOB, NOW)
    at.show(circuit.tokens[0], NOW)
    assert overdue(at, later(limits.RELAY_PAIRING_SECONDS - 0.1)) == []
    [(late, why)] = overdue(at, later(limits.RELAY_PAIRING_SECONDS))
    assert (late, why) == (circuit, "one end of the circuit never came")


def test_a_circuit_through_which_nothing_passes_is_given_up() -> None:
    at = board()
    circuit = joined(at)
    at.passed(circuit, 1, later(30))
    assert overdue(at, later(30 + limits.RELAY_IDLE_SECONDS - 0.1)) == []
    [(idle, _)] = overdue(at, later(30 + limits.RELAY_IDLE_SECONDS))
    assert idle is circuit


def test_a_circuit_ends_at_its_age_however_busy() -> None:
    at = board(circuit_seconds=100)
    circuit = joined(at)
    at.passed(circuit, 1, later(99))
    assert overdue(at, later(99)) == []
    [(old, why)] = overdue(at, later(100))
    assert (old, "100 s old" in why) == (circuit, True)


def test_a_circuit_carries_so_many_bytes_and_no_more() -> None:
    at = board(circuit_bytes=1000)
    circuit = joined(at)
    at.passed(circuit, 1000, NOW)
    with pytest.raises(OverQuota):
        at.passed(circuit, 1, NOW)


def test_who_is_over_its_rate_waits_until_it_is_not() -> None:
    meter = Meter(100.0, NOW)
    assert meter.passed(int(100 * limits.RELAY_BURST_SECONDS), NOW) == 0
    assert meter.passed(50, NOW) == pytest.approx(0.5)
    assert meter.passed(50, later(0.5)) == pytest.approx(0.5)
    assert meter.passed(1, later(1000)) == 0


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(1, 5000), st.floats(0, 3)), min_size=1, max_size=60))
def test_no_schedule_beats_the_rate(reads: list[tuple[int, float]]) -> None:
    """Whoever waits as it is told never exceeds the rate by more than the burst and its last read."""
    meter, now, passed = Meter(1000.0, NOW), float(NOW), 0
    for size, pause in reads:
        now += meter.passed(size, Instant(now)) + pause
        passed += size
        assert passed - size <= 1000 * (now - NOW + limits.RELAY_BURST_SECONDS) + 1e-6


def test_all_circuits_of_one_peer_share_its_rate() -> None:
    at = board(bytes_per_second=1000)
    circuits = [joined(at, peer(number)) for number in range(10, 14)]
    waits = [at.passed(circuit, 1000, NOW) for circuit in circuits]
    assert waits == pytest.approx([0, 0, 1, 2])
    alone = joined(at, CAROL, peer(20))
    assert at.passed(alone, 1000, NOW) == 0


def test_a_peer_does_not_get_a_new_burst_with_a_new_circuit() -> None:
    at = board(bytes_per_second=1000)
    first = joined(at)
    at.passed(first, 2000, NOW)
    at.end(first)
    assert at.passed(joined(at), 1000, NOW) == pytest.approx(1)


def test_metered_peers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RELAY_PEERS_REMEMBERED_MAX", 4)
    at = board()
    for number in range(10):
        circuit = joined(at, peer(100 + number))
        at.passed(circuit, 1, NOW)
        at.end(circuit)
    assert len(at._meters) == 4


REFUSALS = {Reason.OVER_QUOTA, Reason.OVERLOADED, Reason.CONNECTION_LOST, Reason.UNAUTHENTICATED}

# --- whatever happens -------------------------------------------------------------------------------------------------


@settings(max_examples=150)
@given(st.data())
def test_whatever_is_asked_nothing_is_left_of_circuits_that_ended(data: st.DataObject) -> None:
    at, now = board(circuits=6), float(NOW)
    open_: list[Circuit] = []
    tokens: list[bytes] = []
    for _ in range(data.draw(st.integers(1, 60))):
        now += data.draw(st.sampled_from([0.0, 0.1, 5.0]))
        act = data.draw(st.sampled_from(["reserve", "connect", "connect", "show", "pass", "end", "tick", "release"]))
        who, whom = peer(data.draw(st.integers(1, 4))), peer(data.draw(st.integers(1, 4)))
        try:
            if act == "reserve":
                at.reserve(who, HOME, Instant(now))
            elif act == "release":
                at.release(who)
            elif act == "connect":
                open_.append(at.connect(who, HOME, whom, Instant(now)))
                tokens += open_[-1].tokens
            elif act == "show" and tokens:
                at.show(data.draw(st.sampled_from(tokens)), Instant(now))
            elif act == "pass" and (live := [each for each in at.circuits if each.meter]):
                at.passed(live[0], 10, Instant(now))
            elif act == "end" and open_:
                at.end(open_.pop())
            elif act == "tick":
                for circuit, _ in [*at.overdue(Instant(now))]:
                    at.end(circuit)
        except HaifError as error:
            assert error.reason in REFUSALS
        assert len(at.circuits) <= 6
        assert sum(at._asked.values()) == sum(at._called.values()) == sum(at._homes.values()) == len(at.circuits)
        assert len(at._waiting) <= 2 * len(at.circuits)
    for circuit in at.circuits:
        at.end(circuit)
    assert not at._waiting
    assert not at._asked
    assert not at._called
    assert not at._homes
