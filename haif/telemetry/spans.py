"""A span that has ended, as it is handed to whatever keeps or exports it.

Spans are our own: one of OpenTelemetry's SDK costs five times as much to begin and end, and a request has four. What
they mean is the same (OpenTelemetry specification, trace API), and where they are exported they become the SDK's.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from haif.telemetry import names
from haif.telemetry.redact import Value


class Ended(msgspec.Struct, frozen=True):
    """Ids in hex, times in ns since the epoch; `parent` is empty where there is none."""

    name: str
    trace: str
    span: str
    parent: str
    start_ns: int
    end_ns: int
    attributes: Mapping[str, Value]

    @property
    def reason(self) -> str:
        """Why what it is about failed; empty where it did not."""
        return str(self.attributes.get(names.ERROR_TYPE, ""))
