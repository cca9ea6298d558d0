"""Calls and streams between two machines."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haif.base import limits
from haif.base.clock import Deadline, Instant
from haif.base.errors import ConnectionLost, Forbidden, Misuse, Overloaded, Reason, Timeout
from haif.wire.events import Answered, Called, Ended, Failed, GoingAway, Received, Stopped
from tests.support.wire_pair import MESSAGE_MAX, Pair, opened, told


def served(pair: Pair, argument: bytes = b"", **options) -> int:
    """A call that has reached the server's handler."""
    stream = pair.call("m", argument, **options)
    pair.settle()
    assert told(pair.heard_server, Called)[-1].stream == stream
    return stream


def test_a_call_arrives_with_everything_it_carries_and_its_answer_comes_back() -> None:
    pair = opened()
    metadata = {"traceparent": "00-1-2-01", "correlation": "j.1"}
    stream = pair.call("jobs.show", b"argument", seconds=2.5, metadata=metadata)
    pair.settle()
    [called] = told(pair.heard_server, Called)
    assert (called.method, called.argument, called.metadata) == ("jobs.show", b"argument", metadata)
    assert called.deadline.remaining(pair.now) == pytest.approx(2.5)
    assert not called.streaming
    pair.server.rpc.reply(called.stream, b"result")
    pair.settle()
    assert pair.heard_client == [Answered(stream, b"result")]
    assert pair.client.rpc.quiet()
    assert pair.server.rpc.quiet()


def test_both_sides_may_call_at_once() -> None:
    pair = opened()
    there = pair.call("there")
    back = pair.server.rpc.call("back", b"", Deadline.after(1, pair.now), pair.now)
    pair.settle()
    assert (there % 2, back % 2) == (1, 0)
    assert told(pair.heard_server, Called)[0].method == "there"
    assert told(pair.heard_client, Called)[0].method == "back"


@pytest.mark.parametrize("size", [0, 1, 16_000, 16_384, 70_000, MESSAGE_MAX])
def test_messages_of_every_size_travel_both_ways(size: int) -> None:
    pair = opened()
    stream = served(pair, bytes(size))
    assert pair.heard_server[-1].argument == bytes(size)
    pair.server.rpc.reply(stream, b"r" * size)
    pair.settle()
    assert pair.heard_client == [Answered(stream, b"r" * size)]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 5000), st.lists(st.binary(max_size=40_000), max_size=5))
def test_it_does_not_matter_how_the_bytes_are_split(piece: int, messages: list[bytes]) -> None:
    pair = opened()
    stream = pair.call(streaming=True)
    pair.settle(piece)
    for message in messages:
        pair.server.rpc.send(stream, message)
    pair.server.rpc.finish(stream)
    taken = 0
    for _ in range(20):
        for event in told(pair.heard_client, Received)[taken:]:
            pair.client.rpc.consumed(stream, event.message)
            taken += 1
        pair.settle(piece)
    assert [event.message for event in told(pair.heard_client, Received)] == messages
    assert pair.client.closed is pair.server.closed is None
    assert told(pair.heard_client, Ended) == [Ended(stream)]


def test_many_calls_one_mebibyte_each_all_complete() -> None:
    """More than the session's credit at once: those without credit wait and are not lost."""
    pair = opened()
    streams = [pair.call("m", bytes(MESSAGE_MAX)) for _ in range(40)]
    pair.settle()
    assert [called.stream for called in told(pair.heard_server, Called)] == streams
    for stream in streams:
        pair.server.rpc.reply(stream, bytes(MESSAGE_MAX))
    pair.settle()
    assert {event.stream for event in told(pair.heard_client, Answered)} == set(streams)


def test_an_error_comes_back_with_its_reason() -> None:
    pair = opened()
    stream = served(pair)
    pair.server.rpc.fail(stream, Forbidden("not for you", retry_after=3.0))
    pair.settle()
    [failed] = told(pair.heard_client, Failed)
    assert failed.error.reason is Reason.FORBIDDEN
    assert (failed.error.message, failed.error.retry_after) == ("not for you", 3.0)


def test_a_stream_may_end_with_an_error_in_the_middle_of_a_message() -> None:
    pair = opened()
    stream = served(pair, streaming=True)
    pair.server.rpc.send(stream, bytes(MESSAGE_MAX))
    data = pair.server.outgoing(pair.now)
    pair.client.receive(data, pair.now)
    pair.server.rpc.fail(stream, Overloaded("enough"))
    pair.settle()
    assert [type(event) for event in pair.heard_client] == [Failed]
    assert pair.client.rpc._shared.intake.window.whole


def test_cancelling_a_call_stops_its_handler_and_nothing_is_heard_of_it_again() -> None:
    pair = opened()
    stream = served(pair)
    pair.client.rpc.cancel(stream, pair.now)
    pair.settle()
    assert told(pair.heard_server, Stopped) == [Stopped(stream)]
    assert pair.heard_client == []
    pair.server.rpc.reply(stream, b"too late")
    pair.server.rpc.send(stream, b"too late")
    pair.server.rpc.finish(stream)
    pair.settle()
    assert pair.heard_client == []
    assert pair.client.rpc.quiet()
    assert pair.server.rpc.quiet()


def test_a_cancel_that_crosses_the_answer_is_passed_over() -> None:
    pair = opened()
    stream = served(pair)
    pair.server.rpc.reply(stream, b"answer")
    pair.client.rpc.cancel(stream, pair.now)
    pair.settle()
    assert pair.heard_client == []
    assert pair.client.closed is pair.server.closed is None
    assert pair.client.rpc.quiet()


