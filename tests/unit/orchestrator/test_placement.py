"""Work goes to the least loaded live worker, and nobody can talk himself into the list or to its top."""

from collections import Counter
from dataclasses import replace

import msgspec
import pytest
from msgspec import structs

from haif.base import codec, limits
from haif.base.adapters import Adapted
from haif.base.clock import Instant, WallTime
from haif.base.errors import Forbidden, Malformed, NoWorker, Overloaded, Reason, Unsupported, WrongState
from haif.base.ids import BootId, Digest, JobId, ModelDigest, NetId, PeerId
from haif.base.tasks import Task
from haif.identity.signing import Verified
from haif.orchestrator.placement import Fleet, WorkerView, able, check_offer, choose, part_of
from haif.protocol.heartbeats import Heartbeat
from haif.protocol.offers import Offer
from haif.protocol.reach import Place
from haif.protocol.records import Record, RecordKind, offer_topic
from haif.protocol.sandbox import Sandbox
from tests.unit.orchestrator.scene import (
    ANNE,
    BOB,
    CLEO,
    FULL,
    GATEWAY,
    MODEL,
    OTHER_GATEWAY,
    REDUCED,
    Desk,
    counting,
    load,
    offer,
    submission,
)

START = Instant(1000.0)
WALL = WallTime(1_700_000_000_000)
OTHER_MODEL = ModelDigest(b"q" * 32)
NET = NetId(b"n" * 32)
MANY = [PeerId(bytes([n]) * 32) for n in range(1, 8)]
TOPIC = offer_topic(NET, MODEL)


def view(worker: PeerId, taken: int, slots: int = 4, *, sandbox: str = "reduced", hot: bytes = b"") -> WorkerView:
    tags = frozenset(bytes([tag]) for tag in hot)
    return WorkerView(worker, Place((("127.0.0.1", 1),)), slots, taken, 1024, sandbox, tags)


def fleet(*workers: PeerId) -> Fleet:
    found = Fleet()
    for worker in workers:
        found.offered(worker, offer())
    return found


def busy(worker: PeerId, *reserved_ms_ago: int) -> dict:
    return {(worker, MODEL): {JobId(bytes([n]) * 16): WALL - ago for n, ago in enumerate(reserved_ms_ago)}}


def loads(fleet: Fleet, taken: dict, now: Instant = START) -> dict[PeerId, int]:
    return {view.worker: view.load for view in fleet.live(MODEL, taken, now)}


# --- choosing ---------------------------------------------------------------------------------------------------------


def test_the_least_loaded_per_slot_is_chosen() -> None:
    views = [view(ANNE, 3, slots=4), view(BOB, 5, slots=8), view(CLEO, 4, slots=4)]
    assert choose(views, (), counting()).worker == BOB


def test_gateways_that_have_jobs_of_a_model_share_its_slots() -> None:
    here, there = Desk().staffed(), (GATEWAY.peer, OTHER_GATEWAY.peer)
    views = here.fleet.live(MODEL, here.state.busy, here.now.instant)
    assert [12, 12] == [part_of(views, MODEL, here.state.open.values(), each) for each in there]
    here.submit(submission(1))
    assert [12, 6] == [part_of(views, MODEL, here.state.open.values(), each) for each in there]
    here.submit(submission(2), OTHER_GATEWAY)
    assert [6, 6] == [part_of(views, MODEL, here.state.open.values(), each) for each in there]
    assert 12 == part_of(views, OTHER_MODEL, here.state.open.values(), GATEWAY.peer)
    assert 0 == part_of([], MODEL, here.state.open.values(), GATEWAY.peer)
    assert 8 == part_of([replace(views[0], ejected=True), *views[1:]], OTHER_MODEL, (), GATEWAY.peer)


def test_ties_are_broken_at_random() -> None:
    entropy = counting()
    chosen = Counter(choose([view(ANNE, 1), view(BOB, 1), view(CLEO, 2)], (), entropy).worker for _ in range(400))
    assert set(chosen) == {ANNE, BOB}
    assert min(chosen.values()) > 130


