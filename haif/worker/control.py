"""What the operator of a worker says to it while it runs, and what it answers: a JSON object a line.

A request names a verb and, for every verb but `list`, a model by its published name or digest. The answer is any number
of lines with `progress`, and one last with `models` (how all of them stand then) or `error`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec

from haif.base import limits
from haif.base.errors import InvalidRequest, Oversize
from haif.worker.standing import Standing


class Verb(StrEnum):
    """What can be asked for."""

    LIST = "list"
    LOAD = "load"
    UNLOAD = "unload"
    PIN = "pin"
    UNPIN = "unpin"
    RELEASE = "release"


class Asked(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A request. `seconds`: how long an unloaded model's answers may go on."""

    verb: Verb
    model: str = ""
    seconds: float = limits.MODEL_UNLOAD_SECONDS


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """One model. `memory_bytes`: what it takes, or would. `percent` is that of `stage`, while it is being loaded.

    `cause`: why it is quarantined, `until` when (ms since the epoch).
    """

    name: str
    digest: str
    state: str
    pinned: bool
    memory_bytes: int
    ready_seconds: float
    stage: str
    percent: int
    slots: int
    running: int
    waiting: int
    context_tokens: int
    sandbox: str
    engine: str
    cause: str = ""
    until: int = 0


class Told(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A line of an answer. `note`: what happened, where the models alone do not say it."""

    progress: Shown | None = None
    models: list[Shown] | None = None
    memory_bytes: int = 0
    memory_used: int = 0
    note: str = ""
    error: str = ""
    reason: str = ""


_ASKED: Final = msgspec.json.Decoder(Asked)
_TOLD: Final = msgspec.json.Decoder(Told)


def read_request(line: bytes) -> Asked:
    """One request. Raises `Oversize` or `InvalidRequest`."""
    if len(line) > limits.CONTROL_LINE_BYTES_MAX:
        raise Oversize(f"a request to a worker has at most {limits.CONTROL_LINE_BYTES_MAX} bytes")
    try:
        asked = _ASKED.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"that is no request to a worker: {str(error)[:200]}") from None
    if (asked.verb is Verb.LIST) == bool(asked.model) or len(asked.model) > limits.MODEL_NAME_CHARS_MAX:
        raise InvalidRequest("every verb but `list` names one model", param="model")
    if not 0 <= asked.seconds <= limits.CALL_SECONDS_MAX:
        raise InvalidRequest(f"seconds are 0 to {limits.CALL_SECONDS_MAX:g}", param="seconds")
    return asked


def read_answer(line: bytes) -> Told:
    """One line of an answer. Raises `InvalidRequest`."""
    try:
        return _TOLD.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"the worker answered in another way than this version does: {error}") from None


def write(line: Asked | Told) -> bytes:
    """The bytes of a line."""
    return msgspec.json.encode(line) + b"\n"


def shown(standing: Standing) -> Shown:
    """A model's standing, for people."""
    now, about = standing.statistics, standing.about
    return Shown(
        name=standing.name, digest=str(standing.model), state=standing.state.value, pinned=standing.pinned,
        memory_bytes=standing.size, ready_seconds=round(standing.ready_seconds, 1), stage=standing.stage,
        percent=standing.percent, slots=standing.slots, running=now.running if now else 0,
        waiting=(now.queued if now else 0) + standing.waiting, context_tokens=standing.context_tokens,
        sandbox=about.sandbox if about else "", engine=about.engine if about else "",
        cause=standing.case.cause if standing.case else "", until=standing.case.until if standing.case else 0,
    )  # fmt: skip
