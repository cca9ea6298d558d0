"""The session: keepalive, silence, rekeying, and one close."""

import gc
import weakref

import pytest

from haif.base import limits
from haif.base.clock import Instant
from haif.base.errors import ConnectionLost, Reason
from haif.wire.events import Aged, Answered, Called, Closed, Failed
from haif.wire.frames import Kind, frame, parse
from haif.wire.session import SessionMachine
from tests.support.wire_pair import CLIENT, Pair, dialling, opened, told


def plaintexts(machine: SessionMachine, pair: Pair) -> list[bytes]:
    """What a machine would send, not sealed."""
    if machine._channel.pong_due:
        machine._channel.pong_due = False
        machine.rpc.out.add(Kind.PONG, 0)
    return machine.rpc.take()


def test_an_idle_session_asks_and_is_answered() -> None:
    pair = opened()
    for _ in range(10):
        assert pair.client.wake_at() == pytest.approx(pair.now + limits.KEEPALIVE_SECONDS)
        pair.wait(limits.KEEPALIVE_SECONDS)
        pair.settle()
    assert pair.client.closed is pair.server.closed is None


def test_a_dead_peer_is_noticed_and_open_calls_fail_instead_of_hanging() -> None:
    pair = opened()
    stream = pair.call(seconds=500.0)
    pair.settle()
    began = pair.now
    while pair.client.closed is None:
        at = pair.client.wake_at()
        assert at is not None
        pair.now = Instant(at)
        pair.client.wake(pair.now)
        pair.client.outgoing(pair.now)
    pair.gather()
    assert pair.now - began <= limits.SESSION_SILENCE_SECONDS + 0.001
    assert told(pair.heard_client, Failed)[0].stream == stream
    assert told(pair.heard_client, Failed)[0].error.reason is Reason.CONNECTION_LOST
    assert isinstance(told(pair.heard_client, Closed)[0].error, ConnectionLost)


def test_a_process_that_was_asleep_asks_before_it_gives_up() -> None:
    pair = opened()
    pair.wait(3600.0)
    assert pair.client.closed is None
    pair.settle()
    pair.wait(limits.SESSION_SILENCE_SECONDS)
    assert pair.client.closed is None


def test_bytes_that_never_make_a_message_are_not_a_sign_of_life() -> None:
    pair = opened()
    while pair.client.closed is None and pair.now < 200.0:
        pair.client.receive(b"\x00" if pair.now == 100.0 else b"", pair.now)
        pair.now = Instant(pair.now + 1.0)
        pair.client.wake(pair.now)
        pair.client.outgoing(pair.now)
    assert pair.client.closed.reason is Reason.CONNECTION_LOST


def test_a_thousand_pings_are_answered_once() -> None:
    pair = opened()
    pair.forge(frame(Kind.PING, 0) * 1000)
    [answer] = plaintexts(pair.server, pair)
    assert answer == frame(Kind.PONG, 0)


def test_after_an_hour_who_dialled_is_told_once_to_make_a_new_session() -> None:
    pair = opened()
    pair.wait(limits.SESSION_RENEW_SECONDS - 1)
    assert told(pair.heard_client, Aged) == []
    pair.settle()
    for _ in range(3):
        pair.wait(2.0)
        pair.settle()
    assert told(pair.heard_client, Aged) == [Aged()]
    assert told(pair.heard_server, Aged) == []
    assert pair.client.closed is pair.server.closed is None


@pytest.mark.parametrize("side", ["client", "server"])
def test_a_session_older_than_its_limit_is_refused_by_either_side(side: str) -> None:
    pair = opened()
    pair.now = Instant(pair.now + limits.SESSION_SECONDS_MAX)
    machine = getattr(pair, side)
    machine.wake(pair.now)
    assert machine.closed.reason is Reason.EXPIRED


def test_a_message_in_a_session_older_than_its_limit_is_not_read() -> None:
    pair = opened()
    pair.call()
    data = pair.client.outgoing(pair.now)
    pair.now = Instant(pair.now + limits.SESSION_SECONDS_MAX)
    pair.server.receive(data, pair.now)
    assert pair.server.closed.reason is Reason.EXPIRED
    pair.settle()
    assert pair.client.closed.reason is Reason.EXPIRED
    assert told(pair.heard_server, Called) == []


def exchange(pair: Pair) -> None:
    stream = pair.call()
    pair.settle()
    pair.server.rpc.reply(stream, b"ok")
    pair.settle()
    assert pair.heard_client[-1] == Answered(stream, b"ok")


@pytest.mark.parametrize("by", ["messages", "bytes", "time"])
def test_each_direction_rekeys_in_time_and_the_session_goes_on(by: str) -> None:
    pair = opened()
    sealers = (pair.client._channel.sealer, pair.server._channel.sealer)
    keys = [sealer._key for sealer in sealers]
    for sealer in sealers:
        if by == "messages":
            sealer.messages_used = limits.REKEY_MESSAGES - 1
        elif by == "bytes":
            sealer.bytes_used = limits.REKEY_BYTES
    if by == "time":
        pair.now = Instant(pair.now + limits.REKEY_SECONDS)
    for _ in range(3):
        exchange(pair)
    assert all(sealer._key != key for sealer, key in zip(sealers, keys, strict=True))
    assert pair.client._channel.opener._key == pair.server._channel.sealer._key
    assert pair.server._channel.opener._key == pair.client._channel.sealer._key
    assert [sealer.messages_used < 10 for sealer in sealers] == [True, True]


def test_rekey_is_the_last_frame_under_the_old_key() -> None:
    pair = opened()
    pair.client._channel.sealer.bytes_used = limits.REKEY_BYTES
    pair.call()
    data = pair.client.outgoing(pair.now)
    plaintext = pair.server._channel.opener.open(data[2:])
    assert [kind for kind, *_ in parse(plaintext)] == [Kind.REQ, Kind.REKEY]


def test_closing_is_said_once_and_nothing_leaves_afterwards() -> None:
    pair = opened()
    pair.call()
    pair.client.close(ConnectionLost("enough"))
    pair.client.close(ConnectionLost("again"))
    pair.gather()
    assert [event.error.message for event in told(pair.heard_client, Closed)] == ["enough"]
    assert pair.client.outgoing(pair.now) == b""
    assert pair.client.wake_at() is None
    pair.client.wake(pair.now)
    pair.client.receive(b"more", pair.now)
    pair.gather()
    assert len(told(pair.heard_client, Closed)) == 1


def refused() -> SessionMachine:
    pair = Pair(dialling(expected=CLIENT.peer))
    pair.settle()
    return pair.server


def ended() -> SessionMachine:
    pair = opened()
    pair.forge(frame(Kind.CREDIT, 9))
    return pair.server


@pytest.mark.parametrize("over", [refused, ended])
def test_a_session_that_is_over_is_let_go_at_once(over) -> None:
    """Nothing in it refers to itself, so that a flood leaves nothing for the garbage collector to look for."""
    gc.collect()
    gc.disable()
    try:
        held = weakref.ref(over())
        assert held() is None
    finally:
        gc.enable()
