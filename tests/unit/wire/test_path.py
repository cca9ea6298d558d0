"""A session moves to another byte stream: two machines, four pipes, no socket."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haif.base import limits
from haif.base.clock import Deadline, Instant
from haif.base.errors import ConnectionLost, HaifError, Overloaded, Reason, Timeout
from haif.base.ids import Digest
from haif.wire.events import Answered, Arrived, Ended, Moved, Received, Stayed
from haif.wire.frames import Kind, frame
from haif.wire.noise import Split
from haif.wire.opening import FURTHER_PATH, LENGTH, PREAMBLE, preamble
from haif.wire.path import ANSWER_BYTES, ARRIVAL, Arrival, Paths
from haif.wire.session import SessionMachine
from tests.support.wire_pair import NET, Pair, dialling, listening, opened, told

SIDES = ("client", "server")


class Roads:
    """A pair whose machines are joined by as many paths as they ask for; bytes wait in pipes until they are carried."""

    def __init__(self) -> None:
        self.pair = opened()
        self.ends: dict[tuple[str, int], tuple[str, int]] = {("client", 0): ("server", 0), ("server", 0): ("client", 0)}
        self.pipes: dict[tuple[str, int], bytearray] = {("client", 0): bytearray(), ("server", 0): bytearray()}

    def machine(self, side: str) -> SessionMachine:
        return self.pair.client if side == "client" else self.pair.server

    def ask(self, side: str = "client") -> int:
        """Begin a move; the other side has the preamble, its answer waits in the pipe."""
        number, opening = self.machine(side).move(self.pair.now)
        self.join(side, number, opening)
        return number

    def join(self, side: str, number: int, opening: bytes) -> None:
        other = SIDES[side == "client"]
        there, answer = self.machine(other).joined(read(opening), self.pair.now)
        self.ends |= {(side, number): (other, there), (other, there): (side, number)}
        self.pipes |= {(side, number): bytearray(), (other, there): bytearray(answer)}

    def write(self, side: str) -> None:
        """Have a machine's bytes enter the pipe they are for."""
        machine = self.machine(side)
        while True:
            path = machine.paths.writing
            data = machine.outgoing(self.pair.now)
            if not data:
                return
            self.pipes[side, path] += data

    def carry(self, end: tuple[str, int], count: int) -> None:
        """Take some bytes out of a pipe."""
        piece = bytes(self.pipes[end][:count])
        del self.pipes[end][: len(piece)]
        side, path = self.ends[end]
        if piece:
            self.machine(side).receive(piece, self.pair.now, path)
        self.pair.gather()

    def settle(self) -> None:
        """Until nothing is on its way."""
        while True:
            for side in SIDES:
                self.write(side)
            if not any(self.pipes.values()):
                return
            for end in [*self.pipes]:
                self.carry(end, 1 << 20)

    @property
    def closed(self) -> list[HaifError | None]:
        return [self.pair.client.closed, self.pair.server.closed]


def read(opening: bytes) -> Arrival:
    return Arrival.read(opening[: PREAMBLE.size], opening, PREAMBLE.size)


# --- what it is for ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mover", SIDES)
def test_either_side_moves_the_session_and_calls_go_on(mover: str) -> None:
    roads = Roads()
    stream = roads.pair.call()
    roads.settle()
    number = roads.ask(mover)
    roads.settle()
    assert [event.path for event in told(roads.pair.heard_client, Moved)] == [1]
    assert [event.path for event in told(roads.pair.heard_server, Moved)] == [1]
    roads.pair.server.rpc.reply(stream, b"over the new path")
    roads.write("server")
    assert roads.pipes["server", 0] == b""
    roads.settle()
    assert roads.pair.heard_client[-1] == Answered(stream, b"over the new path")
    assert roads.machine(mover).paths.writing == number
    assert roads.closed == [None, None]


