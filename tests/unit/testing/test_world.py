"""The simulated world itself: time jumps, the network is as bad as told, and a seed says it all."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from haif.base.clock import Instant
from haif.base.machine import Address
from haif.testing.net import Conditions, clog, partition
from haif.testing.world import WALL_AT_START, World

A: Address = ("10.0.0.1", 1)
B: Address = ("10.0.0.2", 1)


@dataclass
class Echo:
    """Sends everything back with a mark, rings once at a time it is told, remembers what it heard."""

    ring_at: Instant | None = None
    heard: list[tuple[bytes, Address, Instant]] = field(default_factory=list)
    rang: list[Instant] = field(default_factory=list)
    waiting: list[tuple[bytes, Address]] = field(default_factory=list)

    def receive(self, data: bytes, source: Address, now: Instant) -> None:
        self.heard.append((data, source, now))
        if not data.endswith(b"!"):
            self.waiting.append((data + b"!", source))

    def outgoing(self, now: Instant) -> Iterable[tuple[bytes, Address]]:
        waiting, self.waiting = self.waiting, []
        return waiting

    def next_event(self) -> None:
        return None

    def wake_at(self) -> Instant | None:
        return self.ring_at

    def wake(self, now: Instant) -> None:
        self.ring_at = None
        self.rang.append(now)


def two(conditions: Conditions, seed: int = 1) -> tuple[World, Echo, Echo]:
    world, a, b = World(seed=seed, conditions=conditions), Echo(), Echo()
    world.add(A, a)
    world.add(B, b)
    return world, a, b


def test_a_datagram_goes_there_and_its_echo_back_within_the_delays() -> None:
    world, a, b = two(Conditions(delay_min=0.01, delay_max=0.02))
    world.send(b"hello", A, B)
    assert world.run(seconds=1, until=lambda: a.heard)
    assert [data for data, _, _ in b.heard] == [b"hello"]
    assert [data for data, _, _ in a.heard] == [b"hello!"]
    assert 0.02 <= world.now() <= 0.04


def test_a_machine_is_woken_exactly_when_it_wished_and_time_costs_nothing() -> None:
    world, echo = World(seed=1), Echo(ring_at=Instant(86_400.0))
    world.add(A, echo)
    assert world.run(seconds=100_000, until=lambda: echo.rang)
    assert echo.rang == [86_400.0]
    assert world.wall() == WALL_AT_START + 86_400_000


def test_a_changed_wish_replaces_the_former_one() -> None:
    world, echo = World(seed=1), Echo(ring_at=Instant(10.0))
    world.add(A, echo)
    world.do(A, lambda now: setattr(echo, "ring_at", Instant(20.0)))
    world.run(seconds=30)
    assert echo.rang == [20.0]
    assert world.now() == 30.0


def test_everything_is_lost_when_all_is_lost_and_the_wait_ends() -> None:
    world, _, b = two(Conditions(loss=1.0))
    world.send(b"hello", A, B)
    assert not world.run(seconds=5, until=lambda: b.heard)
    assert world.now() == 5.0


def test_the_dead_hear_nothing() -> None:
    world, _, b = two(Conditions())
    world.send(b"hello", A, B)
    world.kill(B)
    world.run(seconds=5)
    assert b.heard == []


def test_what_is_held_back_is_overtaken() -> None:
    world, _, b = two(Conditions(delay_min=0.01, delay_max=0.01, reordering=0.3))
    for number in range(50):
        world.do(A, lambda now, number=number: world.send(b"%d!" % number, A, B))
        world.run(seconds=0.001)
    world.run(seconds=1)
    numbers = [int(data[:-1]) for data, _, _ in b.heard]
    assert numbers != sorted(numbers)
    assert sorted(numbers) == list(range(50))


def test_one_seed_is_one_world_and_another_is_another() -> None:
    def story(seed: int) -> str:
        world, _, _ = two(Conditions(loss=0.2, duplication=0.2), seed)
        for number in range(20):
            world.send(b"%d" % number, A, B)
        world.run(seconds=1)
        return world.trace()

    assert story(1) == story(1)
    assert story(1) != story(2)


def test_entropy_follows_from_seed_and_name() -> None:
    assert World(seed=1).entropy("a")(16) == World(seed=1).entropy("a")(16)
    assert World(seed=1).entropy("a")(16) != World(seed=1).entropy("b")(16)
    assert World(seed=1).entropy("a")(16) != World(seed=2).entropy("a")(16)


def test_a_stepped_clock_shows_another_time_of_day_to_its_machine_alone() -> None:
    world, _, _ = two(Conditions())
    world.step_clock(A, 5000)
    world.step_clock(A, -7000)
    assert world.wall_at(A)() == WALL_AT_START - 2000
    assert world.wall_at(B)() == world.wall() == WALL_AT_START


def test_what_is_to_happen_later_happens_then() -> None:
    world, heard = World(seed=1), list[float]()
    world.later(3.0, lambda: heard.append(world.now()))
    world.run(seconds=2.9)
    assert heard == []
    world.run(seconds=1)
    assert heard == [3.0]


def test_a_fault_strikes_for_its_time_only() -> None:
    world, _, b = two(Conditions(delay_min=0.01, delay_max=0.01, jitter=0))
    world.strike(partition([A], begins=0, ends=10))
    world.send(b"lost!", A, B)
    world.run(seconds=10)
    world.strike(clog([A], begins=20, ends=30))
    world.send(b"heard!", A, B)
    world.run(seconds=1)
    assert [data for data, _, _ in b.heard] == [b"heard!"]


def test_a_tap_sees_every_datagram_delivered() -> None:
    world, _, _ = two(Conditions())
    seen = list[tuple[Address, Address, bytes]]()
    world.taps.append(lambda _at, source, destination, data: seen.append((source, destination, data)))
    world.send(b"hello", A, B)
    world.run(seconds=1)
    assert seen == [(A, B, b"hello"), (B, A, b"hello!")]
    assert world.datagrams == 2
