"""A thousand directory nodes under virtual time: `make test-slow`."""

from random import Random

import pytest

from haif.base import limits
from haif.base.ids import Digest
from haif.testing.directory import Directory
from haif.testing.net import Conditions
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
    topic = Digest(random.randbytes(32))
    owner = random.choice(list(city.nodes))
    city.publish(owner, city.record(owner, topic))
    for reader in random.sample(list(city.nodes), 100):
        assert [record.signer for record in city.gather(reader, topic).records] == [city.identities[owner].peer]
