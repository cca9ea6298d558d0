"""How many connections each address and each network has, and whether one more may come in.

Connections cost nobody anything, addresses do: no address, and no network, gets enough places to keep others out. This
machine's own may have them all: a proxy on it brings everybody's.
"""

from __future__ import annotations

from collections import Counter

from haif.base import limits
from haif.wire.crowd import Origin


class Crowd:
    """Who is inside. Bounded by `limits.HTTP_CONNECTIONS_MAX`."""

    def __init__(self) -> None:
        self._places: Counter[str] = Counter()
        self.inside = 0

    def enter(self, origin: Origin) -> bool:
        """Whether there was room; whoever came in leaves by `leave`."""
        if self.inside >= limits.HTTP_CONNECTIONS_MAX:
            return False
        if not origin.here and (
            self._places[origin.address] >= limits.HTTP_CONNECTIONS_PER_ADDRESS_MAX
            or self._places[origin.subnet] >= limits.HTTP_CONNECTIONS_PER_NETWORK_MAX
        ):
            return False
        self.inside += 1
        self._places.update((origin.address, origin.subnet))
        return True

    def leave(self, origin: Origin) -> None:
        """One of its connections ended."""
        self.inside -= 1
        self._places.subtract((origin.address, origin.subnet))
        for name in (origin.address, origin.subnet):
            if self._places[name] <= 0:
                del self._places[name]
