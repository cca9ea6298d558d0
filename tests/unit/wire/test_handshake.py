"""The preamble, the versions and the certificates."""

from collections.abc import Callable

import pytest

from haif.base import codec, limits
from haif.base.clock import Deadline, Instant, WallTime
from haif.base.errors import BadSignature, Expired, HaifError, Malformed, Overloaded, Reason, Unsupported, WrongState
from haif.base.ids import NetId, PeerId
from haif.identity.keys import Identity, NoiseKey
from haif.identity.replay import HandshakeTimes
from haif.wire.events import Called, Closed, Established
from haif.wire.frames import Failure, frame
from haif.wire.handshake import Credentials, Door, Handshake
from haif.wire.noise import Pattern
from haif.wire.opening import First, choose_version, mac, mac_key, preamble
from tests.support.wire_pair import (
    CLIENT,
    CLIENT_KEY,
    NET,
    SERVER,
    SERVER_KEY,
    WALL,
    Pair,
    credentials,
    dialling,
    door,
    impostor,
    listening,
)  # fmt: skip

OTHER_NET = NetId(b"n" * 31 + b"x")  # the same first four bytes
FAR_NET = NetId(b"x" * 32)


def test_each_side_learns_who_the_other_is_and_both_name_the_channel_alike() -> None:
    pair = Pair()
    pair.settle()
    client, server = pair.client.established, pair.server.established
    assert (client.peer, server.peer) == (SERVER.peer, CLIENT.peer)
    assert client.scope == server.scope
    assert (client.version, server.version) == (1, 1)


def test_two_sessions_have_different_scopes() -> None:
    first, second = Pair(), Pair(dialling(), listening(credentials(SERVER, NoiseKey(b"T" * 32))))
    first.settle()
    second.settle()
    assert first.client.established.scope != second.client.established.scope


def test_it_works_however_the_bytes_are_split() -> None:
    pair = Pair()
    pair.settle(piece=1)
    assert pair.client.established.scope == pair.server.established.scope


def test_the_preamble_is_these_twelve_bytes() -> None:
    assert preamble(NET) == b"HAIF\x01\x01\x00\x00nnnn"


@pytest.mark.parametrize(
    ("opening", "error", "reason"),
    [
        (b"GET / HTTP/1", Malformed, Reason.MALFORMED),
        (b"HAIF\x02\x09\x00\x00nnnn", Unsupported, Reason.UNSUPPORTED),
        (b"HAIF\x00\x00\x00\x00nnnn", Unsupported, Reason.UNSUPPORTED),
        (b"HAIF\x02\x01\x00\x00nnnn", Unsupported, Reason.UNSUPPORTED),
        (b"HAIF\x01\x01\x04\x00nnnn", Unsupported, Reason.UNSUPPORTED),
        (b"HAIF\x01\x01\x00\x02nnnn", Unsupported, Reason.UNSUPPORTED),
        (b"HAIF\x01\x01\x00\x00xxxx", WrongState, Reason.WRONG_STATE),
    ],
    ids=["another protocol", "too new", "too old", "no version", "pattern", "flags", "network"],
)
def test_a_preamble_that_does_not_fit_is_refused(opening: bytes, error: type[HaifError], reason: Reason) -> None:
    with pytest.raises(error) as caught:
        choose_version(opening, NET)
    assert caught.value.reason is reason
    pair = Pair()
    pair.server.receive(opening, pair.now)
    assert pair.server.closed.reason is reason


def test_a_peer_that_offers_later_versions_too_gets_ours() -> None:
    assert choose_version(preamble(NET, 1, 9), NET) == 1


