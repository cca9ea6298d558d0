"""What lookups and reads take in a simulated network: calm, lossy, after the death of many. Seconds are simulated.

    python -m benchmarks.sim [--nodes 1000] [--readings 1000] [--seed 1] [--settled 20000]

Links of 5 to 85 ms one way, with 2 ms of jitter; readers are drawn at random and all begin at once; nothing is repaired
between a death and the reads. A presence has one owner, and its read ends when three nodes agree; the offers of a topic
are read from everybody of the closest set. Lookups after a death come when every node has looked around once. Hops are
those to the closest peer: 1 if it was in the asker's own table. All but CPU follows from the seed.

With `--settled`, also the hops among so many nodes whose tables are as after some hours: of each bucket they have met
`MET` at random, of which they keep whom the table's rules keep; of the buckets that reach within the fence they know
`NEAR_KNOWN`.
"""

from __future__ import annotations

import argparse
import multiprocessing
import platform
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from heapq import nsmallest
from random import Random
from typing import Any

from haif.base import limits
from haif.base.clock import Instant
from haif.base.ids import Digest
from haif.base.machine import Address
from haif.dht.contact import Contact, node_id
from haif.dht.node import Node
from haif.dht.size import region
from haif.dht.table import ID_BITS
from haif.protocol.records import RecordKind
from haif.testing import troubles
from haif.testing.directory import Directory
from haif.testing.net import Conditions
from haif.testing.scenarios import LOSSY, percentile
from haif.testing.signatures import KeyedHashes
from haif.testing.stage import Figures, Stage
from haif.testing.world import World

RECORDS = 20
PROCESSES = 2
MET = 3 * limits.DHT_K  # of each bucket, in a life of an hour or more
NEAR_KNOWN = 0.7  # of those in buckets within the fence: 600 simulated nodes knew 0.71 when grown, 0.90 after 4 hours
Read = tuple[Figures, float, str]
STAGES: list[Stage] = []  # the grown network, for children to begin from


@dataclass(frozen=True)
class Case:
    name: str
    conditions: Conditions
    dead: float
    kind: RecordKind


CASES = tuple(
    Case(name, conditions, dead, kind)
    for name, conditions, dead in (
        ("calm", Conditions(), 0.0),
        ("5 % loss", Conditions(loss=LOSSY.loss), 0.0),
        ("20 % dead", Conditions(), 0.2),
        ("50 % dead", Conditions(), 0.5),
        ("75 % dead", Conditions(), 0.75),
    )
    for kind in (RecordKind.PRESENCE, RecordKind.OFFER)
)


