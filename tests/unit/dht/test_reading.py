"""Reads: who is asked when, what ends them, and what cannot."""

from collections.abc import Sequence
from random import Random

from haif.base import limits
from haif.base.clock import WallTime
from haif.base.errors import Dropped, Reason
from haif.base.ids import Digest, PeerId
from haif.dht.contact import Contact, node_id, pack_contacts
from haif.dht.lookup import Ask, Extent, Lookup, Pace
from haif.dht.messages import Command, Reply, short
from haif.dht.reading import Gather
from haif.identity import keys
from haif.identity.keys import Identity
from haif.protocol.records import Record, RecordKind, immutable_topic, presence_topic, sign_record
from haif.testing.directory import NET

WALL = WallTime(1_700_000_000_000)
OWNER, STRANGER = Identity(b"o" * 32), Identity(b"s" * 32)
TOPIC = Digest(b"t" * 31 + b"\1")  # of offers
PLACE = presence_topic(NET, OWNER.peer)
HOLDERS = [Contact(PeerId(Random(n).randbytes(32)), (f"20.{n}.0.1", 4000)) for n in range(30)]


def record(
    *, kind: RecordKind = RecordKind.PRESENCE, topic: Digest = PLACE, owner: Identity = OWNER, sequence: int = 1,
    body: bytes = b"here",
) -> bytes:  # fmt: skip
    expires = WALL + 60_000
    return sign_record(owner, NET, Record(kind, topic, owner.peer, sequence, expires, False, body))


def read(topic: Digest, held: Sequence[bytes]) -> tuple[Gather, list[Ask], list[Dropped]]:
    """A read that has just heard from thirty nodes: those that say they hold something are asked for it."""
    dropped: list[Dropped] = []
    gather = Gather(
        1, Lookup(topic, HOLDERS, PeerId(bytes(32)), pace=Pace.PROMPT), (), net=NET, wall=lambda: WALL,
        report=dropped.append, verify=keys.verify,
    )  # fmt: skip
    gets: list[Ask] = []
    asks = gather.asks()
    for ask in asks:
        assert ask.command is Command.FIND
        gather.answered(ask, _peer(ask), Reply(bytes(7), b"t" * 16, contacts=pack_contacts([], 0), held=len(held)))
        gets += [each for each in gather.asks() if each.command is Command.GET]
    return gather, gets, dropped


def _peer(ask: Ask) -> PeerId:
    assert ask.peer is not None
    return ask.peer


def give(gather: Gather, get: Ask, *records: bytes) -> None:
    gather.answered(get, _peer(get), Reply(bytes(7), b"t" * 16, records=records))


def test_who_holds_records_is_asked_for_them_before_the_lookup_has_ended() -> None:
    gather, gets, _ = read(PLACE, [record()])
    assert len(gets) == limits.DHT_ALPHA
    assert not gather.lookup.done


def test_three_that_give_the_same_newest_presence_end_its_read() -> None:
    gather, gets, _ = read(PLACE, [record()])
    give(gather, gets[0], record(sequence=1))
    for number, get in enumerate(gets[1:4]):
        assert not gather.done, number
        give(gather, get, record(sequence=2))
    assert gather.done
    assert [found.payload.sequence for found in gather._newest.values()] == [2]


def test_one_holder_counts_once() -> None:
    gather, gets, _ = read(PLACE, [record()])
    for _ in range(limits.DHT_BETA):
        give(gather, gets[0], record())
    assert not gather.done


def test_the_first_that_gives_an_immutable_value_ends_its_read() -> None:
    topic = immutable_topic(NET, b"value")
    gather, gets, _ = read(topic, [b"one"])
    give(gather, gets[0], record(kind=RecordKind.IMMUTABLE, topic=topic, body=b"value"))
    assert gather.done


def test_no_number_of_holders_that_agree_ends_the_read_of_a_topic_of_many_owners() -> None:
    gather, gets, _ = read(TOPIC, [record()])
    for get in gets:
        give(gather, get, record(kind=RecordKind.OFFER, topic=TOPIC))
    assert not gather.done


def test_false_records_end_no_read_and_are_held_against_their_holders() -> None:
    gather, gets, dropped = read(PLACE, [record()])
    forged = record()[:-1] + b"?"
    elsewhere = record(kind=RecordKind.OFFER, topic=TOPIC)
    of_a_stranger = record(owner=STRANGER)  # at the owner's place
    for get in gets[:9]:
        give(gather, get, forged, elsewhere, of_a_stranger)
    assert not gather.done
    assert {each.reason for each in dropped} == {Reason.BAD_SIGNATURE, Reason.MALFORMED}
    assert {each.peer for each in dropped} == {get.peer for get in gets[:9]}


