"""A hostile peer at the wire: whatever it sends, the session ends with the right reason and nothing else happens.

Threats H-S1 (a stranger in another's name), H-S3 (replays) and H-T2 (altered messages) of docs/threats.md.
"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haif.base import limits
from haif.base.errors import HaifError, PeerFault, Reason
from haif.base.ids import NetId
from haif.identity.keys import Identity, NoiseKey
from haif.wire.events import Called, Closed
from haif.wire.frames import SIZE, Kind, frame, request_head
from haif.wire.handshake import Credentials
from tests.support.wire_pair import (
    CLIENT,
    CLIENT_KEY,
    MESSAGE_MAX,
    NET,
    SERVER,
    Pair,
    credentials,
    dialling,
    impostor,
    listening,
    opened,
    req,
    told,
)  # fmt: skip


def calling() -> tuple[Pair, int, int]:
    """A pair with one call and one stream of the client's open: pair, call id, stream id."""
    pair = opened()
    call, stream = pair.call(), pair.call(streaming=True)
    pair.settle()
    return pair, call, stream


# --- H-S1: nobody speaks in another's name ----------------------------------------------------------------------------


def test_h_s1_a_peer_without_the_key_cannot_answer_in_anothers_name() -> None:
    """It has the victim's certificate, but not the Noise key it names."""
    victim = credentials(SERVER, NoiseKey(b"v" * 32))
    pair = Pair(server=listening(Credentials(NET, SERVER.peer, NoiseKey(b"e" * 32), victim.certificate)))
    pair.settle()
    assert pair.client.closed.reason is Reason.BAD_SIGNATURE
    assert pair.client.established is None


def test_h_s1_a_peer_cannot_answer_for_another_with_its_own_certificate() -> None:
    eve = Identity(b"e" * 32)
    pair = Pair(server=impostor(credentials(eve, NoiseKey(b"e" * 32))))
    pair.settle()
    assert pair.client.closed.reason is Reason.BAD_SIGNATURE
    assert str(SERVER.peer.short) in str(pair.client.closed)


def test_h_s1_a_certificate_signed_by_somebody_else_is_refused() -> None:
    forged = bytearray(credentials(CLIENT, CLIENT_KEY).certificate)
    forged[-1] ^= 1
    pair = Pair(dialling(own=Credentials(NET, CLIENT.peer, CLIENT_KEY, bytes(forged))))
    pair.settle()
    assert pair.server.closed.reason is Reason.BAD_SIGNATURE


def test_n_12_a_peer_of_another_network_gets_no_session() -> None:
    for net in (NetId(b"x" * 32), NetId(b"n" * 31 + b"x")):
        pair = Pair(dialling(own=credentials(CLIENT, CLIENT_KEY, net)))
        pair.settle()
        assert pair.server.established is None
        assert pair.client.established is None


# --- H-T2 and H-S3: what was altered, cut or heard before is refused --------------------------------------------------


def test_h_t2_any_bit_of_a_message_changed_ends_the_session() -> None:
    size = len(sealed_call(opened()))
    for position in range(2, size):
        pair = opened()
        data = bytearray(sealed_call(pair))
        data[position] ^= 1
        pair.server.receive(bytes(data), pair.now)
        pair.gather()
        assert pair.server.closed.reason is Reason.BAD_SIGNATURE
        assert told(pair.heard_server, Called) == []


@pytest.mark.parametrize("length", [0, 1, 15])
def test_h_t2_a_message_shorter_than_its_tag_ends_the_session(length: int) -> None:
    pair = opened()
    pair.server.receive(length.to_bytes(2, "big") + bytes(length), pair.now)
    assert pair.server.closed.reason is Reason.MALFORMED


def test_h_t2_a_truncated_message_never_arrives_in_part() -> None:
    pair = opened()
    data = sealed_call(pair)
    pair.server.receive(data[:-1], pair.now)
    pair.gather()
    assert told(pair.heard_server, Called) == []


def test_h_s3_a_replayed_message_ends_the_session() -> None:
    pair = opened()
    data = sealed_call(pair)
    pair.server.receive(data, pair.now)
    pair.server.receive(data, pair.now)
    pair.gather()
    assert len(told(pair.heard_server, Called)) == 1
    assert pair.server.closed.reason is Reason.BAD_SIGNATURE


