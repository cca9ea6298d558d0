"""Amounts of memory, as people write and read them."""

from __future__ import annotations

from typing import Final

from haif.base.errors import Misuse

_UNITS: Final = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def parse_bytes(text: str) -> int:
    """Bytes of "8G", "512M", "1.5T" or a plain number (K, M, G and T in powers of 1,024). Raises `Misuse`."""
    number, unit = text.strip().lower().removesuffix("ib").removesuffix("b"), ""
    if number[-1:].isalpha():
        number, unit = number[:-1], number[-1]
    try:
        found = int(float(number) * _UNITS[unit])
    except (ValueError, KeyError, OverflowError):
        raise Misuse(f"{text!r} is no amount of memory: write for example 12G, 900M or a number of bytes") from None
    if found <= 0:
        raise Misuse(f"{text!r} is no amount of memory that a model fits into")
    return found


def bytes_text(count: float) -> str:
    """A number of bytes as people read it."""
    unit = next(unit for unit in ("T", "G", "M", "K", "") if count >= _UNITS[unit.lower()] or not unit)
    return f"{count / _UNITS[unit.lower()]:.1f} {unit}iB" if unit else f"{int(count)} B"
