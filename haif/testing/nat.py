"""Network address translators as values of behaviour, in the terms of RFC 4787, and who lives behind which.

A box gives each mapping one external port. What shares a mapping is its mapping behaviour (RFC 4787 section 4.1), whom
it lets in its filtering behaviour (section 5); a mapping that nothing uses for so long is forgotten (section 4.3), and
one host reaches another behind the same box by its external address only if the box hairpins (section 6).

Boxes stand behind boxes (carrier-grade NAT). Inside the simulation private addresses are unique, too.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum, auto
from random import Random
from typing import Final

from haif.base.clock import Instant
from haif.base.machine import Address

_PORTS: Final = range(1024, 65536)


class Depends(Enum):
    """What of the remote address a behaviour looks at."""

    NOTHING = auto()  # endpoint-independent
    ADDRESS = auto()  # address-dependent
    ADDRESS_AND_PORT = auto()  # address and port-dependent


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """How a box translates. The defaults are what RFC 4787 asks of one that hinders nobody (REQ-1, 5, 6, 8, 9)."""

    mapping: Depends = Depends.NOTHING
    filtering: Depends = Depends.NOTHING
    timeout_seconds: float = 300.0
    hairpin: bool = True
    preserves_ports: bool = True  # where the port is free; else, and otherwise, a random one
    inbound_refreshes: bool = False  # what comes in keeps a mapping alive, too (REQ-6: outbound always does)


FULL_CONE: Final = Behaviour()
RESTRICTED: Final = Behaviour(filtering=Depends.ADDRESS)
PORT_RESTRICTED: Final = Behaviour(filtering=Depends.ADDRESS_AND_PORT)
SYMMETRIC: Final = Behaviour(
    mapping=Depends.ADDRESS_AND_PORT, filtering=Depends.ADDRESS_AND_PORT, preserves_ports=False, hairpin=False
)
NAMED: Final = {
    "full-cone": FULL_CONE,
    "restricted": RESTRICTED,
    "port-restricted": PORT_RESTRICTED,
    "symmetric": SYMMETRIC,
}


@dataclass(slots=True)
class _Mapping:
    inside: Address
    port: int
    key: tuple[Address, str, int]
    used: Instant
    sent_to: dict[tuple[str, int], Instant] = field(default_factory=dict)  # what the filter knows, and since when


class NatBox:
    """One translator. As many mappings as it has ports: when they are spent, new ones are refused."""

    def __init__(self, external: str, behaviour: Behaviour, random: Random) -> None:
        self.external, self.behaviour = external, behaviour
        self._random = random
        self._by_key: dict[tuple[Address, str, int], _Mapping] = {}
        self._by_port: dict[int, _Mapping] = {}

    def outbound(self, source: Address, destination: Address, now: Instant) -> Address | None:
        """The external address under which a datagram leaves; None if no port is free."""
        key = (source, *_seen(destination, self.behaviour.mapping))
        mapping = self._alive(self._by_key.get(key), now)
        if mapping is None:
            port = self._free_port(source[1], now)
            if port is None:
                return None
            mapping = self._by_key[key] = self._by_port[port] = _Mapping(source, port, key, now)
        mapping.used = now
        mapping.sent_to[_seen(destination, self.behaviour.filtering)] = now
        return self.external, mapping.port

    def inbound(self, source: Address, port: int, now: Instant) -> Address | None:
        """To whom inside a datagram to this external port goes; None if it is filtered or nobody's."""
        mapping = self._alive(self._by_port.get(port), now)
        if mapping is None:
            return None
        permitted = mapping.sent_to.get(_seen(source, self.behaviour.filtering))
        if permitted is None or now - permitted > self.behaviour.timeout_seconds:
            return None
        if self.behaviour.inbound_refreshes:
            mapping.used = mapping.sent_to[_seen(source, self.behaviour.filtering)] = now
        return mapping.inside

    def restart(self) -> None:
        """The box loses its memory, as when its power fails."""
        self._by_key.clear()
        self._by_port.clear()

    def __len__(self) -> int:
        return len(self._by_port)

    def _alive(self, mapping: _Mapping | None, now: Instant) -> _Mapping | None:
        if mapping is not None and now - mapping.used > self.behaviour.timeout_seconds:
            del self._by_key[mapping.key], self._by_port[mapping.port]
            return None
        return mapping

    def _free_port(self, wanted: int, now: Instant) -> int | None:
        if self.behaviour.preserves_ports and self._is_free(wanted, now):
            return wanted
        first = self._random.choice(_PORTS)
        ports = (_PORTS[(first - _PORTS[0] + step) % len(_PORTS)] for step in range(len(_PORTS)))
        return next((port for port in ports if self._is_free(port, now)), None)

    def _is_free(self, port: int, now: Instant) -> bool:
        return self._alive(self._by_port.get(port), now) is None


class Realms:
    """Which host lives behind which box; everybody else is on the public network."""

    def __init__(self) -> None:
        self._behind: dict[str, NatBox] = {}
        self._boxes: dict[str, NatBox] = {}

    def install(self, box: NatBox, hosts: Iterable[str]) -> None:
        """Put hosts, or the external addresses of other boxes, behind a box."""
        self._boxes[box.external] = box
        self._behind.update(dict.fromkeys(hosts, box))

    def leave(self, source: Address, destination: Address, now: Instant) -> Address | None:
        """Under which address a datagram arrives where its destination is visible; None if it gets nowhere."""
        realm, wanted = self._behind.get(source[0]), self._behind.get(destination[0])
        while realm is not wanted:
            if realm is None:
                return None  # a private address does not exist on the public network
            outside = realm.outbound(source, destination, now)
            if outside is None or (destination[0] == realm.external and not realm.behaviour.hairpin):
                return None
            source, realm = outside, self._behind.get(realm.external)
        return source

    def enter(self, source: Address, destination: Address, now: Instant) -> Address | None:
        """Who gets a datagram that arrives for this address: through each box in turn; None if one keeps it out."""
        while (box := self._boxes.get(destination[0])) is not None:
            inside = box.inbound(source, destination[1], now)
            if inside is None:
                return None
            destination = inside
        return destination

    def __bool__(self) -> bool:
        return bool(self._boxes)


def _seen(remote: Address, depends: Depends) -> tuple[str, int]:
    """As much of a remote address as a behaviour looks at."""
    if depends is Depends.NOTHING:
        return "", 0
    return (remote[0], 0) if depends is Depends.ADDRESS else remote