def test_a_worker_that_was_tried_is_not_chosen_again() -> None:
    assert choose([view(ANNE, 0), view(BOB, 9)], {ANNE}, counting()).worker == BOB
    with pytest.raises(NoWorker, match="no other live worker") as caught:
        choose([view(ANNE, 0)], {ANNE}, counting())
    assert Reason.NO_WORKER is caught.value.reason
    assert caught.value.retry_after == limits.HEARTBEAT_SECONDS


def test_several_orchestrators_that_know_the_same_do_not_all_choose_the_same() -> None:
    entropy = counting()
    views = [view(worker, taken) for worker, taken in zip(MANY, (0, 1, 1, 1, 1, 1, 3), strict=True)]
    chosen = Counter(choose(views, (), entropy).worker for _ in range(600))
    assert chosen[MANY[0]] < 300  # it has least to do, and is drawn in two of six cases
    assert chosen[MANY[6]] == 0


def test_who_failed_is_passed_over_while_there_are_others() -> None:
    ejected, doubted = replace(view(ANNE, 0), ejected=True), replace(view(BOB, 0), doubted=True)
    assert choose([ejected, doubted, view(CLEO, 4)], (), counting()).worker == CLEO
    assert choose([ejected, doubted], (), counting()).worker == BOB
    assert choose([ejected], (), counting()).worker == ANNE


def test_full_queues_are_overload_not_absence() -> None:
    for job_seconds, wait in (
        (0.0, limits.HEARTBEAT_SECONDS),
        (2.0, 2.0 * (limits.WORKER_QUEUE_MAX + 1) / 4),
        (99.0, 60.0),
    ):
        with pytest.raises(Overloaded) as caught:
            choose([view(ANNE, 4 + limits.WORKER_QUEUE_MAX)], (), counting(), job_seconds=job_seconds)
        assert caught.value.retry_after == wait
    assert choose([view(ANNE, 3 + limits.WORKER_QUEUE_MAX)], (), counting()).worker == ANNE


PREFIXES = (b"1", b"2")


def test_who_has_the_beginning_is_preferred_up_to_half_its_slots() -> None:
    for taken, expected in ((0, ANNE), (1, ANNE), (3, BOB)):
        views = [view(ANNE, taken, hot=b"12"), view(BOB, 0, hot=b"9")]
        assert choose(views, (), counting(), prefixes=PREFIXES).worker == expected


def test_the_longer_beginning_counts_more() -> None:
    views = [view(ANNE, 1, hot=b"2"), view(BOB, 1, hot=b"1"), view(CLEO, 1)]
    assert choose(views, (), counting(), prefixes=PREFIXES).worker == ANNE
    assert choose(views[1:], (), counting(), prefixes=PREFIXES).worker == BOB


def test_a_beginning_is_no_reason_to_go_to_a_full_worker_or_back_to_one_that_failed() -> None:
    views = [view(ANNE, 4 + limits.WORKER_QUEUE_MAX, hot=b"12"), view(BOB, 4)]
    assert choose(views, (), counting(), prefixes=PREFIXES).worker == BOB
    assert choose([view(ANNE, 0, hot=b"12"), view(BOB, 4)], {ANNE}, counting(), prefixes=PREFIXES).worker == BOB


def test_what_a_heartbeat_says_is_hot_is_seen_by_placement_and_bounded() -> None:
    found = fleet(ANNE)
    hot = [bytes([n]) * 8 for n in range(limits.HOT_PREFIXES_MAX)]
    found.hear(ANNE, Heartbeat([structs.replace(load(), hot=hot)]), {}, START, WALL)
    assert [frozenset(hot)] == [view.hot for view in found.live(MODEL, {}, START)]
    for bad in ([*hot, b"8 bytes."], [b"7 bytes"]):
        with pytest.raises(Malformed, match="beginnings"):
            found.hear(ANNE, Heartbeat([structs.replace(load(), hot=bad)]), {}, START, WALL)


