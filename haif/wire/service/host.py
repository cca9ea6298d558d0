"""What a connection needs of the wire it belongs to, and its parts of it."""

from __future__ import annotations

from typing import Protocol, TypeVar

from haif.base.clock import Clock
from haif.base.errors import HaifError
from haif.wire.path import Arrival
from haif.wire.service.methods import Methods
from haif.wire.service.session import Session
from haif.wire.service.statistics import Tally

Link = TypeVar("Link", contravariant=True)


class Pace(Protocol):
    """Has what was said leave at the end of this turn of the loop. Asking whether it is `scheduled` first is quick."""

    scheduled: bool

    def schedule(self) -> None:
        """Have everything that is ready leave at the end of this turn of the loop."""


class Host(Protocol[Link]):
    """What a connection needs of the wire it belongs to."""

    clock: Clock
    methods: Methods
    tally: Tally
    incoming: memoryview

    def admit(self, connection: Link, source: str) -> HaifError | None:
        """The handshake with somebody at this IP address begins; an error if there is no room for it."""

    def welcome(self, connection: Link) -> HaifError | None:
        """The handshake is done; an error if the session may not stay."""

    def arrived(self, connection: Link, arrival: Arrival) -> Session:
        """Not a session but a further path of one came: whose it is now. Raises why it is nobody's."""

    def knocked(self, connection: Link, token: bytes, early: bytes) -> None:
        """Not a session but an end of a circuit came, and is the relay's now. Raises why it is nobody's."""

    def leaving(self, connection: Link) -> None:
        """The peer takes no new calls."""

    def aged(self, connection: Link) -> None:
        """The session we dialled is old; a new one should take its place."""

    def gone(self, connection: Link, error: HaifError) -> None:
        """The session is over."""
