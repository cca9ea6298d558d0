"""How long a session lives: it asks a silent peer with PING, gives a dead one up, and ends before its keys are old.

A session that hears nothing asks, and without an answer is lost: a dead peer is never waited for longer than
`limits.SESSION_SILENCE_SECONDS`. No session outlives `limits.SESSION_SECONDS_MAX`, so keys of one handshake never
protect more than that; who dialled is told in time to dial anew.
"""

from __future__ import annotations

from typing import Final

from haif.base import limits
from haif.base.clock import Instant
from haif.base.errors import ConnectionLost, Expired

_PATIENCE_SECONDS: Final = limits.SESSION_SILENCE_SECONDS - limits.KEEPALIVE_SECONDS  # from PING to giving up


class Life:
    """The clock of an open session. `age_at` is when its age matters next."""

    __slots__ = ("_opened", "_pinged", "age_at", "heard")

    def __init__(self, now: Instant, *, renews: bool) -> None:
        """`renews`: whether it is ours to make a new session in time."""
        self.heard = self._opened = now
        self._pinged: Instant | None = None
        self.age_at = Instant(now + (limits.SESSION_RENEW_SECONDS if renews else limits.SESSION_SECONDS_MAX))

    def hear(self, now: Instant) -> None:
        """The peer said something."""
        self.heard = now
        self._pinged = None

    def wake_at(self) -> Instant:
        """When to ask `aged` and `silent` again, at the latest."""
        if self._pinged is None:
            return min(Instant(self.heard + limits.KEEPALIVE_SECONDS), self.age_at)
        return min(Instant(self._pinged + _PATIENCE_SECONDS), self.age_at)

    def aged(self, now: Instant) -> bool:
        """Whether it is time for a new session, told once. Raises `Expired` when it is too late."""
        if now - self._opened >= limits.SESSION_SECONDS_MAX:
            raise Expired(f"the session is older than {limits.SESSION_SECONDS_MAX:g} s; connect again")
        if now < self.age_at:
            return False
        self.age_at = Instant(self._opened + limits.SESSION_SECONDS_MAX)
        return True

    def silent(self, now: Instant) -> bool:
        """Whether to ask with PING now, told once. Raises `ConnectionLost` when the answer did not come."""
        if self._pinged is not None:
            if now >= self._pinged + _PATIENCE_SECONDS:  # the very sum of `wake_at`: a difference may round below it
                raise ConnectionLost(f"the peer was silent for {limits.SESSION_SILENCE_SECONDS:g} s")
        elif now >= self.heard + limits.KEEPALIVE_SECONDS:
            self._pinged = now
            return True
        return False
