"""Scenarios by name: a network grows, publishes, gets into trouble and is read; then the checkers have their say.

    outcome = play(SCENARIOS["lossy"], seed=7, nodes=200)
    assert outcome.broken == ()

The same name, seed and number of nodes give the same outcome, to the hash of every datagram delivered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import Final

from haif.base import limits
from haif.base.errors import Equivocated
from haif.protocol.records import RecordKind, topic_at
from haif.testing import checkers, troubles
from haif.testing.actors import Equivocator, Flooder, Liar, Replayer
from haif.testing.directory import NET, PORT
from haif.testing.net import Bursts, Conditions, clog, one_way, partition
from haif.testing.signatures import Ed25519, KeyedHashes
from haif.testing.stage import Figures, Stage, Tell
from haif.testing.world import Tap

RECORDS: Final = 10
READINGS: Final = 100
LOOKUPS: Final = 50
MINUTE: Final = 60.0
LOSSY: Final = Conditions(loss=0.05, duplication=0.02, reordering=0.05)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A story with its goals: the share of readings that find the live record, and the slowest percent of them."""

    name: str
    about: str
    story: Callable[[Stage], None]
    found_min: float = 1.0
    recall_min: float = 0.98
    read_seconds_p99_max: float = inf
    ed25519: bool = False  # sign as in life; otherwise a keyed hash stands for it, which takes a third of the time
    nodes: int = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a scenario, in simulated seconds. `broken`: what its checkers complain of."""

    scenario: str
    seed: int
    nodes: int
    found: float
    recall: float
    read_p50: float
    read_p99: float
    lookup_p50: float
    lookup_p99: float
    queries: float
    hops: float
    datagrams: int
    seconds: float
    trace: str
    broken: tuple[str, ...]


def play(
    scenario: Scenario, *, seed: int, nodes: int | None = None, tell: Tell = lambda _: None, tap: Tap | None = None
) -> Outcome:
    """Play a scenario to its end and check it."""
    signatures = Ed25519() if scenario.ed25519 else KeyedHashes()
    stage = Stage(seed=seed, nodes=nodes or scenario.nodes, tell=tell, signatures=signatures)
    if tap is not None:
        stage.world.taps.append(tap)
    stage.grow()
    stage.publish(RECORDS)
    scenario.story(stage)
    tell("checking")
    figures = stage.figures
    return Outcome(
        scenario=scenario.name,
        seed=seed,
        nodes=nodes or scenario.nodes,
        found=figures.found_share,
        recall=figures.recall,
        read_p50=percentile(figures.read_seconds, 0.50),
        read_p99=percentile(figures.read_seconds, 0.99),
        lookup_p50=percentile(figures.lookup_seconds, 0.50),
        lookup_p99=percentile(figures.lookup_seconds, 0.99),
        queries=_mean(figures.queries),
        hops=_mean(figures.hops),
        datagrams=stage.world.datagrams,
        seconds=stage.world.now(),
        trace=stage.world.trace(),
        broken=tuple(_broken(scenario, stage, figures)),
    )


def percentile(values: list[float], share: float) -> float:
    """The smallest value that so great a share of all does not exceed; 0 of nothing."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


# --- the stories ------------------------------------------------------------------------------------------------------


def _look(stage: Stage) -> None:
    stage.read_records(READINGS)
    stage.look_up(LOOKUPS)


def _under(conditions: Conditions, stage: Stage) -> None:
    stage.world.conditions = conditions
    stage.renew()
    _look(stage)


def _asymmetric(stage: Stage) -> None:
    """Three in ten send badly from one moment on; read at once, and once the others have learned how late they are."""
    stage.world.strike(one_way(stage.some(0.3), Conditions(loss=0.3, delay_min=0.2, delay_max=0.4)))
    stage.renew()
    stage.read_records(READINGS)
    stage.world.run(seconds=limits.DHT_SELF_LOOKUP_SECONDS_MAX)
    stage.renew()
    _look(stage)


