"""A whole mesh whose worker and gateway are at two homes: the roles as people start them, and one relay."""

import http.client
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from haif.base import limits
from haif.identity.service import Keyring
from haif.runtime.clock import entropy
from tests.support.lab_process import ROOT
from tests.support.miniupnpd import DAEMON, daemon
from tests.support.netlab import Host, Lab

pytestmark = pytest.mark.xdist_group("netns-roles")  # one lab
HAIF = (sys.executable, "-m", "haif.cli.main")
PATIENCE_SECONDS = 60.0  # until something that must come true is; never a measure of speed


@contextmanager
def role(host: Host, state: Path, verb: str, *flags: str) -> Iterator[dict[str, Any]]:
    """A role on a host, once it is up; stopped at the end."""
    words = [*HAIF, verb, "--json", "--until-eof", "--state", str(state), "--host", host.address, "--network", "lab"]
    with (state / f"{verb}.log").open("w") as log, subprocess.Popen(
        host.command(*words, *flags), cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
    ) as process:  # fmt: skip
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, (state / f"{verb}.log").read_text()
        yield json.loads(line)
        process.communicate()


def asked(host: Host, url: str, body: dict[str, Any] | None = None, key: str = "") -> tuple[int, str]:
    """Status and text of an answer to a request made on that host."""
    where, _, path = url.removeprefix("http://").partition("/")
    name, _, port = where.rpartition(":")
    connection = http.client.HTTPConnection(name.strip("[]"), int(port), timeout=PATIENCE_SECONDS)
    with host.inside():
        connection.connect()
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    connection.request("GET" if body is None else "POST", "/" + path, json.dumps(body) if body else None, headers)
    with connection.getresponse() as answer:
        text = answer.read().decode()
    connection.close()
    return answer.status, text


def prepared(state: Path) -> tuple[str, str, str]:
    """The peer ids of gateway and orchestrator, and a tenant's key."""
    ring = Keyring(state / "keys")
    peers = [str(ring.load_or_create(name, entropy).peer) for name in ("gateway", "orchestrator")]
    made = subprocess.run(
        [*HAIF, "tenant", "create", "ann", "--state", str(state), "--json"],
        check=True, capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip
    return peers[0], peers[1], json.loads(made.stdout)["key"]


def until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < end, f"it did not happen that {what}"
        time.sleep(0.1)


def sites(lab: Lab, kind: str) -> tuple[Host, Host, Host, Host]:
    """For the orchestrator, the relay, the worker and the gateway."""
    if kind == "ipv6":
        return lab.public6(), lab.public6(), lab.public6(firewall=True), lab.public6(firewall=True)
    return lab.public(), lab.public(), lab.home(kind)[0], lab.home(kind)[0]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "moves"),
    [
        ("port_restricted", True),
        ("ipv6", True),
        pytest.param("symmetric", False, marks=pytest.mark.slow),
    ],
)
def test_a_question_is_answered_between_two_homes_first_through_the_relay(
    lab: Lab, tmp_path: Path, kind: str, moves: bool
) -> None:
    gateway_peer, orchestrator_peer, key = prepared(tmp_path)
    middle, carries, works, asks = sites(lab, kind)
    with ExitStack() as stack:
        enter = stack.enter_context
        orchestrator = enter(role(middle, tmp_path, "orchestrator", "--gateway", gateway_peer, "--model", "haif-demo"))
        known = ("--bootstrap", orchestrator["dht"])
        honours = (*known, "--orchestrator", orchestrator_peer)
        relay = enter(role(carries, tmp_path, "relay", *known))
        enter(role(works, tmp_path, "worker", *honours, "--relay", relay["relay"], "--threads", "1"))
        gateway = enter(role(asks, tmp_path, "gateway", *honours, "--http-port", "0"))
        until(lambda: asked(asks, f"{gateway['http']}/readyz")[0] == 200, "the mesh is ready")
        question = {"model": "haif-demo", "prompt": "The windmill", "max_tokens": 8, "temperature": 0}

        def answer() -> None:
            status, text = asked(asks, f"{gateway['http']}/v1/completions", question, key)
            assert (200, 8) == (status, json.loads(text)["usage"]["completion_tokens"]), text

        answer()
        assert 'haif_reach_sessions_total{way="relayed"} 1.0' in asked(asks, gateway["metrics"])[1]
        told = 'haif_reach_sessions_total{way="moved"} 1.0' if moves else 'haif_reach_sessions_total{way="failed"} 1.0'
        until(lambda: told in asked(asks, gateway["metrics"])[1], "the session moved, or could not")
        answer()


