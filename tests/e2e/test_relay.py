"""A mesh with a relay, of real processes: its workers are met through it, and again when it was started again."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from haif.base import codec
from haif.base.ids import PeerId
from haif.config import parse_address
from haif.identity.admission import open_network
from haif.identity.keys import Identity, NoiseKey
from haif.protocol import methods
from haif.protocol.reach import Look, Seen
from haif.protocol.relay import RelayAt
from haif.relay.service import connect_through
from haif.runtime.clock import SystemClock, entropy
from haif.wire.service import Wire
from tests.e2e.conftest import Mesh, until

pytestmark = pytest.mark.xdist_group("relay")


async def test_a_worker_is_met_through_the_relay_of_haif_up(begin: Callable[..., Mesh], tmp_path: Path) -> None:
    mesh = begin(tmp_path, "--relay", "--workers", "1")
    until(lambda: "haif_relay_places 1.0" in mesh.metrics("relay"), "the worker holds a place")
    await meet(mesh)
    assert "haif_relay_circuits_total" + '{outcome="joined"} 1.0' in mesh.metrics("relay")
    [relay] = mesh.roles("relay")
    os.kill(relay["pid"], signal.SIGKILL)
    mesh.until_back("relay", relay["pid"])
    assert [relay["relay"]] == [role["relay"] for role in mesh.roles("relay")]
    until(lambda: "haif_relay_places 1.0" in mesh.metrics("relay"), "the worker is back")
    await meet(mesh)


async def meet(mesh: Mesh) -> None:
    """A session with the worker that runs through the relay, and an answer of the worker over it."""
    [relay], [worker] = mesh.roles("relay"), mesh.roles("worker")
    peer, _, address = relay["relay"].partition("@")
    at, wanted = RelayAt(PeerId.parse(peer), *parse_address(address)), PeerId.parse(worker["peer"])
    async with Wire(
        identity=Identity(entropy(32)), noise_key=NoiseKey(entropy(32)),
        net=open_network("local").net, clock=SystemClock(),
        entropy=entropy, on_dropped=lambda _: None, port=None,
    ) as wire:  # fmt: skip
        session = await connect_through(wire, at, wanted, timeout=10)
        assert (session.peer, session.remote) == (wanted, at.address)
        reply = await session.call(methods.LOOK.name, codec.encode(Look()), timeout=10)
        assert codec.decode(Seen, reply).sighting
