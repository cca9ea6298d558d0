"""When a node may become one that others rely on: OPEN, at one address, for long enough. A fold over verdicts.

A node that anybody can reach now may be gone with its lease in a minute, and tables full of such nodes cost everybody
time-outs. So a node only asks (it is ephemeral) until it has been OPEN at the same address for `limits.STEADY_SECONDS`,
and steps back as soon as a verdict says otherwise. UNKNOWN does not cost it its standing: it may be the observers that
are gone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from haif.base import limits
from haif.base.clock import Instant
from haif.base.machine import Address
from haif.reach.classify import UNKNOWN, Mapping, Verdict


@dataclass(frozen=True, slots=True)
class Standing:
    """The latest verdict, since when we have been OPEN and where, and whether others may rely on us."""

    verdict: Verdict = UNKNOWN
    address: Address | None = None
    since: Instant | None = None
    persistent: bool = False

    def heard(self, verdict: Verdict, now: Instant) -> Standing:
        """The standing after one more verdict."""
        if verdict.mapping is Mapping.UNKNOWN and self.address is not None:
            return replace(self, verdict=verdict)
        if verdict.mapping is not Mapping.OPEN:
            return Standing(verdict)
        if verdict.address != self.address:
            return Standing(verdict, verdict.address, now)
        assert self.since is not None, "an address comes with the moment since when it holds"
        return replace(self, verdict=verdict, persistent=now - self.since >= limits.STEADY_SECONDS)
