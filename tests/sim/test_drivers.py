"""What a machine sends depends on its inputs and the time alone: heap, asyncio, trio and our own loop send the same."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import pytest
import trio
from trio._core import _run

from haif.base import limits
from haif.base.clock import Deadline, Instant
from haif.base.ids import Digest
from haif.base.machine import Address, Machine
from haif.dht.node import Node
from haif.dht.operations import Found, Gathered
from haif.identity.keys import Identity
from haif.testing.directory import NET, Directory, address_of
from haif.testing.endpoint_driver import by_endpoint
from haif.testing.net import Conditions
from haif.testing.replay import Recorder, Sent, by_asyncio, by_heap
from haif.testing.scenarios import LOSSY
from haif.testing.trio_driver import SWITCHES, TrioNet, by_trio, deterministic, network, run
from haif.testing.world import WALL_AT_START, World
from haif.wire.events import Called
from haif.wire.session import SessionMachine
from tests.support.wire_pair import dialling, listening

SEED = 12
TOPIC = Digest(b"t" * 31 + b"\1")  # of offers
HERE: Address = ("120.0.0.1", 4000)
THERE: Address = ("121.0.0.1", 4000)
Driver = Callable[..., list[Sent]]
DRIVERS = pytest.mark.parametrize("driver", [by_heap, by_asyncio, by_trio])


def node(world: World) -> Node:
    entropy = world.entropy("recorded")
    return Node(Identity(entropy(32)), NET, entropy=entropy, wall=lambda: WALL_AT_START, now=Instant(0.0))


@pytest.fixture(scope="module")
def dht() -> Recorder:
    """A node of a lossy town that joins, publishes, reads and looks after its table for a quarter of an hour."""
    world = World(seed=SEED, conditions=LOSSY)
    recorder = Recorder(node(world))
    world.add(HERE, recorder)
    directory = Directory(world)
    directory.grow(12)
    directory.identities[HERE] = Identity(world.entropy("recorded")(32))
    record = directory.record(HERE, TOPIC)
    acts: Sequence[Callable[[Any, Instant], object]] = (
        lambda machine, now: machine.join([address_of(0)], now),
        lambda machine, now: machine.publish(record, now),
        lambda machine, now: machine.gather(TOPIC, now),
        lambda machine, now: machine.find(TOPIC, now),
    )
    for act in acts:
        world.do(HERE, partial(recorder.act, act))
        world.run(seconds=7)
    directory.kill(address_of(3))
    world.run(seconds=900)
    assert len(recorder.machine.table) >= 10
    return recorder


@DRIVERS
def test_a_directory_node_sends_the_same_under_every_driver(dht: Recorder, driver: Driver) -> None:
    end = max(sent.at for sent in dht.sent)
    again = driver(node(World(seed=SEED)), dht.inputs, seconds=end + 0.001)
    assert len(dht.sent) > 200
    assert again == dht.sent


def test_the_products_own_loop_sends_the_same_over_a_socket(dht: Recorder) -> None:
    end = max(sent.at for sent in dht.sent)
    again = by_endpoint(node(World(seed=SEED)), dht.inputs, seconds=end + 0.001)
    assert [(sent.data, sent.destination) for sent in again] == [(sent.data, sent.destination) for sent in dht.sent]
    assert [sent.at for sent in again] == pytest.approx([sent.at for sent in dht.sent], abs=1e-6)


class OneStream:
    """A session between two addresses whose bytes arrive in order, as a `Machine`; a server answers what is called."""

    def __init__(self, session: SessionMachine, remote: Address) -> None:
        self.session, self.remote = session, remote

    def receive(self, data: bytes, source: Address, now: Instant) -> None:
        self.session.receive(data, now)
        while (event := self.session.next_event()) is not None:
            if isinstance(event, Called):
                self.session.rpc.reply(event.stream, event.argument * 3)

    def outgoing(self, now: Instant) -> Iterable[tuple[bytes, Address]]:
        pieces = list(iter(lambda: self.session.outgoing(now), b""))
        return [(b"".join(pieces), self.remote)] if pieces else []

    def next_event(self) -> Any:
        return self.session.next_event()

    def wake_at(self) -> Instant | None:
        return self.session.wake_at()

    def wake(self, now: Instant) -> None:
        self.session.wake(now)


@pytest.fixture(scope="module")
def wire() -> Recorder:
    """A client that shakes hands, calls twice, is idle past several keepalives, and then loses its peer."""
    world = World(
        seed=SEED, conditions=Conditions(delay_min=0.03, delay_max=0.03, jitter=0.001)
    )  # no two things at once
    recorder = Recorder(client())
    world.add(THERE, OneStream(SessionMachine(listening(), Instant(0.0)), HERE))
    world.add(HERE, recorder)
    world.run(seconds=1)
    for argument in (b"small", bytes(100_000)):
        world.do(HERE, partial(recorder.act, partial(call, argument)))
        world.run(seconds=1)
    world.run(seconds=limits.KEEPALIVE_SECONDS * 4)
    world.kill(THERE)
    world.run(seconds=limits.SESSION_SILENCE_SECONDS * 2)
    return recorder


def client() -> Machine[Any]:
    return OneStream(SessionMachine(dialling(), Instant(0.0)), THERE)


def call(argument: bytes, machine: OneStream, now: Instant) -> None:
    machine.session.rpc.call("m", argument, Deadline.after(5.0, now), now)


@DRIVERS
def test_a_session_sends_the_same_under_every_driver(wire: Recorder, driver: Driver) -> None:
    again = driver(client(), wire.inputs, seconds=60.0)
    assert len(wire.sent) > 8
    assert again == wire.sent


def test_trio_still_has_the_two_switches_that_make_it_repeatable() -> None:
    before = [getattr(_run, name) for name in SWITCHES]
    with deterministic(1):
        assert _run._ALLOW_DETERMINISTIC_SCHEDULING is True
        assert _run._r is not before[1]
    assert [getattr(_run, name) for name in SWITCHES] == before


def test_a_switch_that_vanished_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(_run, "_r")
    with pytest.raises(AssertionError, match="cannot be replayed"), deterministic(1):
        pass


async def village(net: TrioNet, count: int = 20) -> tuple[list[Address], list[Node]]:
    """Nodes that join one after the other, as tasks."""
    addresses, nodes = [address_of(number) for number in range(count)], list[Node]()
    world = World(seed=SEED)
    for number, address in enumerate(addresses):
        entropy = world.entropy(f"node {number}")
        nodes.append(
            Node(Identity(entropy(32)), NET, entropy=entropy, wall=world.wall, now=Instant(trio.current_time()))
        )
        net.add(address, nodes[-1])
        if number:
            net.do(address, lambda now, node=nodes[-1]: node.join(addresses[:1], now))
        await trio.sleep(0.5)
    await trio.sleep(5)
    return addresses, nodes


async def outcome(net: TrioNet, address: Address, kind: type) -> Any:
    while not isinstance(event := await net.event_of(address), kind):
        pass
    return event


def story(seed: int) -> list[tuple[Address, Sent]]:
    async def main() -> list[tuple[Address, Sent]]:
        async with network(seed=seed, conditions=LOSSY) as net:
            addresses, nodes = await village(net)
            directory = Directory(World(seed=SEED))
            directory.identities[addresses[4]] = Identity(World(seed=SEED).entropy("node 4")(32))
            record = directory.record(addresses[4], TOPIC)
            net.do(addresses[4], lambda now: nodes[4].publish(record, now))
            await trio.sleep(10)
            net.do(addresses[9], lambda now: nodes[9].gather(TOPIC, now))
            gathered = await outcome(net, addresses[9], Gathered)
            assert [each.evidence for each in gathered.records] == [record]
            net.do(addresses[2], lambda now: nodes[2].find(nodes[11].id, now))
            await outcome(net, addresses[2], Found)  # its own joining
            found = await outcome(net, addresses[2], Found)
            assert found.contacts[0].peer == nodes[11].peer
            return net.sent

    return run(main, seed=seed)


def test_a_village_of_tasks_under_trio_publishes_and_reads_and_a_seed_replays_it() -> None:
    assert story(1) == story(1)
    assert story(1) != story(2)
