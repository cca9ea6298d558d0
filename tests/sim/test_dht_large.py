"""A thousand directory nodes under virtual time: `make test-slow`."""

from random import Random

import pytest

from haif.base import limits
from haif.base.ids import Digest
from haif.protocol.records import RecordKind, topic_at
from haif.testing import troubles
from haif.testing.directory import Directory
from haif.testing.net import Conditions
from haif.testing.scenarios import percentile
from haif.testing.signatures import KeyedHashes
from haif.testing.stage import Figures, Stage
from haif.testing.world import World

pytestmark = pytest.mark.slow


@pytest.mark.timeout(1200)
def test_a_thousand_nodes_find_the_closest_peers_and_every_record_under_loss() -> None:
    city = Directory(World(seed=7))
    city.grow(1000)
    city.world.conditions = Conditions(loss=0.05, duplication=0.02, reordering=0.05)
    random = Random(7)
    found = wanted = 0
    for _ in range(50):
        reader, target = random.choice(list(city.nodes)), Digest(random.randbytes(32))
        truth = set(city.closest(target, limits.DHT_K, excluding=reader))
        found += len(truth & {contact.peer for contact in city.find(reader, target).contacts})
        wanted += len(truth)
    assert found / wanted >= 0.98
    topic = topic_at(RecordKind.OFFER, Digest(random.randbytes(32)))
    owner = random.choice(list(city.nodes))
    city.publish(owner, city.record(owner, topic))
    for reader in random.sample(list(city.nodes), 100):
        assert [record.signer for record in city.gather(reader, topic).records] == [city.identities[owner].peer]


@pytest.mark.timeout(1200)
def test_a_thousand_nodes_are_two_hops_apart_and_lose_no_presence_in_loss_or_mass_death() -> None:
    stage = Stage(seed=1, nodes=1000, signatures=KeyedHashes())
    stage.grow()
    stage.look_up(300)
    figures = stage.figures
    assert sum(figures.hops) / len(figures.hops) <= 2.0
    assert sum(figures.queries) / len(figures.queries) <= 35
    assert figures.recall >= 0.995
    assert percentile(figures.lookup_seconds, 0.5) <= 0.25, "simulated seconds"
    assert percentile(figures.lookup_seconds, 0.99) <= 0.4
    stage.publish(20, kind=RecordKind.PRESENCE)
    dead = 0.0
    for conditions, dying, found, seconds in (
        (Conditions(loss=0.05), 0.0, 0.999, 0.6),
        (Conditions(), 0.2, 0.999, 0.4),
        (Conditions(), 0.5, 0.999, 0.8),
        (Conditions(), 0.75, 0.995, 2.0),
    ):
        stage.world.conditions = conditions
        troubles.mass_death(stage, (dying - dead) / (1 - dead))
        dead = dying
        stage.figures = Figures()
        stage.read_records(300)
        assert stage.figures.found_share >= found, f"{dying:.0%} dead, {conditions.loss:.0%} lost"
        assert percentile(stage.figures.read_seconds, 0.99) <= seconds, f"{dying:.0%} dead, {conditions.loss:.0%} lost"
