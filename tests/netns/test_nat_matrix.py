"""Every kind of NAT against every kind: all connect, and go a direct way in the end where there is one.

What is gated is no time: connected or not, by which way in the end, and that the stream that was open during the move
is whole. The matrix with its times is printed (pytest -s); `benchmarks/nat.py` keeps it.
"""

from collections.abc import Sequence
from contextlib import AsyncExitStack

import pytest

from tests.support.nat_matrix import BY_NAME, KINDS, Kind, matrix, resident, table
from tests.support.netlab import Lab

pytestmark = pytest.mark.xdist_group("netns-matrix")  # one lab
FEW = [BY_NAME[name] for name in ("public", "firewalled", "port restricted", "carrier", "symmetric")]


@pytest.mark.parametrize("kinds", [FEW, pytest.param(KINDS, marks=pytest.mark.slow)], ids=["few", "all"])
async def test_all_connect_and_go_a_direct_way_where_both_sides_map_endpoint_independently(
    lab: Lab, kinds: Sequence[Kind]
) -> None:
    met = await matrix(lab, kinds)
    print("\n" + table(met))
    assert {} == {(each.asker.name, each.other.name): each.error for each in met if each.error}
    assert [] == [(each.asker.name, each.other.name) for each in met if not each.whole]
    assert [] == [(m.asker.name, m.other.name) for m in met if m.must_be_direct and m.last != "direct"]
    neither = [each for each in met if not each.asker.independent and not each.other.independent]
    assert {"relayed"} == {each.last for each in neither}


@pytest.mark.parametrize("hairpin", [True, False])
@pytest.mark.parametrize("where", ["one home", "two homes behind one carrier"])
async def test_two_who_know_only_where_they_are_seen_meet_where_the_nat_between_them_hairpins_and_only_there(
    lab: Lab, where: str, hairpin: bool
) -> None:
    """Neither announces an address on its LAN: what each dials is its own NAT's address outside."""
    async with AsyncExitStack() as stack:
        relay = await resident(stack, lab.public(), relay=True)
        way = [[relay.ready["peer"], *relay.ready["wire"]]]
        if where == "one home":
            hosts = lab.home("port_restricted", hosts=2, hairpin=hairpin)
        else:
            hosts = lab.neighbours("port_restricted", hairpin=hairpin)
        assert hosts[0].outside == hosts[1].outside
        here, there = [await resident(stack, host, relays=way) for host in hosts]
        met = await here.ask("meet", peer=there.ready["peer"], addresses=[], relays=way)
        last = "direct" if hairpin else "relayed"
        assert ("relayed", last, True) == (met["first"], met["last"], met["whole"])


@pytest.mark.parametrize("hairpin", [True, False])
async def test_two_hosts_of_one_home_meet_on_their_lan(lab: Lab, hairpin: bool) -> None:
    async with AsyncExitStack() as stack:
        relay = await resident(stack, lab.public(), relay=True)
        way = [[relay.ready["peer"], *relay.ready["wire"]]]
        here, there = [
            await resident(stack, host, relays=way) for host in lab.home("symmetric", hosts=2, hairpin=hairpin)
        ]
        met = await here.ask("meet", peer=there.ready["peer"], addresses=[there.ready["wire"]], relays=way)
        assert ("direct", "direct", True) == (met["first"], met["last"], met["whole"])
