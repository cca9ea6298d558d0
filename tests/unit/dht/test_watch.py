"""A watched topic: what is there, what has changed for whom, and when to look again."""

from hypothesis import given
from hypothesis import strategies as st

from haif.base import limits
from haif.base.clock import Instant, WallTime
from haif.base.ids import Digest, PeerId
from haif.dht.contact import Contact
from haif.dht.watch import Change, Pace, Watch, What, changes
from haif.identity.signing import Verified
from haif.protocol.records import Record

NOW = Instant(100.0)
WALL = WallTime(1_700_000_000_000)
TOPIC = Digest(b"t" * 32)
NEVER = Instant(float("inf"))


def verified(owner: int = 1, sequence: int = 1, body: bytes | None = b"", ttl: int = 60_000) -> Verified[Record]:
    peer = PeerId(owner.to_bytes(32, "big"))
    record = Record(1, TOPIC, peer, sequence, WALL + ttl, body is None, body or b"")
    return Verified(record, peer, repr(record).encode())


def watch() -> Watch:
    return Watch(TOPIC, b"handle 1", NOW)


def test_changes_are_told_in_terms_of_owners() -> None:
    was = {record.signer: record for record in (verified(1), verified(2, body=b"a"), verified(3))}
    now = {record.signer: record for record in (verified(1, sequence=2), verified(2, 2, body=b"b"), verified(4))}
    assert changes(was, now) == [
        Change(What.GONE, verified(3)),
        Change(What.ADDED, verified(4)),
        Change(What.RENEWED, verified(2, 2, body=b"b")),
    ]
    assert changes(now, now) == []


def test_the_newest_record_of_each_owner_is_there_until_it_is_withdrawn_or_expires() -> None:
    topic = watch()
    assert topic.consider(verified(sequence=2), WALL)
    assert not topic.consider(verified(sequence=1), WALL), "an older one is no news"
    assert not topic.consider(verified(sequence=2), WALL)
    assert topic.live(WALL) == {verified().signer: verified(sequence=2)}
    assert topic.live(WallTime(WALL + 60_000)) == {}
    assert topic.consider(verified(sequence=3, body=None), WALL)
    assert topic.live(WALL) == {}
    assert not topic.consider(verified(sequence=2), WALL), "what is buried stays buried"


def test_it_is_known_when_something_expires_and_said_once() -> None:
    topic = watch()
    topic.consider(verified(1, ttl=10_000), WALL)
    topic.consider(verified(2, ttl=30_000), WALL)
    assert topic.gone_at == WALL + 10_000
    assert not topic.expired(WallTime(WALL + 9_999))
    assert topic.expired(WallTime(WALL + 10_000))
    assert not topic.expired(WallTime(WALL + 10_000))
    assert topic.gone_at == WALL + 30_000
    assert not topic.consider(verified(3, ttl=0), WALL), "what has expired is no news"


def test_so_many_owners_are_known_and_expiry_makes_room() -> None:
    topic = watch()
    for owner in range(limits.WATCH_RECORDS_MAX):
        topic.consider(verified(owner, ttl=1_000), WALL)
    assert not topic.consider(verified(99_999), WALL)
    assert topic.consider(verified(99_999), WallTime(WALL + 1_000))


def test_holders_are_chosen_among_the_nearest_in_a_way_that_others_cannot_foresee() -> None:
    near = [Contact(PeerId(bytes([number]) * 32), (f"20.0.{number}.1", 4)) for number in range(20)]
    chosen = {handle: watch_with(handle).choose(near) for handle in (b"handle 1", b"handle 2")}
    for holders in chosen.values():
        assert len(holders) == limits.WATCH_HOLDERS
        assert set(holders) <= set(near[: limits.WATCH_HOLDERS_AMONG])
    assert chosen[b"handle 1"] != chosen[b"handle 2"]


def watch_with(handle: bytes) -> Watch:
    return Watch(TOPIC, handle, NOW)


@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(1, 5), st.sampled_from([None, b"a", b"b"])), max_size=40),
    st.integers(1, 7),
)
def test_whoever_listens_rarely_ends_up_knowing_the_same(
    arrivals: list[tuple[int, int, bytes | None]], every: int
) -> None:
    topic = watch()
    told: dict[PeerId, Verified[Record]] = {}
    listener: dict[PeerId, bytes] = {}
    for number, (owner, sequence, body) in enumerate(arrivals):
        topic.consider(verified(owner, sequence, body), WALL)
        if number % every == 0 or number == len(arrivals) - 1:
            live = topic.live(WALL)
            for change in changes(told, live):
                if change.what is What.GONE:
                    del listener[change.record.signer]
                else:
                    assert (change.record.signer in listener) == (change.what is What.RENEWED)
                    listener[change.record.signer] = change.record.payload.body
            told = live
    assert listener == {owner: record.payload.body for owner, record in topic.live(WALL).items()}


# --- the pace ---------------------------------------------------------------------------------------------------------


def reads(pace: Pace, count: int, *, missed: bool = False, notified: bool = True) -> list[float]:
    """The seconds between so many reads that each take no time."""
    waits, now = [], NOW
    for _ in range(count):
        pace.reading(now)
        assert pace.read_at == pace.renew_at == NEVER
        pace.read(now, 0.5, missed=missed, notified=notified)
        waits.append(pace.read_at - now)
        now = pace.read_at
    return waits


def test_reads_become_rare_while_notices_bring_everything() -> None:
    assert [round(wait) for wait in reads(Pace(NOW), 7)] == [8, 16, 32, 64, 120, 120, 120]


def test_a_read_that_brings_what_was_missed_is_soon_followed_by_another() -> None:
    pace = Pace(NOW)
    reads(pace, 7)
    assert [round(wait) for wait in reads(pace, 2, missed=True)] == [4, 4]
    assert [round(wait) for wait in reads(pace, 2)] == [8, 16]


def test_where_nobody_promised_notices_reading_goes_on() -> None:
    assert [round(wait) for wait in reads(Pace(NOW), 3, notified=False)] == [4, 4, 4]


def test_no_two_nodes_read_in_step() -> None:
    waits = []
    for chance in (0.0, 1.0):
        pace = Pace(NOW)
        pace.reading(NOW)
        pace.read(NOW, chance, missed=True, notified=True)
        waits.append(round(pace.read_at - NOW, 3))
    assert waits == [3.2, 4.8]


def test_promises_are_renewed_twice_before_they_lapse() -> None:
    pace = Pace(NOW)
    pace.reading(NOW)
    pace.read(NOW, 1.0, missed=False, notified=True)
    assert 2 * (pace.renew_at - NOW) <= limits.WATCH_REGISTRATION_SECONDS
    pace.renewing()
    assert pace.renew_at == NEVER


def test_whoever_has_reason_to_is_heard_but_not_more_than_twice_a_second() -> None:
    pace = Pace(NOW)
    pace.reading(NOW)
    pace.hurry(NOW)
    assert pace.read_at == NEVER, "a read is under way"
    pace.read(NOW, 0.5, missed=False, notified=True)
    pace.hurry(Instant(NOW + 0.1))
    assert pace.read_at == NOW + limits.WATCH_HURRY_SECONDS
    pace.hurry(Instant(NOW + 3))
    assert pace.read_at == NOW + limits.WATCH_HURRY_SECONDS
