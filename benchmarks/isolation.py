"""What one tenant's crowd does to the others: the gateway's line in simulated time, beside a plain queue.

    python -m benchmarks.isolation

The code is the gateway's own (`haif.gateway.line`). What is simulated is who asks when and how long a job takes:
Poisson arrivals, jobs of 2 s in the mean (lognormal), tokens in proportion, of which a request says only an upper
bound; 32 slots. Who asks is content to be answered within 30 s and its job's time. Time is the simulation's: the
figures do not depend on the machine.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from math import log
from random import Random

from haif.base.clock import Instant
from haif.base.errors import Overloaded
from haif.gateway.line import ModelLine, Service, Wish

SLOTS = 32
JOB_SECONDS = 2.0
SPREAD = 0.6  # sigma of the lognormal
TOKENS_PER_SECOND = 50
PATIENCE_SECONDS = 30.0
TENANTS = 10


@dataclass
class Asker:
    """Who asks `rate` times a second."""

    rate: float
    rank: Service = Service.INTERACTIVE
    weight: int = 1


@dataclass
class Told:
    """What became of one tenant's requests, in seconds."""

    waits: list[float] = field(default_factory=list)  # until a slot computed it, of those that were answered
    totals: list[float] = field(default_factory=list)  # until it was whole
    tokens: int = 0
    refused: int = 0
    vain: int = 0  # of them after having waited


class Plain(ModelLine):
    """First come, first served, of the same length: what a gateway without turns would do."""

    def come(self, wish: Wish, now: Instant) -> Wish | None:
        """Join the line as one of a single tenant."""
        wish.tenant, wish.weight, wish.rank = "all", 1, Service.INTERACTIVE
        return super().come(wish, now)


@dataclass
class _Job:
    name: str
    came: float
    seconds: float
    wish: Wish


def simulate(
    askers: Mapping[str, Asker], *, seconds: float, seed: int = 1, line: Callable[[], ModelLine] = ModelLine
) -> dict[str, Told]:
    """Let them ask for so many simulated seconds."""
    random, told, crowd = Random(seed), {name: Told() for name in askers}, line()
    crowd.resize(SLOTS)
    waiting: dict[int, _Job] = {}
    queued: deque[_Job] = deque()
    busy = 0
    events: list[tuple[float, int, str, _Job | None]] = []
    for number, (name, asker) in enumerate(askers.items()):
        heapq.heappush(events, (random.expovariate(asker.rate), number, name, None))
    number = len(events)

    def begin(now: float) -> None:
        nonlocal busy, number
        for wish in crowd.called(Instant(now)):
            queued.append(waiting.pop(id(wish)))
        while queued and busy < SLOTS:
            job = queued.popleft()
            busy += 1
            number += 1
            told[job.name].waits.append(now - job.came)
            heapq.heappush(events, (now + job.seconds, number, job.name, job))

    def turn_away(job: _Job) -> None:
        told[job.name].refused += 1
        told[job.name].vain += 1

    def give_up(now: float) -> None:
        for job in [job for job in waiting.values() if job.wish.until <= now]:
            crowd.leave(job.wish)
            turn_away(waiting.pop(id(job.wish)))

    looked = 0.0
    while events:
        now, _, name, ended = heapq.heappop(events)
        if now > seconds:
            break
        if now - looked > 0.5:
            give_up(looked := now)
        if ended is not None:
            busy -= 1
            used = int(ended.seconds * TOKENS_PER_SECOND)
            told[name].totals.append(now - ended.came)
            told[name].tokens += used
            crowd.done(ended.wish, used, Instant(now))
        else:
            asker = askers[name]
            number += 1
            heapq.heappush(events, (now + random.expovariate(asker.rate), number, name, None))
            job = _ask(name, asker, now, random)
            try:
                out = crowd.come(job.wish, Instant(now))
            except Overloaded:
                told[name].refused += 1
            else:
                waiting[id(job.wish)] = job
                if out is not None:
                    turn_away(waiting.pop(id(out)))
        begin(now)
    return told