def test_a_call_cancelled_in_the_middle_of_its_argument_is_forgotten_by_both() -> None:
    pair = opened()
    stream = pair.call("m", bytes(MESSAGE_MAX))
    pair.server.receive(pair.client.outgoing(pair.now), pair.now)
    pair.client.rpc.cancel(stream, pair.now)
    pair.settle()
    assert told(pair.heard_server, Called) == []
    assert pair.client.rpc.quiet()
    assert pair.server.rpc.quiet()
    assert pair.server.rpc._shared.intake.window.whole


def test_a_call_cancelled_before_it_began_never_leaves() -> None:
    pair = opened()
    for _ in range(limits.SESSION_CREDIT_BYTES // MESSAGE_MAX + 1):
        last = pair.call("m", bytes(MESSAGE_MAX))
    pair.client.rpc.cancel(last, pair.now)
    pair.settle()
    assert last not in [called.stream for called in told(pair.heard_server, Called)]
    assert pair.client.closed is pair.server.closed is None


def test_messages_that_come_after_a_cancel_give_their_credit_back() -> None:
    pair = opened()
    stream = served(pair, streaming=True)
    for _ in range(10):
        pair.server.rpc.send(stream, b"x" * 1000)
    pair.client.rpc.cancel(stream, pair.now)
    pair.settle()
    assert pair.heard_client == []
    assert pair.client.rpc._shared.intake.window.whole


def test_a_deadline_ends_the_call_on_both_sides() -> None:
    pair = opened()
    stream = served(pair, seconds=2.0)
    assert pair.client.wake_at() == pytest.approx(pair.now + 2.0)
    pair.wait(2.001)
    [failed] = told(pair.heard_client, Failed)
    assert isinstance(failed.error, Timeout)
    assert failed.error.reason is Reason.TIMEOUT
    assert told(pair.heard_server, Stopped) == [Stopped(stream)]
    pair.settle()
    assert pair.client.closed is pair.server.closed is None
    assert pair.client.rpc.quiet()


def test_the_server_keeps_the_deadline_even_if_the_client_does_not() -> None:
    pair = opened()
    stream = served(pair, seconds=1.0)
    pair.now = Instant(pair.now + 1.5)
    pair.server.wake(pair.now)
    pair.settle()
    [failed] = told(pair.heard_client, Failed)
    assert (failed.stream, failed.error.reason) == (stream, Reason.TIMEOUT)


def test_a_deadline_is_never_longer_than_the_limit() -> None:
    pair = opened()
    served(pair, seconds=1e9)
    assert pair.heard_server[-1].deadline.remaining(pair.now) <= limits.CALL_SECONDS_MAX + 0.001


def test_a_call_without_time_left_is_not_made() -> None:
    pair = opened()
    with pytest.raises(Timeout):
        pair.call(seconds=0.0)


def test_deadlines_of_calls_that_ended_do_not_pile_up() -> None:
    pair = opened()
    for _ in range(5000):
        stream = pair.call(seconds=600.0)
        pair.settle()
        pair.server.rpc.reply(stream, b"")
        pair.settle()
    assert len(pair.client.rpc._shared.deadlines) < 1100
    assert len(pair.server.rpc._shared.deadlines) < 1100


def test_more_open_calls_than_the_limit_are_refused_here_before_the_peer_must() -> None:
    pair = opened()
    streams = [pair.call() for _ in range(limits.STREAMS_PER_SESSION_MAX)]
    with pytest.raises(Overloaded) as caught:
        pair.call()
    assert caught.value.reason is Reason.OVERLOADED
    pair.settle()
    pair.server.rpc.reply(streams[0], b"")
    pair.settle()
    pair.call()
    pair.settle()
    assert pair.server.closed is None


def test_what_is_too_long_is_our_own_mistake() -> None:
    pair = opened()
    with pytest.raises(Misuse):
        pair.call("m", bytes(MESSAGE_MAX + 1))
    stream = served(pair, streaming=True)
    with pytest.raises(Misuse):
        pair.server.rpc.send(stream, bytes(MESSAGE_MAX + 1))
    with pytest.raises(Misuse):
        pair.server.rpc.reply(stream, bytes(MESSAGE_MAX + 1))


def test_draining_finishes_what_runs_and_begins_nothing() -> None:
    pair = opened()
    running = served(pair)
    pair.server.rpc.drain()
    crossing = pair.call()
    pair.settle()
    assert told(pair.heard_client, GoingAway) == [GoingAway()]
    [failed] = told(pair.heard_client, Failed)
    assert (failed.stream, failed.error.reason) == (crossing, Reason.CONNECTION_LOST)
    with pytest.raises(ConnectionLost):
        pair.call()
    pair.server.rpc.reply(running, b"done")
    pair.settle()
    assert told(pair.heard_client, Answered) == [Answered(running, b"done")]


def test_stream_ids_that_are_used_up_close_the_session_to_new_calls() -> None:
    pair = opened()
    pair.client.rpc._caller._next = 2**32 - 1
    served(pair)
    with pytest.raises(ConnectionLost):
        pair.call()


def test_losing_the_session_fails_every_open_call_and_stops_every_handler() -> None:
    pair = opened()
    first, second = served(pair), served(pair, streaming=True)
    for machine in (pair.client, pair.server):
        machine.close(ConnectionLost("the cable"))
    pair.gather()
    assert {event.stream for event in told(pair.heard_client, Failed)} == {first, second}
    assert all(event.error.reason is Reason.CONNECTION_LOST for event in told(pair.heard_client, Failed))
    assert {event.stream for event in told(pair.heard_server, Stopped)} == {first, second}
