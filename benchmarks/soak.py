"""An hour among strangers on real sockets: `python -m benchmarks.soak [--minutes 60] [--every 5] [--seed 1]`.

A small mesh in this process, some of whose nodes stay while others come and go; its nodes call one another, stream,
give up, publish and look up. Another process does everything hostile to it (`benchmarks.hostile`): floods of
handshakes, first bytes one at a time, sessions that only take room, frames and datagrams of its own making, streams
nobody reads. HAIF's memories are made small (`benchmarks.small_limits`), so that each fills up within minutes and shows
whether it is bounded.

It fails if anything grows in the second half, if an exception escapes anywhere, or if the mesh does not serve its own.
Growth is the Theil-Sen slope (Sen 1968), the median of all pairwise slopes, which single peaks do not move. In less
than ten minutes one still sees the mesh itself grow.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import os
import sys
import time
from array import array
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from random import Random
from statistics import median

from benchmarks import small_limits
from benchmarks.mesh import machine
from benchmarks.trend import growth
from benchmarks.wire import CLOCK, NET, echo, wire
from haif.base.errors import HaifError
from haif.dht.service import Dht
from haif.identity.keys import Identity
from haif.protocol.records import RecordKind, presence_topic
from haif.runtime.clock import entropy
from haif.wire.service import Call, Wire

STAY, COME_AND_GO = 5, 6
CHURN_SECONDS = 3.0
TALKERS = 3
TTL_MS = 60_000  # of what is published: shorter than half a run, so that the stores are full by then
PER_SECOND = 4.0  # of each kind of hostile act
SERVED_MIN = 0.98  # of the calls that our own nodes make to those that stay

# what may grow in the second half: so much, and so large a part of the median. The stores hold what the last minute
# published, which is more when the machine has more time for us, and a record is about sixty blocks of memory.
GROWTH = {
    "rss_kib": (4096.0, 0.03), "blocks": (8000.0, 0.04), "descriptors": (30.0, 0.2), "tasks": (20.0, 0.1),
    "sessions": (30.0, 0.2), "contacts": (20.0, 0.1), "records": (100.0, 0.5),
}  # fmt: skip


@dataclass
class Member:
    """One node of the mesh, and what closes it."""

    identity: Identity
    wire: Wire
    dht: Dht
    stack: AsyncExitStack


@dataclass
class Mesh:
    """The nodes, what they did, and what was heard of trouble."""

    random: Random
    staying: list[Member] = field(default_factory=list)
    passing: deque[Member] = field(default_factory=deque)
    done: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    troubles: list[str] = field(default_factory=list)

    @property
    def members(self) -> list[Member]:
        return [*self.staying, *self.passing]


async def bulk(_call: Call) -> AsyncIterator[bytes]:
    for _ in range(64):
        yield bytes(64 << 10)


async def open_member(mesh: Mesh) -> Member:
    identity, stack = Identity(entropy(32)), AsyncExitStack()
    own = await stack.enter_async_context(wire(identity, 0))
    own.serve("echo", echo)
    own.serve_stream("bulk", bulk)
    dht = Dht(
        identity=identity, net=NET, clock=CLOCK, entropy=entropy, on_dropped=lambda _: None,
        bootstrap=[member.dht.address for member in mesh.staying[:2]],
    )  # fmt: skip
    await stack.enter_async_context(dht)
    return Member(identity, own, dht, stack)


async def churn(mesh: Mesh) -> None:
    """The oldest of those who pass leaves, another comes."""
    while True:
        await asyncio.sleep(CHURN_SECONDS)
        if len(mesh.passing) >= COME_AND_GO:
            await mesh.passing.popleft().stack.aclose()
        try:
            mesh.passing.append(await open_member(mesh))
        except HaifError as error:
            mesh.refused[f"join: {error.reason}"] += 1
        mesh.done["joins"] += 1


async def converse(mesh: Mesh, asker: Member) -> None:
    """One of us talks to one who stays."""
    other = mesh.random.choice(mesh.staying)
    if asker is other:
        return
    session = await asker.wire.connect(other.wire.address, other.identity.peer, timeout=10)
    for _ in range(20):
        await session.call("echo", bytes(mesh.random.randrange(4000)), timeout=10)
        mesh.done["calls"] += 1
    late = asyncio.ensure_future(session.call("echo", bytes(100_000), timeout=10))
    await asyncio.sleep(0)
    late.cancel()
    await asyncio.gather(late, return_exceptions=True)
    async with session.stream("bulk", b"", timeout=30) as pieces:
        wanted = mesh.random.choice((1, 10, 64))
        async for _ in pieces:
            mesh.done["pieces"] += 1
            if not (wanted := wanted - 1):
                break


async def announce(mesh: Mesh, one: Member) -> None:
    """One of us publishes where it is, and looks for one who stays."""
    other = mesh.random.choice(mesh.staying)
    topic = presence_topic(NET, one.identity.peer)
    await one.dht.publish(RecordKind.PRESENCE, topic, one.identity.peer, ttl_ms=TTL_MS)
    await one.dht.lookup(presence_topic(NET, other.identity.peer))
    mesh.done["publications"] += 1


async def talk(mesh: Mesh) -> None:
    """Everything that honest nodes do, for ever. Who was closed in the middle is no trouble; the rest is counted."""
    while True:
        for act in (converse, converse, announce):
            member = mesh.random.choice(mesh.members)
            try:
                await act(mesh, member)
                mesh.done["acts"] += 1
            except HaifError as error:
                if member in mesh.members:
                    mesh.refused[f"{act.__name__}: {error.reason}"] += 1
        await asyncio.sleep(mesh.random.expovariate(4.0))


NAMES = ("seconds", *GROWTH, "calls", "hostile")


def sample(mesh: Mesh) -> array[float]:
    """What there is now, garbage collected first, in the order of `NAMES` and in one piece of memory."""
    gc.collect()
    with open("/proc/self/statm") as file:  # noqa: PTH123
        pages = int(file.read().split()[1])
    wires = [member.wire.statistics() for member in mesh.members]
    nodes = [member.dht.statistics() for member in mesh.members]
    dropped = (sum(each.dropped.values()) for each in (*wires, *nodes))
    return array("d", (
        time.monotonic(),
        pages * os.sysconf("SC_PAGE_SIZE") / 1024,
        sys.getallocatedblocks(),
        len(os.listdir("/proc/self/fd")),  # noqa: PTH208
        len(asyncio.all_tasks()),
        sum(each.sessions + each.half_open for each in wires),
        sum(each.contacts for each in nodes),
        sum(each.records for each in nodes),
        mesh.done["calls"],
        sum(dropped) + sum(each.handshakes_failed for each in wires),
    ))  # fmt: skip


def verdict(samples: list[array[float]]) -> list[tuple[str, float, float, float, bool]]:
    """For each quantity: its median in the second half, its growth there, what is allowed, and whether that holds."""
    rows, half = [], samples[len(samples) // 2 :]
    for at, (name, (least, part)) in enumerate(GROWTH.items(), start=1):
        middle = median(each[at] for each in half)
        allowed = max(least, part * middle)
        grown = growth([(each[0], each[at]) for each in half])
        rows.append((name, middle, grown, allowed, grown <= allowed))
    return rows


def listen_for_trouble(mesh: Mesh) -> None:
    """Whatever escapes: from a callback, a task, a destructor, or into the log."""

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            mesh.troubles.append(logging.Formatter().format(record))

    logging.getLogger().addHandler(Listener(logging.WARNING))
    asyncio.get_running_loop().set_exception_handler(
        lambda _loop, context: mesh.troubles.append(f"{context['message']}: {context.get('exception')!r}")
    )
    sys.unraisablehook = lambda args: mesh.troubles.append(f"{args.err_msg}: {args.exc_value!r}")


async def soak(minutes: float, every: float, seed: int) -> int:
    """The whole of it; the exit code."""
    mesh = Mesh(Random(seed))
    samples: list[array[float]] = []
    listen_for_trouble(mesh)
    print(f"{machine()}, seed {seed}, memories of {', '.join(small_limits.SHRUNK)} made small", flush=True)
    for _ in range(STAY):
        mesh.staying.append(await open_member(mesh))
    enemy = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.hostile", _targets(mesh), stdin=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(churn(mesh)), *(group.create_task(talk(mesh)) for _ in range(TALKERS))]
            until, told = time.monotonic() + 60 * minutes, 0.0
            while time.monotonic() < until and not mesh.troubles and enemy.returncode is None:
                await asyncio.sleep(every)
                samples.append(sample(mesh))
                if time.monotonic() >= told:
                    told = time.monotonic() + 60
                    print("  ".join(map("{} {:,.0f}".format, NAMES, samples[-1])), flush=True)
            for task in running:
                task.cancel()
        if enemy.returncode is not None:
            mesh.troubles.append(f"the hostile process ended by itself: {enemy.returncode}")
    finally:
        if enemy.returncode is None:
            enemy.kill()
        await enemy.wait()
        for member in mesh.members:
            await member.stack.aclose()
    gc.collect()
    await asyncio.sleep(0.1)
    return report(mesh, samples)


def _targets(mesh: Mesh) -> str:
    return json.dumps({
        "per_second": PER_SECOND,
        "targets": [
            (*member.wire.address, str(member.identity.peer), member.dht.address[1]) for member in mesh.staying
        ],
    })  # fmt: skip


def report(mesh: Mesh, samples: list[array[float]]) -> int:
    """Print what happened and what grew; the exit code."""
    left = len(asyncio.all_tasks()) - 1
    acts = mesh.done["acts"] + sum(mesh.refused.values()) - sum(n for w, n in mesh.refused.items() if w[:5] == "join:")
    print(f"\n{'second half':14}{'median':>14}{'growth':>12}{'allowed':>12}")
    rows = verdict(samples)
    for name, middle, grown, allowed, holds in rows:
        print(f"{name:14}{middle:14,.0f}{grown:12,.0f}{allowed:12,.0f}  {'' if holds else 'GROWS'}")
    print(f"\nhonest: {dict(mesh.done)}; not served: {dict(mesh.refused)}")
    print(f"hostile acts refused by those who are there now: {samples[-1][-1]:,.0f}")
    print(f"tasks left after closing: {left}; troubles: {len(mesh.troubles)}")
    for trouble in mesh.troubles[:10]:
        print(trouble)
    served = mesh.done["acts"] >= SERVED_MIN * acts
    good = served and not left and not mesh.troubles and all(row[-1] for row in rows)
    print("passed" if good else "FAILED")
    return 0 if good else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--every", type=float, default=5.0, help="seconds between samples")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    sys.exit(asyncio.run(soak(options.minutes, options.every, options.seed)))
