"""Hosts that have IPv6 and nothing else: directory, wire, relay and meetings work as with IPv4."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from tests.support.nat_matrix import resident
from tests.support.netlab import Lab

pytestmark = pytest.mark.xdist_group("netns-ipv6")  # one lab


async def test_peers_of_ipv6_networks_find_each_other_and_see_where_they_are(lab: Lab) -> None:
    async with AsyncExitStack() as stack:
        first = await resident(stack, lab.public6(), bootstrap=[])
        begin = [first.ready["dht"]]
        await asyncio.gather(*(resident(stack, lab.public6(), bootstrap=begin) for _ in range(5)))
        seen = {}
        for name, host in (("open", lab.public6()), ("consistent", lab.public6(firewall=True))):
            here = await resident(stack, host, bootstrap=begin, ephemeral=True)
            seen[name] = (await here.ask("survey"))["mapping"]
        assert {"open": "open", "consistent": "consistent"} == seen


async def test_two_hosts_behind_ipv6_firewalls_meet_through_a_relay_and_then_directly(lab: Lab) -> None:
    async with AsyncExitStack() as stack:
        relay = await resident(stack, lab.public6(), relay=True)
        way = [[relay.ready["peer"], *relay.ready["wire"]]]
        here, there, reachable = [
            await resident(stack, host, relays=way)
            for host in (lab.public6(firewall=True), lab.public6(firewall=True), lab.public6())
        ]
        met = await here.ask("meet", peer=there.ready["peer"], addresses=[there.ready["wire"]], relays=way)
        assert ("relayed", "direct", True) == (met["first"], met["last"], met["whole"])
        met = await here.ask("meet", peer=reachable.ready["peer"], addresses=[reachable.ready["wire"]], relays=way)
        assert ("direct", "direct", True) == (met["first"], met["last"], met["whole"])


async def test_a_host_of_both_families_is_dialled_by_the_one_that_answers(lab: Lab) -> None:
    async with AsyncExitStack() as stack:
        dual, asker = lab.public(), lab.public()
        there = await resident(stack, dual)
        place = [[dual.address6, there.ready["wire"][1]], there.ready["wire"]]
        here = await resident(stack, asker)
        met = await here.ask("meet", peer=there.ready["peer"], addresses=place, relays=[])
        assert ("direct", True) == (met["last"], met["whole"])
