"""Two directories in one world, over IPv4 and over IPv6: nodes of one family, and nodes of both, a node in each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from haif.base.clock import Instant
from haif.base.machine import Address
from haif.dht.crossing import Carry, Elsewhere
from haif.testing.directory import PORT, Directory
from haif.testing.signatures import Signatures
from haif.testing.world import World


@dataclass(frozen=True, slots=True)
class Both:
    """Where a node of both families stands in each."""

    four: Address
    six: Address


class Families:
    """`four` and `six` are the directories; `both` the nodes that stand in the two."""

    def __init__(self, world: World, *, signatures: Signatures | None = None) -> None:
        self.world = world
        self.four = Directory(world, signatures=signatures)
        self.six = Directory(world, signatures=signatures, name="six ", at=address6_of)
        self.both: list[Both] = []
        self._twins: dict[Address, Address] = {}
        world.ears.append(self._heard)

    def add_both(self, *, joining_six: bool = True) -> Both:
        """A node of both families. Unless it is `joining_six`, it was given no IPv6 address of anybody."""
        four = self.four.add()
        six = self.six.add(identity=self.four.identities[four], joining=joining_six)
        self.four.nodes[four].stand(six)
        self.six.nodes[six].stand(four)
        self._twins |= {four: six, six: four}
        self.both.append(Both(four, six))
        return self.both[-1]

    def kill(self, node: Both) -> None:
        """A node of both families falls silent."""
        self.four.kill(node.four)
        self.six.kill(node.six)
        self.both.remove(node)

    def _heard(self, now: Instant, whose: Address, event: Any) -> None:
        """What one of its nodes was told concerns the other."""
        if isinstance(event, Carry | Elsewhere):
            twin = self._twins[whose]
            node = (self.six if twin in self.six.nodes else self.four).nodes[twin]
            self.world.do(twin, lambda _: node.crossed(event, now))


def address6_of(number: int) -> Address:
    """Where the node with this number lives in the directory of IPv6: each in a /32 of its own."""
    return f"2a10:{number:x}::1", PORT
