"""Two peers on a relayed session meet directly, and the session moves there with all its streams.

Both sides of `protocol.reach`: `Meetings.upgrade` for who dialled, three handlers for whoever is asked. A relay is a
peer that signs what it sees (`reach.look`) and carries the session; only an address it has signed is dialled, and only
`limits.PUNCH_TRIES_MAX` times.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from haif.base import codec, limits
from haif.base.clock import Clock
from haif.base.codec import Message
from haif.base.errors import (
    ConnectionLost,
    Dropped,
    Forbidden,
    HaifError,
    Overloaded,
    PeerFault,
    Unavailable,
    WrongState,
)
from haif.base.ids import Digest, NetId, PeerId
from haif.base.machine import Address
from haif.identity.keys import Identity
from haif.identity.signing import Domain, seal
from haif.protocol import methods
from haif.protocol.reach import Look, Meet, Seen, Sighting, Sync, Synced, check_sighting
from haif.protocol.relay import RelayAt
from haif.reach.budget import PunchBudget
from haif.reach.candidates import may_meet
from haif.reach.service.punch import PunchPort
from haif.wire.service import Call, Session, Wire

A = TypeVar("A", bound=Message)
R = TypeVar("R", bound=Message)


@dataclass(slots=True)
class _Meeting:
    """A port we opened for somebody who asked, and where that peer was seen."""

    port: PunchPort
    looking: Session
    theirs: Address
    tried: int = 0
    dialling: asyncio.Task[None] | None = None


class Meetings:
    """Inside `async with`, serves `reach.*` on the wire and upgrades relayed sessions. Leaving stops what is under way.

    `relay_at` names the relay of ours at an address, or None: sessions from there are relayed ones.
    """

    def __init__(
        self,
        *,
        identity: Identity,
        net: NetId,
        wire: Wire,
        clock: Clock,
        relay_at: Callable[[Address], RelayAt | None],
        on_dropped: Callable[[Dropped], None],
    ) -> None:
        self._identity, self._net, self._wire, self._clock = identity, net, wire, clock
        self._relay_at, self._on_dropped = relay_at, on_dropped
        self._budget = PunchBudget(clock.now())
        self._meetings: dict[Digest, _Meeting] = {}
        wire.serve(methods.LOOK.name, self._on_look, methods.LOOK.terms)
        wire.serve(methods.MEET.name, self._on_meet, methods.MEET.terms)
        wire.serve(methods.SYNC.name, self._on_sync, methods.SYNC.terms)

    def close(self) -> None:
        """Let go of every port."""
        for scope in [*self._meetings]:
            self._forget(scope)

    # --- for who dialled ----------------------------------------------------------------------------------------------

    async def upgrade(self, session: Session, relay: RelayAt) -> bool:
        """Move a relayed session to a direct connection, if there can be one; whether that worked.

        Raises what the peer or the relay refused with, or what went wrong on the way; the session is then where it was.
        """
        self._budget.take(session.peer, self._clock.now())
        with port_towards(relay) as port:
            looking, mine = await self._look_from(port, relay)
            try:
                answer = await _ask(session, methods.MEET, Meet(mine))
                theirs = self._shown(answer.sighting, relay, session.peer)
                began = self._clock.now()
                await _ask(session, methods.SYNC, Sync(0))
                trip = self._clock.now() - began
                for attempt in range(1, limits.PUNCH_TRIES_MAX + 1):
                    with suppress(Unavailable, PeerFault):  # nobody came, or somebody else did
                        await session.move(await _meet(session, port, theirs, attempt, trip))
                        return True
            finally:
                looking.close()
        return False

    async def seen_from(self, port: PunchPort, relay: RelayAt) -> Address:
        """Where this peer sees a port of ours."""
        looking, evidence = await self._look_from(port, relay)
        looking.close()
        return self._shown(evidence, relay, self._identity.peer, anywhere=True)

    async def _look_from(self, port: PunchPort, relay: RelayAt) -> tuple[Session, bytes]:
        """The relay's signed word for where it sees this port, and the session that keeps the NAT's mapping alive."""
        dialled = await port.dial(relay.address, limits.PUNCH_SECONDS)
        session = await self._wire.connect_over(dialled, relay.peer, timeout=limits.HANDSHAKE_SECONDS, shared=False)
        try:
            return session, (await _ask(session, methods.LOOK, Look())).sighting
        except BaseException:
            session.close()
            raise

    def _shown(self, evidence: bytes, relay: RelayAt, peer: PeerId, *, anywhere: bool = False) -> Address:
        address = check_sighting(evidence, net=self._net, observer=relay.peer, peer=peer, now=self._clock.wall())
        if not anywhere and not may_meet(address, relay.address):
            raise Forbidden(f"{address[0]} is no address that relay {relay.peer.short}… can have seen a peer at")
        return address

    # --- for whoever is asked -----------------------------------------------------------------------------------------

    async def _on_look(self, call: Call) -> bytes:
        codec.decode(Look, call.argument)
        host, port = self._session(call).remote
        seen = Sighting(self._net, call.peer, host, port, self._clock.wall())
        return codec.encode(Seen(seal(self._identity, Domain.SIGHTING, seen)))

    async def _on_meet(self, call: Call) -> bytes:
        asked, session = codec.decode(Meet, call.argument), self._session(call)
        relay = self._relay_at(session.remote)
        if relay is None:
            raise WrongState("this session does not run through a relay of mine", call.peer)
        theirs = self._shown(asked.sighting, relay, call.peer)
        if len(self._meetings) >= limits.PUNCH_PORTS_MAX:
            raise Overloaded("too many meetings are under way", retry_after=limits.PUNCH_PORT_SECONDS)
        self._budget.take(call.peer, self._clock.now())
        self._forget(call.scope)
        port = port_towards(relay)
        try:
            looking, mine = await self._look_from(port, relay)
        except BaseException:
            port.close()
            raise
        self._meetings[call.scope] = _Meeting(port, looking, theirs)
        asyncio.get_running_loop().call_later(limits.PUNCH_PORT_SECONDS, self._forget, call.scope, port)
        return codec.encode(Meet(mine))

    async def _on_sync(self, call: Call) -> bytes:
        attempt = codec.decode(Sync, call.argument).attempt
        meeting = self._meetings.get(call.scope)
        if meeting is None:
            raise WrongState("no meeting was agreed on in this session", call.peer)
        if attempt:
            if attempt != meeting.tried + 1 or attempt > limits.PUNCH_TRIES_MAX:
                raise WrongState("attempts count from 1, and are bounded", call.peer)
            meeting.tried = attempt
            _cancel(meeting.dialling)
            meeting.dialling = asyncio.create_task(self._wait_there(meeting, call.peer), name="reach: meet")
        return codec.encode(Synced())

    async def _wait_there(self, meeting: _Meeting, peer: PeerId) -> None:
        try:
            await self._wire.accept_over(await meeting.port.meet(meeting.theirs, limits.PUNCH_SECONDS))
        except Unavailable:
            pass  # the peer counts its attempts, and stays where it is
        except HaifError as error:
            self._on_dropped(Dropped(error.reason, peer, f"meeting directly: {error.message}"))

    def _session(self, call: Call) -> Session:
        session = self._wire.session(call.scope)
        if session is None:
            raise ConnectionLost("the session is over")
        return session

    def _forget(self, scope: Digest, port: PunchPort | None = None) -> None:
        """Let go of a meeting; of this port's only, if one is given."""
        meeting = self._meetings.get(scope)
        if meeting is not None and port in {None, meeting.port}:
            del self._meetings[scope]
            _cancel(meeting.dialling)
            meeting.looking.close()
            meeting.port.close()


