"""Each behaviour of a NAT box does what RFC 4787 calls by its name; boxes stand behind boxes; the world routes so."""

from itertools import product
from random import Random

import pytest

from haif.base.clock import Instant
from haif.base.machine import Address
from haif.testing.nat import FULL_CONE, SYMMETRIC, Behaviour, Depends, NatBox, Realms
from haif.testing.net import Conditions
from haif.testing.world import World
from tests.unit.testing.test_world import Echo

HOST: Address = ("10.0.0.2", 4000)
OTHER: Address = ("10.0.0.3", 4000)
REMOTE: Address = ("93.0.0.1", 5000)
OTHER_PORT: Address = ("93.0.0.1", 5001)
OTHER_HOST: Address = ("94.0.0.1", 5000)
REMOTES = REMOTE, OTHER_PORT, OTHER_HOST
BEHAVIOURS = [Behaviour(mapping=m, filtering=f) for m, f in product(Depends, Depends)]
NOW = Instant(0.0)


def box(behaviour: Behaviour, external: str = "100.0.0.1") -> NatBox:
    return NatBox(external, behaviour, Random(1))


@pytest.mark.parametrize(
    ("depends", "shared"),
    [
        (Depends.NOTHING, [True, True, True]),
        (Depends.ADDRESS, [True, True, False]),
        (Depends.ADDRESS_AND_PORT, [True, False, False]),
    ],
)
def test_a_mapping_is_shared_by_as_many_remotes_as_it_depends_on_few_things(
    depends: Depends, shared: list[bool]
) -> None:
    nat = box(Behaviour(mapping=depends))
    first = nat.outbound(HOST, REMOTE, NOW)
    assert [nat.outbound(HOST, remote, NOW) == first for remote in REMOTES] == shared
    assert nat.outbound(OTHER, REMOTE, NOW) != first


@pytest.mark.parametrize(
    ("depends", "let_in"),
    [
        (Depends.NOTHING, [True, True, True]),
        (Depends.ADDRESS, [True, True, False]),
        (Depends.ADDRESS_AND_PORT, [True, False, False]),
    ],
)
@pytest.mark.parametrize("mapping", Depends)
def test_a_filter_lets_in_whom_something_was_sent_to(depends: Depends, let_in: list[bool], mapping: Depends) -> None:
    nat = box(Behaviour(mapping=mapping, filtering=depends))
    external = nat.outbound(HOST, REMOTE, NOW)
    assert external is not None
    assert [nat.inbound(remote, external[1], NOW) == HOST for remote in REMOTES] == let_in
    assert nat.inbound(REMOTE, external[1] + 1, NOW) is None


@pytest.mark.parametrize("behaviour", BEHAVIOURS)
def test_a_mapping_that_nothing_uses_is_forgotten_and_what_leaves_keeps_it(behaviour: Behaviour) -> None:
    nat = box(behaviour)
    external = nat.outbound(HOST, REMOTE, NOW)
    assert external is not None
    assert nat.outbound(HOST, REMOTE, Instant(300)) == external
    assert nat.inbound(REMOTE, external[1], Instant(600)) == HOST
    assert nat.inbound(REMOTE, external[1], Instant(601)) is None
    assert len(nat) == 0


def test_what_comes_in_keeps_a_mapping_only_where_the_box_says_so() -> None:
    for refreshes, expected in ((True, HOST), (False, None)):
        nat = box(Behaviour(filtering=Depends.ADDRESS, inbound_refreshes=refreshes))
        external = nat.outbound(HOST, REMOTE, NOW)
        assert external is not None
        assert nat.inbound(REMOTE, external[1], Instant(200)) == HOST
        assert nat.inbound(REMOTE, external[1], Instant(400)) == expected


