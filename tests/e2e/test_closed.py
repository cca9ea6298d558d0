"""A closed network with real processes: it works like an open one for its members, and for nobody else."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from haif.base import limits
from haif.base.errors import ConnectionLost, HaifError, Unauthenticated
from haif.base.ids import PeerId
from haif.config import parse_address
from haif.dht.service import Dht
from haif.identity.admission import Book
from haif.identity.keys import Identity, NoiseKey
from haif.identity.service import Networks
from haif.protocol import methods
from haif.runtime.clock import SystemClock, entropy
from haif.wire.service import Wire
from tests.e2e.conftest import Mesh, haif, until

pytestmark = pytest.mark.xdist_group("mesh")
CLOCK = SystemClock()
STORY: list[Any] = [{"role": "user", "content": "Tell me a long story about the river."}]


def workers(mesh: Mesh) -> int:
    return sum(
        int(float(line.split()[-1]))
        for line in mesh.metrics("orchestrator").splitlines()
        if line.startswith("haif_workers_live ")
    )


async def test_h_s2_a_closed_mesh_answers_its_members_ends_the_revoked_and_ignores_strangers(
    begin: Callable[..., Mesh], tmp_path: Path
) -> None:
    mesh = begin(tmp_path, "--closed", "--workers", "2")
    assert {role["network"] for role in mesh.first_card["roles"]} == {"local (closed)"}
    with mesh.client(max_retries=3) as client:
        answer = client.chat.completions.create(model=mesh.first_card["model"], messages=STORY, max_tokens=8)
    assert answer.choices[0].message.content
    until(lambda: workers(mesh) == 2, "both workers are heard")
    (orchestrator,) = mesh.roles("orchestrator")

    # An owner's command ends a worker's membership while it is connected.
    assert haif("network", "revoke", "worker-1", state=tmp_path).returncode == 0
    until(lambda: workers(mesh) == 1, "the revoked worker is gone")
    assert mesh.dropped("orchestrator", "forbidden") > 0
    assert httpx.get(f"{mesh.first_card['gateway']}/readyz").status_code == 200

    # A stranger who knows the network's name and roots finds nobody, and is told why where it dials.
    network = Networks(tmp_path / "networks").find("local", CLOCK.wall()).network
    stranger = Identity(entropy(32))
    wire = Wire(
        identity=stranger, noise_key=NoiseKey(entropy(32)), net=network.net, clock=CLOCK, entropy=entropy,
        on_dropped=lambda _: None, port=None, book=Book(network),
    )  # fmt: skip
    async with wire:
        with pytest.raises((Unauthenticated, ConnectionLost), match="this network is closed"):
            session = await wire.connect(
                parse_address(orchestrator["wire"]), PeerId.parse(orchestrator["peer"]), timeout=limits.DIAL_SECONDS
            )
            await session.call(methods.MODELS.name, b"\x90", timeout=5)
    with pytest.raises(HaifError):
        async with Dht(
            identity=stranger, net=network.net, clock=CLOCK, entropy=entropy, on_dropped=lambda _: None,
            bootstrap=[parse_address(orchestrator["dht"])],
        ):  # fmt: skip
            pass
    assert mesh.dropped("orchestrator", "unauthenticated") > 0


def test_whoever_is_not_admitted_is_told_at_the_start_what_to_do(tmp_path: Path) -> None:
    assert haif("network", "create", "acme", "--closed", state=tmp_path).returncode == 0
    told = haif("orchestrator", "--network", "acme", state=tmp_path)
    assert told.returncode == 2
    assert "haif network admit" in told.stderr
    assert haif("network", "admit", "orchestrator", "--role", "worker", state=tmp_path).returncode == 0
    told = haif("orchestrator", "--network", "acme", state=tmp_path)
    assert "not among its roles" in told.stderr
    assert haif("network", "revoke", "orchestrator", state=tmp_path).returncode == 0
    assert "revoked" in haif("orchestrator", "--network", "acme", state=tmp_path).stderr
