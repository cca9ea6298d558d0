"""Models that killed their engine child are kept apart: offered no more until a pause is over or a person says so.

    while loading   once is enough: the next time would be the same
    while running   `limits.QUARANTINE_DEATHS` times within `limits.QUARANTINE_WINDOW_MS`

The pause doubles with each time. After it the model is on trial: it is offered again, and one that then stays well for
`limits.QUARANTINE_TRIAL_MS` has its record wiped. Everything here follows from deaths and the time; `dump` is kept on
disk, so that a restarted worker does not begin again with what killed its children before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from haif.base import limits
from haif.base.clock import WallTime
from haif.base.errors import Malformed
from haif.base.ids import ModelDigest

QUARANTINE: Final = "quarantine"  # the file in a worker's folder


class Case(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Why a model is kept apart, for the `times`-th time, from when until when (ms since the epoch)."""

    cause: str
    times: int
    since: int
    until: int


class Quarantine:
    """The record of one worker's models."""

    def __init__(self, cases: Mapping[ModelDigest, Case] | None = None) -> None:
        self._cases = dict(cases or {})
        self._deaths: dict[ModelDigest, list[WallTime]] = {}

    def died(self, model: ModelDigest, cause: str, now: WallTime, *, loading: bool) -> Case | None:
        """A child of this model ended unasked; the case, if that was once too often."""
        recent = [each for each in self._deaths.get(model, ()) if now - each <= limits.QUARANTINE_WINDOW_MS]
        recent.append(now)
        self._deaths[model] = recent
        if not loading and len(recent) < limits.QUARANTINE_DEATHS:
            return None
        del self._deaths[model]
        before = self._cases.get(model)
        if before is not None and now - before.until > limits.QUARANTINE_TRIAL_MS:
            before = None
        times = before.times + 1 if before else 1
        pause = min(limits.QUARANTINE_MS_MIN << min(times - 1, 32), limits.QUARANTINE_MS_MAX)
        text = cause[: limits.QUARANTINE_CAUSE_CHARS_MAX]
        self._cases[model] = case = Case(cause=text, times=times, since=now, until=now + pause)
        return case

    def held(self, model: ModelDigest, now: WallTime) -> Case | None:
        """Why the model may not be loaded now; None where it may."""
        case = self._cases.get(model)
        return case if case is not None and now < case.until else None

    def release(self, model: ModelDigest) -> bool:
        """A person takes the blame: forget its record. Whether there was one."""
        self._deaths.pop(model, None)
        return self._cases.pop(model, None) is not None

    def dump(self) -> bytes:
        """The record, as a file keeps it."""
        return msgspec.json.encode({str(model): case for model, case in self._cases.items()})


def load_quarantine(raw: bytes, now: WallTime) -> Quarantine:
    """The record that `dump` gave, less what is long over. Raises `Malformed`."""
    try:
        cases = msgspec.json.decode(raw, type=dict[str, Case])
        known = {ModelDigest.parse(text): case for text, case in cases.items()}
    except (msgspec.DecodeError, ValueError) as error:
        raise Malformed(f"the record of quarantined models is damaged: {error}") from None
    if len(known) > limits.QUARANTINE_CASES_MAX:
        raise Malformed("the record of quarantined models is longer than any worker writes")
    return Quarantine({model: case for model, case in known.items() if now - case.until <= limits.QUARANTINE_TRIAL_MS})
