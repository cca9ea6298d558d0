"""`haif dht`, `haif peers`, `haif net ping`: against real nodes on loopback, with and without the card of `haif up`."""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest

from haif.base import codec
from haif.base.ids import Digest, ModelDigest, PeerId
from haif.cli.dht import _counted, estimated_size
from haif.cli.main import main
from haif.cli.visit import table, text_of
from haif.dht.contact import Contact, node_id
from haif.dht.service import Dht
from haif.identity.admission import open_network
from haif.identity.keys import Identity, NoiseKey
from haif.protocol.offers import Offer, Presence
from haif.protocol.reach import Place
from haif.protocol.records import RecordKind, offer_topic, presence_topic
from haif.protocol.sandbox import Sandbox
from haif.runtime.clock import SystemClock, entropy
from haif.telemetry import names
from haif.telemetry.service import Telemetry
from haif.wire.service import Wire

NET = open_network("local").net
MODEL = ModelDigest(b"m" * 32)
NODES = 6


@dataclass(frozen=True)
class Town:
    """A few nodes on loopback; the first has a wire and says so, the second offers a model."""

    peers: list[PeerId]
    dht: list[str]
    wire: str


@pytest.fixture(scope="module")
def town() -> Iterator[Town]:
    ready, stop = threading.Event(), asyncio.Event()
    found: list[Town] = []
    loop = asyncio.new_event_loop()

    async def live() -> None:
        identities = [Identity(bytes([number]) * 32) for number in range(1, NODES + 1)]
        nodes = list[Dht]()
        wire = Wire(
            identity=identities[0], noise_key=NoiseKey(entropy(32)), net=NET, clock=SystemClock(), entropy=entropy,
            on_dropped=lambda _: None,
        )  # fmt: skip
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(wire)
            for identity in identities:
                node = Dht(
                    identity=identity, net=NET, clock=SystemClock(), entropy=entropy,
                    bootstrap=[node.address for node in nodes[:1]], on_dropped=lambda _: None,
                )  # fmt: skip
                nodes.append(await stack.enter_async_context(node))
            host, port = wire.address
            presence = codec.encode(Presence("orchestrator", Place(((host, port),)), b""))
            topic = presence_topic(NET, identities[0].peer)
            await nodes[0].publish(RecordKind.PRESENCE, topic, presence, ttl_ms=600_000)
            offer = codec.encode(
                Offer(MODEL, Place(((host, 1234),)), 4096, 8, Sandbox("reduced", ["cgroups"]), "test", b"")
            )
            await nodes[1].publish(RecordKind.OFFER, offer_topic(NET, MODEL), offer, ttl_ms=600_000)
            peers, addresses = [each.peer for each in identities], [text_of(each.address) for each in nodes]
            found.append(Town(peers, addresses, text_of((host, port))))
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(live()))
    thread.start()
    assert ready.wait(60)
    yield found[0]
    loop.call_soon_threadsafe(stop.set)
    thread.join()
    loop.close()


