"""What stands between us and the others, judged from what they see of us: no observer is believed alone.

    OPEN        whoever was asked to reach a port we had never used got through
    CONSISTENT  one address outside stands for one of ours, whomever we talk to (endpoint-independent mapping, RFC 4787)
    RANDOM      each conversation gets its own port: only a relay helps
    UNKNOWN     too few observers, or they disagree on more than the port

Each network (/16, /32) has one voice and more than half of the voices must agree, so a minority of liars can neither
move our address nor make a CONSISTENT mapping RANDOM or the reverse. What arrives at a port that never sent anything
did get through, whoever sent it, so a minority cannot make us OPEN either; nor can it hide that we are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from haif.base import limits
from haif.base.machine import Address
from haif.dht.sightings import Sighting


class Mapping(StrEnum):
    """How we are seen from outside."""

    OPEN = "open"
    CONSISTENT = "consistent"
    RANDOM = "random"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The judgement: `address` is where others see us, where they agree; `observers` how many voices were heard."""

    mapping: Mapping = Mapping.UNKNOWN
    address: Address | None = None
    host: str = ""
    observers: int = 0


UNKNOWN = Verdict()


def classify(sightings: Iterable[Sighting], *, asked: int = 0, dialled_back: int = 0) -> Verdict:
    """The verdict of these sightings, the newest of a network last, and of the dial-backs of those `asked`."""
    voices = {sighting.network: sighting.seen for sighting in sightings}
    heard = len(voices)
    host, agreeing = _most(seen[0] for seen in voices.values())
    if heard < limits.OBSERVERS_MIN or 2 * agreeing <= heard:
        return Verdict(observers=heard)
    address, same = _most(voices.values())
    if 2 * same <= heard:
        return Verdict(Mapping.RANDOM, None, host, heard)
    reached = dialled_back >= limits.DIALBACKS_MIN and 2 * dialled_back > asked
    return Verdict(Mapping.OPEN if reached else Mapping.CONSISTENT, address, host, heard)


def _most(values: Iterable[str] | Iterable[Address]) -> tuple:  # type: ignore[type-arg]
    return max(Counter(values).items(), key=lambda each: each[1], default=("", 0))
