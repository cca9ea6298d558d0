"""The estimate of the network's size: true where nobody lies, slow where somebody does."""

from random import Random

import pytest

from haif.base import limits
from haif.base.clock import Instant
from haif.base.ids import PeerId
from haif.dht.contact import Contact
from haif.dht.diversity import Scope
from haif.dht.size import KEY_SPACE, NetworkSize, nodes_from, region

NOW = Instant(10_000.0)


def later(seconds: float) -> Instant:
    return Instant(NOW + seconds)


_Found = list[tuple[int, Contact]]


def somebody(number: int) -> Contact:
    """An honest node in a /24 of its own."""
    return Contact(
        PeerId(number.to_bytes(32, "big")), (f"{20 + number // 60_000}.{number // 250 % 240}.{number % 250}.1", 1)
    )


def closest(nodes: int, random: Random) -> _Found:
    """The k closest of so many nodes to a random point."""
    return sorted((random.getrandbits(256), somebody(number)) for number in range(nodes))[: limits.DHT_K]


def evenly(nodes: float) -> _Found:
    """Distances that are explained by exactly so many nodes."""
    return [(int((limits.DHT_K - 1) / nodes * KEY_SPACE), somebody(number)) for number in range(limits.DHT_K)]


def nodes_by(size: NetworkSize, neighbours: _Found, now: Instant) -> float:
    """The estimate, with these neighbours."""
    return size.nodes(size.around(neighbours), now)


def settled(nodes: int) -> NetworkSize:
    size = NetworkSize()
    for _ in range(limits.NETWORK_SAMPLES_MIN):
        size.sampled(evenly(nodes), NOW)
    assert nodes_by(size, evenly(nodes), NOW) == pytest.approx(nodes)
    return size


@pytest.mark.parametrize("nodes", [100, 1000, 5000])
def test_the_median_of_ten_lookups_is_within_a_third_of_the_truth(nodes: int) -> None:
    random, size = Random(nodes), NetworkSize()
    for _ in range(10):
        size.sampled(closest(nodes, random), NOW)
    assert nodes_by(size, closest(nodes, random), NOW) == pytest.approx(nodes, rel=0.33)


def test_whoever_knows_fewer_than_k_knows_everybody() -> None:
    assert nodes_by(NetworkSize(), [], NOW) == 1
    assert nodes_by(NetworkSize(), [(n, somebody(n)) for n in (5, 6, 7)], NOW) == 4
    assert region(4) == KEY_SPACE


