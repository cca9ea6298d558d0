"""In whose words an answer is told: one way of replying for each dialect."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from haif.base.ids import JobId
from haif.gateway.ask import Ask, Dialect
from haif.gateway.messages_replies import MessageReply
from haif.gateway.replies import Envelope
from haif.gateway.responses_replies import ResponseReply
from haif.gateway.told import Reply

_REPLIES: Final[dict[Dialect, Callable[[JobId, Ask, int], Reply]]] = {
    "chat": Envelope, "text": Envelope, "responses": ResponseReply, "messages": MessageReply,
}  # fmt: skip


def reply_to(job: JobId, ask: Ask, created: int) -> Reply:
    """The reply to a request; `job` is that of its first choice, `created` in seconds since the epoch."""
    return _REPLIES[ask.dialect](job, ask, created)
