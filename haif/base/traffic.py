"""What calls carry and on which terms they are served: words that the wire and those who declare methods share."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from haif.base import limits
from haif.base.roles import Role


class Traffic(IntEnum):
    """What a call carries, in the order of urgency: short questions and answers, tokens as they come, or bulk."""

    CONTROL = 0
    TOKENS = 1
    BULK = 2


@dataclass(frozen=True, slots=True)
class Terms:
    """How a method is served: what it carries back, how long its argument may be, how long it may take, and for whom.

    `callers`: the roles a peer of a closed network needs one of; empty: any peer may call.
    """

    traffic: Traffic
    argument_bytes_max: int = limits.MESSAGE_BYTES_MAX
    seconds_max: float = limits.CALL_SECONDS_MAX
    callers: frozenset[Role] = frozenset()