def test_a_port_is_preserved_where_it_is_free_and_drawn_otherwise() -> None:
    nat = box(FULL_CONE)
    assert nat.outbound(HOST, REMOTE, NOW) == ("100.0.0.1", 4000)
    second = nat.outbound(OTHER, REMOTE, NOW)
    assert second is not None
    assert second[1] != 4000
    symmetric = box(SYMMETRIC)
    ports = {symmetric.outbound(HOST, (f"93.0.{n}.1", 1), NOW) for n in range(50)}
    assert len(ports) == 50
    assert ("100.0.0.1", 4000) not in ports


def test_a_box_without_a_free_port_refuses_and_a_restarted_one_remembers_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("haif.testing.nat._PORTS", range(4000, 4002))
    nat = box(FULL_CONE)
    assert nat.outbound(HOST, REMOTE, NOW) is not None
    assert nat.outbound(OTHER, REMOTE, NOW) is not None
    assert nat.outbound(("10.0.0.4", 4001), REMOTE, NOW) is None
    nat.restart()
    assert nat.inbound(REMOTE, 4000, NOW) is None


@pytest.mark.parametrize("hairpin", [True, False])
def test_two_hosts_behind_one_box_meet_at_its_outside_only_if_it_hairpins(hairpin: bool) -> None:
    realms, nat = Realms(), box(Behaviour(hairpin=hairpin))
    realms.install(nat, [HOST[0], OTHER[0]])
    external = nat.outbound(OTHER, REMOTE, NOW)
    assert external is not None
    seen = realms.leave(HOST, external, NOW)
    assert (seen is not None) == hairpin
    if seen is not None:
        assert seen[0] == nat.external, "the other sees the external address (RFC 4787 REQ-9a)"
        assert realms.enter(seen, external, NOW) == OTHER
    assert realms.leave(HOST, OTHER, NOW) == HOST, "inside, nobody translates"


def test_carrier_grade_boxes_stand_before_boxes() -> None:
    realms, carrier = Realms(), box(FULL_CONE, "102.0.0.1")
    home, neighbour = box(FULL_CONE, "100.64.0.1"), box(FULL_CONE, "100.64.0.2")
    realms.install(carrier, [home.external, neighbour.external])
    realms.install(home, ["10.1.0.2"])
    realms.install(neighbour, ["10.2.0.2"])
    seen = realms.leave(("10.1.0.2", 7), REMOTE, NOW)
    assert seen is not None
    assert seen[0] == carrier.external
    assert realms.enter(REMOTE, seen, NOW) == ("10.1.0.2", 7)
    inner = realms.leave(("10.2.0.2", 9), ("100.64.0.1", 7), NOW)
    assert inner == ("100.64.0.2", 9), "between the two homes the carrier's box is not passed"
    assert realms.enter(inner, ("100.64.0.1", 7), NOW) == ("10.1.0.2", 7)


def test_a_private_address_does_not_exist_outside() -> None:
    realms = Realms()
    realms.install(box(FULL_CONE), [HOST[0]])
    assert realms.leave(REMOTE, HOST, NOW) is None
    assert realms.leave(REMOTE, OTHER_HOST, NOW) == REMOTE


def test_a_world_with_a_box_translates_both_ways_and_filters_on_arrival() -> None:
    world, inside, outside = World(seed=1, conditions=Conditions(delay_min=0.01, delay_max=0.02)), Echo(), Echo()
    world.realms.install(box(Behaviour(filtering=Depends.ADDRESS_AND_PORT)), [HOST[0]])
    world.add(HOST, inside)
    world.add(REMOTE, outside)
    world.send(b"early!", REMOTE, ("100.0.0.1", 4000))
    world.run(seconds=1)
    assert inside.heard == []
    world.send(b"hello", HOST, REMOTE)
    world.run(seconds=1)
    assert [(data, source) for data, source, _ in outside.heard] == [(b"hello", ("100.0.0.1", 4000))]
    assert [data for data, _, _ in inside.heard] == [b"hello!"]
    world.send(b"crossing!", REMOTE, ("100.0.0.1", 4000))
    world.send(b"stranger!", OTHER_HOST, ("100.0.0.1", 4000))
    world.run(seconds=1)
    assert [data for data, _, _ in inside.heard] == [b"hello!", b"crossing!"]