def test_a_session_may_move_again_and_again() -> None:
    roads = Roads()
    for _ in range(limits.PATHS_PER_MINUTE_MAX // 2):
        for mover in SIDES:
            roads.ask(mover)
            roads.settle()
    assert roads.pair.client.paths.writing == roads.pair.server.paths.writing == limits.PATHS_PER_MINUTE_MAX // 2 * 2
    assert roads.closed == [None, None]


def test_a_move_takes_one_round_trip_there_and_one_message_back() -> None:
    """Half round trips: preamble, answer, PATH and first message, PATH back."""
    roads = Roads()
    roads.ask()
    turns = 0
    while not told(roads.pair.heard_client, Moved):
        for end in [*roads.pipes]:
            roads.carry(end, 1 << 20)
        for side in SIDES:
            roads.write(side)
        turns += 1
    assert turns == 3  # after the preamble: two round trips in all, none of which any call waits for


def test_the_last_message_on_a_path_may_rekey_too() -> None:
    roads = Roads()
    roads.ask()
    for machine in (roads.pair.client, roads.pair.server):
        machine._channel.sealer.bytes_used = limits.REKEY_BYTES
    roads.settle()
    assert len(told(roads.pair.heard_client, Moved)) == 1
    assert roads.pair.client._channel.opener._key == roads.pair.server._channel.sealer._key


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_whatever_overtakes_whatever_no_message_is_lost_or_doubled(data: st.DataObject) -> None:
    """Streams in both directions, moves by both sides at any moment, pipes that run at any pace."""
    roads = Roads()
    pair = roads.pair
    down = pair.call(streaming=True)
    up = pair.server.rpc.call("m", b"", Deadline.after(100.0, pair.now), pair.now, streaming=True)
    roads.settle()
    sent = {"client": 0, "server": 0}
    for _ in range(data.draw(st.integers(5, 60))):
        act = data.draw(st.sampled_from(["say", "say", "write", "carry", "carry", "carry", "move"]))
        side = data.draw(st.sampled_from(SIDES))
        if act == "say":
            sent[side] += 1
            roads.machine(side).rpc.send(up if side == "client" else down, b"%d" % sent[side])
        elif act == "write":
            roads.write(side)
        elif act == "carry":
            busy = sorted(end for end, pipe in roads.pipes.items() if pipe)
            if busy:
                roads.carry(data.draw(st.sampled_from(busy)), data.draw(st.sampled_from([1, 7, 64, 1 << 20])))
        elif roads.machine(side).paths.new is None and roads.machine(SIDES[side == "client"]).paths.new is None:
            roads.ask(side)
    roads.settle()
    assert roads.closed == [None, None]
    for heard, stream, sender in ((pair.heard_client, down, "server"), (pair.heard_server, up, "client")):
        expected = [b"%d" % number for number in range(1, sent[sender] + 1)]
        assert expected == [event.message for event in told(heard, Received) if event.stream == stream]
    assert [machine.paths.new for machine in (pair.client, pair.server)] == [None, None]
    assert told(pair.heard_client, Ended) == []


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_where_both_ask_at_any_moment_one_move_wins_or_none_and_the_session_lives(data: st.DataObject) -> None:
    """Preambles that cross: the session's initiator goes first, the other's is refused, nothing is lost."""
    roads = Roads()
    openings: list[tuple[str, int, bytes]] = []
    for _ in range(data.draw(st.integers(2, 25))):
        act = data.draw(st.sampled_from(["ask", "join", "write", "carry", "carry"]))
        side = data.draw(st.sampled_from(SIDES))
        if act == "ask" and roads.machine(side).paths.new is None:
            openings.append((side, *roads.machine(side).move(roads.pair.now)))
        elif act == "join" and openings:
            asker, number, opening = openings.pop(0)
            try:
                roads.join(asker, number, opening)
            except HaifError as error:
                assert error.reason is Reason.WRONG_STATE
                roads.machine(asker).lost(number, ConnectionLost("refused"))
        elif act == "write":
            roads.write(side)
        elif act == "carry":
            busy = sorted(end for end, pipe in roads.pipes.items() if pipe)
            if busy:
                roads.carry(data.draw(st.sampled_from(busy)), 1 << 20)
    for asker, number, _ in openings:
        roads.machine(asker).lost(number, ConnectionLost("never came"))
    for end in [*roads.pipes]:  # what a side gave up, its driver closes, and the other end sees that
        side, number = end
        machine = roads.machine(side)
        if number > max(machine.paths.reading, machine.paths.writing) and (
            machine.paths.new is None or machine.paths.new.number != number
        ):
            other, there = roads.ends[end]
            roads.pipes[end].clear()
            roads.machine(other).lost(there, ConnectionLost("closed"))
    roads.settle()
    assert roads.closed == [None, None]


# --- what goes wrong before anybody moved leaves the session where it is ----------------------------------------------


def stays(roads: Roads, reason: Reason, side: str = "client") -> None:
    """This side gave its new path up for this reason, and calls are answered as before."""
    roads.pair.gather()
    heard = roads.pair.heard_client if side == "client" else roads.pair.heard_server
    assert [event.error.reason for event in told(heard, Stayed)] == [reason]
    assert roads.machine(side).paths.writing == 0
    stream = roads.pair.call()
    roads.settle()
    roads.pair.server.rpc.reply(stream, b"still here")
    roads.settle()
    assert roads.pair.heard_client[-1] == Answered(stream, b"still here")


def test_a_path_that_breaks_before_the_answer_came() -> None:
    roads = Roads()
    number = roads.ask()
    roads.pipes["server", 1].clear()
    roads.pair.client.lost(number, ConnectionLost("broke"))
    roads.pair.server.lost(1, ConnectionLost("broke"))
    stays(roads, Reason.CONNECTION_LOST)


def test_a_path_that_is_never_answered() -> None:
    roads = Roads()
    roads.pair.client.move(roads.pair.now)
    assert roads.pair.client.wake_at() == pytest.approx(roads.pair.now + limits.PATH_SECONDS)
    roads.pair.wait(limits.PATH_SECONDS)
    stays(roads, Reason.TIMEOUT)


def test_a_path_nobody_moves_to_is_given_up_by_who_was_asked() -> None:
    roads = Roads()
    roads.ask()
    roads.pipes["server", 1].clear()
    for _ in range(10):
        roads.pair.wait(limits.PATH_FINISH_SECONDS / 10)
        roads.settle()
    stays(roads, Reason.TIMEOUT, "server")


def test_somebody_else_answers_on_the_new_path() -> None:
    roads = Roads()
    roads.ask()
    roads.pipes["server", 1][0] ^= 1
    roads.carry(("server", 1), 1 << 20)
    stays(roads, Reason.BAD_SIGNATURE)


def test_the_other_side_refuses() -> None:
    roads = Roads()
    for _ in range(limits.PATHS_PER_MINUTE_MAX):
        roads.ask()
        roads.settle()
    number, opening = roads.pair.client.move(roads.pair.now)
    with pytest.raises(Overloaded) as caught:
        roads.pair.server.joined(read(opening), roads.pair.now)
    assert caught.value.retry_after == pytest.approx(60 / limits.PATHS_PER_MINUTE_MAX)
    roads.pair.client.lost(number, ConnectionLost("refused"))
    assert roads.closed == [None, None]


def test_one_move_at_a_time() -> None:
    roads = Roads()
    roads.pair.client.move(roads.pair.now)
    with pytest.raises(Overloaded, match="already"):
        roads.pair.client.move(roads.pair.now)


def test_a_session_that_is_not_open_does_not_move() -> None:
    pair = Pair()
    with pytest.raises(ConnectionLost):
        pair.client.move(pair.now)
    pair.settle()
    pair.client.close(ConnectionLost("over"))
    with pytest.raises(ConnectionLost):
        pair.client.move(pair.now)


# --- what goes wrong afterwards ends it -------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [0, 1])
def test_a_path_that_breaks_between_the_two_directions_ends_the_session(path: int) -> None:
    """The client writes on the new path and reads the old one: it needs both."""
    roads = Roads()
    roads.ask()
    roads.carry(("server", 1), ANSWER_BYTES)
    roads.write("client")
    assert (roads.pair.client.paths.reading, roads.pair.client.paths.writing) == (0, 1)
    roads.pair.client.lost(path, ConnectionLost("broke"))
    assert roads.pair.client.closed.reason is Reason.CONNECTION_LOST


def test_the_old_path_may_break_once_both_directions_have_moved() -> None:
    roads = Roads()
    roads.ask()
    roads.settle()
    roads.pair.client.lost(0, ConnectionLost("closed"))
    roads.pair.server.lost(0, ConnectionLost("closed"))
    assert roads.closed == [None, None]


def test_a_peer_that_moves_to_a_path_that_broke_here_has_done_nothing_wrong() -> None:
    roads = Roads()
    roads.ask()
    roads.carry(("server", 1), ANSWER_BYTES)
    roads.pair.server.lost(1, ConnectionLost("broke"))
    roads.write("client")
    roads.carry(("client", 0), 1 << 20)
    assert roads.pair.server.closed.reason is Reason.CONNECTION_LOST


def test_a_move_of_which_the_other_half_never_comes_ends_the_session() -> None:
    roads = Roads()
    roads.ask()
    roads.carry(("server", 1), ANSWER_BYTES)
    roads.write("client")
    roads.pair.now = Instant(roads.pair.now + limits.PATH_FINISH_SECONDS)
    roads.pair.client._channel.life.heard = roads.pair.now
    roads.pair.client.wake(roads.pair.now)
    assert isinstance(roads.pair.client.closed, Timeout)


# --- hostile ----------------------------------------------------------------------------------------------------------


def test_a_wrong_proof_is_refused() -> None:
    roads = Roads()
    _, opening = roads.pair.client.move(roads.pair.now)
    for position in range(len(opening) - 16, len(opening)):
        forged = bytearray(opening)
        forged[position] ^= 1
        assert refused(roads, bytes(forged)) is Reason.BAD_SIGNATURE
    for position in range(PREAMBLE.size + 16, PREAMBLE.size + 20):  # another counter needs another proof
        forged = bytearray(opening)
        forged[position] ^= 1
        assert refused(roads, bytes(forged)) is Reason.BAD_SIGNATURE
    assert roads.pair.server.paths.new is None


def refused(roads: Roads, opening: bytes, side: str = "server") -> Reason:
    with pytest.raises(HaifError) as caught:
        roads.machine(side).joined(read(opening), roads.pair.now)
    return caught.value.reason


def test_what_a_relay_can_compute_is_not_the_key() -> None:
    """The handshake hash is made of what travelled: whoever carried the handshake knows it."""
    roads = Roads()
    scope = roads.pair.client.established.scope
    _, opening = roads.pair.client.move(roads.pair.now)
    about = opening[: PREAMBLE.size] + b"\x01" + (1).to_bytes(4, "big")
    for key in (bytes(scope), hashlib.blake2s(scope, person=b"haifpath").digest()):
        guess = hashlib.blake2s(about, key=key, person=b"path ask", digest_size=16).digest()
        assert guess != opening[-16:]
        assert refused(roads, opening[:-16] + guess) is Reason.BAD_SIGNATURE


def test_a_preamble_counts_once() -> None:
    roads = Roads()
    number, opening = roads.pair.client.move(roads.pair.now)
    roads.join("client", number, opening)
    assert refused(roads, opening) is Reason.REPLAYED
    roads.settle()
    assert refused(roads, opening) is Reason.REPLAYED
    assert roads.closed == [None, None]


def test_a_preamble_is_of_no_use_against_its_author() -> None:
    roads = Roads()
    _, opening = roads.pair.client.move(roads.pair.now)
    assert refused(roads, opening, "client") is Reason.BAD_SIGNATURE


def test_a_preamble_is_of_no_use_in_another_session() -> None:
    _, opening = Roads().pair.client.move(Instant(100.0))
    other = Pair(dialling(seed=7), listening(seed=8))
    other.settle()
    with pytest.raises(HaifError) as caught:
        other.server.joined(read(opening), other.now)
    assert caught.value.reason is Reason.BAD_SIGNATURE


def test_whoever_copies_a_preamble_and_comes_first_only_costs_one_try() -> None:
    """It gets the answer, of no use without the keys; the mover's own path is refused, and its next one is not."""
    roads = Roads()
    number, opening = roads.pair.client.move(roads.pair.now)
    thief, _ = roads.pair.server.joined(read(opening), roads.pair.now)
    assert refused(roads, opening) is Reason.REPLAYED
    roads.pair.client.lost(number, ConnectionLost("refused"))
    roads.ask()
    roads.pair.gather()
    assert [event.path for event in told(roads.pair.heard_server, Stayed)] == [thief]
    roads.settle()
    assert len(told(roads.pair.heard_client, Moved)) == 1
    assert roads.closed == [None, None]


def test_a_thief_of_a_path_cannot_make_the_other_side_follow() -> None:
    roads = Roads()
    _, opening = roads.pair.client.move(roads.pair.now)
    thief, _ = roads.pair.server.joined(read(opening), roads.pair.now)
    roads.pair.server.receive(bytes(100), roads.pair.now, thief)
    roads.pair.server.outgoing(roads.pair.now)
    assert (roads.pair.server.paths.reading, roads.pair.server.paths.writing) == (0, 0)
    assert roads.closed == [None, None]


def test_too_much_on_a_path_that_is_not_read_yet_is_not_kept() -> None:
    roads = Roads()
    roads.ask()
    roads.pair.server.receive(bytes(limits.PATH_HELD_BYTES_MAX + 1), roads.pair.now, 1)
    roads.pipes["server", 1].clear()
    stays(roads, Reason.OVERSIZE, "server")


def to_the_server(roads: Roads, plaintext: bytes, path: int) -> Reason | None:
    """The client sends a plaintext of the test's making on this path; why the server closed, if it did."""
    sealed = roads.pair.client._channel.sealer.seal(plaintext)
    roads.pair.server.receive(LENGTH.pack(len(sealed)) + sealed, roads.pair.now, path)
    return roads.pair.server.closed and roads.pair.server.closed.reason


def noise_on_the_new_path(roads: Roads) -> None:
    roads.pair.server.receive(LENGTH.pack(38) + bytes(38), roads.pair.now, 1)


PATH = frame(Kind.PATH, 0, (1).to_bytes(4, "little"))
ASKED: dict[str, tuple[Callable[[Roads], object], Reason]] = {
    "PATH twice": (
        lambda roads: (to_the_server(roads, PATH, 0), to_the_server(roads, PATH, 1)), Reason.WRONG_STATE,
    ),
    "PATH twice in one message": (lambda roads: to_the_server(roads, PATH + PATH, 0), Reason.WRONG_STATE),
    "PATH with another counter": (
        lambda roads: to_the_server(roads, frame(Kind.PATH, 0, b"\x02\0\0\0"), 0), Reason.WRONG_STATE,
    ),
    "PATH with a short counter": (
        lambda roads: to_the_server(roads, frame(Kind.PATH, 0, b"\x01"), 0), Reason.WRONG_STATE,
    ),
    "PATH on a stream": (lambda roads: to_the_server(roads, frame(Kind.PATH, 1, PATH[7:]), 0), Reason.MALFORMED),
    "a message after PATH on the old path": (
        lambda roads: (to_the_server(roads, PATH, 0), to_the_server(roads, frame(Kind.PING, 0), 0)), Reason.WRONG_STATE,
    ),
    "noise on the new path, then PATH": (
        lambda roads: (noise_on_the_new_path(roads), to_the_server(roads, PATH, 0)),
        Reason.BAD_SIGNATURE,
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", ASKED)
def test_a_mover_that_breaks_a_rule_is_dropped_with_its_reason(what: str) -> None:
    act, reason = ASKED[what]
    roads = Roads()
    roads.ask()
    act(roads)
    assert roads.pair.server.closed.reason is reason


def test_bytes_that_follow_path_in_the_same_read_end_the_session() -> None:
    roads = Roads()
    roads.ask()
    sealed = roads.pair.client._channel.sealer.seal(PATH)
    roads.pair.server.receive(LENGTH.pack(len(sealed)) + sealed + b"\0", roads.pair.now)
    assert roads.pair.server.closed.reason is Reason.WRONG_STATE


def test_path_out_of_the_blue_ends_the_session() -> None:
    roads = Roads()
    assert to_the_server(roads, PATH, 0) is Reason.WRONG_STATE


def test_who_was_asked_cannot_move_first() -> None:
    roads = Roads()
    roads.ask()
    sealed = roads.pair.server._channel.sealer.seal(PATH)
    roads.pair.client.receive(LENGTH.pack(len(sealed)) + sealed, roads.pair.now)
    assert roads.pair.client.closed.reason is Reason.WRONG_STATE


# --- how it begins ----------------------------------------------------------------------------------------------------


def test_what_is_said_first_on_a_new_path_has_its_golden_bytes() -> None:
    scope, now = Digest(b"h" * 32), Instant(0.0)
    mover = Paths(Split(b"a" * 32, b"b" * 32, scope), initiator=True, now=now)
    other = Paths(Split(b"b" * 32, b"a" * 32, scope), initiator=False, now=now)
    _, opening = mover.ask(preamble(NET, pattern=FURTHER_PATH), now)
    assert opening.hex() == ASK
    _, answer, _ = other.take(read(opening), now)
    assert answer.hex() == ANSWER


ASK = "48414946010102006e6e6e6e0ae8954986ca6d802869f175412c096f00000001e2e067b0605fc308cc582985cdfd53bf"
ANSWER = "2555bc49d54c4d595136b7a2ac0f25eb"


def test_a_listener_tells_a_further_path_from_a_handshake() -> None:
    _, opening = opened().client.move(Instant(100.0))
    pair = Pair()
    for byte in opening:
        pair.server.receive(bytes([byte]), pair.now)
    pair.gather()
    [event] = pair.heard_server
    assert event == Arrived(read(opening))


def test_a_further_path_that_does_not_wait_for_its_answer_is_refused() -> None:
    _, opening = opened().client.move(Instant(100.0))
    pair = Pair()
    pair.server.receive(opening + b"\0", pair.now)
    assert pair.server.closed.reason is Reason.WRONG_STATE


@pytest.mark.parametrize(
    ("position", "reason"),
    [(0, Reason.MALFORMED), (5, Reason.UNSUPPORTED), (7, Reason.UNSUPPORTED), (8, Reason.WRONG_STATE)],
)
def test_a_further_path_of_something_else_is_refused_as_a_handshake_would_be(position: int, reason: Reason) -> None:
    _, opening = opened().client.move(Instant(100.0))
    forged = bytearray(opening)
    forged[position] = 0 if position != 7 else 2
    pair = Pair()
    pair.server.receive(bytes(forged), pair.now)
    assert pair.server.closed.reason is reason


@settings(max_examples=100, deadline=None)
@given(st.binary(min_size=ARRIVAL.size, max_size=ARRIVAL.size))
def test_any_bytes_in_the_place_of_a_proof_are_refused(noise: bytes) -> None:
    preamble = PREAMBLE.pack(b"HAIF", 1, 1, FURTHER_PATH, 0, NET[:4])
    pair = opened()
    with pytest.raises(HaifError) as caught:
        pair.server.joined(Arrival.read(preamble, noise, 0), pair.now)
    assert caught.value.reason is Reason.BAD_SIGNATURE
