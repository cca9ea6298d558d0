"""The record store: newest wins, tombstones last, quotas hold, memory is bounded, and room is given away fairly."""

import contextlib
import math
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haif.base import limits
from haif.base.clock import WallTime
from haif.base.errors import Conflict, Equivocated, HaifError, MustWait, OverQuota, Reason, Replayed
from haif.base.ids import Digest, PeerId
from haif.base.machine import Address
from haif.dht.store import RecordStore
from haif.dht.tickets import occupancy, waiting_seconds
from haif.identity.signing import Verified
from haif.protocol.records import Record

NOW = WallTime(1_700_000_000_000)
SKEW = limits.CLOCK_SKEW_MS
PATIENCE = 1e300  # seconds: whoever has waited for this is let in wherever there is room


def verified(
    *, owner: int = 1, topic: int = 1, sequence: int = 1, ttl: int = 60_000, body: bytes | None = b""
) -> Verified[Record]:
    """As if its signature had been checked: the store sees only such records."""
    peer = PeerId(owner.to_bytes(32, "big"))
    record = Record(1, Digest(topic.to_bytes(32, "big")), peer, sequence, NOW + ttl, body is None, body or b"")
    return Verified(record, peer, repr(record).encode())


def large(number: int) -> Verified[Record]:
    record = verified(owner=number, topic=number)
    return Verified(record.payload, record.signer, bytes(900))


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
    with pytest.raises(Equivocated) as error:
        store.put(verified(body=b"two"), NOW)
    assert error.value.reason is Reason.EQUIVOCATED
    assert error.value.peer == verified().signer


def test_both_of_two_records_under_one_sequence_are_evidence_until_a_newer_one_comes() -> None:
    store = RecordStore()
    store.put(verified(body=b"one"), NOW)
    for body in (b"two", b"three", b"two"):
        with pytest.raises(Equivocated):
            store.put(verified(body=body), NOW)
    assert store.get(topic(), NOW) == (verified(body=b"one"), verified(body=b"two")), "two are enough, three a flood"
    held = store.bytes
    assert store.put(verified(sequence=2), NOW)
    assert store.get(topic(), NOW) == (verified(sequence=2),)
    assert store.bytes < held


def test_the_same_statement_may_be_signed_again_to_live_longer_and_an_older_copy_changes_nothing() -> None:
    store = RecordStore()
    store.put(verified(ttl=60_000), NOW)
    assert store.put(verified(ttl=90_000), NOW)
    with pytest.raises(Replayed):
        store.put(verified(ttl=60_000), NOW)
    assert store.get(topic(), NOW) == (verified(ttl=90_000),)


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


def test_a_successor_that_expires_early_lets_no_older_record_come_back() -> None:
    """p2p.md 3.3: kept until exp so that old replicas cannot resurrect it; also where the newer one is no tombstone."""
    store = RecordStore()
    store.put(verified(sequence=1, ttl=60_000), NOW)
    store.put(verified(sequence=2, ttl=10_000, body=None), NOW)
    later = WallTime(NOW + 10_000 + SKEW)
    assert store.get(topic(), later) == (), "the tombstone is no news any more"
    with pytest.raises(Replayed):
        store.put(verified(sequence=1, ttl=60_000), later)
    almost = WallTime(NOW + 60_000 + SKEW - 1)
    with pytest.raises(Replayed):
        store.put(verified(sequence=1, ttl=60_000), almost)
    store.forget_expired(WallTime(almost + 1))
    assert len(store) == 0


def test_a_tombstone_needs_a_higher_sequence_than_what_it_buries() -> None:
    store = RecordStore()
    store.put(verified(sequence=5), NOW)
    with pytest.raises(Replayed):
        store.put(verified(sequence=4, body=None), NOW)
    with pytest.raises(Equivocated):
        store.put(verified(sequence=5, body=None), NOW)
    assert store.put(verified(sequence=6, body=None), NOW)
    assert store.put(verified(sequence=7, body=b"back"), NOW), "its owner may come back"