def _partition(stage: Stage) -> None:
    """A third is cut off for two minutes, is read on both sides, and publishes; then the network heals."""
    now = stage.world.now()
    stage.world.strike(partition(stage.some(0.33), begins=now, ends=now + 2 * MINUTE))
    stage.read_records(READINGS // 2)
    stage.world.run(seconds=now + 2 * MINUTE - stage.world.now())
    stage.world.run(seconds=limits.DHT_SELF_LOOKUP_SECONDS_MAX + MINUTE)
    stage.renew()
    _look(stage)


def _clog(stage: Stage) -> None:
    """A fifth hears and says nothing for 30 s, and then everything at once."""
    now = stage.world.now()
    stage.world.strike(clog(stage.some(0.2), begins=now, ends=now + 30))
    stage.read_records(READINGS // 2)
    stage.world.run(seconds=MINUTE)
    stage.renew()
    _look(stage)


def _churn(lifetime: troubles.Lifetime, stage: Stage) -> None:
    """An hour in which nodes come and go; read and republished every ttl/3."""
    live_through_churn(stage, lifetime, hours=1, readings=READINGS // 5)
    stage.look_up(LOOKUPS)


def live_through_churn(stage: Stage, lifetime: troubles.Lifetime, *, hours: float, readings: int) -> None:
    """Nodes come and go; owners republish every third of a record's life, and readers read in between."""
    for _ in periods_of_churn(stage, lifetime, hours=hours, readings=readings):
        pass


def periods_of_churn(stage: Stage, lifetime: troubles.Lifetime, *, hours: float, readings: int) -> Iterator[float]:
    """The same, period by period: yields the share of the time that has passed."""
    world = stage.world
    began, seconds = world.now(), hours * troubles.HOUR_SECONDS
    troubles.churn(stage, lifetime, seconds=seconds)
    period = limits.RECORD_TTL_MS_MAX / 3000
    while world.now() < began + seconds:
        world.run(seconds=period / 2)
        stage.read_records(readings)
        world.run(seconds=period / 2)
        stage.renew()
        yield min(1.0, (world.now() - began) / seconds)


def _flash_crowd(stage: Stage) -> None:
    """Half as many again join within five seconds; a moment later old and new read at once."""
    troubles.flash_crowd(stage, len(stage.directory.nodes) // 2, seconds=5)
    stage.world.run(seconds=20)
    stage.read_records(READINGS)
    stage.look_up(LOOKUPS)


def _mass_death(share: float, stage: Stage) -> None:
    troubles.mass_death(stage, share)
    stage.read_records(READINGS)
    stage.world.run(seconds=limits.DHT_SELF_LOOKUP_SECONDS_MAX + 2 * limits.DHT_SELF_LOOKUP_SECONDS)
    stage.look_up(LOOKUPS)


def _eclipse(stage: Stage) -> None:
    """Twenty ground ids in as many /24s stand nearest to one topic before its owner publishes again."""
    topic = next(iter(stage.owners))
    stage.owners = {topic: stage.owners[topic]}
    troubles.eclipse(stage, topic, 20, subnets=20)
    stage.world.run(seconds=10)
    stage.renew()
    stage.read_records(READINGS)


def _sybils(stage: Stage) -> None:
    """As many ids as there are honest nodes move into four /24s, know only each other, and keep nothing."""
    troubles.sybils(stage, len(stage.directory.nodes), subnets=4)
    _recover(stage)


def _liars(stage: Stage) -> None:
    """One peer in ten names twenty others that do not exist, whatever it is asked."""
    count = max(2, len(stage.directory.nodes) // 10)
    troubles.hire(stage, lambda identity, entropy, _: Liar(identity, NET, entropy), count)
    _recover(stage)


def _replayers(stage: Stage) -> None:
    """Peers that send everything they have heard a second time, and as the answer to other queries."""
    troubles.hire(stage, lambda identity, entropy, _: Replayer(identity, NET, entropy), 5)
    _recover(stage)


def _slow_walkers(stage: Stage) -> None:
    """One node in ten says everything 0.3 s late from one moment on; the others must learn to wait for it."""
    troubles.slow_down(stage, stage.some(0.1, sparing=list(stage.owners.values())), seconds=0.3)
    stage.world.run(seconds=20)
    stage.read_records(READINGS)
    stage.world.run(seconds=limits.DHT_SELF_LOOKUP_SECONDS_MAX)
    stage.renew()
    _look(stage)


def _hostile(stage: Stage) -> None:
    """Liars and replayers among honest nodes, some of which are slow: all of it at once."""
    count = max(2, len(stage.directory.nodes) // 20)
    troubles.hire(stage, lambda identity, entropy, _: Liar(identity, NET, entropy), count)
    troubles.hire(stage, lambda identity, entropy, _: Replayer(identity, NET, entropy), 2)
    troubles.slow_down(stage, stage.some(0.05, sparing=list(stage.owners.values())), seconds=0.3)
    _recover(stage)


def _recover(stage: Stage) -> None:
    stage.world.run(seconds=20)
    stage.renew()
    _look(stage)


def _equivocator(stage: Stage) -> None:
    """An owner signs two records with one sequence, has both published, and shows them in turn to whoever asks it."""
    directory = stage.directory
    identity = directory.signatures.identity(stage.world.entropy("equivocator")(32))
    topic, lair = topic_at(RecordKind.OFFER, stage.topic()), ("113.0.0.1", PORT)
    directory.identities[lair] = identity
    records = directory.record(lair, topic, body=b"white"), directory.record(lair, topic, body=b"black")
    for record in records:
        with suppress(Equivocated):  # an honest node that keeps the first does not pass on the second
            directory.publish(stage.random.choice(list(directory.nodes)), record)
    troubles.move_in(stage, lair, Equivocator(identity, NET, stage.world.entropy("lair"), records))
    stage.world.run(seconds=10)
    for reader in stage.some(0.1):
        read = [record.evidence for record in directory.gather(reader, topic).records]
        stage.read += read
        if len(read) != 1:
            stage.complaints.append(f"a reader was given {len(read)} records of one owner")
    _look(stage)


def _nat(stage: Stage) -> None:
    """A third as many nodes again live behind boxes of every kind; those that nobody can reach only ask."""
    troubles.nat(stage, 0.34)
    stage.renew()
    _look(stage)


def _flood(stage: Stage) -> None:
    """One hostile address sends a thousand datagrams a second while others publish and read."""
    victims = stage.some(0.1)
    (flooder,) = troubles.hire(stage, lambda identity, entropy, _: Flooder(identity, NET, entropy, victims, 1000.0), 1)
    stage.world.run(seconds=5)
    stage.renew()
    _look(stage)
    flooder.stop()
    stage.world.run(seconds=10)


def _clock_steps(stage: Stage) -> None:
    """A fifth of all clocks step by 20 s, others back by 20 s, and one steps three times while it is read."""
    for address in stage.some(0.2):
        stage.world.step_clock(address, 20_000)
    for address in stage.some(0.2):
        stage.world.step_clock(address, -20_000)
    stage.renew(ttl_ms=limits.RECORD_TTL_MS_MAX - 2 * limits.CLOCK_SKEW_MS)
    stage.read_records(READINGS // 2)
    for address in stage.some(0.5):
        stage.world.step_clock(address, -5_000)
    _look(stage)


def _told(*scenarios: Scenario) -> Mapping[str, Scenario]:
    return {scenario.name: scenario for scenario in scenarios}


SCENARIOS: Final = _told(
    Scenario(name="calm", about="links of 5 to 85 ms and nothing else", story=_look),
    Scenario(
        name="lossy", about="5 % of all datagrams lost, some doubled, some held back", story=partial(_under, LOSSY)
    ),
    Scenario(
        name="bursts",
        about="each link is bad for a second in every twenty, and then loses all",
        story=partial(_under, Conditions(bursts=Bursts(good_seconds=19, bad_seconds=1, loss=1.0))),
        recall_min=0.85,  # a burst outlasts a query's two attempts, each way: one in twelve counts as gone
    ),
    Scenario(name="asymmetric", about="what three in ten send is late, and a third of it lost", story=_asymmetric,
             found_min=0.99, recall_min=0.8),  # both attempts are lost one time in eleven; in four if both ends are bad
    Scenario(name="partition", about="a third is cut off for two minutes; then the network heals", story=_partition),
    Scenario(name="clog", about="a fifth is silent for 30 s, then everything arrives at once", story=_clog),
    Scenario(name="churn", about="an hour of nodes that live two hours in the mean", found_min=0.999,
             story=partial(_churn, troubles.exponential(2.0))),
    Scenario(name="heavy-tailed", about="the same with lives of which most are short and a few long", found_min=0.999,
             story=partial(_churn, troubles.weibull(2.0))),
    Scenario(name="flash-crowd", about="half as many again join within five seconds", story=_flash_crowd),
    *(
        Scenario(
            name=f"mass-death-{percent}",
            about=f"{percent} % of all nodes fall silent at once",
            story=partial(_mass_death, percent / 100),
            found_min=0.995 if percent == 75 else 0.999,
        )
        for percent in (20, 50, 75)
    ),
    Scenario(name="eclipse", about="twenty ground ids in as many /24s stand nearest to a topic", story=_eclipse,
             found_min=0.99, ed25519=True),
    Scenario(name="sybils", about="as many ids again move into four /24s and name only each other", story=_sybils),
    Scenario(name="liars", about="one peer in ten names others that do not exist", story=_liars),
    Scenario(name="replayers", about="five peers repeat what they hear, also as answers to others", story=_replayers,
             ed25519=True),
    Scenario(name="slow-walkers", about="one node in ten says everything 0.3 s late", story=_slow_walkers),
    Scenario(name="equivocator", about="an owner signs two records with one sequence", story=_equivocator,
             ed25519=True),
    Scenario(name="hostile", about="liars, replayers and slow-walkers at once", story=_hostile, ed25519=True),
    Scenario(name="nat", about="a third as many again live behind boxes of every kind", story=_nat),
    Scenario(name="flood", about="a thousand datagrams of noise a second at a tenth of the nodes", story=_flood),
    Scenario(name="clock-steps", about="clocks that step by 20 s, ahead and back", story=_clock_steps),
)  # fmt: skip


def _broken(scenario: Scenario, stage: Stage, figures: Figures) -> list[str]:
    broken = list(stage.complaints)
    for value, goal, what in (
        (figures.found_share, scenario.found_min, "of the readings found the live record"),
        (figures.recall, scenario.recall_min, "of the true k closest were found"),
    ):
        if value < goal:
            broken.append(f"{value:.2%} {what}; the goal is {goal:.2%}")
    slowest = percentile(figures.read_seconds, 0.99)
    if slowest > scenario.read_seconds_p99_max:
        broken.append(f"one reading in a hundred took {slowest:.2f} s; the goal is {scenario.read_seconds_p99_max} s")
    broken += checkers.nothing_unsigned(stage.directory, stage.read)
    broken += checkers.tables_bounded(stage.directory)
    broken += checkers.memory_bounded(stage.directory)
    return broken


def _mean(values: list[int]) -> float:
    return sum(values) / len(values) if values else 0.0
