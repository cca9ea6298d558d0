"""What a peer serves: calls, streams, and circuits where it is a relay."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from haif.base.errors import Misuse
from haif.base.traffic import Terms
from haif.wire.service.api import Handler, StreamHandler

Circuits = Callable[[bytes, bytes, Callable[[], asyncio.Transport]], None]
"""Takes the token an end of a circuit showed, what came behind it, and a function that hands over its socket.

A `HaifError` it raises before it called that function closes the connection without a word.
"""


class Methods:
    """Handlers by the name of their method, with the terms they are served on. A name is served once."""

    def __init__(self) -> None:
        self.calls: dict[str, tuple[Handler, Terms]] = {}
        self.streams: dict[str, tuple[StreamHandler, Terms]] = {}
        self.circuits: Circuits | None = None

    def serve(self, method: str, handler: Handler, terms: Terms) -> None:
        """What `Wire.serve` says."""
        self._check_free(method)
        self.calls[method] = handler, terms

    def serve_stream(self, method: str, handler: StreamHandler, terms: Terms) -> None:
        """What `Wire.serve_stream` says."""
        self._check_free(method)
        self.streams[method] = handler, terms

    def serve_circuits(self, handler: Circuits) -> None:
        """What `Wire.serve_circuits` says."""
        if self.circuits is not None:
            raise Misuse("circuits are served already")
        self.circuits = handler

    def _check_free(self, method: str) -> None:
        if method in self.calls or method in self.streams:
            raise Misuse(f"the method {method!r} is served already")
