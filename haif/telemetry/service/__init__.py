"""The door of telemetry: spans kept and exported, metrics counted and served."""

from __future__ import annotations

from haif.telemetry.service.store import read_trace
from haif.telemetry.service.telemetry import Span, Telemetry

__all__ = ["Span", "Telemetry", "read_trace"]
