"""Who may meet whom through this relay, and how much may pass: places, circuits, tokens and meters, as values in time.

    place       a peer's reservation: from then on others may ask for it here; it lapses unless renewed
    circuit     two tokens, one for who asked and one for who is called; joined when both were shown; ends at a limit
    meter       a peer's or a circuit's bytes a second, with what was not used for a while; whoever is over it waits

Nobody can be called who has no place, a token is looked up by its hash and taken once, and every map has a bound. What
cannot be granted is refused with the reason; what is over a rate is slowed down and never cut.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import TypeVar

from haif.base import limits
from haif.base.clock import Instant
from haif.base.errors import ConnectionLost, HaifError, Misuse, Overloaded, OverQuota, Timeout, Unauthenticated
from haif.base.hashing import digest
from haif.base.ids import Digest, Nonce, PeerId
from haif.wire.gate import Shares

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """What the operator of a relay lets pass. Bytes count both directions together."""

    circuits: int = limits.RELAY_CIRCUITS_MAX
    bytes_per_second: int = limits.RELAY_BYTES_PER_SECOND
    circuit_bytes: int = limits.RELAY_CIRCUIT_BYTES
    circuit_seconds: int = limits.RELAY_CIRCUIT_SECONDS

    def __post_init__(self) -> None:
        if not 0 < self.circuits <= limits.RELAY_CIRCUITS_MAX:
            raise Misuse(f"a relay has 1 to {limits.RELAY_CIRCUITS_MAX} circuits, not {self.circuits}")
        if min(self.bytes_per_second, self.circuit_bytes, self.circuit_seconds) < 1:
            raise Misuse("a relay through which nothing may pass is none: give rates and amounts above zero")


class Meter:
    """A rate with a burst (GCRA, ITU-T I.371): what passes counts at once, and whoever is over it waits that long."""

    __slots__ = ("_free_at", "_rate")

    def __init__(self, rate: float, now: Instant) -> None:
        self._rate = rate
        self._free_at = now - limits.RELAY_BURST_SECONDS

    def passed(self, size: int, now: Instant) -> float:
        """So many bytes have passed: how many seconds to wait before more."""
        self._free_at = max(self._free_at, now - limits.RELAY_BURST_SECONDS) + size / self._rate
        return max(0.0, self._free_at - now)


class Circuit:
    """One circuit. `tokens` are for who asked and for who is called; `shown` counts those that came."""

    __slots__ = ("callee", "caller", "ends_at", "heard", "home", "meter", "passed", "shown", "tokens")

    def __init__(self, caller: PeerId, callee: PeerId, home: str, tokens: tuple[Nonce, Nonce], now: Instant) -> None:
        self.caller = caller
        self.callee = callee
        self.home = home  # where it was asked for from; empty for this very machine
        self.tokens = tokens
        self.shown = 0
        self.passed = 0  # bytes, both directions
        self.heard = now
        self.ends_at = Instant(now + limits.RELAY_PAIRING_SECONDS)
        self.meter: Meter | None = None  # once it is joined


@dataclass(slots=True)
class _Place:
    home: str
    until: Instant


class Switchboard:
    """The state of one relay. `entropy(16)` makes a token."""

    def __init__(self, allowance: Allowance, entropy: Callable[[int], bytes]) -> None:
        self._allowance = allowance
        self._entropy = entropy
        self._places: dict[PeerId, _Place] = {}
        self._circuits: set[Circuit] = set()
        self._waiting: dict[Digest, tuple[Circuit, int]] = {}
        self._asked = Counter[PeerId]()  # circuits by who asked
        self._called = Counter[PeerId]()  # and by who is called
        self._homes = Counter[str]()  # and by where they were asked for from
        self._meters: OrderedDict[PeerId, Meter] = OrderedDict()
        self._connects = Shares(limits.RELAY_CONNECTS_PER_SECOND, limits.RELAY_CONNECTS_BURST)
        self.leaving = False

    @property
    def places(self) -> tuple[PeerId, ...]:
        """The peers that hold a place."""
        return tuple(self._places)

    @property
    def circuits(self) -> tuple[Circuit, ...]:
        """The circuits, joined or not yet."""
        return tuple(self._circuits)

    # --- places -------------------------------------------------------------------------------------------------------

    def reserve(self, peer: PeerId, source: str, now: Instant) -> Instant:
        """Give a peer a place, or keep it for longer: until when. Raises `Overloaded` or `OverQuota`."""
        self._check_stays()
        home = _home(source)
        if peer not in self._places:
            if len(self._places) >= limits.RELAY_RESERVATIONS_MAX:
                raise Overloaded("this relay has no place left; try another")
            if home and self._neighbours(home) >= limits.RELAY_RESERVATIONS_PER_ADDRESS_MAX:
                raise OverQuota("too many peers of your address have a place here; try another relay")
        until = Instant(now + limits.RELAY_RESERVATION_SECONDS)
        self._places[peer] = _Place(home, until)
        return until

    def release(self, peer: PeerId) -> None:
        """A peer has lost its place: it has no session here any more."""
        self._places.pop(peer, None)

    def _neighbours(self, home: str) -> int:
        return sum(place.home == home for place in self._places.values())

    # --- circuits -----------------------------------------------------------------------------------------------------

    def connect(self, caller: PeerId, source: str, callee: PeerId, now: Instant) -> Circuit:
        """A circuit for two peers, one of whom has a place. Raises `OverQuota`, `Overloaded` or `ConnectionLost`."""
        self._check_stays()
        if not self._connects.take(str(caller), now):
            raise OverQuota("you ask for circuits too often", retry_after=1 / limits.RELAY_CONNECTS_PER_SECOND)
        place = self._places.get(callee)
        if place is None or place.until <= now:
            raise ConnectionLost(f"{callee.short}… holds no place at this relay; look its record up again")
        home = _home(source)
        if len(self._circuits) >= self._allowance.circuits:
            raise Overloaded("this relay has no circuit left; try another", retry_after=limits.RELAY_IDLE_SECONDS)
        if (
            self._asked[caller] >= limits.RELAY_CIRCUITS_PER_CALLER_MAX
            or self._called[callee] >= limits.RELAY_CIRCUITS_PER_CALLEE_MAX
            or (home and self._homes[home] >= limits.RELAY_CIRCUITS_PER_ADDRESS_MAX)
        ):
            raise OverQuota("too many circuits of yours, of that peer or of your address are open here")
        circuit = Circuit(caller, callee, home, (self._token(), self._token()), now)
        self._circuits.add(circuit)
        for side, token in enumerate(circuit.tokens):
            self._waiting[_name(token)] = circuit, side
        self._asked[caller] += 1
        self._called[callee] += 1
        self._homes[home] += 1
        return circuit

    def show(self, token: bytes, now: Instant) -> tuple[Circuit, int]:
        """Somebody shows a token: its circuit, and which end this is. Raises `Unauthenticated`."""
        found = self._waiting.pop(_name(token), None)
        if found is None:
            raise Unauthenticated("no circuit waits for this token: it was used, is too old, or never was")
        circuit, side = found
        circuit.shown += 1
        circuit.heard = now
        if circuit.shown == len(circuit.tokens):
            circuit.meter = Meter(self._allowance.bytes_per_second, now)
            circuit.ends_at = Instant(now + self._allowance.circuit_seconds)
        return circuit, side

    def passed(self, circuit: Circuit, size: int, now: Instant) -> float:
        """So many bytes have passed through a circuit that is joined: seconds to wait before more.

        Raises `OverQuota` when it has carried all it may.
        """
        assert circuit.meter is not None, "nothing passes before both ends are there"
        circuit.heard = now
        circuit.passed += size
        if circuit.passed > self._allowance.circuit_bytes:
            raise OverQuota(f"the circuit has carried the {self._allowance.circuit_bytes} bytes it may")
        waits = [self._meter(peer, now).passed(size, now) for peer in {circuit.caller, circuit.callee}]
        return max(circuit.meter.passed(size, now), *waits)

    def end(self, circuit: Circuit) -> bool:
        """Forget a circuit; whether it was there."""
        if circuit not in self._circuits:
            return False
        self._circuits.remove(circuit)
        for token in circuit.tokens:
            self._waiting.pop(_name(token), None)
        _one_less(self._asked, circuit.caller)
        _one_less(self._called, circuit.callee)
        _one_less(self._homes, circuit.home)
        return True

    def overdue(self, now: Instant) -> Iterator[tuple[Circuit, HaifError]]:
        """The circuits that are out of time and why; places that lapsed are forgotten."""
        for peer in [peer for peer, place in self._places.items() if place.until <= now]:
            del self._places[peer]
        for circuit in [*self._circuits]:
            if now >= circuit.ends_at and circuit.meter is None:
                yield circuit, Timeout("one end of the circuit never came")
            elif now >= circuit.ends_at:
                yield circuit, Timeout(f"the circuit is {self._allowance.circuit_seconds} s old; ask for a new one")
            elif circuit.meter is not None and now >= circuit.heard + limits.RELAY_IDLE_SECONDS:
                yield circuit, Timeout("nothing has passed through the circuit for a while")

    # --- helpers ------------------------------------------------------------------------------------------------------

    def _check_stays(self) -> None:
        if self.leaving:
            raise Overloaded("this relay is leaving; go to another")

    def _token(self) -> Nonce:
        return Nonce(self._entropy(Nonce.size))

    def _meter(self, peer: PeerId, now: Instant) -> Meter:
        meter = self._meters.get(peer)
        if meter is None:
            meter = self._meters[peer] = Meter(self._allowance.bytes_per_second, now)
            if len(self._meters) > limits.RELAY_PEERS_REMEMBERED_MAX:
                self._meters.popitem(last=False)
        self._meters.move_to_end(peer)
        return meter


def _one_less(counter: Counter[T], key: T) -> None:
    counter[key] -= 1
    if not counter[key]:
        del counter[key]


def _name(token: bytes) -> Digest:
    """What a token is kept and looked up by: how long that takes says nothing about the token."""
    return digest("haif v1 circuit token", token)


def _home(source: str) -> str:
    """The address, or IPv6 /64, whose peers share a limit; empty for this very machine, where addresses say nothing."""
    address = ip_address(source.partition("%")[0])
    if address.version == 6 and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if address.is_loopback:
        return ""
    return str(address) if address.version == 4 else str(ip_network((address, 64), strict=False))
