"""Contacts that fell silent: some are asked again, none for ever."""

from random import Random

from haif.base import limits
from haif.base.clock import Instant
from haif.base.ids import PeerId
from haif.dht.contact import Contact
from haif.dht.lost import Lost, Silence

NOW = Instant(0.0)


def contacts(count: int) -> list[Contact]:
    return [Contact(PeerId(number.to_bytes(32, "big")), ("20.0.0.1", number + 1)) for number in range(count)]


def test_who_was_lost_is_asked_again_by_lot_until_it_answers() -> None:
    lost, known, random = Lost(), contacts(10), Random(1)
    lost.add(known, NOW)
    asked = {contact for _ in range(100) for contact in lost.some(NOW, random.randbytes)}
    assert asked == set(known)
    assert len(lost.some(NOW, random.randbytes)) == limits.DHT_LOST_ASKED
    assert lost.found(known[0].peer)
    assert not lost.found(known[0].peer)
    assert known[0] not in lost
    assert known[1] in lost
    assert lost.everybody(NOW) == known[:0:-1]


def test_after_a_day_it_is_forgotten() -> None:
    lost, known = Lost(), contacts(2)
    lost.add(known[:1], NOW)
    lost.add(known[1:], Instant(60.0))
    assert lost.everybody(Instant(limits.DHT_LOST_SECONDS)) == known[1:]
    assert lost.everybody(Instant(limits.DHT_LOST_SECONDS + 60)) == []


def test_the_latest_stay_where_there_are_too_many() -> None:
    lost, known = Lost(), contacts(limits.DHT_LOST_MAX + 5)
    lost.add(known, NOW)
    assert lost.everybody(NOW) == known[:4:-1]
    assert len(lost) == limits.DHT_LOST_MAX


def test_who_did_not_answer_is_left_alone_for_a_while_or_until_it_does() -> None:
    silence, (one, other) = Silence(), contacts(2)
    silence.add(one, NOW)
    silence.add(other, NOW)
    assert silence.holds(one, NOW)
    silence.forget(other)
    assert not silence.holds(other, NOW)
    assert not silence.holds(one, Instant(limits.DHT_SILENT_SECONDS))


def test_only_so_many_silent_ones_are_remembered() -> None:
    silence, known = Silence(), contacts(limits.DHT_SILENT_MAX + 5)
    for contact in known:
        silence.add(contact, NOW)
    assert [contact for contact in known if silence.holds(contact, NOW)] == known[5:]