def test_h_s3_a_whole_recorded_session_replayed_to_the_server_gets_no_session() -> None:
    pair = Pair()
    opening = pair.client.outgoing(pair.now)
    pair.server.receive(opening, pair.now)
    pair.client.receive(pair.server.outgoing(pair.now), pair.now)
    rest = pair.client.outgoing(pair.now) + sealed_call(pair)
    again = Pair(server=listening(credentials(SERVER, NoiseKey(b"S" * 32))))
    again.server._handshake._entropy = lambda count: b"\x99" * count  # another ephemeral key, as in life
    again.server.receive(opening, again.now)
    again.server.receive(rest, again.now)
    again.gather()
    assert again.server.closed.reason is Reason.BAD_SIGNATURE
    assert [type(event) for event in again.heard_server] == [Closed]


def test_h_s3_messages_out_of_order_end_the_session() -> None:
    pair = opened()
    first, second = sealed_call(pair), sealed_call(pair)
    pair.server.receive(second + first, pair.now)
    assert pair.server.closed.reason is Reason.BAD_SIGNATURE


def sealed_call(pair: Pair) -> bytes:
    pair.call("m", b"argument")
    return pair.client.outgoing(pair.now)


# --- an authenticated peer that breaks the rules ----------------------------------------------------------------------

FROM_CALLER = {
    "an unknown kind": (frame(16, 0), Reason.MALFORMED),
    "kind zero": (frame(0, 0), Reason.MALFORMED),
    "a frame cut": (frame(Kind.DATA, 1, b"12345")[:-1], Reason.MALFORMED),
    "a header cut": (b"\x01\x00", Reason.MALFORMED),
    "a request without a head": (frame(Kind.REQ, 5), Reason.MALFORMED),
    "a stream id of ours": (req(2, 0), Reason.WRONG_STATE),
    "stream zero": (req(0, 0), Reason.WRONG_STATE),
    "a stream id again": (req(1, 0), Reason.WRONG_STATE),
    "a stream id that fell": (req(9, 0) + req(7, 0), Reason.WRONG_STATE),
    "an argument over the limit": (req(5, MESSAGE_MAX + 1), Reason.OVERSIZE),
    "an argument longer than it said": (req(5, 3, b"four"), Reason.MALFORMED),
    "a piece longer than what is missing": (req(5, 5, b"four") + frame(Kind.DATA, 5, b"12"), Reason.MALFORMED),
    "an empty piece": (req(5, 5, b"four") + frame(Kind.DATA, 5), Reason.MALFORMED),
    "a piece too many": (frame(Kind.DATA, 1, b"more"), Reason.WRONG_STATE),
    "data for a call never made": (frame(Kind.DATA, 99, b"1234"), Reason.WRONG_STATE),
    "an answer to nothing": (frame(Kind.RES, 2, SIZE.pack(0)), Reason.WRONG_STATE),
    "an end of nothing": (frame(Kind.FIN, 2), Reason.WRONG_STATE),
    "an error for nothing": (frame(Kind.ERR, 2, b"\x93\xa7timeout\xa0\xc0"), Reason.WRONG_STATE),
    "a reset of nothing": (frame(Kind.RST, 2), Reason.WRONG_STATE),
    "a cancel of nothing": (frame(Kind.CANCEL, 99), Reason.WRONG_STATE),
    "a cancel with a body": (frame(Kind.CANCEL, 1, b"x"), Reason.MALFORMED),
    "credit never taken": (frame(Kind.CREDIT, 0, SIZE.pack(1)), Reason.WRONG_STATE),
    "credit never taken, by a stream": (frame(Kind.CREDIT, 3, SIZE.pack(1)), Reason.WRONG_STATE),
    "credit for a stream never opened": (frame(Kind.CREDIT, 99, SIZE.pack(1)), Reason.WRONG_STATE),
    "no credit": (frame(Kind.CREDIT, 0, SIZE.pack(0)), Reason.MALFORMED),
    "half a credit": (frame(Kind.CREDIT, 0, b"\0\0"), Reason.MALFORMED),
    "a ping with a body": (frame(Kind.PING, 0, b"x"), Reason.MALFORMED),
    "a ping on a stream": (frame(Kind.PING, 1), Reason.MALFORMED),
    "a goaway on a stream": (frame(Kind.GOAWAY, 1), Reason.WRONG_STATE),
    "a goaway with a body": (frame(Kind.GOAWAY, 0, b"x"), Reason.MALFORMED),
    "a frame after rekey": (frame(Kind.REKEY, 0) + frame(Kind.PING, 0), Reason.WRONG_STATE),
    "metadata that is none": (
        frame(Kind.REQ, 5, b"\0\0\0\0\1\0\0\0\1\1\0m\xc1"), Reason.MALFORMED,
    ),
}  # fmt: skip