def test_nobody_in_between_can_change_a_bit_of_the_preamble() -> None:
    for bit in range(8 * 12):
        pair = Pair()
        opening = bytearray(pair.client.outgoing(pair.now))
        opening[bit // 8] ^= 1 << bit % 8
        pair.server.receive(bytes(opening), pair.now)
        pair.client.receive(pair.server.outgoing(pair.now), pair.now)
        assert pair.client.established is None, f"bit {bit}"


def test_a_network_with_the_same_first_bytes_is_still_another_network() -> None:
    pair = Pair(server=listening(credentials(SERVER, SERVER_KEY, OTHER_NET)))
    pair.settle()
    assert pair.client.closed.reason is Reason.BAD_SIGNATURE
    assert pair.server.established is None


def test_a_version_that_was_not_offered_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("haif.wire.handshake.choose_version", lambda *_: 7)
    pair = Pair()
    pair.settle()
    assert isinstance(pair.client.closed, WrongState)


def test_when_somebody_else_answers_the_dialler_refuses_and_stays_unknown() -> None:
    stranger = Identity(b"x" * 32).peer
    pair = Pair(dialling(expected=stranger), impostor(credentials(SERVER, SERVER_KEY), stranger))
    pair.settle()
    assert isinstance(pair.client.closed, BadSignature)
    assert "answered" in str(pair.client.closed)
    assert pair.server.established is None


@pytest.mark.parametrize("side", ["client", "server"])
def test_a_certificate_for_another_key_is_refused(side: str) -> None:
    """A stolen certificate is worth nothing without the Noise key it names."""
    client, server = credentials(CLIENT, CLIENT_KEY), credentials(SERVER, SERVER_KEY)
    thief = NoiseKey(b"t" * 32)
    if side == "client":
        pair = Pair(dialling(own=Credentials(NET, CLIENT.peer, thief, client.certificate)))
    else:
        pair = Pair(server=listening(Credentials(NET, SERVER.peer, thief, server.certificate)))
    pair.settle()
    victim = pair.server if side == "client" else pair.client
    assert victim.closed.reason is Reason.BAD_SIGNATURE
    assert victim.established is None


def test_a_certificate_for_another_network_is_refused() -> None:
    foreign = credentials(SERVER, SERVER_KEY, FAR_NET)
    pair = Pair(server=listening(Credentials(NET, SERVER.peer, SERVER_KEY, foreign.certificate)))
    pair.settle()
    assert pair.client.closed.reason is Reason.BAD_SIGNATURE


@pytest.mark.parametrize("shift", [-limits.CERTIFICATE_TTL_MS - 1, 10 * limits.CLOCK_SKEW_MS])
def test_a_certificate_outside_its_time_is_refused(shift: int) -> None:
    late = credentials(SERVER, SERVER_KEY, wall=WallTime(WALL + shift))
    pair = Pair(server=listening(late))
    pair.settle()
    assert isinstance(pair.client.closed, Expired)
    assert pair.client.closed.reason is Reason.EXPIRED


@pytest.mark.parametrize("certificate", [b"", b"\xd2", b"x" * 300])
def test_something_that_is_no_certificate_is_refused(certificate: bytes) -> None:
    pair = Pair(dialling(own=Credentials(NET, CLIENT.peer, CLIENT_KEY, certificate)))
    pair.settle()
    assert isinstance(pair.server.closed, Malformed)


def test_any_byte_of_any_handshake_message_changed_ends_it() -> None:
    for message in (1, 2, 3):
        position = 0
        while True:
            pair = Pair()
            source, target = (pair.server, pair.client) if message == 2 else (pair.client, pair.server)
            data = b""
            for step in range(1, message + 1):
                sender, receiver = (pair.server, pair.client) if step == 2 else (pair.client, pair.server)
                data = sender.outgoing(pair.now)
                if step < message:
                    receiver.receive(data, pair.now)
            if position >= len(data):
                break
            target.receive(data[:position] + bytes([data[position] ^ 0x40]) + data[position + 1 :], pair.now)
            pair.settle()
            assert not (pair.client.established and pair.server.established), (message, position)
            assert source is not target
            position += 7 if message > 1 else 1


def test_a_handshake_message_longer_than_any_real_one_is_refused_before_it_is_read() -> None:
    pair = Pair()
    pair.server.receive(preamble(NET) + bytes(16) + b"\xff\xff", pair.now)
    assert pair.server.closed.reason is Reason.OVERSIZE


def test_an_unfinished_handshake_is_dropped_at_its_deadline() -> None:
    pair = Pair()
    pair.server.receive(pair.client.outgoing(pair.now)[:20], pair.now)
    assert pair.server.wake_at() == pair.now + limits.HANDSHAKE_SECONDS
    pair.wait(limits.HANDSHAKE_SECONDS - 0.1)
    assert pair.server.closed is None
    pair.wait(0.1)
    assert pair.server.closed.reason is Reason.TIMEOUT
    assert pair.client.closed.reason is Reason.TIMEOUT
    assert pair.server.outgoing(pair.now) == b""
    assert pair.server.wake_at() is None


def test_the_first_message_of_xx_may_not_carry_data() -> None:
    client, server = dialling(), listening()
    opening = preamble(NET)
    message = client._start(Pattern.XX, opening, SERVER.peer, None).write(b"early")
    server.preamble(opening)
    key = mac_key(NET, SERVER.peer)
    with pytest.raises(Malformed):
        server.first(First(opening, mac(key, opening, b"", message), b"", message), Instant(100.0))


# --- IK ---------------------------------------------------------------------------------------------------------------


def known(**options) -> Handshake:
    """A dialler that knows the server's static key."""
    return dialling(known=SERVER_KEY, **options)


def test_who_knows_the_key_shakes_hands_in_one_round_trip() -> None:
    pair = Pair(known())
    pair.server.receive(pair.client.outgoing(pair.now), pair.now)
    assert pair.server.established.peer == CLIENT.peer
    pair.client.receive(pair.server.outgoing(pair.now), pair.now)
    assert pair.client.established.peer == SERVER.peer
    assert pair.client.established.scope == pair.server.established.scope
    assert pair.client.outgoing(pair.now) == b""


def test_the_other_sides_certificate_is_kept_for_the_next_time() -> None:
    for client in (dialling(), known()):
        pair = Pair(client)
        pair.settle()
        assert pair.client.certificate == credentials(SERVER, SERVER_KEY).certificate
        assert pair.server.certificate == credentials(CLIENT, CLIENT_KEY).certificate


def test_the_initiators_name_is_not_to_be_read_in_the_first_message() -> None:
    first = Pair(known()).client.outgoing(Instant(100.0))
    assert bytes(CLIENT.peer) not in first
    assert bytes(CLIENT_KEY.public) not in first


def test_a_rotated_key_is_told_as_a_handshake_that_does_not_hold() -> None:
    pair = Pair(known(), listening(credentials(SERVER, NoiseKey(b"T" * 32))))
    pair.settle()
    assert pair.server.closed.reason is Reason.BAD_SIGNATURE
    assert pair.client.closed.reason is Reason.BAD_SIGNATURE
    assert "the peer says" in str(pair.client.closed)


def test_h_s3_a_replayed_first_message_gets_no_session() -> None:
    at = door()
    pair = Pair(known(), listening(at=at))
    recorded = pair.client.outgoing(pair.now)
    pair.server.receive(recorded, pair.now)
    assert pair.server.established
    again = Pair(server=listening(at=at, seed=9))
    again.server.receive(recorded, again.now)
    assert again.server.closed.reason is Reason.REPLAYED
    assert again.server.established is None


@pytest.mark.parametrize(
    ("made_ms", "reason"),
    [
        (WALL - 1, Reason.REPLAYED),
        (WALL, Reason.REPLAYED),
        (WALL - limits.CLOCK_SKEW_MS - 1, Reason.EXPIRED),
        (WALL + limits.CLOCK_SKEW_MS + 1, Reason.EXPIRED),
        (WALL + 1, None),
    ],
    ids=["earlier", "the same time", "too old", "from the future", "later"],
)
def test_h_s3_first_messages_of_one_initiator_only_go_forward(made_ms: int, reason: Reason | None) -> None:
    at = door()
    for made_us, expected in ((WALL * 1000, None), (made_ms * 1000, reason)):
        pair = Pair(known(made_us=made_us, seed=made_us % 97), listening(at=at))
        pair.settle()
        assert (pair.server.closed.reason if pair.server.closed else None) is expected


def test_h_s3_a_first_message_recorded_before_a_restart_gets_no_session_after_it() -> None:
    pair = Pair(known(made_us=(WALL - 1000) * 1000))
    recorded = pair.client.outgoing(pair.now)
    pair.server.receive(recorded, pair.now)
    assert pair.server.established
    begun = Door(door().gate, HandshakeTimes(WALL), "192.0.2.1")
    again = Pair(server=listening(at=begun, seed=9))
    again.server.receive(recorded, again.now)
    assert again.server.closed.reason is Reason.REPLAYED


def test_times_of_initiators_are_remembered_within_a_bound() -> None:
    times = HandshakeTimes(WALL, peers_max=2)
    for number in range(5):
        times.accept(PeerId(bytes([number]) * 32), WALL * 1000 + number, WALL)
    assert len(times) == 2


def test_h_t2_any_byte_of_an_ik_handshake_changed_ends_it() -> None:
    for message in (1, 2):
        size = len(Pair(known()).client.outgoing(Instant(100.0))) if message == 1 else 200
        for position in range(0, size, 7):
            pair = Pair(known())
            data = pair.client.outgoing(pair.now)
            target = pair.server
            if message == 2:
                pair.server.receive(data, pair.now)
                data, target = pair.server.outgoing(pair.now), pair.client
            target.receive(data[:position] + bytes([data[position] ^ 0x40]) + data[position + 1 :], pair.now)
            pair.settle()
            assert not (pair.client.established and pair.server.established), (message, position)


# --- who is refused is told why ---------------------------------------------------------------------------------------


def test_a_dialler_of_another_network_is_told_so() -> None:
    pair = Pair(dialling(own=credentials(CLIENT, CLIENT_KEY, FAR_NET)))
    pair.settle()
    assert pair.client.closed.reason is Reason.WRONG_STATE
    assert "another network" in str(pair.client.closed)


def test_a_dialler_whose_certificate_is_too_old_is_told_so_under_either_pattern() -> None:
    for key in (None, SERVER_KEY):
        old = credentials(CLIENT, CLIENT_KEY, wall=WallTime(WALL - 2 * limits.CERTIFICATE_TTL_MS))
        pair = Pair(dialling(own=old, known=key))
        pair.settle()
        assert pair.server.closed.reason is Reason.EXPIRED
        assert pair.client.closed.reason is Reason.EXPIRED
        assert "the peer says" in str(pair.client.closed)


@pytest.mark.parametrize("client", [dialling, known], ids=["XX", "IK"])
@pytest.mark.parametrize("piece", [1, 1 << 20])
def test_whoever_is_not_welcome_hears_why_and_never_had_a_session(client: Callable[[], Handshake], piece: int) -> None:
    pair = Pair(client())
    while pair.server.established is None:
        pair.server.receive(pair.client.outgoing(pair.now), pair.now)
        if pair.server.established is None:
            pair.client.receive(pair.server.outgoing(pair.now), pair.now)
    pair.server.close(Overloaded("no room", retry_after=7.0))
    pair.settle(piece)
    assert [type(event) for event in pair.heard_client] == [Closed]
    assert isinstance(pair.client.closed, Overloaded)
    assert pair.client.closed.retry_after == 7.0
    assert pair.client.outgoing(pair.now) == b""


def test_a_dialler_has_no_session_before_it_is_welcome_and_gives_up_in_time() -> None:
    pair = Pair()
    pair.server.receive(pair.client.outgoing(pair.now), pair.now)
    pair.client.receive(pair.server.outgoing(pair.now), pair.now)
    pair.server.receive(pair.client.outgoing(pair.now), pair.now)
    assert pair.server.established
    assert pair.client.established is None
    pair.wait(limits.HANDSHAKE_SECONDS)
    assert pair.client.closed.reason is Reason.TIMEOUT


def test_what_comes_with_the_welcome_is_told_after_the_session() -> None:
    pair = Pair(known())
    pair.server.receive(pair.client.outgoing(pair.now), pair.now)
    pair.server.rpc.call("m", b"", Deadline.after(5, pair.now), pair.now)
    pair.settle()
    assert [type(event) for event in pair.heard_client] == [Established, Called]


def test_a_forger_learns_only_that_it_failed() -> None:
    """Wrong responder, wrong key and replay look alike."""
    at = door()
    Pair(known(), listening(at=at)).settle()
    said = []
    for client in (dialling(expected=Identity(b"x" * 32).peer), dialling(known=NoiseKey(b"x" * 32)), known()):
        pair = Pair(client, listening(at=at, seed=9))
        pair.settle()
        said.append(str(pair.client.closed))
    assert len(set(said)) == 1


def test_something_else_that_dials_is_told_nothing() -> None:
    pair = Pair()
    pair.server.receive(b"GET / HTTP/1.1\r\n\r\n", pair.now)
    assert pair.server.closed.reason is Reason.MALFORMED
    assert pair.server.outgoing(pair.now) == b""


@pytest.mark.parametrize("reason", [Reason.MISUSE, Reason.JOURNAL_BROKEN])
def test_a_stranger_cannot_tell_us_that_we_ourselves_are_broken(reason: Reason) -> None:
    payload = codec.encode(Failure(reason, "surely", None))
    pair = Pair()
    pair.client.receive(b"\xff\xff" + len(payload).to_bytes(2, "big") + payload, pair.now)
    assert pair.client.closed.reason is Reason.MALFORMED


def test_a_refusal_over_the_limit_is_not_read() -> None:
    pair = Pair()
    pair.client.receive(b"\xff\xff\xff\xff", pair.now)
    assert pair.client.closed.reason is Reason.OVERSIZE


def test_a_peer_at_fault_is_told_why_the_session_ended_and_does_not_answer() -> None:
    pair = Pair()
    pair.settle()
    pair.forge(frame(16, 0))
    assert pair.server.closed.reason is Reason.MALFORMED
    pair.settle()
    assert pair.client.closed.reason is Reason.MALFORMED
    assert "the peer says: frame kind 16 is unknown" in str(pair.client.closed)
    assert pair.client.outgoing(pair.now) == pair.server.outgoing(pair.now) == b""