# --- below ------------------------------------------------------------------------------------------------------------


async def _meet(session: Session, port: PunchPort, theirs: Address, attempt: int, trip: float) -> socket.socket:
    """One attempt: the peer is told to dial, and we dial when it has heard. Raises `Timeout`, or its refusal.

    The peer's port listens all the time, so a connection may be there before the peer was told to look for one: it must
    have heard us in any case.
    """
    saying = asyncio.create_task(_ask(session, methods.SYNC, Sync(attempt)))
    try:
        await asyncio.sleep(trip / 2)
        met = await port.meet(theirs, limits.PUNCH_SECONDS)
    except asyncio.CancelledError:
        saying.cancel()
        raise
    except Unavailable:
        await saying  # if it was refused, that is why
        raise
    try:
        await saying
    except BaseException:
        met.close()
        raise
    return met


async def _ask(session: Session, method: methods.Method[A, R], argument: A) -> R:
    reply = await session.call(method.name, codec.encode(argument), timeout=limits.CONTROL_CALL_SECONDS)
    return codec.decode(method.reply, reply)


def port_towards(relay: RelayAt) -> PunchPort:
    """A port on whatever address leads to the relay."""
    six = ":" in relay.address[0]
    return PunchPort(socket.AF_INET6 if six else socket.AF_INET, "::" if six else "0.0.0.0")  # noqa: S104 - for seconds


def _cancel(task: asyncio.Task[Any] | None) -> None:
    if task is not None:
        task.cancel()
