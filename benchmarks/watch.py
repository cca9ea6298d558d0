"""How soon a watcher knows what was announced or withdrawn, and what watching costs. Seconds are simulated.

    python -m benchmarks.watch [--nodes 500] [--owners 40] [--seed 1]

Links of 5 to 85 ms one way, with 2 ms of jitter. Each owner announces, then announces another body, then withdraws,
with 10 s between; five nodes watch. Seconds count from the owner's word to the watcher's; "the owner's lookup" is
how much of it the owner took to find who is to keep its record. The cost is counted over ten minutes in which nothing
changes. Signatures are those of the simulation, which cost no CPU to speak of. All but CPU follows from the seed alone.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Iterator
from functools import partial
from random import Random

from haif.base.clock import Instant
from haif.base.ids import Digest
from haif.base.machine import Address
from haif.dht import messages
from haif.dht.messages import Command, Kind
from haif.dht.operations import Changed
from haif.protocol.records import RecordKind, topic_at
from haif.testing.directory import Directory
from haif.testing.net import Conditions
from haif.testing.scenarios import percentile
from haif.testing.signatures import KeyedHashes
from haif.testing.world import World

WATCHERS = 5
QUIET_SECONDS = 600.0
STEP_SECONDS = 10.0
CASES = (("calm", Conditions()), ("5 % loss", Conditions(loss=0.05)), ("no notices", Conditions()))
STEPS = ("announced", "changed", "withdrawn")


class Trial:
    """A network in which one topic is watched."""

    def __init__(self, nodes: int, seed: int, conditions: Conditions, *, notices: bool) -> None:
        self.world = World(seed=seed)
        self.directory = Directory(self.world, signatures=KeyedHashes())
        self.directory.grow(nodes)
        self.world.conditions = conditions
        self.random = Random(seed)
        self.topic = topic_at(RecordKind.OFFER, Digest(self.random.randbytes(32)))
        self.watchers = self.random.sample(list(self.directory.nodes), WATCHERS)
        self.heard: list[tuple[Address, Instant]] = []
        self.first_put: Instant | None = None
        self.queries = 0
        self.world.ears.append(self._hear)
        self.world.taps.append(self._see)
        for address in self.watchers:
            if not notices:
                self.directory.nodes[address].attention.noticed = _ignore  # type: ignore[method-assign]
            self.world.do(address, partial(self.directory.nodes[address].watch, self.topic))
        self.world.run(seconds=30)

    def quiet(self) -> tuple[float, float]:
        """Queries and notices per second and watcher while nothing changes."""
        before, queries = self._notices(), self.queries
        self.world.run(seconds=QUIET_SECONDS)
        share = QUIET_SECONDS * WATCHERS
        return (self.queries - queries) / share, (self._notices() - before) / share

    def steps(self, owners: int) -> Iterator[tuple[str, float, list[float]]]:
        """For each step of each owner: its name, how long the owner searched, when each watcher knew."""
        others = [address for address in self.directory.nodes if address not in self.watchers]
        for owner in self.random.sample(others, owners):
            for sequence, (name, body) in enumerate(zip(STEPS, (b"one", b"two", None), strict=True), 1):
                began = self.world.now()
                self.heard.clear()
                self.first_put = None
                record = self.directory.record(owner, self.topic, sequence=sequence, body=body)
                self.world.do(owner, partial(self._publish, owner, record))
                self.world.run(seconds=STEP_SECONDS)
                firsts: dict[Address, float] = {}
                for address, at in self.heard:
                    firsts.setdefault(address, at - began)
                searched = (self.first_put or began) - began
                yield name, searched, [firsts.get(address, STEP_SECONDS) for address in self.watchers]

    def _publish(self, owner: Address, record: bytes, now: Instant) -> None:
        self.directory.nodes[owner].publish(record, now)

    def _hear(self, now: Instant, address: Address, event: object) -> None:
        if isinstance(event, Changed):
            self.heard.append((address, now))

    def _see(self, now: Instant, source: Address, _to: Address, data: bytes) -> None:
        if data[1] != Kind.QUERY:
            return
        query = messages.read_query(messages.read(data))
        if query.target == self.topic:
            self.queries += source in self.watchers
            if query.command == Command.PUT and self.first_put is None:
                self.first_put = now

    def _notices(self) -> int:
        return sum(self.directory.nodes[address].attention.notices for address in self.watchers)


def _ignore(*_: object) -> None:
    """A notice that is not listened to."""


def main(nodes: int, owners: int, seed: int) -> None:
    """Print the table."""
    print(f"{nodes} nodes, {owners} owners, {WATCHERS} watchers; seed {seed}")
    print(f"Python {platform.python_version()} on {platform.machine()}\n")
    print("| case | step | p50 s | p99 s | longest s | of it: the owner's lookup, p50 s | CPU s |")
    print("|---|---|---|---|---|---|---|")
    costs = []
    for case, conditions in CASES:
        cpu = time.process_time()
        trial = Trial(nodes, seed, conditions, notices=case != "no notices")
        took: dict[str, list[float]] = {name: [] for name in STEPS}
        searched: dict[str, list[float]] = {name: [] for name in STEPS}
        for name, search, waits in trial.steps(owners):
            took[name] += waits
            searched[name].append(search)
        costs.append((case, *trial.quiet()))
        cpu = time.process_time() - cpu
        for name in STEPS:
            print(
                f"| {case} | {name} | {percentile(took[name], 0.5):.3f} | {percentile(took[name], 0.99):.3f} "
                f"| {max(took[name]):.3f} | {percentile(searched[name], 0.5):.3f} | {cpu:.1f} |"
            )
    print("\n| case | queries a second and watcher, while nothing changes | notices |")
    print("|---|---|---|")
    for case, queries, notices in costs:
        print(f"| {case} | {queries:.2f} | {notices:.2f} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=500)
    parser.add_argument("--owners", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    main(arguments.nodes, arguments.owners, arguments.seed)
