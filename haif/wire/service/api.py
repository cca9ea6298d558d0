"""What a handler is given and what it gives back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Final

import msgspec

from haif.base import limits
from haif.base.clock import Deadline
from haif.base.ids import Digest, PeerId
from haif.wire.flow import Traffic


class Call(msgspec.Struct, frozen=True, gc=False):
    """A call somebody made to us. `scope` is the hash of the session's handshake: the name of the channel."""

    method: str
    argument: bytes
    peer: PeerId
    scope: Digest
    deadline: Deadline
    metadata: Mapping[str, str]


class Terms(msgspec.Struct, frozen=True, gc=False):
    """How a method is served: what it carries back, how long its argument may be, and how long it may take."""

    traffic: Traffic
    argument_bytes_max: int = limits.MESSAGE_BYTES_MAX
    seconds_max: float = limits.CALL_SECONDS_MAX


CALL: Final = Terms(Traffic.CONTROL)
STREAM: Final = Terms(Traffic.TOKENS)

Handler = Callable[[Call], Awaitable[bytes]]
"""Answers a call. A `HaifError` it raises is the answer; anything else is reported here and told without details."""

StreamHandler = Callable[[Call], AsyncIterator[bytes]]
"""Answers a call with a stream of messages, at the pace at which they are consumed."""