def test_a_record_that_should_replace_another_than_is_there_is_refused() -> None:
    store = RecordStore()
    store.put(verified(sequence=3), NOW, replaces=0)
    for replaces in (0, 2, 4):
        with pytest.raises(Conflict) as error:
            store.put(verified(sequence=9), NOW, replaces=replaces)
        assert error.value.reason is Reason.CONFLICT
    store.put(verified(sequence=9), NOW, replaces=3)
    store.put(verified(sequence=10, body=None), NOW, replaces=9)
    store.put(verified(sequence=11), NOW, replaces=0)  # where a tombstone is, nothing is
    assert store.get(topic(), NOW) == (verified(sequence=11),)


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
        store.put(verified(owner=1, topic=999), NOW)
    for number in range(limits.RECORDS_PER_TOPIC_MAX):
        store.put(verified(owner=100 + number, topic=7_000), NOW, waited_seconds=PATIENCE)
    with pytest.raises(OverQuota, match="one topic"):
        store.put(verified(owner=2, topic=7_000), NOW, waited_seconds=math.inf)
    store.put(verified(owner=100, topic=7_000, sequence=2), NOW)  # its own place is its own
    store.put(verified(owner=1, topic=999, ttl=200_000), WallTime(NOW + 60_000 + SKEW))


def test_a_worker_with_all_its_models_may_be_started_again_with_others_twice_while_its_tombstones_stand() -> None:
    store, most = RecordStore(), limits.WORKER_MODELS_MAX
    store.put(verified(topic=0), NOW)  # its presence
    for life in (1, 2, 3):
        for number in range(life * most, life * most + most):
            store.put(verified(topic=number), NOW)
        if life < 3:
            for number in range(life * most, life * most + most):
                store.put(verified(topic=number, sequence=2, body=None), NOW)
    assert len(store) == 3 * most + 1 <= limits.RECORDS_PER_SIGNER_MAX


def test_the_store_is_bounded_in_total() -> None:
    store = RecordStore()
    for number in range(limits.RECORDS_STORED_MAX):
        store.put(verified(owner=number, topic=number), NOW, waited_seconds=math.inf)
    with pytest.raises(OverQuota, match="keeps at most 16384 records"):
        store.put(verified(owner=99_999, topic=99_999), NOW, waited_seconds=math.inf)


def test_the_store_is_bounded_in_bytes() -> None:
    store, number = RecordStore(), 0
    with pytest.raises(OverQuota, match="bytes of records"):
        while True:
            store.put(large(number), NOW, waited_seconds=math.inf)
            number += 1
    assert store.bytes < limits.RECORDS_STORED_BYTES_MAX + 2_000
    assert len(store) < limits.RECORDS_STORED_MAX


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
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(limits, "RECORDS_PER_SIGNER_MAX", 8)
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
            assert len(held) <= len(store)  # a place outlives its record while an older one could still come back
            assert all(count <= limits.RECORDS_PER_SIGNER_MAX for count in Counter(r.signer for r in held).values())
            assert all(r.payload.expires > now - SKEW for r in held)
    store.forget_expired(WallTime(now + 10_000_000))
    assert (len(store), store.bytes, len(store._crowd), len(store._topics)) == (0, 0, 0, 0)


# --- room is given away fairly ----------------------------------------------------------------------------------------


def flooder(number: int) -> Address:
    """One of the addresses of one /24."""
    return f"66.6.6.{number % 256}", 4000 + number


def stranger(number: int) -> Address:
    """Addresses of networks that have nothing in common."""
    return f"{(number * 37 + 130) % 256}.{number * 91 % 256}.7.7", 4000