FROM_CALLEE = {
    "an answer on a stream": (3, frame(Kind.RES, 3, SIZE.pack(0)), Reason.WRONG_STATE),
    "a message on a call": (1, frame(Kind.DATA, 1, SIZE.pack(0)), Reason.WRONG_STATE),
    "an end on a call": (1, frame(Kind.FIN, 1), Reason.WRONG_STATE),
    "an end inside a message": (
        3, frame(Kind.DATA, 3, SIZE.pack(9) + b"x") + frame(Kind.FIN, 3), Reason.WRONG_STATE,
    ),
    "an answer inside an answer": (
        1, frame(Kind.RES, 1, SIZE.pack(9) + b"x") + frame(Kind.RES, 1, SIZE.pack(9) + b"x"), Reason.WRONG_STATE,
    ),
    "an answer twice": (1, 2 * frame(Kind.RES, 1, SIZE.pack(0)), Reason.WRONG_STATE),
    "an end twice": (3, 2 * frame(Kind.FIN, 3), Reason.WRONG_STATE),
    "an answer to a call never made": (1, frame(Kind.RES, 99, SIZE.pack(0)), Reason.WRONG_STATE),
    "an answer without a size": (1, frame(Kind.RES, 1, b"\0"), Reason.MALFORMED),
    "an answer over the limit": (1, frame(Kind.RES, 1, SIZE.pack(MESSAGE_MAX + 1)), Reason.OVERSIZE),
    "an answer longer than it said": (1, frame(Kind.RES, 1, SIZE.pack(1) + b"two"), Reason.MALFORMED),
    "a message over the limit": (3, frame(Kind.DATA, 3, SIZE.pack(2**32 - 1)), Reason.OVERSIZE),
    "an error that is none": (1, frame(Kind.ERR, 1, b"\xc0"), Reason.MALFORMED),
    "an error too long": (1, frame(Kind.ERR, 1, b"\x93\xa1x\xda\x08\x00" + b"x" * 2048 + b"\xc0"), Reason.OVERSIZE),
    "a cancel from the callee": (1, frame(Kind.CANCEL, 1), Reason.WRONG_STATE),
    "credit from the callee": (3, frame(Kind.CREDIT, 3, SIZE.pack(1)), Reason.WRONG_STATE),
}  # fmt: skip


@pytest.mark.parametrize("what", FROM_CALLER)
def test_a_caller_that_breaks_a_rule_is_dropped_with_its_reason(what: str) -> None:
    plaintext, reason = FROM_CALLER[what]
    pair, _, _ = calling()
    error = pair.forge(plaintext)
    assert error is not None
    assert error.reason is reason
    assert isinstance(error, PeerFault)


@pytest.mark.parametrize("what", FROM_CALLEE)
def test_a_callee_that_breaks_a_rule_is_dropped_with_its_reason(what: str) -> None:
    _, plaintext, reason = FROM_CALLEE[what]
    pair, _, _ = calling()
    error = pair.forge(plaintext, to="client")
    assert error is not None
    assert error.reason is reason


def test_an_extension_that_says_it_may_be_ignored_is_ignored() -> None:
    pair, _, _ = calling()
    assert pair.forge(frame(0x80, 7, b"whatever") + frame(0xFF, 0)) is None


@pytest.mark.parametrize("size", [0, 40, 1000, 16_000])
def test_a_sender_that_ignores_the_streams_credit_is_dropped_within_its_window(size: int) -> None:
    pair, _, stream = calling()
    came = 0
    while pair.client.closed is None:
        pair.forge(frame(Kind.DATA, stream, SIZE.pack(size) + bytes(size)), to="client")
        came += size + limits.MESSAGE_OVERHEAD_BYTES
    assert pair.client.closed.reason is Reason.WRONG_STATE
    assert came <= limits.STREAM_CREDIT_BYTES + 2 * (size + limits.MESSAGE_OVERHEAD_BYTES)


