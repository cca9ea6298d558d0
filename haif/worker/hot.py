"""The beginnings of requests that an engine computed lately, and may still have: a hint for placement, no promise."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from haif.base import limits


class Hot:
    """Tags (`protocol.prefixes`) of an engine's last requests; the least recent go first, and all with the engine."""

    def __init__(self, most: int = limits.HOT_PREFIXES_MAX) -> None:
        self._tags: OrderedDict[bytes, None] = OrderedDict()
        self._most = most
        self._deaths = 0

    def add(self, tags: Iterable[bytes]) -> None:
        """A request with these tags was computed."""
        for tag in tags:
            self._tags[tag] = None
            self._tags.move_to_end(tag)
            if len(self._tags) > self._most:
                self._tags.popitem(last=False)

    def tags(self, deaths: int) -> list[bytes]:
        """What to tell, where the engine's child has died so many times: a new one knows nothing."""
        if deaths != self._deaths:
            self._tags.clear()
            self._deaths = deaths
        return list(self._tags)