def _ask(name: str, asker: Asker, now: float, random: Random) -> _Job:
    seconds = random.lognormvariate(log(JOB_SECONDS) - SPREAD**2 / 2, SPREAD)
    cost = int(seconds * TOKENS_PER_SECOND * random.uniform(1, 4)) + 1  # they say a bound, not what they will use
    return _Job(name, now, seconds, Wish(asker.rank, name, asker.weight, cost, Instant(now + PATIENCE_SECONDS)))


def p99(values: list[float]) -> float:
    """The 99th percentile."""
    return sorted(values)[int(len(values) * 0.99)]


def jain(shares: list[float]) -> float:
    """Jain's fairness index: 1 where all have the same."""
    return sum(shares) ** 2 / (len(shares) * sum(each**2 for each in shares))


@dataclass
class Isolation:
    """The 99th percentile of the others' waits and answers, in seconds, and how many of theirs were refused."""

    wait: float
    total: float
    refused: int


def isolation(
    *, load: float, factor: float, seconds: float, line: Callable[[], ModelLine] = ModelLine, seed: int = 1
) -> Isolation:
    """Ten tenants who together ask for `load` of what there is, but for the first, who asks `factor` times as often."""
    rate = load * SLOTS / JOB_SECONDS / TENANTS
    askers = {str(number): Asker(rate * (1 if number else factor)) for number in range(TENANTS)}
    told = simulate(askers, seconds=seconds, line=line, seed=seed)
    others = [each for name, each in told.items() if name != "0"]
    return Isolation(
        p99([wait for each in others for wait in each.waits]),
        p99([total for each in others for total in each.totals]),
        sum(each.refused for each in others),
    )


@dataclass
class Overload:
    """What ten equal tenants get of what there is, how evenly, how long who was answered waited, which part in vain."""

    goodput: float
    jain: float
    wait: float
    vain: float


def overload(*, factor: float, seconds: float) -> Overload:
    """Ten equal tenants who together ask for `factor` times what there is."""
    rate = factor * SLOTS / JOB_SECONDS / TENANTS
    told = simulate({str(number): Asker(rate) for number in range(TENANTS)}, seconds=seconds)
    tokens = [float(each.tokens) for each in told.values()]
    return Overload(
        sum(tokens) / (SLOTS * TOKENS_PER_SECOND * seconds), jain(tokens),
        p99([wait for each in told.values() for wait in each.waits]),
        sum(each.vain for each in told.values()) / sum(each.refused + len(each.waits) for each in told.values()),
    )  # fmt: skip


def _rows(seconds: float) -> Iterator[str]:
    yield (
        "| load of all ten | line | p99 wait, all at their rate | one at 100 times | p99 answer | one at 100 times "
        "| refused |"
    )
    yield "|---|---|---|---|---|---|---|"
    for load in (0.5, 0.7, 0.9, 0.95):
        for name, line in (("turns", ModelLine), ("plain queue", Plain)):
            usual = isolation(load=load, factor=1, seconds=seconds, line=line)
            under = isolation(load=load, factor=100, seconds=seconds, line=line)
            yield (
                f"| {load:.0%} | {name} | {usual.wait:.2f} s | {under.wait:.2f} s | {usual.total:.2f} s | "
                f"{under.total:.2f} s ({under.total / usual.total - 1:+.0%}) | {under.refused} |"
            )


def main() -> None:
    """Print the tables."""
    for row in _rows(2000.0):
        print(row, flush=True)
    print()
    print("| ten equal tenants ask for | goodput | Jain's index | p99 wait of who was answered | waited in vain |")
    print("|---|---|---|---|---|")
    for factor in (1.0, 2.0, 10.0):
        it = overload(factor=factor, seconds=1000.0)
        print(f"| {factor:g} times | {it.goodput:.1%} | {it.jain:.4f} | {it.wait:.2f} s | {it.vain:.1%} |")


if __name__ == "__main__":
    main()
