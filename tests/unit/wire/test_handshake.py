"""The preamble, the versions and the certificates."""

import pytest

from haif.base import limits
from haif.base.clock import WallTime
from haif.base.errors import BadSignature, Expired, HaifError, Malformed, Reason, Unsupported, WrongState
from haif.base.ids import NetId
from haif.identity.keys import Identity, NoiseKey
from haif.wire.handshake import Credentials, choose_version, preamble
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
        (b"HAIF\x01\x01\x01\x00nnnn", Unsupported, Reason.UNSUPPORTED),
        (b"HAIF\x01\x01\x00\x01nnnn", Unsupported, Reason.UNSUPPORTED),
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
    pair = Pair(dialling(expected=Identity(b"x" * 32).peer))
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
        pair = Pair(dialling(own=Credentials(NET, thief, client.certificate)))
    else:
        pair = Pair(server=listening(Credentials(NET, thief, server.certificate)))
    pair.settle()
    victim = pair.server if side == "client" else pair.client
    assert victim.closed.reason is Reason.BAD_SIGNATURE
    assert victim.established is None


def test_a_certificate_for_another_network_is_refused() -> None:
    foreign = credentials(SERVER, SERVER_KEY, FAR_NET)
    pair = Pair(server=listening(Credentials(NET, SERVER_KEY, foreign.certificate)))
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
    pair = Pair(dialling(own=Credentials(NET, CLIENT_KEY, certificate)))
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
    pair.server.receive(preamble(NET) + b"\xff\xff", pair.now)
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


def test_the_first_message_may_not_carry_data() -> None:
    client, server = dialling(), listening()
    opening = preamble(NET)
    message = client._start(opening).write(b"early")
    server.preamble(opening)
    with pytest.raises(Malformed):
        server.message(message)
