"""What a peer does to be met through relays, and to meet others through theirs."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from haif.base import codec, limits
from haif.base.clock import Clock, Deadline, Instant
from haif.base.errors import Dropped, Forbidden, HaifError, Misuse, Overloaded
from haif.base.ids import NetId, Nonce, PeerId
from haif.base.machine import Address
from haif.identity.signing import Verified
from haif.policy.bucket import Bucket
from haif.protocol import methods
from haif.protocol.relay import (
    Connect,
    Connected,
    Incoming,
    Leaving,
    Noted,
    RelayAt,
    Reserve,
    Reserved,
    Voucher,
    read_voucher,
)  # fmt: skip
from haif.runtime.net import dialling
from haif.wire.opening import CIRCUIT, preamble
from haif.wire.service import Call, Session, Wire


class At(Protocol):
    """A relay, by who it is and where its wire listens."""

    @property
    def peer(self) -> PeerId:
        """Who it is."""

    @property
    def address(self) -> Address:
        """Where it listens."""


# --- to meet somebody -------------------------------------------------------------------------------------------------


async def connect_through(
    wire: Wire,
    relay: At,
    peer: PeerId,
    *,
    timeout: float,  # noqa: ASYNC109
    certificate: bytes = b"",
) -> Session:
    """A new session with `peer` through a relay at which it holds a place, encrypted from here to there.

    Takes a round trip to the relay, one for the connection to it, and the handshake's. Raises what the relay refused
    with (`OverQuota`, `Overloaded`, …), `ConnectionLost` where the peer holds no place there or does not come, and
    otherwise as `Wire.connect_over`.
    """
    clock = wire.clock
    deadline = Deadline.after(timeout, clock.now())
    session = await wire.connect(relay.address, relay.peer, timeout=timeout)
    reply = await session.call(
        methods.RELAY_CONNECT.name, codec.encode(Connect(peer)), timeout=deadline.remaining(clock.now())
    )
    token = codec.decode(Connected, reply).token
    sock = await _circuit(wire.net, relay, token, deadline.remaining(clock.now()))
    return await wire.connect_over(sock, peer, timeout=deadline.remaining(clock.now()), certificate=certificate)


class Carrier:
    """`connect_through` with a wire of its own, as what dials peers is given it."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def __call__(self, relay: At, peer: PeerId, certificate: bytes = b"") -> Session:
        """A session with the peer, carried by the relay."""
        return await connect_through(self._wire, relay, peer, timeout=limits.DIAL_SECONDS, certificate=certificate)


# --- to be met --------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Held:
    relay: RelayAt
    budget: Bucket  # of circuits answered through it
    voucher: Verified[Voucher] | None = None
    gone: bool = False  # it said that it leaves


