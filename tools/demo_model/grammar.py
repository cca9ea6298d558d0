"""A tiny language for sentences: choices in square brackets, slots in braces.

`say(rng, "[Once|One day], {ada} [baked|made] a {thing}.", ada="Ada", thing="apple tart")` yields, for one seed,
"One day, Ada baked an apple tart." Choices nest; a slot written with a capital letter is capitalised.
"""

from __future__ import annotations

import re
from random import Random

_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_SLOT = re.compile(r"\{(\w+)\}")
_ARTICLE = re.compile(r"\b([Aa]) (?=[aeiouAEIOU])(?!one|One|uni|use|eu|Luna)")
_SENTENCE = re.compile(r"(^|[.!?]\"? +|\n)([a-z])")
_DEPTH_MAX = 8


def choose(rng: Random, pattern: str) -> str:
    """Resolve every `[a|b|c]` of the pattern, the innermost first."""
    while _CHOICE.search(pattern):
        pattern = _CHOICE.sub(lambda match: rng.choice(match[1].split("|")), pattern)
    return pattern


def fill(pattern: str, slots: dict[str, str]) -> str:
    """Put the slots' values in; `{Name}` is the value of `name`, capitalised. An unknown slot is a KeyError."""

    def value(match: re.Match[str]) -> str:
        key = match[1]
        return slots[key] if key in slots else capital(slots[key[0].lower() + key[1:]])

    for _ in range(_DEPTH_MAX):
        if not _SLOT.search(pattern):
            return pattern
        pattern = _SLOT.sub(value, pattern)
    raise ValueError(f"a slot holds itself: {pattern}")


def tidy(text: str) -> str:
    """Single spaces, "an" before vowels, capitals at the start of sentences (not after a closing quote)."""
    text = re.sub(r" +", " ", text).replace(" .", ".").replace(" ,", ",").replace(" ?", "?").strip()
    text = _ARTICLE.sub(r"\1n ", text)
    return _SENTENCE.sub(_raise, text)


def _raise(match: re.Match[str]) -> str:
    """The capital of a sentence's first letter, unless what stands before it closes a quotation."""
    return match[0] if '"' in match[1] else match[1] + match[2].upper()


def say(rng: Random, pattern: str, **slots: str) -> str:
    """One way of saying the pattern."""
    return tidy(fill(choose(rng, pattern), slots))


def capital(text: str) -> str:
    """The text with its first letter raised, the rest as it was."""
    return text[:1].upper() + text[1:]


def listed(items: list[str], last: str = "and") -> str:
    """The items as one would say them: a, b and c."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} {last} {items[-1]}"


_COUNTED = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
seventeen eighteen nineteen twenty"""
NUMBERS = tuple(_COUNTED.split())
_TENS = ("", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")


def number(value: int) -> str:
    """A number from 0 to 99 in words."""
    if value <= 20:
        return NUMBERS[value]
    return _TENS[value // 10] + (f"-{NUMBERS[value % 10]}" if value % 10 else "")
