"""What applications hold of a connection: a session to call on, and the streams they read."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Protocol, Self

from haif.base.errors import ConnectionLost, HaifError, Misuse
from haif.base.ids import Digest, PeerId
from haif.base.machine import Address
from haif.base.roles import Role
from haif.base.traffic import Traffic


class Link(Protocol):
    """The connection under a session, as far as its whole is concerned."""

    @property
    def usable(self) -> bool:
        """Whether a new call could be made now."""

    @property
    def remote(self) -> Address:
        """Where the other end of the path we write on is."""

    async def move(self, sock: socket.socket) -> None:
        """What `Session.move` says."""

    def leave(self, error: HaifError) -> None:
        """End the session after what is ready has been written."""

    async def wait_over(self) -> None:
        """Until the session is over."""


class Caller(Protocol):
    """The connection under a session, as far as calls are concerned."""

    def begin(
        self,
        method: str,
        argument: bytes,
        timeout: float,
        metadata: Mapping[str, str] | None,
        traffic: Traffic,
        *,
        streaming: bool,
    ) -> int:
        """Begin a call; its stream id."""

    def expect(self, stream: int) -> asyncio.Future[bytes]:
        """The answer to come."""

    def follow(self, stream: int, follower: Stream) -> None:
        """Feed `follower` with what comes on `stream`."""

    def give_up(self, stream: int) -> None:
        """Nobody wants this call's answer any more."""

    def consumed(self, stream: int, message: bytes) -> None:
        """A stream's message was taken."""


class Session:
    """An open, authenticated channel to `peer`. `scope` names the channel: the handshake's hash.

    `roles` are those the network admits the peer in; None in an open network.
    """

    __slots__ = ("_caller", "_link", "peer", "roles", "scope")

    def __init__(
        self, link: Link, caller: Caller, peer: PeerId, scope: Digest, roles: frozenset[Role] | None = None
    ) -> None:
        self._link = link
        self._caller = caller
        self.peer = peer
        self.scope = scope
        self.roles = roles

    @property
    def usable(self) -> bool:
        """Whether a new call could be made on it now."""
        return self._link.usable

    @property
    def remote(self) -> Address:
        """Where the bytes we send go: the peer's address as the socket knows it, or a relay's."""
        return self._link.remote

    async def move(self, sock: socket.socket) -> None:
        """Go on over `sock`, a connected TCP socket whose other end the peer gives to `Wire.accept_over` or listens on.

        Calls and streams go on without a lost or doubled byte; the old socket is closed once both directions have
        moved. The socket is ours from here, whatever happens. Raises `ConnectionLost`, `Timeout` or `BadSignature` if
        the new path fails before anything moved, `Overloaded` if a move is under way already; the session is then
        where it was. `usable` says whether it still is: a path that breaks in the middle of the move ends the session.
        """
        await self._link.move(sock)

    def close(self) -> None:
        """End the session, for everybody who uses it: calls under way fail with `ConnectionLost`."""
        self._link.leave(ConnectionLost("the session was closed on our side"))

    async def wait_over(self) -> None:
        """Until the session is over, however it ended."""
        await self._link.wait_over()

    async def call(
        self,
        method: str,
        argument: bytes,
        *,
        timeout: float,  # noqa: ASYNC109  # it travels to the peer, and the session enforces it on both sides
        metadata: Mapping[str, str] | None = None,
        traffic: Traffic = Traffic.CONTROL,
    ) -> bytes:
        """The peer's answer within `timeout` seconds. Cancelling this cancels the handler there.

        `traffic` is what the argument is.

        Raises what the peer answered with (`from_reason`), `Timeout`, `ConnectionLost` or `Overloaded`.
        """
        caller = self._caller
        stream = caller.begin(method, argument, timeout, metadata, traffic, streaming=False)
        try:
            return await caller.expect(stream)
        except asyncio.CancelledError:
            caller.give_up(stream)
            raise

    def stream(
        self,
        method: str,
        argument: bytes,
        *,
        timeout: float,
        metadata: Mapping[str, str] | None = None,
        traffic: Traffic = Traffic.CONTROL,
    ) -> Stream:
        """The peer's messages, as an async context manager over an async iterator; `timeout` is for the whole stream.

        Leaving early cancels the handler there. The iteration ends well or raises what the peer ended it with,
        `Timeout` or `ConnectionLost`; messages that came before are delivered first.
        """
        return Stream(self._caller, (method, argument, timeout, metadata, traffic))


class Taking(Awaitable[None], Protocol):
    """Somebody takes their time with a message: a coroutine, or what is like one."""

    def close(self) -> None:
        """It will not be awaited."""


Take = Callable[[bytes], Taking | None]
"""Takes a message, at once or by when what it returns is done."""


class Stream:
    """A stream of messages from a peer. Credit goes back as they are taken, so a slow reader slows the sender."""

    def __init__(self, caller: Caller, request: tuple[str, bytes, float, Mapping[str, str] | None, Traffic]) -> None:
        self._caller = caller
        self._request = request
        self._id = 0
        self._messages: deque[bytes] = deque()
        self._end: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._take: Take | None = None  # where messages go at once, while nothing is in their way
        self._taking: Taking | None = None

    async def __aenter__(self) -> Self:
        if self._id:
            raise Misuse("a stream is entered once")
        self._id = self._caller.begin(*self._request, streaming=True)
        self._caller.follow(self._id, self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._end is None:
            self._end = StopAsyncIteration()
            self._caller.give_up(self._id)
        while self._messages:
            self._caller.consumed(self._id, self._messages.popleft())

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        while not self._messages:
            if self._end is not None:
                raise self._end
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        message = self._messages.popleft()
        self._caller.consumed(self._id, message)
        return message

    async def pour(self, take: Take) -> None:
        """Give every message to `take`, at the very moment it comes, until the stream has ended well.

        What takes its time is awaited before the next. Raises what the stream ended with, or what `take` raises.
        """
        while True:
            while self._messages:
                message = self._messages.popleft()
                self._caller.consumed(self._id, message)
                taking = take(message)
                if taking is not None:
                    await taking
            if self._end is not None:
                if isinstance(self._end, StopAsyncIteration):
                    return
                raise self._end
            await self._be_idle(take)

    async def _be_idle(self, take: Take) -> None:
        """Until something is to be done that `take` alone cannot do."""
        self._waiter = asyncio.get_running_loop().create_future()
        self._take = take
        try:
            await self._waiter
        except BaseException:
            if self._taking is not None:
                self._taking.close()
            raise
        finally:
            self._take, taking, self._taking = None, self._taking, None
        if taking is not None:
            await taking

    def feed(self, message: bytes) -> None:
        """A message came."""
        if self._take is None:
            self._messages.append(message)
            self._rouse()
            return
        self._caller.consumed(self._id, message)
        try:
            self._taking = self._take(message)
        except Exception as error:  # noqa: BLE001 -- it is raised where the stream is read
            self._take = None
            self._fail(error)
        else:
            if self._taking is not None:
                self._take = None
                self._rouse()

    def _fail(self, error: Exception) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_exception(error)

    def end(self, end: Exception) -> None:
        """Nothing comes after what was fed; `end` is raised then."""
        self._end = end
        self._rouse()

    def _rouse(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
