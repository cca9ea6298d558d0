"""Two hosts of each kind of place, and each of the first meets each of the second through one relay."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from tests.support.lab_process import Resident
from tests.support.netlab import Host, Lab

MODULE = "tests.support.lab_peer"


@dataclass(frozen=True)
class Kind:
    """A kind of place. `independent`: one of its ports is the same port outside, whomever it talks to (RFC 4787)."""

    name: str
    make: Callable[[Lab], Host]
    independent: bool


KINDS = (
    Kind("public", lambda lab: lab.public(), True),
    Kind("firewalled", lambda lab: lab.public(firewall=True), True),
    Kind("full cone", lambda lab: lab.home("full_cone")[0], True),
    Kind("restricted", lambda lab: lab.home("restricted")[0], True),
    Kind("port restricted", lambda lab: lab.home("port_restricted")[0], True),
    Kind("carrier", lambda lab: lab.carrier("port_restricted"), True),
    Kind("symmetric", lambda lab: lab.home("symmetric")[0], False),
    Kind("symmetric carrier", lambda lab: lab.carrier("symmetric"), False),
)
BY_NAME = {kind.name: kind for kind in KINDS}


@dataclass(frozen=True)
class Meeting:
    """What became of one pair. `error` is empty where they connected; times are in seconds."""

    asker: Kind
    other: Kind
    error: str = ""
    first: str = ""
    last: str = ""
    whole: bool = False
    connected: float = 0.0
    settled: float = 0.0

    @property
    def must_be_direct(self) -> bool:
        """Whether both sides map endpoint-independently."""
        return self.asker.independent and self.other.independent


async def matrix(lab: Lab, kinds: Sequence[Kind]) -> list[Meeting]:
    """Every pair once, in rounds in which nobody takes part twice."""
    async with AsyncExitStack() as stack:
        middle = lab.public()
        relay = await resident(stack, middle, relay=True)
        way = [[relay.ready["peer"], *relay.ready["wire"]]]
        homes = [kind.make(lab) for _ in range(2) for kind in kinds]
        there = await asyncio.gather(*(resident(stack, home, relays=way) for home in homes))
        askers, others = there[: len(kinds)], there[len(kinds) :]
        met: list[Meeting] = []
        for shift in range(len(kinds)):
            places = [(place, (place + shift) % len(kinds)) for place in range(len(kinds))]
            met += await asyncio.gather(*(_meet(kinds[a], kinds[b], askers[a], others[b], way) for a, b in places))
        return met


async def _meet(asker: Kind, other: Kind, here: Resident, there: Resident, way: list[list[Any]]) -> Meeting:
    said = await here.ask("meet", peer=there.ready["peer"], addresses=[there.ready["wire"]], relays=way)
    if "error" in said:
        return Meeting(asker, other, f"{said['error']}: {said['message']}")
    return Meeting(asker, other, **said)


async def resident(stack: AsyncExitStack, host: Host, **settings: Any) -> Resident:
    """A peer of the lab that runs on this host until the stack is left."""
    resident = await Resident.start(host, MODULE, json.dumps({"host": host.address, **settings}))
    stack.push_async_callback(resident.stop)
    return resident


def table(met: Sequence[Meeting]) -> str:
    """The matrix as Markdown: the last way, and when it was there; R is relayed, D direct."""
    kinds = list(dict.fromkeys(meeting.asker for meeting in met))
    by_pair = {(meeting.asker, meeting.other): meeting for meeting in met}
    lines = ["| asks \\ is asked | " + " | ".join(kind.name for kind in kinds) + " |", "|---" * (len(kinds) + 1) + "|"]
    for asker in kinds:
        cells = [_cell(by_pair[asker, other]) for other in kinds]
        lines.append(f"| {asker.name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(meeting: Meeting) -> str:
    if meeting.error:
        return "none"
    begun = f"{meeting.first[0].upper()} {1000 * meeting.connected:.0f}"
    return (
        begun if meeting.last == meeting.first else f"{begun}, {meeting.last[0].upper()} {1000 * meeting.settled:.0f}"
    )
