"""The calls a connection makes: each waits for its answer, or feeds a stream."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from haif.base.clock import Clock, Deadline
from haif.base.errors import ConnectionLost
from haif.base.traffic import Traffic
from haif.wire.events import Answered, Ended, Event, Failed, Received
from haif.wire.service.host import Pace
from haif.wire.service.session import Stream
from haif.wire.session import SessionMachine


class Calling:
    """What sessions call on. `pace` has what they said leave."""

    def __init__(self, machine: SessionMachine, clock: Clock, pace: Pace) -> None:
        self._machine = machine
        self._rpc = machine.rpc
        self._clock = clock
        self._pace = pace
        self._loop = asyncio.get_running_loop()
        self._calls: dict[int, asyncio.Future[bytes]] = {}
        self._streams: dict[int, Stream] = {}

    def events(self) -> dict[type[Event], Callable[[Any], None]]:
        """What to tell us of."""
        return {
            Answered: self._on_answered, Received: self._on_received, Ended: self._on_ended, Failed: self._on_failed,
        }  # fmt: skip

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
        closed = self._machine.closed
        if closed is not None:
            raise ConnectionLost(f"the session is over ({closed}); connect again")
        now = self._clock.now()
        stream = self._rpc.call(
            method, argument, Deadline.after(timeout, now), now,
            metadata=metadata, streaming=streaming, traffic=traffic,
        )  # fmt: skip
        if not self._pace.scheduled:
            self._pace.schedule()
        return stream

    def expect(self, stream: int) -> asyncio.Future[bytes]:
        """The answer to come."""
        future = self._calls[stream] = self._loop.create_future()
        return future

    def follow(self, stream: int, follower: Stream) -> None:
        """Feed `follower` with what comes on `stream`."""
        self._streams[stream] = follower

    def give_up(self, stream: int) -> None:
        """Nobody wants this call's answer any more."""
        self._calls.pop(stream, None)
        self._streams.pop(stream, None)
        self._rpc.cancel(stream, self._clock.now())
        if not self._pace.scheduled:
            self._pace.schedule()

    def consumed(self, stream: int, message: bytes) -> None:
        """A stream's message was taken."""
        rpc = self._rpc
        rpc.consumed(stream, message)
        if rpc.out.size and not self._pace.scheduled:
            self._pace.schedule()

    # --- events -------------------------------------------------------------------------------------------------------

    def _on_answered(self, event: Answered) -> None:
        future = self._calls.pop(event.stream)
        if not future.done():
            future.set_result(event.result)

    def _on_received(self, event: Received) -> None:
        self._streams[event.stream].feed(event.message)

    def _on_ended(self, event: Ended) -> None:
        self._streams.pop(event.stream).end(StopAsyncIteration())

    def _on_failed(self, event: Failed) -> None:
        future = self._calls.pop(event.stream, None)
        if future is None:
            self._streams.pop(event.stream).end(event.error)
        elif not future.done():
            future.set_exception(event.error)