def played(case: Case, readings: int) -> Read:
    """The figures of one case, its CPU seconds and its trace; in a child, from the network as it was grown."""
    [stage], cpu = STAGES, time.process_time()
    stage.publish(RECORDS, kind=case.kind)
    stage.world.conditions = case.conditions
    troubles.mass_death(stage, case.dead)
    stage.read_records(readings)
    if case.kind is RecordKind.OFFER:
        stage.world.run(seconds=limits.DHT_SELF_LOOKUP_SECONDS_MAX if case.dead else 0)
        stage.look_up(readings // 2)
    return stage.figures, time.process_time() - cpu, stage.world.trace()


def main(nodes: int, readings: int, seed: int) -> None:
    """Print the table."""
    cpu = time.process_time()
    stage = Stage(seed=seed, nodes=nodes, signatures=KeyedHashes())
    stage.grow()
    STAGES.append(stage)
    print(f"{nodes} nodes, k = {limits.DHT_K}, alpha = {limits.DHT_ALPHA}, {readings} reads; seed {seed}")
    print(
        f"Python {platform.python_version()} on {platform.machine()}; grown in {time.process_time() - cpu:.0f} CPU s\n"
    )
    print(
        "| case | found | presence p50 s | p99 s | offers p50 s | p99 s | lookup p50 s | p99 s "
        "| recall | queries | hops | CPU s | trace |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|---|---|")
    with multiprocessing.get_context("fork").Pool(PROCESSES, maxtasksperchild=1) as pool:
        ended = pool.starmap(played, [(case, readings) for case in CASES], chunksize=1)
    for at in range(0, len(CASES), 2):
        print(row(CASES[at].name, ended[at], ended[at + 1]))


def row(name: str, one: Read, all_: Read) -> str:
    """A line of the table, from the read of presences and that of offers."""
    (presences, presence_cpu, presence_trace), (offers, offer_cpu, offer_trace) = one, all_
    found = (presences.found + offers.found) / (presences.readings + offers.readings)
    times = [
        f"{percentile(seconds, share):.3f}"
        for seconds in (presences.read_seconds, offers.read_seconds, offers.lookup_seconds)
        for share in (0.5, 0.99)
    ]
    queries, hops = mean(offers.queries), mean(offers.hops)
    return (
        f"| {name} | {found:.2%} | {' | '.join(times)} | {offers.recall:.4f} | {queries:.1f} | {hops:.2f} "
        f"| {presence_cpu + offer_cpu:.0f} | {presence_trace[:8]} {offer_trace[:8]} |"
    )


def mean(values: Sequence[int]) -> float:
    return sum(values) / len(values)


# --- tables as after a long life --------------------------------------------------------------------------------------


class Settled:
    """A node whose table is filled when it is first asked something: nobody else's is needed."""

    def __init__(self, node: Node, fill: Callable[[Node], None]) -> None:
        self._node, self._fill = node, fill

    def receive(self, data: bytes, source: Address, now: Instant) -> None:
        if not len(self._node.table):
            self._fill(self._node)
        self._node.receive(data, source, now)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._node, name)


def settled(nodes: int, lookups: int, seed: int) -> None:
    """Print the hops of lookups among nodes that have met some of each bucket, drawn at random."""
    world, random = World(seed=seed), Random(seed)
    directory = Directory(world, signatures=KeyedHashes())
    for _ in range(nodes):
        directory.add(joining=False)
    everybody = sorted((node_id(node.peer), Contact(node.peer, at)) for at, node in directory.nodes.items())
    ids = [own for own, _ in everybody]
    near = limits.DHT_FENCE_REGIONS * region(nodes)

    def fill(node: Node) -> None:
        own = int.from_bytes(node.id, "big")
        node.table.widen(near)
        for prefix in range(ID_BITS):
            width = ID_BITS - 1 - prefix
            low = (own >> width ^ 1) << width
            inside = range(bisect_left(ids, low), bisect_left(ids, low + (1 << width)))
            met = int(NEAR_KNOWN * len(inside)) if 1 << width < near else MET
            for at in random.sample(inside, min(len(inside), max(met, limits.DHT_K))):
                node.table.heard(everybody[at][1], world.now())
            if bisect_left(ids, (own >> width) + 1 << width) - bisect_left(ids, own >> width << width) == 1:
                return  # nobody is closer

    for at, node in list(directory.nodes.items()):
        world.replace(at, Settled(node, fill))
    hops, queries, found = list[int](), list[int](), 0
    for at in random.choices(list(directory.nodes), k=lookups):
        node, target = directory.nodes[at], Digest(random.randbytes(Digest.size))
        if not len(node.table):
            fill(node)
        event = directory.find(at, target)
        hops.append(node.counters.lookups[-1].hops)
        queries.append(event.queries)
        key = int.from_bytes(target, "big")
        nearest = nsmallest(limits.DHT_K + 1, everybody, key=lambda each: each[0] ^ key)
        truth = [contact.peer for _, contact in nearest if contact.peer != node.peer][: limits.DHT_K]
        found += len(set(truth) & {contact.peer for contact in event.contacts})
    print(
        f"\n{nodes} nodes with settled tables, {lookups} lookups: "
        f"{mean(hops):.2f} hops in the mean, {max(hops)} at most, "
        f"{mean(queries):.1f} queries, recall {found / (lookups * limits.DHT_K):.4f}"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--readings", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--settled", type=int, default=20_000, help="0 to leave it out")
    given = parser.parse_args()
    main(given.nodes, given.readings, given.seed)
    if given.settled:
        settled(given.settled, given.readings // 5, given.seed)