def half_full_topic() -> RecordStore:
    store = RecordStore()
    for number in range(limits.RECORDS_PER_TOPIC_MAX // 2):
        store.put(verified(owner=1000 + number), NOW, origin=flooder(number))
    return store


def test_the_second_half_of_a_topic_is_for_those_who_wait_and_strangers_wait_less() -> None:
    store = half_full_topic()
    with pytest.raises(MustWait) as error:
        store.put(verified(owner=2000), NOW, origin=flooder(200))
    assert error.value.reason is Reason.MUST_WAIT
    assert error.value.retry_after == pytest.approx(1200 * 22 / 32, rel=1e-3), "22 of 32 bits are those of the flood"
    with pytest.raises(MustWait) as error:
        store.put(verified(owner=1), NOW, origin=stranger(1))
    assert error.value.retry_after == pytest.approx(1200e-7), "no longer than the formula says: 0.12 ms"


def test_whoever_has_waited_is_let_in_and_what_remains_is_told_to_whoever_has_not() -> None:
    store = half_full_topic()
    wait = store.waiting_seconds(topic(), flooder(200))
    with pytest.raises(MustWait) as error:
        store.put(verified(owner=2000), NOW, origin=flooder(200), waited_seconds=wait - 7)
    assert error.value.retry_after == pytest.approx(7)
    store.put(verified(owner=2000), NOW, origin=flooder(200), waited_seconds=wait)


def test_whoever_has_a_place_is_never_pushed_out_and_never_waits() -> None:
    store = RecordStore()
    honest = [verified(owner=number) for number in range(1, 6)]
    for number, record in enumerate(honest):
        store.put(record, NOW, origin=stranger(number))
    for number in range(100):  # as many as get in, however long they wait
        with contextlib.suppress(OverQuota):
            store.put(verified(owner=1000 + number), NOW, origin=flooder(number), waited_seconds=PATIENCE)
    assert set(honest) <= set(store.get(topic(), NOW))
    assert store.put(verified(owner=1, sequence=2), NOW, origin=stranger(0))


def test_a_patient_flood_of_one_network_leaves_room_for_the_others() -> None:
    """A day of waiting, 72 lifetimes, for as many records as it likes: it gets two thirds of the places of a topic."""
    store, day = RecordStore(), 24 * 3600.0
    taken = 0
    while store.waiting_seconds(topic(), flooder(taken)) <= day:
        store.put(verified(owner=1000 + taken), NOW, origin=flooder(taken), waited_seconds=day)
        taken += 1
    assert taken in range(40, 46)
    strangers = [store.waiting_seconds(topic(), stranger(number)) for number in range(100)]
    assert sorted(strangers)[50] < 1.0, "half of all strangers share no bit with it, and wait no time"


def test_a_full_store_gives_new_topics_of_new_networks_their_place_at_once() -> None:
    store = RecordStore()
    for number in range(limits.RECORDS_STORED_MAX // 2):
        store.put(verified(owner=number // 8, topic=number), NOW, origin=flooder(number))
    assert store.waiting_seconds(topic(99_999), flooder(1)) > 20 * 60 * 0.65
    assert store.waiting_seconds(topic(99_999), stranger(1)) < 0.001
    store.put(verified(owner=99_999, topic=5), NOW, origin=stranger(1), waited_seconds=1.0)
    expected = waiting_seconds(occupied=occupancy(8193, 16_384), share=2 / 8193, similarity=0.0)
    assert store.waiting_seconds(topic(5), stranger(3)) == pytest.approx(expected, rel=0.01), "0.3 s for the third"


def test_places_that_count_for_no_network_are_as_good_as_a_strangers() -> None:
    store = half_full_topic()
    assert store.waiting_seconds(topic(), None) == pytest.approx(1200e-7)


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 90), st.booleans(), st.floats(0, 3000)), max_size=120))
def test_nobody_who_waited_less_than_the_formula_gets_a_place(arrivals: list[tuple[int, bool, float]]) -> None:
    store = RecordStore()
    for number, floods, waited in arrivals:
        origin = flooder(number) if floods else stranger(number)
        record = verified(owner=number + 1)
        held = record in store.get(topic(), NOW)
        wait = store.waiting_seconds(topic(), origin)
        try:
            store.put(record, NOW, origin=origin, waited_seconds=waited)
        except MustWait as refused:
            assert refused.retry_after == pytest.approx(wait - waited)
            assert not held
        else:
            assert held or waited >= wait
