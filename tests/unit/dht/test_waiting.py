"""Our own tickets: when to come back, with which record, and what becomes of it."""

from haif.base import limits
from haif.base.clock import Instant
from haif.base.ids import Digest, PeerId
from haif.dht.contact import Contact
from haif.dht.waiting import Told, WaitingRoom

PLACE, OTHER = (Digest(b"t" * 32), PeerId(b"o" * 32)), (Digest(b"t" * 32), PeerId(b"p" * 32))


def told(number: int, due: float = 10.0, ticket: bytes = b"ticket") -> Told:
    return Told(Contact(PeerId(number.to_bytes(32, "big")), ("20.0.0.1", number)), ticket, Instant(due))


def test_it_is_time_to_come_back_when_told_and_to_all_who_told_so_at_once() -> None:
    room = WaitingRoom()
    room.wait(PLACE, b"record", [told(1, 10), told(2, 11), told(3, 50)])
    assert room.wake_at() == 10
    assert room.due(Instant(9.9)) is None
    assert room.due(Instant(12)) == (PLACE, b"record", (told(1, 10), told(2, 11)))
    assert room.due(Instant(12)) is None, "they are on their way"
    assert room.wake_at() == 50


def test_a_newer_record_takes_the_place_that_the_older_one_waited_for() -> None:
    room = WaitingRoom()
    room.wait(PLACE, b"old", [told(1)])
    room.replace(PLACE, b"new")
    room.replace(OTHER, b"nowhere")
    assert room.due(Instant(10)) == (PLACE, b"new", (told(1),))
    assert len(room) == 1


def test_whoever_must_wait_again_does_and_the_others_are_done() -> None:
    room = WaitingRoom()
    room.wait(PLACE, b"record", [told(1), told(2)])
    room.due(Instant(10))
    room.came_back(PLACE, told(1).contact.peer, told(1, 99, b"another"))
    room.came_back(PLACE, told(2).contact.peer, None)
    assert room.ticket(PLACE, told(1).contact.peer) == b"another"
    assert room.ticket(PLACE, told(2).contact.peer) == b""
    assert (len(room), room.wake_at()) == (1, 99)


def test_what_was_withdrawn_while_it_was_on_its_way_waits_no_more() -> None:
    room = WaitingRoom()
    room.wait(PLACE, b"record", [told(1)])
    room.due(Instant(10))
    room.forget(PLACE)
    room.came_back(PLACE, told(1).contact.peer, told(1, 99))
    assert (len(room), room.wake_at()) == (0, None)


def test_it_is_bounded_and_the_one_told_longest_ago_is_forgotten() -> None:
    room = WaitingRoom()
    room.wait(OTHER, b"first", [told(0, 1)])
    room.wait(PLACE, b"record", [told(number, 10) for number in range(limits.TICKETS_HELD_MAX)])
    assert len(room) == limits.TICKETS_HELD_MAX
    assert room.ticket(OTHER, told(0).contact.peer) == b""
    assert room._records == {PLACE: b"record"}
