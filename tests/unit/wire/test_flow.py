"""Credit: never exceeded, always returned, never a deadlock."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haif.base import limits
from haif.base.errors import Reason, WrongState
from haif.base.traffic import Traffic
from haif.wire.events import Received
from haif.wire.flow import Sender
from haif.wire.frames import Kind, Outbox, parse
from haif.wire.intake import OVERHEAD, Window
from tests.support.wire_pair import Pair, opened, told


def test_a_message_may_begin_while_any_credit_is_left_and_not_after() -> None:
    window = Window(100)
    window.take(1000)
    assert window.left == -900
    with pytest.raises(WrongState) as caught:
        window.take(1)
    assert caught.value.reason is Reason.WRONG_STATE


def test_credit_is_returned_once_half_a_window_was_consumed() -> None:
    window = Window(100)
    window.take(60)
    assert window.give(49) == 0
    assert window.give(11) == 60
    assert window.left == 100


def test_credit_beyond_what_was_taken_is_refused() -> None:
    sender = Sender(Outbox())
    with pytest.raises(WrongState):
        sender.granted(0, 1)
    sender.flow(2)
    with pytest.raises(WrongState):
        sender.granted(2, 1)


def test_requests_begin_in_the_order_of_their_ids_even_when_credit_ran_out() -> None:
    out = Outbox()
    sender = Sender(out)
    for stream in range(1, 41, 2):
        sender.begin(stream, Kind.REQ, b"", bytes(limits.MESSAGE_BYTES_MAX))
    begun: list[int] = []
    for _ in range(2000):
        sender.pump(64 << 10)
        frames = [(kind, stream) for text in out.take() for kind, stream, *_ in parse(text)]
        begun += [stream for kind, stream in frames if kind == Kind.REQ]
        if not frames and not sender.idle():
            sender.granted(0, limits.MESSAGE_BYTES_MAX)
    assert begun == list(range(1, 41, 2))
    assert sender.idle()


def test_a_small_request_does_not_overtake_one_that_waited_for_credit() -> None:
    out = Outbox()
    sender = Sender(out)
    for stream in range(1, 37, 2):
        sender.begin(stream, Kind.REQ, b"", bytes(limits.MESSAGE_BYTES_MAX))
        while sender.pump(1 << 20) or out.take():
            pass
    sender.granted(0, limits.SESSION_CREDIT_BYTES)
    sender.begin(37, Kind.REQ, b"", b"small")
    sender.pump(64 << 20)
    begun = [stream for text in out.take() for kind, stream, *_ in parse(text) if kind == Kind.REQ]
    assert begun == sorted(begun)
    assert begun[-1] == 37


def test_long_messages_of_several_streams_take_turns() -> None:
    out = Outbox()
    sender = Sender(out)
    for stream in (2, 4, 6):
        sender.send(stream, Kind.RES, bytes(100_000))
    sender.pump(200_000)
    streams = [stream for text in out.take() for _, stream, *_ in parse(text)]
    assert streams[:6] == [2, 4, 6, 2, 4, 6]


def test_a_stream_without_credit_is_left_alone_until_it_gets_some() -> None:
    out = Outbox()
    sender = Sender(out)
    sender.flow(2)
    sender.send(2, Kind.DATA, bytes(limits.STREAM_CREDIT_BYTES))
    sender.send(2, Kind.DATA, b"second")
    sender.finish(2)
    while sender.pump(1 << 20) or not sender.idle():
        out.take()
    out.take()
    assert sender.waits(2)
    sender.granted(2, limits.STREAM_CREDIT_BYTES)
    assert sender.pump(1 << 20) == [2]
    assert [kind for text in out.take() for kind, *_ in parse(text)] == [Kind.DATA, Kind.FIN]
    assert not sender.waits(2)


def serve_stream(pair: Pair) -> int:
    stream = pair.call(streaming=True)
    pair.settle()
    return stream


def test_a_stream_nobody_reads_stops_after_its_window() -> None:
    pair = opened()
    stream = serve_stream(pair)
    sent = 0
    while pair.server.rpc.writable(stream):
        pair.server.rpc.send(stream, b"t" * 40)
        pair.settle()
        sent += 1
    assert sent == -(-limits.STREAM_CREDIT_BYTES // (40 + OVERHEAD)) + 1  # the last one waits
    assert len(told(pair.heard_client, Received)) == sent - 1


def test_a_stream_that_is_read_again_goes_on() -> None:
    pair = opened()
    stream = serve_stream(pair)
    for _ in range(5):
        while pair.server.rpc.writable(stream):
            pair.server.rpc.send(stream, b"t" * 40)
            pair.settle()
        for event in told(pair.heard_client, Received):
            pair.client.rpc.consumed(stream, event.message)
        pair.heard_client.clear()
        pair.settle()
        assert pair.server.rpc.writable(stream)


def test_slow_streams_do_not_stop_a_quick_one() -> None:
    pair = opened()
    slow = [serve_stream(pair) for _ in range(limits.STREAMS_PER_SESSION_MAX - 1)]
    quick = serve_stream(pair)
    for stream in slow:
        while pair.server.rpc.writable(stream):
            pair.server.rpc.send(stream, b"s" * 4000)
            pair.settle()
    pair.heard_client.clear()
    for _ in range(200):
        pair.server.rpc.send(quick, b"q" * 4000)
        pair.settle()
        [event] = told(pair.heard_client, Received)
        assert event.stream == quick
        pair.client.rpc.consumed(quick, event.message)
        pair.heard_client.clear()


# --- classes ----------------------------------------------------------------------------------------------------------

LINK = 64 << 10  # bytes that leave in one turn
TURNS = 400


class Link:
    """One sender behind a link of a fixed width: what of each stream has left, in bytes."""

    def __init__(self) -> None:
        self.out = Outbox()
        self.sender = Sender(self.out)
        self.left: Counter[int] = Counter()
        self._size = 4000

    def offer(self, stream: int) -> None:
        """Keep this stream's line from becoming empty."""
        while not self.sender.waits(stream) and self.out.size < limits.OUTGOING_BYTES_HIGH:
            self.sender.send(stream, Kind.DATA, bytes(self._size))

    def turn(self, budget: int = LINK) -> None:
        """Let about `budget` bytes leave, and the other side consume them at once."""
        self.sender.pump(budget)
        for text in self.out.take():
            for _, stream, start, end in parse(text):
                self.left[stream] += end - start
                cost = self._size + OVERHEAD
                self.sender.granted(0, cost)
                self.sender.granted(stream, cost)


