"""One role at a time, as people start them."""

import asyncio
import json
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx

from haif.orchestrator.service import MIGRATIONS, snapshots
from haif.runtime import disk
from haif.runtime.clock import SystemClock
from haif.storage.service import Database, Journal
from tests.e2e.conftest import HAIF, haif, until
from tests.support.certificates import Authority


def test_a_role_that_is_still_starting_stops_when_told(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        silent.settimeout(30)
        host, port = silent.getsockname()
        node = subprocess.Popen(
            [*HAIF, "node", "--bootstrap", f"{host}:{port}", "--state", str(tmp_path)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        silent.recvfrom(2048)  # it asks to join, and is told nothing
        node.send_signal(signal.SIGTERM)
        out, err = node.communicate(timeout=2)
    assert (node.returncode, out, err) == (0, b"", b"")


def test_an_orchestrator_that_nobody_may_ask_says_so_and_ends(tmp_path: Path) -> None:
    told = haif("orchestrator", state=tmp_path)
    assert told.returncode == 2
    assert "give --gateway PEER" in told.stderr


def test_node_and_relay_and_gateway_are_found_and_met_by_one_address(tmp_path: Path) -> None:
    with ExitStack() as stack:
        node = stack.enter_context(role("node", tmp_path / "node"))
        one = ("--bootstrap", node["dht"])
        relay = stack.enter_context(role("relay", tmp_path / "relay", *one))
        asks = ("--orchestrator", "ab" * 32, "--http-port", "0")
        gateway = stack.enter_context(role("gateway", tmp_path / "gateway", *one, *asks))
        found = {row["peer"]: row for row in json.loads(haif("peers", *one, "--json", state=tmp_path).stdout)}
        for kind, ready in (("node", node), ("relay", relay), ("gateway", gateway)):
            assert (kind, ready["wire"]) == (found[ready["peer"]]["role"], found[ready["peer"]]["wire"])
            told = json.loads(haif("net", "ping", ready["peer"], *one, "--json", state=tmp_path).stdout)
            assert ready["wire"] == told["wire"]


@contextmanager
def role(kind: str, state: Path, *flags: str) -> Iterator[dict[str, Any]]:
    """A role in a process of its own, once it is up."""
    words = [*HAIF, kind, "--json", "--until-eof", "--state", str(state), *flags]
    with subprocess.Popen(words, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())
        process.communicate()


def test_a_worker_whose_relay_is_not_there_says_so(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        host, port = closed.getsockname()
        worker = subprocess.Popen(
            [*HAIF, "worker", "--relay", f"{'ab' * 32}@{host}:{port}", "--orchestrator", "cd" * 32,
             "--state", str(tmp_path)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        assert worker.stderr is not None
        said = worker.stderr.readline()
        worker.send_signal(signal.SIGTERM)
        worker.communicate(timeout=30)
    assert said == b"the relay abababab\xe2\x80\xa6 at %s:%d gives no place yet; it is asked again and again\n" % (
        host.encode(), port,
    )  # fmt: skip


async def damaged_snapshot(path: Path) -> None:
    async with Database(path, MIGRATIONS, exclusive=True) as database:
        await snapshots.write(Journal(database), SystemClock())
        await database.write(lambda connection: connection.execute("UPDATE journal_parts SET data = zeroblob(9)"))


def test_h_t3_a_snapshot_that_is_not_the_journals_is_refused_by_name(tmp_path: Path) -> None:
    asyncio.run(damaged_snapshot(disk.private_folder(tmp_path / "orchestrator") / "journal.sqlite"))
    role = subprocess.Popen(
        [*HAIF, "orchestrator", "--gateway", "ab" * 32, "--json", "--state", str(tmp_path)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert role.stdout is not None
    assert "peer" in json.loads(role.stdout.readline())
    role.send_signal(signal.SIGTERM)
    _, told = role.communicate()
    assert "the snapshot after journal entry 0 is not what was written there" in told
    assert "the journal itself is read instead" in told


def test_a_gateway_takes_a_new_certificate_while_it_runs_and_says_when_it_will_not_do(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "authority")
    files = authority.issue("gateway")
    role = subprocess.Popen(
        [*HAIF, "gateway", "--orchestrator", "ab" * 32, "--http-port", "0", "--json",
         "--state", str(tmp_path / "state"), "--tls-cert", str(files.certificate), "--tls-key", str(files.key)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert role.stdout is not None
    assert role.stderr is not None
    host, _, port = json.loads(role.stdout.readline())["http"].removeprefix("https://").rpartition(":")

    def shown() -> bytes | None:
        context = ssl.create_default_context(cafile=authority.file)
        with socket.create_connection((host, int(port))) as raw, context.wrap_socket(raw, server_hostname=host) as made:
            return made.getpeercert(binary_form=True)

    before = shown()
    files.certificate.write_text("nothing")
    for _ in range(2):  # whoever renews certificates sends SIGHUP, and is told each time
        role.send_signal(signal.SIGHUP)
        assert "the certificate in use stays" in role.stderr.readline()
    assert shown() == before
    authority.issue("gateway")
    role.send_signal(signal.SIGHUP)
    until(lambda: shown() != before or None, "the new certificate is used")
    role.send_signal(signal.SIGTERM)
    role.communicate(timeout=30)
    assert role.returncode == 0


def test_a_gateway_does_not_listen_where_others_could_read_along(tmp_path: Path) -> None:
    told = haif("gateway", "--orchestrator", "ab" * 32, "--http-host", "0.0.0.0", state=tmp_path)
    assert told.returncode == 2
    assert "give --tls-cert and --tls-key" in told.stderr


def test_operators_ask_where_the_gateway_says(tmp_path: Path) -> None:
    key = haif("admin", "create", "ann", state=tmp_path).stdout.strip()
    role = subprocess.Popen(
        [*HAIF, "gateway", "--orchestrator", "ab" * 32, "--http-port", "0", "--json", "--admin",
         "--state", str(tmp_path)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert role.stdout is not None
    where = json.loads(role.stdout.readline())["admin"]
    sent = {"authorization": f"Bearer {key}"}
    assert httpx.post(f"{where}/tenants", headers=sent, json={"name": "acme"}).status_code == 201
    role.send_signal(signal.SIGTERM)
    role.communicate(timeout=30)
    assert "acme" in haif("tenant", "ls", state=tmp_path).stdout