@pytest.fixture
def ask(town: Town, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    def run(*words: str, code: int = 0, as_json: bool = True):
        flags = ["--bootstrap", town.dht[0], "--state", str(tmp_path), *(["--json"] if as_json else [])]
        assert main([*words, *flags]) == code
        text = capsys.readouterr().out
        return json.loads(text) if as_json else text

    run.flags = ["--bootstrap", town.dht[0], "--state", str(tmp_path)]
    return run


def test_a_crawl_lists_every_node_and_where_it_is(town: Town, ask) -> None:
    rows = ask("dht", "crawl")
    assert {row["peer"]: row["dht"] for row in rows} == {
        str(peer): address for peer, address in zip(town.peers, town.dht, strict=True)
    }


def test_the_records_of_a_topic_are_shown_with_what_they_say(town: Town, ask) -> None:
    (offer,) = ask("dht", "get", f"offers:{MODEL}")
    assert offer["owner"] == str(town.peers[1])
    said = {"model": str(MODEL), "place": "127.0.0.1:1234", "sandbox": "reduced, without cgroups"}
    assert offer["body"] | said == offer["body"]
    (presence,) = ask("dht", "get", f"presence:{town.peers[0]}")
    assert presence["body"]["role"] == "orchestrator"
    text = ask("dht", "get", str(offer_topic(NET, MODEL)), as_json=False)
    assert "KIND" in text
    assert "slots=8" in text


def test_a_topic_with_nothing_ends_with_3(ask) -> None:
    assert ask("dht", "get", "0" * 64, code=3) == []
    assert "nobody has announced" in ask("dht", "get", "0" * 64, code=3, as_json=False)


def test_a_peer_that_is_there_is_found_and_one_that_is_not_is_not(town: Town, ask) -> None:
    found = ask("dht", "lookup", str(town.peers[3]))
    assert found["found"]
    assert found["closest"][0]["peer"] == str(town.peers[3])
    assert not ask("dht", "lookup", "ab" * 32, code=3)["found"]
    assert "does not answer" in ask("dht", "lookup", "ab" * 32, code=3, as_json=False)


def test_peers_shows_whose_wire_is_known(town: Town, ask) -> None:
    rows = {row["peer"]: row for row in ask("peers")}
    assert rows[str(town.peers[0])]["wire"] == town.wire
    assert rows[str(town.peers[0])]["role"] == "orchestrator"
    assert rows[str(town.peers[2])]["wire"] == ""
    assert "ROLE" in ask("peers", as_json=False)


def test_stats_counts_a_small_network_right(ask) -> None:
    value = ask("dht", "stats")
    assert NODES <= value["nodes_estimated"] <= 4 * NODES
    assert value["contacts"] >= NODES
    assert "lookup" in ask("dht", "stats", as_json=False)


def test_a_ping_finds_the_peer_proves_its_key_and_times_round_trips(town: Town, ask) -> None:
    value = ask("net", "ping", str(town.peers[0]), "--count", "3")
    assert value["wire"] == town.wire
    assert len(value["round_trips_ms"]) == 3
    assert "proved its key" in ask("net", "ping", f"{town.peers[0]}@{town.wire}", as_json=False)


def test_the_status_says_that_a_loopback_mesh_is_not_seen_from_outside(town: Town, ask) -> None:
    value = ask("net", "status")
    assert (value["mapping"], value["address"], value["observers"]) == ("unknown", None, 1)
    assert "too few networks" in ask("net", "status", as_json=False)


def test_the_status_of_a_host_of_both_families_is_told_of_each(town: Town, ask) -> None:
    value = ask("net", "status", "--host6", "::1")
    assert ("unknown", "unknown", 0) == (value["mapping"], value["ipv6"]["mapping"], value["ipv6"]["observers"])
    assert "udp over IPv6" in ask("net", "status", "--host6", "::1", as_json=False)


def test_a_ping_of_somebody_else_at_that_address_is_refused(town: Town, ask) -> None:
    ask("net", "ping", f"{town.peers[2]}@{town.wire}", code=6, as_json=False)


def test_a_ping_of_a_peer_without_an_address_says_what_to_do(
    town: Town, ask, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["net", "ping", str(town.peers[2]), "--bootstrap", town.dht[0]]) == 5
    assert "@HOST:PORT" in capsys.readouterr().err


def test_the_card_of_haif_up_stands_in_for_bootstrap(
    town: Town, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    roles = [{"name": "worker-1", "peer": str(town.peers[0]), "dht": town.dht[0], "wire": town.wire, "metrics": "x"}]
    card = tmp_path / "up.json"
    card.write_text(json.dumps({"gateway": "http://127.0.0.1:1", "key": "haif-x", "roles": roles}))
    card.chmod(0o600)
    assert main(["peers", "--state", str(tmp_path), "--json"]) == 0
    rows = {row["peer"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows[str(town.peers[0])]["role"] == "worker-1"
    assert main(["net", "ping", str(town.peers[0]), "--state", str(tmp_path), "--json"]) == 0
    capsys.readouterr()
    assert main(["dht", "stats", "--state", str(tmp_path)]) == 0
    assert "worker-1  -" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words", [["dht", "crawl"], ["peers"], ["dht", "get", "nonsense"], ["dht", "get", "cats:x"], ["net", "ping", "me"]]
)
def test_what_cannot_be_asked_is_refused_with_a_hint(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--state", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("haif: ")


def test_the_size_of_a_network_is_estimated_within_a_quarter() -> None:
    random = Random(1)
    contacts = [Contact(PeerId(random.randbytes(32)), ("10.0.0.1", 1)) for _ in range(2000)]
    estimates = []
    for _ in range(20):
        target = Digest(random.randbytes(32))
        key = int.from_bytes(target, "big")
        estimates.append(estimated_size(target, sorted(contacts, key=lambda c: node_id(c.peer) ^ key)[:20]))
    assert 1500 <= sorted(estimates)[10] <= 2500
    assert estimated_size(Digest(bytes(32)), []) == 0


def test_a_table_is_as_wide_as_its_cells() -> None:
    assert table(("A", "LONG"), [("wide", 1), ("x", "y")]) == "A     LONG\nwide  1\nx     y"


async def test_what_a_role_counted_is_read_from_its_metrics_and_from_no_others_that_begin_alike(tmp_path: Path) -> None:
    async with Telemetry(role="node", instance="node", spans=tmp_path / "spans.sqlite") as telemetry:
        telemetry.gauge(names.DHT_NODES, 7)
        telemetry.gauge(names.DHT_NODES_ESTIMATED, 1000)
        telemetry.gauge(names.DHT_WATCHES, 2)
        telemetry.total(names.DHT_DATAGRAMS, 3, direction="in")
        telemetry.total(names.DHT_DATAGRAMS, 4, direction="out")
        host, port = await telemetry.serve_metrics("127.0.0.1", 0)
        row = await asyncio.to_thread(_counted, {"name": "node", "metrics": f"http://{host}:{port}/metrics"})
        assert row == {
            "name": "node", "contacts": 7, "records": 0, "waiting": 0, "watches": 2, "operations": 0, "datagrams": 7,
            "failed": 0,
        }  # fmt: skip
    assert set(_counted({"name": "gone", "metrics": f"http://{host}:{port}/metrics"}).values()) == {"gone", "-"}
