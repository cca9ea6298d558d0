"""The record store: newest wins, tombstones last, quotas hold, memory is bounded."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haif.base import limits
from haif.base.clock import WallTime
from haif.base.errors import HaifError, OverQuota, Reason, Replayed, WrongState
from haif.base.ids import Digest, PeerId
from haif.dht.store import RecordStore
from haif.identity.signing import Verified
from haif.protocol.records import Record

NOW = WallTime(1_700_000_000_000)
SKEW = limits.CLOCK_SKEW_MS


def verified(
    *, owner: int = 1, topic: int = 1, sequence: int = 1, ttl: int = 60_000, body: bytes | None = b""
) -> Verified[Record]:
    """As if its signature had been checked: the store sees only such records."""
    peer = PeerId(owner.to_bytes(32, "big"))
    record = Record(1, Digest(topic.to_bytes(32, "big")), peer, sequence, NOW + ttl, body is None, body or b"")
    return Verified(record, peer, repr(record).encode())


def topic(number: int = 1) -> Digest:
    return Digest(number.to_bytes(32, "big"))


def test_a_newer_record_replaces_an_older_one_and_never_the_other_way() -> None:
    store = RecordStore()
    store.put(verified(sequence=1), NOW)
    store.put(verified(sequence=2), NOW)
    with pytest.raises(Replayed) as error:
        store.put(verified(sequence=1), NOW)
    assert error.value.reason is Reason.REPLAYED
    assert store.get(topic(), NOW) == (verified(sequence=2),)


def test_the_same_bytes_are_welcome_and_others_under_one_sequence_are_not() -> None:
    store = RecordStore()
    store.put(verified(body=b"one"), NOW)
    store.put(verified(body=b"one"), NOW)
    with pytest.raises(WrongState):
        store.put(verified(body=b"two"), NOW)
    assert store.get(topic(), NOW) == (verified(body=b"one"),)


def test_a_tombstone_is_kept_until_what_it_buries_has_expired() -> None:
    store = RecordStore()
    store.put(verified(sequence=1), NOW)
    store.put(verified(sequence=2, body=None), NOW)
    almost = WallTime(NOW + 60_000 + SKEW - 1)
    with pytest.raises(Replayed):
        store.put(verified(sequence=1), almost)
    assert store.get(topic(), almost) == (verified(sequence=2, body=None),)
    assert store.get(topic(), WallTime(almost + 1)) == ()
    assert len(store) == 0


def test_a_renewed_record_outlives_its_first_expiry() -> None:
    store = RecordStore()
    store.put(verified(sequence=1, ttl=10_000), NOW)
    store.put(verified(sequence=2, ttl=90_000), NOW)
    assert len(store.get(topic(), WallTime(NOW + 80_000))) == 1


def test_signer_and_topic_have_their_quotas_and_expiry_gives_them_back() -> None:
    store = RecordStore()
    for number in range(limits.RECORDS_PER_SIGNER_MAX):
        store.put(verified(owner=1, topic=number), NOW)
    with pytest.raises(OverQuota, match="one signer"):
        store.put(verified(owner=1, topic=99), NOW)
    for number in range(limits.RECORDS_PER_TOPIC_MAX):
        store.put(verified(owner=100 + number, topic=7_000), NOW)
    with pytest.raises(OverQuota, match="one topic"):
        store.put(verified(owner=2, topic=7_000), NOW)
    store.put(verified(owner=100, topic=7_000, sequence=2), NOW)  # its own place is its own
    store.put(verified(owner=1, topic=99, ttl=200_000), WallTime(NOW + 60_000 + SKEW))


def test_the_store_is_bounded_in_total() -> None:
    store = RecordStore()
    for number in range(limits.RECORDS_STORED_MAX):
        store.put(verified(owner=number, topic=number), NOW)
    with pytest.raises(OverQuota, match="keeps at most 16384 records"):
        store.put(verified(owner=99_999, topic=99_999), NOW)


def test_an_owner_that_renews_all_the_time_does_not_grow_the_store() -> None:
    store = RecordStore()
    for sequence in range(5_000):
        store.put(verified(sequence=sequence), NOW)
    assert len(store) == 1
    assert len(store._expiry) < 2_000


@settings(max_examples=100)
@given(
    st.lists(
        st.tuples(st.integers(1, 4), st.integers(1, 12), st.integers(1, 5), st.integers(1, 100), st.integers(0, 40)),
        max_size=80,
    )
)
def test_whatever_arrives_the_newest_of_each_owner_is_held_and_counts_agree(
    arrivals: list[tuple[int, int, int, int, int]],
) -> None:
    store, now = RecordStore(), NOW
    for owner, subject, sequence, seconds, wait in arrivals:
        now = WallTime(now + wait * 1000)
        record = verified(owner=owner, topic=subject, sequence=sequence, ttl=now - NOW + seconds * 1000)
        before = {r.signer: r for r in store.get(topic(subject), now)}.get(record.signer)
        try:
            store.put(record, now)
        except HaifError:
            assert before is None or before.payload.sequence >= sequence
        else:
            assert record in store.get(topic(subject), now)
        held = [r for number in range(1, 13) for r in store.get(topic(number), now)]
        assert len(held) == len(store)
        assert all(count <= limits.RECORDS_PER_SIGNER_MAX for count in Counter(r.signer for r in held).values())
        assert all(r.payload.expires > now - SKEW for r in held)
