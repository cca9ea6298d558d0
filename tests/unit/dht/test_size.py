"""The estimate of the network's size: true where nobody lies, slow where somebody does."""

from random import Random

import pytest

from haif.base import limits
from haif.base.clock import Instant
from haif.dht.size import KEY_SPACE, NetworkSize, nodes_from, region

NOW = Instant(10_000.0)


def later(seconds: float) -> Instant:
    return Instant(NOW + seconds)


def distances(nodes: int, random: Random) -> list[int]:
    """How far the k closest of so many nodes are from a random point."""
    return sorted(random.getrandbits(256) for _ in range(nodes))[: limits.DHT_K]


def evenly(nodes: float) -> list[int]:
    """The distances that are explained by exactly so many nodes."""
    return [int((limits.DHT_K - 1) / nodes * KEY_SPACE)] * limits.DHT_K


def settled(nodes: int) -> NetworkSize:
    size = NetworkSize()
    for _ in range(limits.NETWORK_SAMPLES_MIN):
        size.sampled(evenly(nodes), NOW)
    assert size.nodes(evenly(nodes), NOW) == pytest.approx(nodes)
    return size


@pytest.mark.parametrize("nodes", [100, 1000, 5000])
def test_the_median_of_ten_lookups_is_within_a_third_of_the_truth(nodes: int) -> None:
    random, size = Random(nodes), NetworkSize()
    for _ in range(10):
        size.sampled(distances(nodes, random), NOW)
    assert size.nodes(distances(nodes, random), NOW) == pytest.approx(nodes, rel=0.33)


def test_whoever_knows_fewer_than_k_knows_everybody() -> None:
    assert nodes_from([]) == 1
    assert nodes_from([5, 6, 7]) == 4
    assert region(4) == KEY_SPACE


def test_a_region_holds_a_quarter_more_than_k_nodes() -> None:
    random = Random(1)
    inside = [sum(random.getrandbits(256) < region(2000) for _ in range(2000)) for _ in range(20)]
    assert sum(inside) / 20 == pytest.approx(25, rel=0.2)


def test_before_five_lookups_the_lowest_of_what_there_is_decides() -> None:
    size = NetworkSize()
    assert size.nodes(evenly(300), NOW) == pytest.approx(300)
    size.sampled(evenly(9000), NOW)
    assert size.nodes(evenly(300), NOW) == pytest.approx(300)
    size.sampled(evenly(200), NOW)
    assert size.nodes(evenly(300), NOW) == pytest.approx(200)


def test_lookups_that_are_lied_to_do_not_count_while_they_are_fewer_than_half() -> None:
    size = settled(1000)
    for _ in range(limits.NETWORK_SAMPLES_MIN - 1):
        size.sampled(evenly(1_000_000), later(60))
    assert size.nodes(evenly(1000), later(60)) == pytest.approx(1000)


def test_ids_invented_on_the_way_of_every_lookup_make_us_believe_in_twice_the_nodes_and_no_more() -> None:
    size = settled(1000)
    for hour in range(1, 10):
        for _ in range(limits.NETWORK_SAMPLES_MIN):
            size.sampled(evenly(1_000_000), later(3600 * hour))
        assert size.nodes(evenly(1000), later(3600 * hour)) <= 2001


def test_ids_ground_against_ourselves_change_nothing() -> None:
    size = settled(1000)
    assert size.nodes(evenly(1_000_000), later(7000)) == pytest.approx(1000)


def test_whoever_has_both_gains_a_factor_of_two_each_hour() -> None:
    size = settled(1000)
    for hour in range(1, 6):
        for _ in range(50):
            size.sampled(evenly(1_000_000), later(3600 * hour))
        assert size.nodes(evenly(1_000_000), later(3600 * hour)) == pytest.approx(1000 * 2**hour, rel=0.01)


def test_a_network_that_shrinks_is_believed_at_once() -> None:
    size = settled(1000)
    for _ in range(limits.NETWORK_SAMPLES_MIN + 1):
        size.sampled(evenly(100), later(60))
    assert size.nodes(evenly(1000), later(60)) == pytest.approx(100)


def test_a_small_network_may_grow_at_once() -> None:
    size = settled(3)
    for _ in range(limits.NETWORK_SAMPLES_MIN + 1):
        size.sampled(evenly(500), later(1))
    assert size.nodes(evenly(500), later(1)) == limits.NETWORK_NODES_UNCLAMPED


def test_what_was_sampled_two_hours_ago_is_forgotten() -> None:
    size = settled(1000)
    assert size.nodes(evenly(700), later(7201)) == pytest.approx(700)


def test_it_says_when_it_needs_samples() -> None:
    size = NetworkSize()
    for count in range(limits.NETWORK_SAMPLES_MIN):
        assert size.needs_samples(NOW), count
        size.sampled(evenly(500), NOW)
    assert not size.needs_samples(NOW)
    assert size.needs_samples(later(limits.NETWORK_SAMPLE_SECONDS + 1))