def test_a_caller_that_ignores_the_sessions_credit_is_dropped_before_it_fills_memory() -> None:
    pair = opened()
    for number in range(limits.STREAMS_PER_SESSION_MAX):
        if pair.forge(req(2 * number + 1, MESSAGE_MAX, b"x")) is not None:
            break
    assert pair.server.closed.reason is Reason.WRONG_STATE
    assert number * MESSAGE_MAX <= limits.SESSION_CREDIT_BYTES + MESSAGE_MAX


def test_a_caller_with_too_many_calls_open_is_dropped() -> None:
    pair = opened()
    for number in range(limits.STREAMS_PER_SESSION_MAX):
        assert pair.forge(req(2 * number + 1, 0)) is None
    assert pair.forge(req(2 * number + 3, 0)).reason is Reason.OVERSIZE


def test_a_caller_that_reads_no_answers_cannot_make_them_pile_up() -> None:
    """Answers count as open calls until they have left."""
    pair = opened()
    for number in range(limits.STREAMS_PER_SESSION_MAX):
        pair.forge(req(2 * number + 1, 0) + frame(Kind.CANCEL, 2 * number + 1))
    assert pair.server.closed is None
    assert pair.server.rpc.quiet()
    assert pair.forge(req(2 * number + 3, 0)).reason is Reason.OVERSIZE


def test_data_for_a_call_that_timed_out_is_passed_over_because_it_crossed() -> None:
    pair = opened()
    pair.forge(req(1, 10, b"part", timeout_ms=1))
    pair.now += 0.01
    pair.server.wake(pair.now)
    assert pair.forge(frame(Kind.DATA, 1, b"more")) is None
    assert pair.forge(frame(Kind.CANCEL, 1)) is None


def test_a_callee_that_never_ends_a_cancelled_call_loses_the_session() -> None:
    pair, call, _ = calling()
    pair.client.rpc.cancel(call, pair.now)
    end = pair.now + limits.SESSION_SILENCE_SECONDS + 1
    while pair.now < end and pair.client.closed is None:
        pair.now += 1.0
        pair.client.outgoing(pair.now)
        pair.forge(frame(Kind.PONG, 0), to="client")
        pair.client.wake(pair.now)
    assert pair.client.closed.reason is Reason.CONNECTION_LOST


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=60),
            st.builds(
                frame,
                st.integers(0, 255), st.integers(0, 12), st.binary(max_size=40),
            ),
            st.builds(
                lambda stream, size, piece, kind: frame(kind, stream, request_head(size, 5, "m", None) + piece),
                st.integers(0, 12), st.integers(0, 50), st.binary(max_size=50), st.sampled_from([Kind.REQ, Kind.OPEN]),
            ),
        ),
        max_size=12,
    ),
    st.sampled_from(["client", "server"]),
)  # fmt: skip
def test_whatever_frames_come_only_the_session_can_end_and_only_with_a_reason(frames: list[bytes], to: str) -> None:
    pair, _, _ = calling()
    for plaintext in frames:
        if pair.forge(plaintext, to=to) is not None:
            break
    target = pair.client if to == "client" else pair.server
    target.outgoing(pair.now)
    pair.wait(1.0)
    assert target.closed is None or isinstance(target.closed, HaifError)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400), st.booleans(), st.integers(0, 3))
def test_whatever_bytes_come_in_whatever_phase_only_the_session_can_end(noise: bytes, client: bool, phase: int) -> None:
    pair = Pair()
    for _ in range(phase):
        pair.server.receive(pair.client.outgoing(pair.now), pair.now)
        pair.client.receive(pair.server.outgoing(pair.now), pair.now)
    target = pair.client if client else pair.server
    target.receive(noise, pair.now)
    target.outgoing(pair.now)
    assert target.closed is None or isinstance(target.closed, HaifError)
    assert len(target._rest) <= 2 + limits.NOISE_MESSAGE_BYTES_MAX
