"""What a connection needs of the wire it belongs to."""

from __future__ import annotations

from typing import Protocol, TypeVar

from haif.base.clock import Clock
from haif.base.errors import HaifError
from haif.base.ids import PeerId
from haif.base.traffic import Terms
from haif.wire.path import Arrival
from haif.wire.service.api import Handler, StreamHandler
from haif.wire.service.session import Session

Link = TypeVar("Link", contravariant=True)


class Host(Protocol[Link]):
    """What a connection needs of the wire it belongs to."""

    clock: Clock
    handlers: dict[str, tuple[Handler, Terms]]
    stream_handlers: dict[str, tuple[StreamHandler, Terms]]
    incoming: memoryview
    bytes_in: int
    bytes_out: int
    moved: int

    def admit(self, connection: Link) -> HaifError | None:
        """The handshake begins; an error if there is no room for it."""

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

    def misbehaved(self, peer: PeerId, detail: str) -> None:
        """A handler of ours failed in a way it should not."""

    def refused(self, peer: PeerId, error: HaifError) -> None:
        """A call was refused before it came to a handler."""