def test_what_is_wanted_of_several_is_not_in_the_list_of_what_need_not_be_sent() -> None:
    gather, gets, _ = read(PLACE, [record()])
    give(gather, gets[0], record())
    assert gather._list() == b""
    other, gets, _ = read(TOPIC, [record()])
    give(other, gets[0], record(kind=RecordKind.OFFER, topic=TOPIC))
    assert len(other._list()) == 8


def is_over_with(late: int) -> bool:
    """Whether a read ends in which all thirty hold something, and so many are late with it."""
    everywhere = Extent(region=1 << 256, thorough=True)
    gather = Gather(
        1, Lookup(TOPIC, HOLDERS, PeerId(bytes(32)), everywhere, pace=Pace.PROMPT), (), net=NET, wall=lambda: WALL,
        report=print, verify=keys.verify,
    )  # fmt: skip
    while asks := gather.asks():
        for ask in asks:
            if ask.command is Command.FIND:
                gather.answered(ask, _peer(ask), Reply(bytes(7), b"t" * 16, held=1))
            elif late:
                gather.slow(ask)
                late -= 1
            else:
                give(gather, ask, record(kind=RecordKind.OFFER, topic=TOPIC))
    return gather.done


def test_a_holder_that_is_late_with_its_records_is_passed_over_once_k_and_four_for_each_have_given_theirs() -> None:
    assert len(HOLDERS) == 30
    assert [late for late in range(12) if is_over_with(late)] == [0, 1, 2, 3, 4, 5, 6]


def crowded() -> tuple[Gather, int]:
    """A read in whose region there are far more names than nodes, and the region."""
    random, region = Random(7), 1 << 253
    crowd = [Contact(PeerId(random.randbytes(32)), (f"20.{n // 250}.{n % 250}.1", 4000)) for n in range(1200)]
    lookup = Lookup(
        TOPIC, crowd, PeerId(bytes(32)), Extent(region, thorough=True), salt=random.randbytes(16), pace=Pace.PROMPT
    )
    return Gather(1, lookup, (), net=NET, wall=lambda: WALL, report=lambda _: None, verify=keys.verify), region


def is_inside(ask: Ask, region: int) -> bool:
    return node_id(_peer(ask)) ^ int.from_bytes(TOPIC, "big") < region


def test_in_a_crowd_who_is_inside_is_asked_for_records_straight_away_and_only_once() -> None:
    gather, region = crowded()
    insiders = set[PeerId]()
    for _ in range(200):
        for ask in gather.asks():
            assert is_inside(ask, region) == (ask.command is Command.GET)
            if ask.command is Command.GET:
                assert _peer(ask) not in insiders, "a claim to hold more would cost another query"
                insiders.add(_peer(ask))
                gather.answered(ask, _peer(ask), Reply(bytes(7), b"t" * 16, held=9))
            else:
                gather.answered(ask, _peer(ask), Reply(bytes(7), b"t" * 16))
    assert gather.done
    assert len(insiders) > limits.DHT_K


def test_what_insiders_give_counts_and_more_of_it_is_asked_for_with_their_token() -> None:
    gather, region = crowded()
    get = next(ask for ask in everybody_asked(gather) if is_inside(ask, region))
    given = record(kind=RecordKind.OFFER, topic=TOPIC)
    gather.answered(get, _peer(get), Reply(bytes(7), b"t" * 16, records=(given,), more=True))
    (again,) = [ask for ask in gather.asks() if ask.peer == get.peer]
    assert (Command.GET, b"t" * 16, short(given)) == (again.command, again.token, again.argument)
    assert [given] == [found.evidence for found in gather._newest.values()]


def test_insiders_that_do_not_answer_are_passed_over_as_in_any_lookup() -> None:
    gather, region = crowded()
    for _ in range(400):
        for ask in gather.asks():
            if is_inside(ask, region):
                gather.slow(ask)
                gather.failed(ask)
            else:
                gather.answered(ask, _peer(ask), Reply(bytes(7), b"t" * 16))
    assert gather.done
    assert not gather._straight


def everybody_asked(gather: Gather) -> list[Ask]:
    """Those asked until somebody inside is."""
    asked: list[Ask] = []
    while not any(ask.command is Command.GET for ask in asked):
        for ask in (fresh := gather.asks()):
            if ask.command is Command.FIND:
                gather.answered(ask, _peer(ask), Reply(bytes(7), b"t" * 16))
        asked += fresh
    return asked
