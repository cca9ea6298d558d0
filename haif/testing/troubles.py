"""What befalls a simulated network as time goes by: nodes that come and go, and hostile ones that move in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from haif.base.ids import Digest
from haif.base.machine import Address
from haif.dht.contact import Contact, node_id
from haif.identity.keys import Identity
from haif.testing.actors import Actor, Eclipser, SlowWalker, ground
from haif.testing.directory import NET, PORT
from haif.testing.stage import Stage

HOUR_SECONDS = 3600.0
ActorT = TypeVar("ActorT", bound=Actor)


def churn(stage: Stage, *, per_hour: float, seconds: float) -> None:
    """Exponential lifetimes: each node lives 1/`per_hour` hours in the mean, and for each that dies another comes.

    An owner that dies is no longer read; the newcomer publishes in its stead.
    """
    world, directory = stage.world, stage.directory
    ends = world.now() + seconds

    def one() -> None:
        if world.now() >= ends:
            return
        victim = stage.random.choice(list(directory.nodes))
        directory.kill(victim)
        newcomer = directory.add()
        for topic in [topic for topic, owner in stage.owners.items() if owner == victim]:
            stage.succeed(topic, newcomer)
        again()

    def again() -> None:
        deaths_per_second = per_hour * len(directory.nodes) / HOUR_SECONDS
        world.later(stage.random.expovariate(deaths_per_second), one)

    again()


def flash_crowd(stage: Stage, count: int, *, seconds: float) -> None:
    """Many nodes join within a few seconds."""
    for number in range(count):
        stage.world.later(seconds * number / count, partial(_join, stage))


def _join(stage: Stage) -> None:
    stage.directory.add()


def mass_death(stage: Stage, share: float) -> None:
    """A share of all nodes falls silent at once; owners are spared, so that what they published is live."""
    for address in stage.some(share, sparing=list(stage.owners.values())):
        stage.directory.kill(address)


def move_in(stage: Stage, address: Address, actor: ActorT) -> ActorT:
    """A hostile peer comes to live somewhere and greets everybody."""
    stage.directory.identities[address] = actor.identity
    stage.world.add(address, actor)
    stage.world.do(address, partial(actor.greet, list(stage.directory.nodes)))
    return actor


def hire(stage: Stage, kind: Callable[[Identity, Callable[[int], bytes], Address], ActorT], count: int) -> list[ActorT]:
    """So many hostile peers of one kind, each in a /24 of its own."""
    hired = []
    for _ in range(count):
        number = len(stage.directory.identities)
        address = (f"110.{number // 250}.{number % 250}.1", PORT)
        entropy = stage.world.entropy(f"actor {number}")
        hired.append(move_in(stage, address, kind(stage.directory.signatures.identity(entropy(32)), entropy, address)))
    return hired


def slow_down(stage: Stage, addresses: Sequence[Address], *, seconds: float) -> None:
    """Some nodes become slow-walkers."""
    stage.crooked.update(addresses)
    for address in addresses:
        stage.world.replace(address, SlowWalker(stage.directory.nodes[address], seconds=seconds))


def eclipse(stage: Stage, target: Digest, count: int, *, subnets: int) -> list[Eclipser]:
    """Ground ids closer to a target than any honest node, spread over so many /24s, all greeting everybody."""
    key = int.from_bytes(target, "big")
    nearest = min(node_id(node.peer) ^ key for node in stage.directory.nodes.values())
    entropy = stage.world.entropy("grinder")
    identities = ground(target, count, entropy, within=nearest, identity=stage.directory.signatures.identity)
    addresses = [(f"111.0.{n % subnets}.{n // subnets + 1}", PORT) for n in range(count)]
    gang = [Contact(identity.peer, address) for identity, address in zip(identities, addresses, strict=True)]
    return [
        move_in(stage, address, Eclipser(identity, NET, entropy, gang))
        for identity, address in zip(identities, addresses, strict=True)
    ]
