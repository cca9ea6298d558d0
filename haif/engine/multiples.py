"""What a JSON schema may ask of the grammar's compiler, which has no end to its patience in one point.

It makes an automaton with a state for each remainder of `multipleOf`, and of all of them together where several apply
to one number: {"multipleOf": 62615533} keeps it busy for minutes, in native code that nothing interrupts. So their
least common multiple is bounded. Its other costs have bounds of its own (`llguidance.LLParserLimits`).
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from math import lcm
from typing import Any, Final

from haif.base import limits

_DECIMALS_MAX: Final = 9


def check_multiples(schema: Any) -> None:
    """Return if a schema's multiples can be counted. Raises `ValueError`, also for one that is nested too deeply."""
    try:
        values = list(_multiples(schema))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not all(0 < each <= limits.SCHEMA_MULTIPLE_MAX for each in values):  # nor is NaN
        raise ValueError(f"multipleOf must be more than 0 and at most {limits.SCHEMA_MULTIPLE_MAX}")
    found = [Decimal(repr(each)) for each in values]
    decimals = max([0, *(-int(each.as_tuple().exponent) for each in found)])
    if decimals > _DECIMALS_MAX:
        raise ValueError(f"multipleOf has at most {_DECIMALS_MAX} decimals")
    if lcm(*(int(each.scaleb(decimals)) for each in found)) > limits.SCHEMA_MULTIPLE_MAX:
        raise ValueError(f"the values of multipleOf have no common multiple up to {limits.SCHEMA_MULTIPLE_MAX}")


def _multiples(schema: Any) -> Iterator[float]:
    if isinstance(schema, dict):
        value = schema.get("multipleOf")
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield value
    for each in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
        yield from _multiples(each)
