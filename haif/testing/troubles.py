"""What befalls a simulated network as time goes by: nodes that come and go, and hostile ones that move in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from math import gamma
from random import Random
from typing import TypeVar

from haif.base.ids import Digest
from haif.base.machine import Address
from haif.dht.contact import Contact, node_id
from haif.identity.keys import Identity
from haif.testing.actors import Actor, Eclipser, SlowWalker, ground
from haif.testing.directory import NET, PORT
from haif.testing.nat import FULL_CONE, NAMED, Depends, NatBox
from haif.testing.stage import Stage

HOUR_SECONDS = 3600.0
Lifetime = Callable[[Random], float]
"""Draws how many seconds a node lives."""

ActorT = TypeVar("ActorT", bound=Actor)


def exponential(hours: float) -> Lifetime:
    """Lives of so many hours in the mean, of which the past says nothing."""
    return lambda random: random.expovariate(1 / (hours * HOUR_SECONDS))


def weibull(hours: float, *, shape: float = 0.5) -> Lifetime:
    """Lives of so many hours in the mean: with a shape below 1 most are short and a few very long.

    Sessions of file-sharing peers have shapes of 0.34 to 0.59 (Stutzbach and Rejaie 2006).
    """
    scale = hours * HOUR_SECONDS / gamma(1 + 1 / shape)
    return lambda random: random.weibullvariate(scale, shape)


def churn(stage: Stage, lifetime: Lifetime, *, seconds: float) -> None:
    """Every node lives as long as is drawn for it, and for each that dies another comes.

    An owner that dies is no longer read; the newcomer publishes in its stead.
    """
    world, directory = stage.world, stage.directory
    ends = world.now() + seconds

    def born(address: Address) -> None:
        world.later(lifetime(stage.random), partial(die, address))

    def die(victim: Address) -> None:
        if world.now() >= ends or victim not in directory.nodes:
            return
        directory.kill(victim)
        newcomer = directory.add()
        for topic in [topic for topic, owner in stage.owners.items() if owner == victim]:
            stage.succeed(topic, newcomer)
        born(newcomer)

    for address in list(directory.nodes):
        born(address)


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


def nat(stage: Stage, share: float) -> None:
    """So many more nodes join from behind boxes: one of each kind for every four, and each fifth behind two of them."""
    random = Random(f"{stage.world.seed}/nat")  # noqa: S311 - replayed, never secret
    behaviours = list(NAMED.values())
    carrier = NatBox("102.0.0.1", FULL_CONE, random)
    stage.world.realms.install(carrier, [])
    for number in range(round(share * len(stage.directory.nodes))):
        host, external = f"10.0.{number}.2", f"101.{number // 250}.{number % 250}.1"
        box = NatBox(external, behaviours[number % len(behaviours)], random)
        stage.world.realms.install(box, [host])
        if number % 5 == 4:
            stage.world.realms.install(carrier, [external])
        stage.directory.add(address=(host, PORT), ephemeral=box.behaviour.filtering is not Depends.NOTHING)
        stage.world.run(seconds=0.2)
    stage.world.run(seconds=20)


def move_in(stage: Stage, address: Address, actor: ActorT) -> ActorT:
    """A hostile peer comes to live somewhere and greets everybody."""
    stage.directory.identities[address] = actor.identity
    stage.directory.guests[address] = actor.peer
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


def sybils(stage: Stage, count: int, *, subnets: int) -> list[Eclipser]:
    """So many ids anywhere in the key space, spread over a few /24s; they name one another and keep nothing."""
    entropy = stage.world.entropy("sybils")
    identities = [stage.directory.signatures.identity(entropy(32)) for _ in range(count)]
    return _gang(stage, identities, "112.0", subnets, entropy)


def eclipse(stage: Stage, target: Digest, count: int, *, subnets: int) -> list[Eclipser]:
    """Ground ids closer to a target than any honest node, spread over so many /24s, all greeting everybody."""
    key = int.from_bytes(target, "big")
    nearest = min(node_id(node.peer) ^ key for node in stage.directory.nodes.values())
    entropy = stage.world.entropy("grinder")
    identities = ground(target, count, entropy, within=nearest, identity=stage.directory.signatures.identity)
    return _gang(stage, identities, "111.0", subnets, entropy)


def _gang(
    stage: Stage, identities: Sequence[Identity], where: str, subnets: int, entropy: Callable[[int], bytes]
) -> list[Eclipser]:
    addresses = [(f"{where}.{n % subnets}.{n // subnets + 1}", PORT) for n in range(len(identities))]
    gang = [Contact(identity.peer, address) for identity, address in zip(identities, addresses, strict=True)]
    return [
        move_in(stage, address, Eclipser(identity, NET, entropy, gang))
        for identity, address in zip(identities, addresses, strict=True)
    ]