def test_a_jail_that_is_demanded_counts_before_the_load() -> None:
    views = [view(ANNE, 0), view(BOB, 3, sandbox="full"), view(CLEO, 0, sandbox="none")]
    assert choose(views, (), counting(), sandbox_min="full").worker == BOB
    assert choose(views, {BOB}, counting(), sandbox_min="reduced").worker == ANNE
    with pytest.raises(NoWorker, match="'full', as is demanded"):
        choose(views, {BOB}, counting(), sandbox_min="full")


def test_a_worker_is_as_confined_as_the_weaker_of_its_words() -> None:
    for offered, beaten, level in ((FULL, REDUCED, "reduced"), (REDUCED, FULL, "reduced"), (FULL, FULL, "full")):
        known = Fleet()
        known.offered(ANNE, offer(sandbox=offered))
        known.hear(ANNE, Heartbeat([load(sandbox=beaten)]), {}, START, WALL)
        assert [level] == [view.sandbox for view in known.live(MODEL, {}, START)]


# --- who is live ------------------------------------------------------------------------------------------------------


def test_a_worker_needs_both_an_offer_and_a_heartbeat() -> None:
    known = fleet(ANNE)
    assert loads(known, {}) == {}
    known.hear(BOB, Heartbeat([load()]), {}, START, WALL)
    assert loads(known, {}) == {}
    known.hear(ANNE, Heartbeat([load()]), {}, START, WALL)
    assert loads(known, {}) == {ANNE: 0}
    assert known.live_count(START) == 1


def test_a_worker_is_gone_after_three_seconds_of_silence() -> None:
    known = fleet(ANNE)
    known.hear(ANNE, Heartbeat([load()]), {}, START, WALL)
    assert loads(known, {}, Instant(START + limits.HEARTBEAT_SILENCE_SECONDS - 0.01)) == {ANNE: 0}
    assert loads(known, {}, Instant(START + limits.HEARTBEAT_SILENCE_SECONDS)) == {}


def test_it_is_noticed_that_a_worker_was_restarted() -> None:
    known = fleet(ANNE)
    assert [known.met(ANNE, BootId(boot * 8)) for boot in (b"1", b"1", b"2", b"2")] == [False, False, True, False]


def test_a_draining_worker_is_gone_at_once() -> None:
    known = fleet(ANNE)
    known.hear(ANNE, Heartbeat([load()]), {}, START, WALL)
    known.hear(ANNE, Heartbeat([]), {}, START, WALL)
    assert loads(known, {}) == {}


def test_a_heartbeat_about_another_model_makes_nobody_live_for_this_one() -> None:
    known = fleet(ANNE)
    known.hear(ANNE, Heartbeat([load(model=OTHER_MODEL)]), {}, START, WALL)
    assert loads(known, {}) == {}


def test_an_offer_that_was_withdrawn_makes_nobody_live_and_one_that_was_made_anew_does() -> None:
    known = fleet(ANNE, BOB)
    for worker in (ANNE, BOB):
        known.hear(worker, Heartbeat([load()]), {}, START, WALL)
    known.withdrawn(ANNE, MODEL)
    known.withdrawn(ANNE, OTHER_MODEL)
    assert set(loads(known, {})) == {BOB}
    assert not known.knows(ANNE, MODEL)
    known.offered(ANNE, offer(port=5000))
    assert {view.place.addresses[0][1] for view in known.live(MODEL, {}, START) if view.worker == ANNE} == {5000}


def test_the_number_of_workers_is_bounded_and_silent_ones_make_room() -> None:
    known = Fleet(workers_max=2)
    known.hear(ANNE, Heartbeat([load()]), {}, START, WALL)
    known.hear(BOB, Heartbeat([load()]), {}, Instant(START + 2), WALL)
    with pytest.raises(Overloaded):
        known.hear(CLEO, Heartbeat([load()]), {}, Instant(START + 2.5), WALL)
    known.hear(BOB, Heartbeat([load()]), {}, Instant(START + 3), WALL)
    known.hear(CLEO, Heartbeat([load()]), {}, Instant(START + 3.5), WALL)


# --- how loaded -------------------------------------------------------------------------------------------------------


