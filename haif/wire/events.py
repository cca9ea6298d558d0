"""What a session tells whoever drives it."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from haif.base.clock import Deadline
from haif.base.errors import HaifError
from haif.base.ids import Digest, PeerId
from haif.base.roles import Role
from haif.wire.path import Arrival


class Event(msgspec.Struct, frozen=True, gc=False):
    """Base of all events. Structs, because one is made for each message and they are quick to make."""


class Established(Event, frozen=True):
    """The handshake is done: who the other is, what the channel is called, which version is spoken.

    `roles` are those a closed network admits it in; None in an open one.
    """

    peer: PeerId
    scope: Digest
    version: int
    roles: frozenset[Role] | None = None


class Called(Event, frozen=True):
    """The peer calls a method of ours. `streaming`: it wants a stream of messages back."""

    stream: int
    method: str
    argument: bytes
    metadata: Mapping[str, str]
    deadline: Deadline
    streaming: bool


class Stopped(Event, frozen=True):
    """Nobody wants this call's answer any more: cancelled, out of time, or the session is gone."""

    stream: int


class Answered(Event, frozen=True):
    """Our call's answer."""

    stream: int
    result: bytes


class Received(Event, frozen=True):
    """The next message of a stream. To be returned through `Rpc.consumed` when the application has taken it."""

    stream: int
    message: bytes


class Ended(Event, frozen=True):
    """A stream ended well."""

    stream: int


class Failed(Event, frozen=True):
    """Our call or stream ended with an error."""

    stream: int
    error: HaifError


class GoingAway(Event, frozen=True):
    """The peer takes no new calls; those under way go on."""


class Aged(Event, frozen=True):
    """The session we dialled has served for `limits.SESSION_RENEW_SECONDS`: time to make a new one."""


class Arrived(Event, frozen=True):
    """Not a session but a further path of one was begun here: whose it is must be looked up by its name."""

    arrival: Arrival


class Knocked(Event, frozen=True):
    """Not a session but an end of a relay's circuit was begun here, with this token. `early` came behind it."""

    token: bytes
    early: bytes


class Moved(Event, frozen=True):
    """Both directions use this path now; the others can be closed."""

    path: int


class Stayed(Event, frozen=True):
    """The session stays where it is and needs this path no more, because of `error`."""

    path: int
    error: HaifError


class Closed(Event, frozen=True):
    """The session is over and says nothing more. `error` says why."""

    error: HaifError
