"""`haif dht` and `haif peers`: look into the directory from outside, as a node that joins for a moment."""

from __future__ import annotations

import argparse
import asyncio
import time
import urllib.request
from collections.abc import Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, Final

from haif import config
from haif.cli import put
from haif.cli.topics import TOPIC_HELP, body_of, parse_topic
from haif.cli.visit import add_common, joined, parse_peer, roles, show, table, text_of

if TYPE_CHECKING:
    from haif.base.ids import Digest
    from haif.dht.contact import Contact
    from haif.dht.service import Dht

NOT_FOUND: Final = 3
CRAWL_LOOKUPS_MAX: Final = 512  # enough for about 5,000 nodes
_KEY_SPACE: Final = 1 << 256
_SAMPLES: Final = 8  # lookups from which `stats` estimates
_SCRAPE_SECONDS: Final = 2.0
_COUNTED: Final = (  # what `stats` shows of a role's /metrics, and under which label
    ("contacts", "haif_dht_nodes", ""),
    ("records", "haif_dht_records", ""),
    ("waiting", "haif_dht_waiting", ""),
    ("watches", "haif_dht_watches", ""),
    ("operations", "haif_dht_operations", ""),
    ("datagrams", "haif_dht_datagrams_total", ""),
    ("failed", "haif_dht_queries_total", 'outcome="failed"'),
)


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the verbs."""
    group = commands.add_parser("dht", help="look into the directory and keep values in it")
    verbs = group.add_subparsers(metavar="VERB", required=True)
    get = verbs.add_parser("get", help="print the live records at a topic; exit code 3 if there is none")
    get.add_argument("topic", metavar="TOPIC", help=TOPIC_HELP)
    put_value = verbs.add_parser(
        "put", help="keep a value: under the name that its bytes give it, or under one of ours"
    )
    put.add(put_value)
    lookup = verbs.add_parser("lookup", help="find a peer and its neighbours in the key space; exit code 3 if absent")
    lookup.add_argument("peer", metavar="PEER")
    stats = verbs.add_parser("stats", help="estimate the network's size and show what each role of `haif up` counted")
    crawl = verbs.add_parser("crawl", help="list every node that can be found")
    peers = commands.add_parser("peers", help="list every node of the mesh, with what is known of it")
    works = (_get, put.put, _lookup, _stats, _crawl, _peers)
    for verb, work in zip((get, put_value, lookup, stats, crawl, peers), works, strict=True):
        add_common(verb)
        verb.set_defaults(handler=_handler(work))


# --- the verbs --------------------------------------------------------------------------------------------------------


def _handler(work: Callable[[argparse.Namespace], Coroutine[Any, Any, int]]) -> Callable[[argparse.Namespace], int]:
    return lambda arguments: asyncio.run(work(arguments))


async def _get(arguments: argparse.Namespace) -> int:
    from haif.base.ids import NetId
    from haif.protocol.records import RecordKind

    parse_topic(arguments.topic, NetId(bytes(NetId.size)))  # a mistake is told before anybody is asked
    async with joined(arguments) as (dht, net):
        records = await dht.lookup(parse_topic(arguments.topic, net))
    rows: list[dict[str, Any]] = [
        {
            "kind": RecordKind(record.payload.kind).name.lower(),
            "owner": str(record.signer),
            "sequence": record.payload.sequence,
            "expires": record.payload.expires,
            "body": body_of(record),
        }
        for record in records
    ]
    show(arguments, rows, lambda: _records_text(arguments.topic, rows))
    return 0 if rows else NOT_FOUND


def _records_text(topic: str, rows: list[dict[str, Any]]) -> str:
    if not rows:
        return f"nobody has announced anything at {topic}"
    now = time.time() * 1000
    return table(
        ("KIND", "OWNER", "SEQUENCE", "EXPIRES IN", "BODY"),
        [
            (
                row["kind"], row["owner"][:16], row["sequence"], f"{(row['expires'] - now) / 1000:.0f} s",
                " ".join(f"{key}={str(value)[:40]}" for key, value in row["body"].items()),
            )
            for row in rows
        ],
    )  # fmt: skip


async def _lookup(arguments: argparse.Namespace) -> int:
    from haif.base.ids import Digest
    from haif.dht.contact import node_id

    peer = parse_peer(arguments.peer)
    key = node_id(peer)
    async with joined(arguments) as (dht, _):
        began = time.perf_counter()
        contacts = await dht.find(Digest(key.to_bytes(Digest.size, "big")))
        took_ms = (time.perf_counter() - began) * 1000
    there = any(contact.peer == peer for contact in contacts)
    rows: list[dict[str, Any]] = [
        {**_view(contact), "distance_bits": (node_id(contact.peer) ^ key).bit_length()} for contact in contacts
    ]
    show(
        arguments,
        {"peer": str(peer), "found": there, "milliseconds": round(took_ms, 1), "closest": rows},
        lambda: (
            f"{peer.short} {'is there' if there else 'does not answer'}; its neighbours ({took_ms:.0f} ms):\n"
            + table(
                ("PEER", "ADDRESS", "DISTANCE"), [(r["peer"][:16], r["dht"], f"2^{r['distance_bits']}") for r in rows]
            )
        ),
    )
    return 0 if there else NOT_FOUND


async def _stats(arguments: argparse.Namespace) -> int:
    from haif.base.ids import Digest
    from haif.runtime.clock import entropy

    began = time.perf_counter()
    async with joined(arguments) as (dht, _):
        join_ms = (time.perf_counter() - began) * 1000
        times, sizes = list[float](), list[float]()
        for _ in range(_SAMPLES):
            target = Digest(entropy(Digest.size))
            began = time.perf_counter()
            contacts = await dht.find(target)
            times.append((time.perf_counter() - began) * 1000)
            sizes.append(estimated_size(target, contacts))
        seen = dht.statistics()
    settings = config.load(config.NodeSettings, vars(arguments))
    counted = await asyncio.to_thread(lambda: [_counted(role) for role in roles(settings.folder)])
    value = {
        "nodes_estimated": round(sorted(sizes)[_SAMPLES // 2]),
        "contacts": seen.contacts,
        "join_ms": round(join_ms, 1),
        "lookup_ms": round(sorted(times)[_SAMPLES // 2], 1),
        "queries_failed": seen.queries_failed,
        "roles": counted,
    }
    columns = ("name", "contacts", "records", "waiting", "watches", "operations", "datagrams", "failed")
    show(
        arguments,
        value,
        lambda: (
            f"about {value['nodes_estimated']} nodes, {value['contacts']} of them known after joining for a moment\n"
            f"joining took {value['join_ms']} ms, a lookup {value['lookup_ms']} ms\n"
            + table(
                ("ROLE", *(name.upper() for name in columns[1:])), [[row[name] for name in columns] for row in counted]
            )
            * bool(counted)
        ),
    )
    return 0


async def _crawl(arguments: argparse.Namespace) -> int:
    async with joined(arguments) as (dht, _):
        rows = [_view(contact) for contact in await crawl(dht)]
    show(arguments, rows, lambda: table(("PEER", "ADDRESS"), [(row["peer"], row["dht"]) for row in rows]))
    return 0


async def _peers(arguments: argparse.Namespace) -> int:
    from haif.protocol.records import presence_topic

    settings = config.load(config.NodeSettings, vars(arguments))
    known = {role["peer"]: role for role in roles(settings.folder) if "peer" in role}
    rows: list[dict[str, str]] = []
    async with joined(arguments) as (dht, net):
        for contact in await crawl(dht):
            row = {**_view(contact), "role": "", "wire": ""}
            role = known.get(row["peer"])
            if role is not None:
                row |= {"role": str(role.get("name", "")), "wire": str(role.get("wire", ""))}
            else:
                for record in await dht.lookup(presence_topic(net, contact.peer)):
                    if record.signer == contact.peer:
                        body = body_of(record)
                        row |= {"role": str(body.get("role", "")), "wire": str(body.get("place", ""))}
            rows.append(row)
    show(
        arguments,
        rows,
        lambda: table(
            ("PEER", "ROLE", "DHT", "WIRE"),
            [(row["peer"][:16], row["role"] or "-", row["dht"], row["wire"] or "-") for row in rows],
        ),
    )
    return 0


# --- below ------------------------------------------------------------------------------------------------------------


async def crawl(dht: Dht) -> list[Contact]:
    """Every node that lookups find: at points ever closer together, until a round brings nobody new."""
    from haif.base.ids import Digest

    found: dict[bytes, Contact] = {}
    points = 1
    while points <= CRAWL_LOOKUPS_MAX:
        before = len(found)
        for number in range(points):
            target = (2 * number + 1) * (_KEY_SPACE // (2 * points))
            for contact in await dht.find(Digest(target.to_bytes(Digest.size, "big"))):
                found[contact.peer] = contact
        if len(found) == before:
            break
        points *= 2
    return [found[peer] for peer in sorted(found)]


def estimated_size(target: Digest, contacts: Iterable[Contact]) -> float:
    """How many nodes there are, from how close the closest are: the i-th of N is i/(N+1) of the key space away.

    The least squares fit over all of them: N + 1 = sum of i^2 / sum of i * distance_i.
    """
    from haif.dht.contact import node_id

    key = int.from_bytes(target, "big")
    distances = sorted((node_id(contact.peer) ^ key) / _KEY_SPACE for contact in contacts)
    if not distances:
        return 0.0
    squares = sum(rank * rank for rank in range(1, len(distances) + 1))
    estimate = squares / sum(rank * distance for rank, distance in enumerate(distances, 1)) - 1
    return max(float(len(distances)), estimate)


def _view(contact: Contact) -> dict[str, str]:
    return {"peer": str(contact.peer), "dht": text_of(contact.address)}


def _counted(role: dict[str, Any]) -> dict[str, Any]:
    """What a role's own /metrics say of its DHT node; `-` where it does not answer."""
    row: dict[str, Any] = dict.fromkeys((column for column, _, _ in _COUNTED), "-")
    row["name"] = role.get("name", "?")
    try:
        with urllib.request.urlopen(str(role.get("metrics")), timeout=_SCRAPE_SECONDS) as answer:  # noqa: S310 - a card
            lines = answer.read().decode().splitlines()
    except (OSError, ValueError):
        return row
    for column, metric, label in _COUNTED:
        series = (f"{metric} ", f"{metric}{{")  # and no other metric that begins alike
        values = [float(line.rpartition(" ")[2]) for line in lines if line.startswith(series) and label in line]
        row[column] = int(sum(values))
    return row
