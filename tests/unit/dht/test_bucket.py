"""One bucket: its views follow every change, and one of each network waits."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from haif.base import limits
from haif.base.clock import Instant
from haif.base.ids import PeerId
from haif.dht.bucket import Bucket, Entry
from haif.dht.contact import Contact, node_id

NOW = Instant(1000.0)


def entry(number: int, *, whose: bytes = b"", port: int = 4000) -> Entry:
    peer = PeerId(number.to_bytes(32, "big"))
    return Entry(
        Contact(peer, (f"10.0.0.{number % 250 + 1}", port)), NOW, node_id(peer), number % 8, whose or peer, number
    )


def later(seconds: float) -> Instant:
    return Instant(NOW + seconds)


@given(st.lists(st.tuples(st.sampled_from(["enter", "leave", "heard", "failed", "move"]), st.integers(0, 30))))
def test_the_views_are_those_of_a_bucket_looked_at_for_the_first_time(events: list[tuple[str, int]]) -> None:
    bucket, target = Bucket(NOW), Random(1).getrandbits(256)
    for step, (event, number) in enumerate(events, start=1):
        now, since, peer = later(step), later(step - 10), PeerId(number.to_bytes(32, "big"))
        here = bucket.entries.get(peer)
        if here is None:
            if event == "enter":
                bucket.enter(entry(number), step)
        elif event == "leave":
            bucket.leave(peer)
        elif event == "heard":
            bucket.heard(here, now)
        elif event == "failed":
            bucket.failed(here)
        elif event == "move":
            bucket.move(here, Contact(peer, ("10.1.0.1", step)), b"elsewhere")
        ranked = sorted(bucket.entries.values(), key=lambda each: each.id ^ target)
        passing = [each.contact for each in ranked if each.seen >= since and not each.failures]
        assert [each.contact for each in ranked] == bucket.everybody().nearest(target)
        assert passing == bucket.passing(since).nearest(target)
        assert sorted(bucket.entries.values(), key=lambda each: each.entered) == bucket.elders()
        assert sum(bucket.branches) == len(bucket.entries)


def test_of_a_network_only_the_latest_waits_and_of_all_the_latest_eight() -> None:
    bucket, of_one_network = Bucket(NOW), [entry(number, whose=b"their /24") for number in range(1, 4)]
    for waiting in of_one_network:
        bucket.wait(waiting)
    assert of_one_network[-1] is bucket.next_waiting()
    assert bucket.next_waiting() is None
    others = [entry(number) for number in range(10, 30)]
    for waiting in others:
        bucket.wait(waiting)
    assert others[: -limits.DHT_REPLACEMENTS_MAX - 1 : -1] == [bucket.next_waiting() for _ in range(8)]
    assert bucket.next_waiting() is None


def test_whoever_is_here_or_was_forgotten_does_not_come_from_the_waiting() -> None:
    bucket = Bucket(NOW)
    bucket.wait(entry(1, whose=b"one"))
    bucket.wait(entry(1, whose=b"other", port=1))
    bucket.wait(entry(2, whose=b"third"))
    bucket.wait(entry(3, whose=b"fourth"))
    bucket.enter(entry(1), 1)
    bucket.forget_waiting(entry(2).contact)
    bucket.forget_waiting(entry(3, port=1).contact)  # at another address than the one that waits
    assert bucket.next_waiting() == entry(3, whose=b"fourth")
    assert bucket.next_waiting() is None