class Places:
    """Inside `async with`, keeps a place at each of up to three relays and answers whoever comes through one.

    `on_change` hears of the relays that hold now whenever that changes: what to announce. Entering waits until every
    relay was asked once, but not for long. A relay that cannot be reached is asked again and again.
    """

    def __init__(
        self,
        relays: Sequence[RelayAt],
        *,
        peer: PeerId,
        net: NetId,
        wire: Wire,
        clock: Clock,
        on_change: Callable[[tuple[RelayAt, ...]], None],
        on_dropped: Callable[[Dropped], None],
    ) -> None:
        if len(relays) > limits.RELAYS_MAX:
            raise Misuse(f"a peer keeps places at {limits.RELAYS_MAX} relays, not at {len(relays)}")
        if len({relay.peer for relay in relays}) != len(relays):
            raise Misuse("a relay is named twice")
        self._held = {relay.peer: _Held(relay, _budget(clock.now())) for relay in relays}
        self._peer, self._net, self._wire, self._clock = peer, net, wire, clock
        self._on_change, self._on_dropped = on_change, on_dropped
        self._keeping: list[asyncio.Task[None]] = []
        self._answering: set[asyncio.Task[None]] = set()
        self._asked: list[asyncio.Event] = []

    async def __aenter__(self) -> Self:
        self._wire.serve(methods.RELAY_INCOMING.name, self._on_incoming, methods.RELAY_INCOMING.terms)
        self._wire.serve(methods.RELAY_LEAVING.name, self._on_leaving, methods.RELAY_LEAVING.terms)
        for held in self._held.values():
            asked = asyncio.Event()
            self._asked.append(asked)
            self._keeping.append(asyncio.create_task(self._keep(held, asked), name="relay: keep a place"))
        with suppress(TimeoutError):
            async with asyncio.timeout(limits.HANDSHAKE_SECONDS):
                await asyncio.gather(*(asked.wait() for asked in self._asked))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        tasks = [*self._keeping, *self._answering]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def relays(self) -> tuple[RelayAt, ...]:
        """The relays that hold a place for us now."""
        return tuple(held.relay for held in self._held.values() if held.voucher is not None and not held.gone)

    @property
    def vouchers(self) -> tuple[Verified[Voucher], ...]:
        """What they promised, and where they see us."""
        return tuple(held.voucher for held in self._held.values() if held.voucher is not None)

    def at(self, address: Address) -> RelayAt | None:
        """The relay of ours at this address: a session whose other end is there came through it."""
        return next((held.relay for held in self._held.values() if held.relay.address == address), None)

    # --- keeping ------------------------------------------------------------------------------------------------------

    async def _keep(self, held: _Held, asked: asyncio.Event) -> None:
        while True:
            pause = limits.RELAY_RESERVATION_SECONDS / 2
            session: Session | None = None
            try:
                session, voucher = await self._reserve(held.relay)
            except HaifError as error:
                self._on_dropped(Dropped(error.reason, held.relay.peer, f"reserving a place: {error.message}"))
                pause = limits.RELAY_RETRY_SECONDS
                self._change(held, None)
            else:
                self._change(held, voucher)
            asked.set()
            await self._until(session, pause)

    async def _reserve(self, relay: RelayAt) -> tuple[Session, Verified[Voucher]]:
        session = await self._wire.connect(relay.address, relay.peer, timeout=limits.CONTROL_CALL_SECONDS)
        reply = await session.call(
            methods.RELAY_RESERVE.name, codec.encode(Reserve()), timeout=limits.CONTROL_CALL_SECONDS
        )
        evidence = codec.decode(Reserved, reply).voucher
        now = self._clock.wall()
        return session, read_voucher(evidence, net=self._net, relay=relay.peer, peer=self._peer, now=now)

    async def _until(self, session: Session | None, seconds: float) -> None:
        """Until the place is to be renewed, or the session it hangs on is over."""
        if session is None:
            await asyncio.sleep(seconds)
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await session.wait_over()

    def _change(self, held: _Held, voucher: Verified[Voucher] | None) -> None:
        before = self.relays
        held.voucher = voucher
        held.gone = held.gone and voucher is None
        if self.relays != before:
            self._on_change(self.relays)

    # --- what relays say ----------------------------------------------------------------------------------------------

    async def _on_incoming(self, call: Call) -> bytes:
        token = codec.decode(Incoming, call.argument).token
        held = self._known(call)
        held.budget, answer = held.budget.take(1, self._clock.now())
        if not answer.allowed or len(self._answering) >= limits.RELAY_INCOMING_MAX:
            raise Overloaded("too many circuits are being answered", retry_after=max(1.0, answer.retry_after))
        task = asyncio.create_task(self._answer(held.relay, token), name="relay: answer")
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)
        return codec.encode(Noted())

    async def _answer(self, relay: RelayAt, token: Nonce) -> None:
        try:
            await self._wire.accept_over(await _circuit(self._net, relay, token, limits.HANDSHAKE_SECONDS))
        except HaifError as error:
            self._on_dropped(Dropped(error.reason, relay.peer, f"a circuit: {error.message}"))

    async def _on_leaving(self, call: Call) -> bytes:
        codec.decode(Leaving, call.argument)
        held = self._held.get(call.peer)
        if held is not None:
            before = self.relays
            held.gone = True
            if self.relays != before:
                self._on_change(self.relays)
        return codec.encode(Noted())

    def _known(self, call: Call) -> _Held:
        held = self._held.get(call.peer)
        if held is None or held.voucher is None:
            raise Forbidden("I hold no place with you")
        return held


def _budget(now: Instant) -> Bucket:
    return Bucket.full(capacity=limits.RELAY_INCOMING_BURST, rate=limits.RELAY_INCOMING_PER_SECOND, now=now)


# --- below ------------------------------------------------------------------------------------------------------------


async def _circuit(net: NetId, relay: At, token: Nonce, timeout: float) -> socket.socket:  # noqa: ASYNC109
    """A connection to the relay that has shown its token; what follows is for the other end."""
    loop = asyncio.get_running_loop()
    host, port = relay.address
    where = f"the relay at {host} port {port}"
    late, lost = f"{where} does not accept connections", f"{where} cannot be reached"
    async with dialling(timeout, late=late, lost=lost) as opened:
        family, kind, protocol, _, address = (await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM))[0]
        sock = opened.enter_context(socket.socket(family, kind, protocol))
        sock.setblocking(False)
        await loop.sock_connect(sock, address)
        await loop.sock_sendall(sock, preamble(net, pattern=CIRCUIT) + token)
    return sock