def test_a_worker_of_ipv6_alone_answers_a_gateway_of_ipv4_alone(lab: Lab, tmp_path: Path) -> None:
    """By an orchestrator of both, which carries their records over, and a relay of both, which joins their bytes."""
    gateway_peer, orchestrator_peer, key = prepared(tmp_path)
    middle, carries, works, asks = lab.public(), lab.public(), lab.public6(firewall=True), lab.home("full_cone")[0]
    with ExitStack() as stack:
        enter = stack.enter_context
        serves = ("--gateway", gateway_peer, "--model", "haif-demo", "--host6", middle.address6)
        orchestrator = enter(role(middle, tmp_path, "orchestrator", *serves))
        known = ("--bootstrap", orchestrator["dht"], "--host6", carries.address6)
        relay = enter(role(carries, tmp_path, "relay", *known))
        honours = ("--orchestrator", orchestrator_peer)
        way = ("--bootstrap", orchestrator["dht6"], "--relay", f"{relay['peer']}@{relay['wire6']}")
        worked = enter(role(works, tmp_path, "worker", *honours, *way, "--threads", "1"))
        known = ("--bootstrap", orchestrator["dht"])
        gateway = enter(role(asks, tmp_path, "gateway", *honours, *known, "--http-port", "0"))
        until(lambda: asked(asks, f"{gateway['http']}/readyz")[0] == 200, "the mesh is ready")
        question = {"model": "haif-demo", "prompt": "The windmill", "max_tokens": 8, "temperature": 0}

        def answered() -> bool:
            return asked(asks, f"{gateway['http']}/v1/completions", question, key)[0] == 200

        until(answered, "a worker that the gateway cannot dial answers it")
        worker = worked["peer"]
        pinged = subprocess.run(
            asks.command(*HAIF, "net", "ping", worker, *known, "--host", asks.address, "--network", "lab", "--json",
                         "--state", str(tmp_path / "visitor")),
            check=False, capture_output=True, text=True, cwd=ROOT,
        )  # fmt: skip
        assert 0 == pinged.returncode, pinged.stderr
        assert "relayed" == json.loads(pinged.stdout)["way"]
        assert 'haif_reach_sessions_total{way="relayed"} 1.0' in asked(asks, gateway["metrics"])[1]


@pytest.mark.slow
def test_a_worker_whose_router_gives_ports_is_dialled_from_another_home_without_a_relay(
    lab: Lab, tmp_path: Path
) -> None:
    """It says so once peers of four networks see it at the address that the router claims."""
    if not Path(DAEMON).exists():
        pytest.skip("miniupnpd is not installed (Debian: miniupnpd-nftables)")
    gateway_peer, orchestrator_peer, key = prepared(tmp_path)
    works, asks = lab.home("port_restricted")[0], lab.home("symmetric")[0]
    with ExitStack() as stack:
        enter = stack.enter_context
        enter(daemon(lab.router_of(works), "natpmp", tmp_path))
        orchestrator = enter(
            role(lab.public(), tmp_path, "orchestrator", "--gateway", gateway_peer, "--model", "haif-demo")
        )
        known = ("--bootstrap", orchestrator["dht"])
        for number in range(limits.OBSERVERS_MIN):
            enter(role(lab.public(), tmp_path, "node", *known, "--dht-mode", "persistent", "--name", f"node-{number}"))
        honours = (*known, "--orchestrator", orchestrator_peer)
        enter(role(works, tmp_path, "worker", *honours, "--threads", "1", "--port-mapping"))
        gateway = enter(role(asks, tmp_path, "gateway", *honours, "--http-port", "0"))

        def works_now() -> bool:
            question = {"model": "haif-demo", "prompt": "The windmill", "max_tokens": 8, "temperature": 0}
            return asked(asks, f"{gateway['http']}/v1/completions", question, key)[0] == 200

        until(works_now, "the worker is reached at the port that its router gave")
        assert 'haif_reach_sessions_total{way="relayed"} 0.0' in asked(asks, gateway["metrics"])[1]
