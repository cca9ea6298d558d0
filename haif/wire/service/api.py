"""What a handler is given and what it gives back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Final

import msgspec

from haif.base.clock import Deadline
from haif.base.ids import Digest, PeerId
from haif.base.traffic import Terms, Traffic


class Call(msgspec.Struct, frozen=True, gc=False):
    """A call somebody made to us. `scope` is the hash of the session's handshake: the name of the channel."""

    method: str
    argument: bytes
    peer: PeerId
    scope: Digest
    deadline: Deadline
    metadata: Mapping[str, str]


CALL: Final = Terms(Traffic.CONTROL)
STREAM: Final = Terms(Traffic.TOKENS)

Handler = Callable[[Call], Awaitable[bytes]]
"""Answers a call. A `HaifError` it raises is the answer; anything else is reported here and told without details."""

StreamHandler = Callable[[Call], AsyncIterator[bytes]]
"""Answers a call with a stream of messages, at the pace at which they are consumed."""