def test_reservations_since_the_heartbeat_count() -> None:
    known = fleet(ANNE)
    known.hear(ANNE, Heartbeat([load()]), {}, START, WALL)
    assert loads(known, busy(ANNE, 0, 0, 0)) == {ANNE: 3}


def test_reservations_the_heartbeat_shows_are_not_counted_twice() -> None:
    known = fleet(ANNE)
    taken = busy(ANNE, 5000, 5000, 10)
    known.hear(ANNE, Heartbeat([load(running=3)]), taken, START, WALL)
    assert loads(known, taken) == {ANNE: 3}


def test_a_burst_the_heartbeat_just_missed_still_counts() -> None:
    known = fleet(ANNE)
    taken = busy(ANNE, *[20] * 50)
    known.hear(ANNE, Heartbeat([load(running=0)]), taken, START, WALL)
    assert loads(known, taken) == {ANNE: 50}


def test_work_of_other_orchestrators_counts() -> None:
    known = fleet(ANNE)
    taken = busy(ANNE, 5000)
    known.hear(ANNE, Heartbeat([load(running=4, queued=2)]), taken, START, WALL)
    assert loads(known, taken) == {ANNE: 6}
    assert loads(known, {}) == {ANNE: 5}


def test_tickets_that_were_never_redeemed_do_not_count_for_long() -> None:
    known = fleet(ANNE)
    taken = busy(ANNE, 20_000, 20_000, 10)
    known.hear(ANNE, Heartbeat([load(running=0)]), taken, START, WALL)
    assert loads(known, taken) == {ANNE: 1}


# --- lies -------------------------------------------------------------------------------------------------------------

LIES = {
    "no slots": [load(slots=0)],
    "a million slots": [load(slots=1_000_000)],
    "negative running": [load(-1)],
    "negative queue": [load(0, -1)],
    "a model twice": [load(), load()],
    "too many models": [load(model=ModelDigest(n.to_bytes(32, "big"))) for n in range(limits.HEARTBEAT_LOADS_MAX + 1)],
    "no speed": [type(load())(MODEL, 4, 0, 0, float("nan"), REDUCED)],
    "an impossible jail": [load(sandbox=Sandbox("full", ["seccomp"]))],
    "infinite speed": [type(load())(MODEL, 4, 0, 0, float("inf"), REDUCED)],
}


@pytest.mark.parametrize("lie", LIES)
def test_a_heartbeat_that_cannot_be_true_is_refused(lie: str) -> None:
    known = fleet(ANNE)
    with pytest.raises(Malformed) as caught:
        known.hear(ANNE, Heartbeat(LIES[lie]), {}, START, WALL)
    assert caught.value.peer == ANNE
    assert loads(known, {}) == {}


def record(body: Offer | None = None, **changed: object) -> Verified[Record]:
    fields = {
        "kind": RecordKind.OFFER, "topic": TOPIC, "owner": ANNE, "sequence": 1, "expires": WALL + 60_000,
        "tombstone": False, "body": codec.encode(body or offer()),
    }  # fmt: skip
    return Verified(Record(**(fields | changed)), ANNE, b"")


def test_an_offer_that_holds_is_taken() -> None:
    assert check_offer(record(), MODEL, TOPIC, None) == offer()
    assert check_offer(record(), MODEL, TOPIC, {ANNE}) == offer()


@pytest.mark.parametrize(
    ("found", "error"),
    [
        (record(kind=RecordKind.PRESENCE), WrongState),
        (record(topic=offer_topic(NET, OTHER_MODEL)), WrongState),
        (record(tombstone=True), WrongState),
        (record(offer(model=OTHER_MODEL)), WrongState),
        (record(body=b"junk"), Malformed),
        (record(offer(port=0)), Malformed),
        (record(offer(port=70_000)), Malformed),
        (record(structs.replace(offer(), tasks=1 << 20)), Malformed),
        (record(structs.replace(offer(), tasks=-1)), Malformed),
        (record(structs.replace(offer(), dimensions=-1)), Malformed),
        (record(structs.replace(offer(), adapted=Adapted(MODEL, Digest(bytes(32))))), Malformed),
        (record(structs.replace(offer(), dimensions=1 << 30)), Malformed),
        (record(offer(sandbox=Sandbox("padded", ["cell"]))), Malformed),
    ],
)
def test_an_offer_that_does_not_hold_is_refused(found: Verified[Record], error: type[Exception]) -> None:
    with pytest.raises(error):
        check_offer(found, MODEL, TOPIC, None)