def test_nineteen_intervals_of_a_twentieth_of_a_percent_are_two_thousand_nodes() -> None:
    assert nodes_from([number * KEY_SPACE // 2000 for number in range(limits.DHT_K)]) == pytest.approx(2000)


def test_a_region_holds_a_quarter_more_than_k_nodes() -> None:
    random = Random(1)
    inside = [sum(random.getrandbits(256) < region(2000) for _ in range(2000)) for _ in range(20)]
    assert sum(inside) / 20 == pytest.approx(25, rel=0.2)


def test_before_five_lookups_the_lowest_of_what_there_is_decides() -> None:
    size = NetworkSize()
    assert nodes_by(size, evenly(300), NOW) == pytest.approx(300)
    size.sampled(evenly(9000), NOW)
    assert nodes_by(size, evenly(300), NOW) == pytest.approx(300)
    size.sampled(evenly(200), NOW)
    assert nodes_by(size, evenly(300), NOW) == pytest.approx(200)


def test_lookups_that_are_lied_to_do_not_count_while_they_are_fewer_than_half() -> None:
    size = settled(1000)
    for _ in range(limits.NETWORK_SAMPLES_MIN - 1):
        size.sampled(evenly(1_000_000), later(60))
    assert nodes_by(size, evenly(1000), later(60)) == pytest.approx(1000)


def test_ids_invented_on_the_way_of_every_lookup_make_us_believe_in_twice_the_nodes_and_no_more() -> None:
    size = settled(1000)
    for hour in range(1, 10):
        for _ in range(limits.NETWORK_SAMPLES_MIN):
            size.sampled(evenly(1_000_000), later(3600 * hour))
        assert nodes_by(size, evenly(1000), later(3600 * hour)) <= 2001


def test_ids_ground_against_ourselves_change_nothing() -> None:
    size = settled(1000)
    assert nodes_by(size, evenly(1_000_000), later(7000)) == pytest.approx(1000)


def test_whoever_has_both_gains_a_factor_of_two_each_hour() -> None:
    size = settled(1000)
    for hour in range(1, 6):
        for _ in range(50):
            size.sampled(evenly(1_000_000), later(3600 * hour))
        assert nodes_by(size, evenly(1_000_000), later(3600 * hour)) == pytest.approx(1000 * 2**hour, rel=0.01)


def test_a_network_that_shrinks_is_believed_at_once() -> None:
    size = settled(1000)
    for _ in range(limits.NETWORK_SAMPLES_MIN + 1):
        size.sampled(evenly(100), later(60))
    assert nodes_by(size, evenly(1000), later(60)) == pytest.approx(100)


def test_a_small_network_may_grow_at_once() -> None:
    size = settled(3)
    for _ in range(limits.NETWORK_SAMPLES_MIN + 1):
        size.sampled(evenly(500), later(1))
    assert nodes_by(size, evenly(500), later(1)) == limits.NETWORK_NODES_UNCLAMPED


def test_what_was_sampled_two_hours_ago_is_forgotten() -> None:
    size = settled(1000)
    assert nodes_by(size, evenly(700), later(7201)) == pytest.approx(700)


def test_it_says_when_it_needs_samples() -> None:
    size = NetworkSize()
    for count in range(limits.NETWORK_SAMPLES_SOUGHT):
        assert size.needs_samples(NOW), count
        size.sampled(evenly(500), NOW)
    assert not size.needs_samples(NOW)
    assert size.needs_samples(later(limits.NETWORK_SAMPLE_SECONDS + 1))


def disturbed(nodes: int, subnets: int, random: Random, *, invented: int) -> _Found:
    """What a lookup sees when somebody on its way invents ids near its target, at addresses it has used before."""
    near = 2 * limits.DHT_K * KEY_SPACE // nodes
    honest = [(random.getrandbits(256), somebody(number)) for number in range(nodes)]
    for _ in range(invented):
        address = (f"200.0.{random.randrange(subnets)}.1", random.randrange(1, 65_536))
        honest.append((random.randrange(near), Contact(PeerId(random.randbytes(32)), address)))
    return sorted(honest)[: limits.DHT_K]


def test_ids_invented_on_the_way_of_every_lookup_use_their_addresses_up() -> None:
    random, size = Random(3), NetworkSize()
    for lookup in range(144):  # in two hours
        size.sampled(disturbed(1000, 200, random, invented=60), later(50 * lookup))
    assert 800 < nodes_by(size, evenly(100_000), later(7200)) < 1600


def test_when_no_lookup_is_left_undisturbed_the_last_estimate_holds() -> None:
    random, size = Random(4), settled(1000)
    for lookup in range(1, 300):
        size.sampled(disturbed(1000, 3, random, invented=500), later(60 * lookup))
    assert nodes_by(size, evenly(1_000_000), later(60 * 299)) <= 1000 * 2**5  # five hours
    assert size.needs_samples(later(60 * 299))


def test_a_network_may_show_another_peer_after_two_hours() -> None:
    size = NetworkSize()
    for number, at in enumerate((0, 60, 7300)):
        found = [
            (distance, Contact(PeerId(bytes([number]) * 32), contact.address)) for distance, contact in evenly(1000)
        ]
        size.sampled(found, later(at))
        assert nodes_by(size, evenly(9000), later(at)) == pytest.approx(1000)
    assert not size.needs_samples(later(7300)), "the last one counted"


def test_addresses_of_one_machine_count_singly_where_they_are_exempt() -> None:
    found = [
        (distance, Contact(contact.peer, ("127.0.0.1", n + 1))) for n, (distance, contact) in enumerate(evenly(500))
    ]
    for exempt, nodes in ((Scope.NOTHING, 2), (Scope.LOOPBACK, 500)):
        assert nodes_by(NetworkSize(exempt=exempt), found, NOW) == pytest.approx(nodes)


def test_few_samples_that_show_far_fewer_than_the_neighbourhood_are_doubted_until_there_are_five() -> None:
    size = NetworkSize()
    assert not size.is_doubtful(1000, NOW)
    size.sampled(evenly(100), NOW)
    assert size.is_doubtful(1000, NOW)
    assert not size.is_doubtful(150, NOW)
    for _ in range(limits.NETWORK_SAMPLES_MIN - 1):
        assert nodes_by(size, evenly(1000), NOW) == pytest.approx(100), "doubted, and believed"
        size.sampled(evenly(1000), NOW)
    assert not size.is_doubtful(1000, NOW)
    assert nodes_by(size, evenly(1000), NOW) == pytest.approx(1000)
