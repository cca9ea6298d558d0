"""Who is told what is stored here: as long as it was asked for, and never more than so often."""

import pytest

from haif.base import limits
from haif.base.clock import Instant
from haif.base.ids import Digest
from haif.base.machine import Address
from haif.dht.diversity import Scope
from haif.dht.notices import Watchers

TOPIC = Digest(b"t" * 32)
NOW = Instant(100.0)


def at(number: int) -> Address:
    return f"20.{number // 250}.{number % 250}.1", 4000


def later(seconds: float) -> Instant:
    return Instant(NOW + seconds)


def test_whoever_registered_is_told_until_that_lapses() -> None:
    watchers = Watchers()
    assert watchers.register(TOPIC, b"handle 1", at(1), NOW)
    assert watchers.tell(TOPIC, later(59)) == [(b"handle 1", at(1))]
    assert watchers.tell(Digest(bytes(32)), NOW) == []
    assert watchers.tell(TOPIC, later(60)) == []
    watchers.forget_lapsed(later(60))
    assert len(watchers) == 0


def test_registering_again_renews_it_and_may_change_the_handle() -> None:
    watchers = Watchers()
    watchers.register(TOPIC, b"handle 1", at(1), NOW)
    watchers.register(TOPIC, b"handle 2", at(1), later(50))
    assert watchers.tell(TOPIC, later(100)) == [(b"handle 2", at(1))]
    assert len(watchers) == 1


def test_nobody_is_told_more_often_than_it_can_be_made_to_bear_and_renewing_does_not_help() -> None:
    watchers, told = Watchers(), 0
    for step in range(1000):  # ten seconds
        watchers.register(TOPIC, b"handle 1", at(1), later(step / 100))
        told += len(watchers.tell(TOPIC, later(step / 100)))
    assert told in range(70, 73), "the burst, and ten seconds of the rate"


def test_there_is_room_for_so_many_of_a_topic_and_so_few_of_one_subnet() -> None:
    watchers = Watchers()
    mine = [watchers.register(TOPIC, b"handle 1", ("66.6.6.6", 4000 + port), NOW) for port in range(6)]
    assert mine == [True] * 4 + [False] * 2
    others = [watchers.register(TOPIC, b"handle 1", at(number), NOW) for number in range(14)]
    assert others == [True] * 12 + [False] * 2
    assert len(watchers.tell(TOPIC, NOW)) == limits.WATCHERS_PER_TOPIC_MAX
    assert watchers.register(TOPIC, b"handle 9", at(20), later(61)), "what has lapsed makes room"


def test_in_a_mesh_inside_one_site_its_subnet_is_no_reason_to_refuse_anybody() -> None:
    watchers, topics = Watchers(Scope.PRIVATE), limits.WATCHERS_PER_SUBNET_MAX + 10
    mine = [watchers.register(TOPIC, b"handle 1", (f"192.168.1.{host}", 4000), NOW) for host in range(1, 21)]
    assert sum(mine) == limits.WATCHERS_PER_TOPIC_MAX
    wanted = [Digest(number.to_bytes(32, "big")) for number in range(topics)]
    assert all(watchers.register(topic, b"handle 1", ("192.168.1.1", 4000), NOW) for topic in wanted)
    strangers = [watchers.register(topic, b"handle 1", ("66.6.6.6", 4000), NOW) for topic in wanted]
    assert sum(strangers) == limits.WATCHERS_PER_SUBNET_MAX


def test_there_is_room_for_so_many_in_all() -> None:
    watchers = Watchers()
    for number in range(limits.WATCHERS_MAX):
        assert watchers.register(Digest(number.to_bytes(32, "big")), b"handle 1", at(number), NOW)
    assert not watchers.register(TOPIC, b"handle 1", at(2), NOW)
    assert watchers.register(Digest(bytes(32)), b"handle 1", at(0), later(30)), "its own place is its own"
    assert watchers.register(TOPIC, b"handle 1", at(2), later(60))
    assert len(watchers) == 2


@pytest.mark.parametrize("host", ["66.6.6.{}", "2001:db8:66:{}::1"])
def test_there_is_room_for_so_many_of_one_subnet_at_all_topics_until_they_lapse(host: str) -> None:
    watchers, most = Watchers(), limits.WATCHERS_PER_SUBNET_MAX

    def flood(now: Instant) -> int:
        wanted = ((Digest(n.to_bytes(32, "big")), (host.format(n % 200), 4000)) for n in range(2 * most))
        return sum(watchers.register(topic, b"handle 1", source, now) for topic, source in wanted)

    assert flood(NOW) == most
    assert watchers.register(TOPIC, b"handle 1", at(1), NOW)
    assert flood(later(30)) == most, "who has a place keeps it"
    assert len(watchers) == most + 1
    assert watchers.register(TOPIC, b"handle 1", (host.format(9), 4000), later(90)), "what has lapsed makes room"
    assert len(watchers) == 1