def test_a_worker_that_was_not_admitted_offers_in_vain() -> None:
    with pytest.raises(Forbidden):
        check_offer(record(), MODEL, TOPIC, {BOB})


# --- models that are not in memory ------------------------------------------------------------------------------------


def cold(worker: PeerId, taken: int, ready_seconds: float) -> WorkerView:
    return replace(view(worker, taken), ready_seconds=ready_seconds)


def test_a_worker_that_has_the_model_in_memory_goes_before_one_that_must_load_it() -> None:
    assert choose([cold(ANNE, 0, 3.0), view(BOB, 7)], (), counting()).worker == BOB
    assert choose([cold(ANNE, 0, 3.0), view(BOB, 15)], (), counting()).worker == ANNE, (
        "more than twice its slots are taken"
    )
    full = 4 + limits.WORKER_QUEUE_MAX
    assert choose([cold(ANNE, 5, 3.0), view(BOB, full)], (), counting()).worker == ANNE


def test_of_those_that_must_load_it_the_soonest_is_chosen() -> None:
    assert choose([cold(ANNE, 0, 9.0), cold(BOB, 0, 2.0), cold(CLEO, 0, 30.0)], (), counting()).worker == BOB


def test_how_soon_a_model_is_ready_comes_with_each_heartbeat() -> None:
    known = fleet(ANNE)
    for seconds in (7.5, 0.0):
        known.hear(ANNE, Heartbeat([load(ready_seconds=seconds)]), {}, START, WALL)
        assert [seconds] == [each.ready_seconds for each in known.live(MODEL, {}, START)]


@pytest.mark.parametrize("seconds", [-1.0, float("inf"), float("nan")])
def test_a_model_that_is_ready_at_no_time_is_malformed(seconds: float) -> None:
    with pytest.raises(Malformed, match="at no time"):
        fleet(ANNE).hear(ANNE, Heartbeat([load(ready_seconds=seconds)]), {}, START, WALL)


# --- what nobody can verify -------------------------------------------------------------------------------------------


def foreign(worker: PeerId, taken: int) -> WorkerView:
    return replace(view(worker, taken), verifiable=False)


def test_work_goes_to_what_is_demanded_of_its_execution() -> None:
    views = [view(ANNE, 3), foreign(BOB, 0)]
    assert choose(views, (), counting()).worker == ANNE
    assert choose(views, (), counting(), execution="any").worker == BOB
    assert choose(views, (), counting(), execution="unverifiable").worker == BOB
    with pytest.raises(NoWorker, match='"execution": "any"'):
        choose([foreign(BOB, 0)], (), counting())
    with pytest.raises(NoWorker, match="as is demanded"):
        choose([view(ANNE, 0)], (), counting(), execution="unverifiable")
    with pytest.raises(NoWorker, match="no other live worker"):
        choose(views, {ANNE}, counting())


def test_what_an_offer_says_of_its_execution_counts() -> None:
    known = fleet(ANNE)
    known.offered(BOB, msgspec.structs.replace(offer(), verifiable=False))
    for worker in (ANNE, BOB):
        known.hear(worker, Heartbeat([load()]), {}, START, WALL)
    assert {ANNE: True, BOB: False} == {each.worker: each.verifiable for each in known.live(MODEL, {}, START)}


def test_work_goes_only_to_whoever_can_do_it() -> None:
    writer, embedder = view(ANNE, 0), replace(view(BOB, 9), tasks=frozenset({Task.EMBED}))
    assert able([writer, embedder], Task.EMBED) == [embedder]
    assert able([], Task.EMBED) == []
    with pytest.raises(Unsupported, match="cannot do rerank: it can do chat, completion, embedding") as caught:
        able([writer, embedder], Task.RERANK)
    assert caught.value.param == "model"
