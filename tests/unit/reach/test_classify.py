"""What others see of us, judged: no minority of them decides."""

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haif.base import limits
from haif.base.clock import Instant
from haif.base.ids import PeerId
from haif.base.machine import Address
from haif.dht.sightings import Sighting
from haif.reach.classify import UNKNOWN, Mapping, Verdict, classify
from haif.reach.standing import Standing

HERE: Address = ("11.7.0.2", 4000)
VICTIM: Address = ("11.66.0.1", 22)


def seen(*addresses: Address) -> list[Sighting]:
    return [Sighting(PeerId(bytes([n]) * 32), b"\x04\x0b" + bytes([n]), at) for n, at in enumerate(addresses)]


def test_one_address_for_everybody_is_consistent_and_open_if_enough_get_through() -> None:
    everywhere = seen(*[HERE] * 5)
    assert Verdict(Mapping.CONSISTENT, HERE, HERE[0], 5) == classify(everywhere)
    assert Mapping.CONSISTENT == classify(everywhere, asked=5, dialled_back=2).mapping
    assert Verdict(Mapping.OPEN, HERE, HERE[0], 5) == classify(everywhere, asked=5, dialled_back=3)
    assert Mapping.CONSISTENT == classify(everywhere, asked=8, dialled_back=4).mapping


def test_a_port_for_each_conversation_is_random() -> None:
    assert Verdict(Mapping.RANDOM, None, HERE[0], 4) == classify(seen(*[(HERE[0], 4000 + n) for n in range(4)]))


@pytest.mark.parametrize(
    "addresses",
    [[], [HERE] * 3, [(f"11.{n}.0.1", 1) for n in range(6)], [HERE, HERE, VICTIM, VICTIM]],
    ids=["nobody", "three observers", "no address twice", "half and half"],
)
def test_too_few_observers_or_no_majority_conclude_nothing(addresses: list[Address]) -> None:
    verdict = classify(seen(*addresses), asked=8, dialled_back=8)
    assert (Mapping.UNKNOWN, None) == (verdict.mapping, verdict.address)


def test_a_network_has_one_voice_and_its_newest_word_counts() -> None:
    crowd = [replace_network(sighting, b"\x04\x0b\x63") for sighting in seen(*[VICTIM] * 9)]
    assert Verdict(Mapping.CONSISTENT, HERE, HERE[0], 5) == classify([*seen(*[HERE] * 4), *crowd])


def replace_network(sighting: Sighting, network: bytes) -> Sighting:
    return sighting._replace(network=network)


@given(
    st.integers(4, 24),
    st.booleans(),
    st.lists(st.sampled_from([VICTIM, HERE, (HERE[0], 1), (VICTIM[0], 4000)]), max_size=11),
    st.integers(0, 8),
    st.integers(0, 2**32),
)
def test_a_lying_minority_changes_no_verdict(
    honest: int, consistent: bool, lies: list[Address], told: int, seed: int
) -> None:
    truth = [HERE if consistent else (HERE[0], 5000 + n) for n in range(honest)]
    lies = lies[: honest - 1]
    heard = seen(*truth, *lies)
    Random(seed).shuffle(heard)
    verdict = classify(heard, asked=8, dialled_back=min(told, 2))
    assert (Mapping.CONSISTENT if consistent else Mapping.RANDOM) == verdict.mapping
    assert (HERE if consistent else None) == verdict.address
    assert HERE[0] == verdict.host


OPEN = Verdict(Mapping.OPEN, HERE, HERE[0], 5)


def test_a_node_is_relied_upon_after_being_open_at_one_address_for_long_enough() -> None:
    begun = Standing().heard(OPEN, Instant(10.0))
    assert not begun.persistent
    assert not begun.heard(OPEN, Instant(9.0 + limits.STEADY_SECONDS)).persistent
    assert begun.heard(OPEN, Instant(10.0 + limits.STEADY_SECONDS)).persistent


def test_another_address_begins_the_wait_anew_and_another_mapping_ends_the_standing() -> None:
    later = Instant(10.0 + limits.STEADY_SECONDS)
    steady = Standing().heard(OPEN, Instant(10.0)).heard(OPEN, later)
    moved = replace(OPEN, address=("11.8.0.2", 4000))
    assert not steady.heard(moved, later).persistent
    assert not steady.heard(replace(OPEN, mapping=Mapping.CONSISTENT), later).persistent


def test_an_unknown_mapping_does_not_cost_a_node_its_standing_and_gives_none() -> None:
    later = Instant(10.0 + limits.STEADY_SECONDS)
    steady = Standing().heard(OPEN, Instant(10.0)).heard(OPEN, later)
    assert steady.heard(UNKNOWN, later).persistent
    assert not Standing().heard(UNKNOWN, Instant(10.0)).heard(UNKNOWN, later).persistent
    assert steady.heard(UNKNOWN, later).heard(OPEN, later).persistent
