"""What peers see of a node behind each kind of NAT, over real sockets, and what it concludes."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
import pytest_asyncio

from haif.base import limits
from tests.support.lab_process import ROOT
from tests.support.nat_matrix import resident
from tests.support.netlab import Host, Lab

pytestmark = pytest.mark.xdist_group("netns-classification")  # one lab


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def network(lab: Lab) -> AsyncIterator[list[list[object]]]:
    """Public nodes of as many networks as a verdict needs and two more; their addresses."""
    async with AsyncExitStack() as stack:
        first = await resident(stack, lab.public(), bootstrap=[])
        begin = [first.ready["dht"]]
        await asyncio.gather(*(resident(stack, lab.public(), bootstrap=begin) for _ in range(limits.OBSERVERS_MIN + 1)))
        yield begin


def places(lab: Lab) -> dict[str, tuple[Host, str]]:
    return {
        "public": (lab.public(), "open"),
        "public behind a firewall": (lab.public(firewall=True), "consistent"),
        "full cone": (lab.home("full_cone")[0], "consistent"),
        "restricted": (lab.home("restricted")[0], "consistent"),
        "port restricted": (lab.home("port_restricted")[0], "consistent"),
        "symmetric": (lab.home("symmetric")[0], "random"),
        "carrier": (lab.carrier("port_restricted"), "consistent"),
        "symmetric carrier": (lab.carrier("symmetric"), "random"),
    }


@pytest.mark.asyncio(loop_scope="module")
async def test_each_kind_of_nat_is_recognised_from_what_peers_see(lab: Lab, network: list[list[object]]) -> None:
    async with AsyncExitStack() as stack:
        wanted = places(lab)
        there = await asyncio.gather(
            *(resident(stack, host, bootstrap=network, ephemeral=True) for host, _ in wanted.values())
        )
        seen = await asyncio.gather(*(each.ask("survey") for each in there))
    found = {name: (each["mapping"], each["host"]) for name, each in zip(wanted, seen, strict=True)}
    assert {name: (mapping, host.outside) for name, (host, mapping) in wanted.items()} == found
    assert all(each["observers"] >= limits.OBSERVERS_MIN for each in seen)


@pytest.mark.asyncio(loop_scope="module")
async def test_the_command_line_says_how_this_machine_is_seen(lab: Lab, network: list[list[object]]) -> None:
    inside = lab.home("symmetric")[0]
    host, port = network[0]
    async with AsyncExitStack() as stack:
        watching = await asyncio.gather(*(resident(stack, lab.public()) for _ in range(limits.OBSERVERS_MIN)))
        observers = [f"{each.ready['peer']}@{each.ready['wire'][0]}:{each.ready['wire'][1]}" for each in watching]
        value = await status(inside, f"{host}:{port}", observers)
    for way in (value, value["tcp"]):
        assert ("random", inside.outside, None) == (way["mapping"], way["host"], way["address"])
        assert way["observers"] >= limits.OBSERVERS_MIN


@pytest.mark.asyncio(loop_scope="module")
async def test_connections_from_one_port_are_seen_at_one_address_behind_a_nat_that_keeps_it(lab: Lab) -> None:
    async with AsyncExitStack() as stack:
        watching = await asyncio.gather(*(resident(stack, lab.public()) for _ in range(limits.OBSERVERS_MIN)))
        here = await resident(stack, lab.home("port_restricted")[0])
        observers = [[each.ready["peer"], *each.ready["wire"]] for each in watching]
        seen = await here.ask("survey_wire", observers=observers)
        assert ("consistent", here.host.outside, 4) == (seen["mapping"], seen["host"], seen["observers"])


async def status(inside: Host, bootstrap: str, observers: list[str]) -> dict[str, Any]:
    words = ["net", "status", "--network", "lab", "--host", inside.address, "--bootstrap", bootstrap, "--json"]
    words += [word for observer in observers for word in ("--observer", observer)]
    program = "import sys; from haif.cli.main import main; sys.exit(main(sys.argv[1:]))"
    process = await asyncio.create_subprocess_exec(
        *inside.command(sys.executable, "-c", program, *words), cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    said, _ = await process.communicate()
    value = json.loads(said)
    assert isinstance(value, dict)
    return value
