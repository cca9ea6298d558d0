"""Two connections become one: what comes in on one goes out on the other, at the pace of the slower one.

Memory is bounded: an end is not read while the other has more than `limits.RELAY_BUFFER_BYTES` to write, nor while it
is over its rate; one read of a socket is at most 256 KiB.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from haif.base import limits


class Leg(asyncio.Protocol):
    """One end of a circuit. `on_bytes` is told of every read and says how many seconds to wait before the next.

    `on_over` hears once when this end is gone. It is not read before `join`.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        early: bytes,
        *,
        on_bytes: Callable[[int], float],
        on_over: Callable[[], None],
    ) -> None:
        self._transport = transport
        self._early = early
        self._on_bytes, self._on_over = on_bytes, on_over
        self._other: Leg | None = None
        self._full = False  # the other end takes no more
        self._late: asyncio.TimerHandle | None = None  # until we may read again
        transport.set_protocol(self)
        transport.set_write_buffer_limits(high=limits.RELAY_BUFFER_BYTES)
        transport.pause_reading()

    def join(self, other: Leg) -> None:
        """Read this end from now on, into the other."""
        self._other = other
        if self._early:
            early, self._early = self._early, b""
            self._carry(early)
        self._read_or_not()

    def close(self) -> None:
        """Let go once what the other end said was written, or when that takes too long."""
        if self._late is not None:
            self._late.cancel()
        if not self._transport.is_closing():
            self._transport.close()
            asyncio.get_running_loop().call_later(limits.RELAY_LINGER_SECONDS, self._transport.abort)

    def abort(self) -> None:
        """Let go at once."""
        if self._late is not None:
            self._late.cancel()
        self._transport.abort()

    # --- asyncio calls these ------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Bytes for the other end."""
        self._carry(data)

    def pause_writing(self) -> None:
        """No more can be written here: the other end is not read."""
        assert self._other is not None, "nothing is written before both ends are there"
        self._other.hold(full=True)

    def resume_writing(self) -> None:
        """It takes more."""
        if self._other is not None:
            self._other.hold(full=False)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # how it ended is the peers' affair
        """The socket is gone."""
        self._on_over()

    # --- helpers ------------------------------------------------------------------------------------------------------

    def hold(self, *, full: bool) -> None:
        """Whether the other end takes no more."""
        self._full = full
        self._read_or_not()

    def _carry(self, data: bytes) -> None:
        other = self._other
        assert other is not None, "an end is not read before the other is there"
        other._transport.write(data)  # noqa: SLF001  # the other end is one of us
        wait = self._on_bytes(len(data))
        if wait > 0 and self._late is None:
            self._late = asyncio.get_running_loop().call_later(wait, self._go_on)
            self._read_or_not()

    def _go_on(self) -> None:
        self._late = None
        self._read_or_not()

    def _read_or_not(self) -> None:
        if self._transport.is_closing():
            return
        if self._full or self._late is not None:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()