def streams(link: Link, traffic: Traffic, count: int, first: int) -> list[int]:
    numbers = [first + 2 * number for number in range(count)]
    for stream in numbers:
        link.sender.flow(stream)
        link.sender.classify(stream, traffic)
    return numbers


def alone(count: int = 1) -> int:
    """What token streams get through the link with nobody beside them."""
    link = Link()
    tokens = streams(link, Traffic.TOKENS, count, 2)
    for _ in range(TURNS):
        for stream in tokens:
            link.offer(stream)
        link.turn()
    return sum(link.left[stream] for stream in tokens)


def test_64_slow_streams_and_a_fast_one_the_fast_one_keeps_nine_tenths() -> None:
    """Slow ones have a message in a hundred turns; nobody's class differs."""
    link = Link()
    slow = streams(link, Traffic.TOKENS, 64, 100)
    [fast] = streams(link, Traffic.TOKENS, 1, 2)
    for number in range(TURNS):
        for stream in slow:
            if (number + stream) % 100 == 0:
                link.sender.send(stream, Kind.DATA, bytes(4000))
        link.offer(fast)
        link.turn()
    assert all(link.left[stream] > 0 for stream in slow)
    assert link.left[fast] >= 0.9 * alone()


@pytest.mark.parametrize("hungry", [1, 64])
def test_hungry_bulk_takes_nothing_from_a_token_stream_that_leaves_room(hungry: int) -> None:
    link = Link()
    bulk = streams(link, Traffic.BULK, hungry, 100)
    [fast] = streams(link, Traffic.TOKENS, 1, 2)
    for _ in range(TURNS):
        for stream in [*bulk, fast]:
            link.offer(stream)
        link.turn()
    assert link.left[fast] == alone()
    assert sum(link.left.values()) >= min(0.95 * LINK, hungry * 4000) * TURNS


