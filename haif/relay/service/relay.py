"""The relay: it answers `relay.*`, calls peers that hold a place with it, and joins connections that show tokens."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from haif.base import codec, limits
from haif.base.clock import Clock
from haif.base.errors import ConnectionLost, Dropped, HaifError, Oversize
from haif.base.ids import NetId, PeerId
from haif.identity.keys import Identity
from haif.identity.signing import Domain, seal
from haif.protocol import methods
from haif.protocol.relay import Connect, Connected, Incoming, Leaving, Reserve, Reserved, Voucher
from haif.relay.circuits import Allowance, Circuit, Switchboard
from haif.relay.service.splice import Leg
from haif.wire.service import Call, Session, Wire


@dataclass(frozen=True, slots=True)
class RelayStatistics:
    """A snapshot. Places and circuits are those held and open now; the rest counts since the start."""

    places: int
    circuits: int
    circuits_joined: int
    circuits_failed: int
    bytes_relayed: int


class Relay:
    """Inside `async with`, peers of the network meet through this one. Leaving tells them and gives them time to go.

    It serves on `wire`, which must listen: sessions and circuits come to one port. `on_dropped` hears of every circuit
    that was refused or cut, and why.
    """

    def __init__(
        self,
        *,
        identity: Identity,
        net: NetId,
        wire: Wire,
        clock: Clock,
        entropy: Callable[[int], bytes],
        on_dropped: Callable[[Dropped], None],
        allowance: Allowance = Allowance(),  # noqa: B008  # a frozen value
        leave_seconds: float = limits.RELAY_LEAVE_SECONDS,
    ) -> None:
        self._identity, self._net, self._wire, self._clock = identity, net, wire, clock
        self._on_dropped = on_dropped
        self._allowance = allowance
        self._leave_seconds = leave_seconds
        self._board = Switchboard(allowance, entropy)
        self._legs: dict[Circuit, list[Leg | None]] = {}
        self._calls: set[asyncio.Task[None]] = set()
        self._quiet = asyncio.Event()
        self._joined = self._failed = self._bytes = 0

    async def __aenter__(self) -> Self:
        self._wire.serve(methods.RELAY_RESERVE.name, self._on_reserve, methods.RELAY_RESERVE.terms)
        self._wire.serve(methods.RELAY_CONNECT.name, self._on_connect, methods.RELAY_CONNECT.terms)
        self._wire.serve_circuits(self._on_token)
        self._ticking = asyncio.create_task(self._tick(), name="relay: out of time")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._leave()
        finally:
            for task in (self._ticking, *self._calls):
                task.cancel()
            await asyncio.gather(self._ticking, *self._calls, return_exceptions=True)
            for circuit in [*self._legs]:
                self._end(circuit, ConnectionLost("the relay has stopped"))

    def statistics(self) -> RelayStatistics:
        """How it stands now."""
        return RelayStatistics(
            places=len(self._board.places),
            circuits=len(self._board.circuits),
            circuits_joined=self._joined,
            circuits_failed=self._failed,
            bytes_relayed=self._bytes,
        )

    # --- what peers ask -----------------------------------------------------------------------------------------------

    async def _on_reserve(self, call: Call) -> bytes:
        codec.decode(Reserve, call.argument)
        host, port = self._session(call).remote
        until = self._board.reserve(call.peer, host, self._clock.now())
        lasts_ms = round(1000 * (until - self._clock.now()))
        voucher = Voucher(
            net=self._net, peer=call.peer, expires=self._clock.wall() + lasts_ms,
            circuit_bytes=self._allowance.circuit_bytes, bytes_per_second=self._allowance.bytes_per_second,
            circuit_seconds=self._allowance.circuit_seconds, host=host, port=port,
        )  # fmt: skip
        return codec.encode(Reserved(seal(self._identity, Domain.VOUCHER, voucher)))

    async def _on_connect(self, call: Call) -> bytes:
        callee = codec.decode(Connect, call.argument).peer
        session = self._wire.session_with(callee)
        if session is None:
            self._board.release(callee)
        host, _ = self._session(call).remote
        circuit = self._board.connect(call.peer, host, callee, self._clock.now())
        assert session is not None, "a peer without a session has lost its place"
        self._legs[circuit] = [None, None]
        calling = asyncio.create_task(self._call(session, circuit), name="relay: incoming")
        self._calls.add(calling)
        calling.add_done_callback(self._calls.discard)
        return codec.encode(Connected(circuit.tokens[0]))

    async def _call(self, session: Session, circuit: Circuit) -> None:
        """Tell the peer that is called; what it refuses ends the circuit."""
        argument = codec.encode(Incoming(circuit.tokens[1]))
        try:
            await session.call(methods.RELAY_INCOMING.name, argument, timeout=limits.RELAY_PAIRING_SECONDS)
        except HaifError as error:
            self._end(circuit, error)

    def _session(self, call: Call) -> Session:
        session = self._wire.session(call.scope)
        if session is None:
            raise ConnectionLost("the session is over")
        return session

    # --- circuits -----------------------------------------------------------------------------------------------------

    def _on_token(self, token: bytes, early: bytes, take: Callable[[], asyncio.Transport]) -> None:
        """A connection shows a token. Raises why it is of no use."""
        if len(early) > limits.RELAY_EARLY_BYTES_MAX:
            raise Oversize("an end of a circuit said too much before the other had come")
        circuit, side = self._board.show(token, self._clock.now())
        legs = self._legs[circuit]
        legs[side] = Leg(
            take(), early,
            on_bytes=lambda size: self._passed(circuit, size),
            on_over=lambda: self._end(circuit, None),
        )  # fmt: skip
        first, second = legs
        if first is not None and second is not None:
            self._joined += 1
            first.join(second)
            second.join(first)

    def _passed(self, circuit: Circuit, size: int) -> float:
        self._bytes += size
        try:
            return self._board.passed(circuit, size, self._clock.now())
        except HaifError as error:
            self._end(circuit, error)
            return 0.0

    def _end(self, circuit: Circuit, error: HaifError | None) -> None:
        """A circuit is over: None if one of its ends left."""
        if not self._board.end(circuit):
            return
        if circuit.meter is None:
            self._failed += 1
        if error is not None:
            self._on_dropped(Dropped(error.reason, circuit.caller, f"circuit: {error.message}"))
        for leg in self._legs.pop(circuit):
            if leg is not None:
                leg.close() if error is None else leg.abort()
        if not self._legs:
            self._quiet.set()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(limits.RELAY_TICK_SECONDS)
            for circuit, error in self._board.overdue(self._clock.now()):
                self._end(circuit, error)
            here = self._wire.peers
            for peer in self._board.places:
                if peer not in here:
                    self._board.release(peer)

    # --- leaving ------------------------------------------------------------------------------------------------------

    async def _leave(self) -> None:
        """Take nobody new, tell those who are here, and wait until the circuits are gone, but not for long."""
        self._board.leaving = True
        told = {*self._board.places} | {circuit.caller for circuit in self._board.circuits}
        await asyncio.gather(*(self._tell(peer) for peer in told))
        self._quiet.clear()
        if self._legs:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._leave_seconds):
                    await self._quiet.wait()

    async def _tell(self, peer: PeerId) -> None:
        session = self._wire.session_with(peer)
        if session is None:
            return
        argument = codec.encode(Leaving(round(self._leave_seconds)))
        try:
            await session.call(methods.RELAY_LEAVING.name, argument, timeout=limits.DRAIN_SECONDS)
        except HaifError as error:
            self._on_dropped(Dropped(error.reason, peer, "was not told that the relay leaves"))
