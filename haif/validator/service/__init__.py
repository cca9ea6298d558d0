"""The door of the validator."""

from __future__ import annotations

from haif.validator.service.validator import Convicted, Recompute, Validator, ValidatorStatistics

__all__ = ["Convicted", "Recompute", "Validator", "ValidatorStatistics"]