def test_hungry_bulk_beside_tokens_that_fill_the_link_leaves_them_nine_tenths_and_is_not_starved() -> None:
    link = Link()
    bulk = streams(link, Traffic.BULK, 64, 1000)
    tokens = streams(link, Traffic.TOKENS, 32, 2)
    for _ in range(TURNS):
        for stream in [*bulk, *tokens]:
            link.offer(stream)
        link.turn()
    fast, taken = (sum(link.left[stream] for stream in group) for group in (tokens, bulk))
    assert fast >= 0.9 * (fast + taken)
    assert fast >= 0.9 * alone(32)
    assert taken >= 0.04 * fast
    assert all(link.left[stream] > 0 for stream in bulk)


def test_bulk_alone_has_the_whole_link_and_its_streams_take_turns() -> None:
    link = Link()
    bulk = streams(link, Traffic.BULK, 64, 100)
    for _ in range(TURNS):
        for stream in bulk:
            link.offer(stream)
        link.turn()
    assert sum(link.left.values()) >= 0.98 * TURNS * LINK
    assert max(link.left.values()) <= 1.5 * min(link.left.values())


def test_long_messages_of_all_classes_share_as_their_weights_say() -> None:
    out = Outbox()
    sender = Sender(out)
    for stream, traffic in ((2, Traffic.BULK), (4, Traffic.TOKENS), (6, Traffic.CONTROL)):
        sender.classify(stream, traffic)
        sender.send(stream, Kind.RES, bytes(limits.MESSAGE_BYTES_MAX))
    left: Counter[int] = Counter()
    while left[6] < limits.MESSAGE_BYTES_MAX / 2 + 1:
        sender.pump(LINK)
        for text in out.take():
            for _, stream, start, end in parse(text):
                left[stream] += end - start
    control, tokens, bulk = (left[stream] for stream in (6, 4, 2))
    assert control > tokens > bulk > 0 or (control > tokens and bulk == 0)


def test_a_token_overtakes_bulk_that_waits() -> None:
    out = Outbox()
    sender = Sender(out)
    for stream, traffic in ((2, Traffic.BULK), (4, Traffic.TOKENS)):
        sender.flow(stream)
        sender.classify(stream, traffic)
    for _ in range(4):
        sender.send(2, Kind.DATA, bytes(4000))
    sender.send(4, Kind.DATA, b"token")
    sender.pump(LINK)
    order = [stream for text in out.take() for _, stream, *_ in parse(text)]
    assert order == [4, 2, 2, 2, 2]


def test_nothing_of_ended_streams_is_remembered() -> None:
    link = Link()
    bulk = streams(link, Traffic.BULK, 8, 100)
    for stream in bulk:
        link.offer(stream)
        link.sender.finish(stream) if stream % 4 else link.sender.forget(stream)
    link.sender.begin(1, Kind.REQ, b"", bytes(100_000), Traffic.BULK)
    for _ in range(8):
        link.sender.pump(LINK)
        link.out.take()
    assert link.sender._traffic == link.sender._waiting == {}
    assert not any(link.sender._turns)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 3), st.sampled_from(["send", "read", "carry"]), st.sampled_from([0, 40, 9000, 300_000])
        ),
        max_size=120,
    )
)
def test_whatever_the_order_of_sending_and_reading_everything_arrives_in_order(steps) -> None:
    pair = opened()
    streams = [serve_stream(pair) for _ in range(4)]
    sent = {stream: [] for stream in streams}
    unread = {stream: [] for stream in streams}
    read = {stream: [] for stream in streams}

    def collect() -> None:
        for event in told(pair.heard_client, Received):
            unread[event.stream].append(event.message)
        pair.heard_client.clear()

    def consume(stream: int) -> None:
        for message in unread[stream]:
            pair.client.rpc.consumed(stream, message)
            read[stream].append(message)
        unread[stream].clear()

    for number, (index, step, size) in enumerate(steps):
        stream = streams[index]
        if step == "send" and pair.server.rpc.writable(stream):
            message = number.to_bytes(4, "little") + bytes(size)
            sent[stream].append(message)
            pair.server.rpc.send(stream, message)
        elif step == "read":
            consume(stream)
        else:
            pair.settle()
            collect()
        assert pair.client.closed is pair.server.closed is None
    for _ in range(2 * len(steps) + 2):
        pair.settle()
        collect()
        for stream in streams:
            consume(stream)
    assert read == sent
