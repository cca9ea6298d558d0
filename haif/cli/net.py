"""`haif net`: shake hands with a peer over the wire and time round trips (ping); ask how peers see us (status)."""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

from haif import config
from haif.base.errors import HaifError, Misuse, Unavailable, Unsupported
from haif.cli import visit

if TYPE_CHECKING:
    from haif.base.ids import NetId, PeerId
    from haif.base.machine import Address
    from haif.dht.service import Dht
    from haif.protocol.reach import Place
    from haif.reach.classify import Verdict
    from haif.reach.service import Reach

_CONNECT_SECONDS: Final = 3.0
_CALL_SECONDS: Final = 3.0
_COUNT_MAX: Final = 1000
MEANINGS: Final = {
    "open": "peers reach this machine directly, and nodes of the DHT may rely on it",
    "consistent": "behind a NAT or firewall: peers come through a relay first, and then directly where theirs allows",
    "random": "behind a NAT that gives every connection its own port: peers come through a relay, and stay there",
    "unknown": "too few networks have seen this machine to say: a loopback mesh, or the DHT is small",
}
_PROBE: Final = "haif.ping"  # served by nobody: the peer's refusal is the answer that is timed


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the verb."""
    group = commands.add_parser("net", help="reach peers over the wire")
    verbs = group.add_subparsers(metavar="VERB", required=True)
    ping = verbs.add_parser("ping", help="time the handshake and round trips; exit code 5 if it cannot be reached")
    ping.add_argument("peer", metavar="PEER[@HOST:PORT]", help="a peer id; without an address it is looked up")
    ping.add_argument("--count", type=int, default=4, help="round trips (default: 4)")
    visit.add_common(ping)
    ping.set_defaults(handler=lambda arguments: asyncio.run(_ping(arguments)))
    status = verbs.add_parser("status", help="ask peers of different networks how they see this machine")
    status.add_argument(
        "--observer", action="append", metavar="PEER@HOST:PORT", default=[],
        help="a peer whose wire to ask as well (TCP may be mapped otherwise than UDP); give four of different networks",
    )  # fmt: skip
    visit.add_common(status)
    status.set_defaults(handler=lambda arguments: asyncio.run(_status(arguments)))


async def _status(arguments: argparse.Namespace) -> int:
    from haif.reach.service import judge

    observers = [(visit.parse_peer(peer), config.parse_address(where))
                 for peer, _, where in (text.partition("@") for text in arguments.observer)]  # fmt: skip
    async with visit.joined(arguments) as (dht, _):
        verdict, *beside = await asyncio.gather(*map(judge, dht.sides))
    value = _view(verdict) | {"meaning": MEANINGS[verdict.mapping.value]}
    lines = [_line("udp", verdict), MEANINGS[verdict.mapping.value]]
    for other in beside:
        value["ipv6"] = _view(other) | {"meaning": MEANINGS[other.mapping.value]}
        lines += [_line("udp over IPv6", other), MEANINGS[other.mapping.value]]
    if observers:
        over_tcp = await _wire_status(arguments, observers)
        value["tcp"] = _view(over_tcp)
        lines.insert(1, _line("tcp", over_tcp))
    visit.show(arguments, value, lambda: "\n".join(lines))
    return 0


def _view(verdict: Verdict) -> dict[str, Any]:
    return {
        "mapping": verdict.mapping.value,
        "host": verdict.host,
        "address": visit.text_of(verdict.address) if verdict.address else None,
        "observers": verdict.observers,
    }


def _line(what: str, verdict: Verdict) -> str:
    where = visit.text_of(verdict.address) if verdict.address else verdict.host
    seen = f"seen at {where}" if where else "no address agreed upon"
    return f"{what}: {verdict.mapping}, {seen}, by {verdict.observers} network{'' if verdict.observers == 1 else 's'}"


async def _wire_status(arguments: argparse.Namespace, observers: list[tuple[PeerId, Address]]) -> Verdict:
    from haif.protocol.relay import RelayAt
    from haif.reach.service import judge_wire

    async with _visiting(config.load(config.NodeSettings, vars(arguments))) as reach:
        return await judge_wire(reach.meetings, [RelayAt(peer, *address) for peer, address in observers])


@asynccontextmanager
async def _visiting(settings: config.Common, *, site: bool = False, dht: Dht | None = None) -> AsyncIterator[Reach]:
    """A wire that only dials, and what finds ways for it; with `dht`, through relays of the other family, too."""
    from haif.identity.keys import NoiseKey
    from haif.reach.service import Reach, Relayed
    from haif.relay.service import Carrier
    from haif.runtime.clock import SystemClock, entropy
    from haif.wire.service import Wire

    identity, book = visit.visitor(settings)
    wire = Wire(
        identity=identity, noise_key=NoiseKey(entropy(32)), net=book.net, clock=SystemClock(),
        entropy=entropy, on_dropped=lambda _: None, host=settings.host, port=None, book=book,
    )  # fmt: skip
    site = site or settings.allow_private
    reach = Reach(
        identity=identity, net=book.net, wire=wire, clock=SystemClock(), on_dropped=lambda _: None, site=site,
        carry=Carrier(wire) if dht is None else Relayed(Carrier(wire), dht, book.net, site=site),
    )  # fmt: skip
    async with wire, reach:
        yield reach


async def _ping(arguments: argparse.Namespace) -> int:
    from haif.protocol.reach import Place

    if not 1 <= arguments.count <= _COUNT_MAX:
        raise Misuse(f"--count is a number from 1 to {_COUNT_MAX}")
    text, _, where = arguments.peer.partition("@")
    peer = visit.parse_peer(text)
    settings = config.load(config.NodeSettings, vars(arguments))
    async with AsyncExitStack() as stack:
        dht: Dht | None = None
        place = Place((config.parse_address(where),)) if where else _carded(peer, settings)
        if place is None:
            joined, net = await stack.enter_async_context(visit.joined(arguments))
            dht, place = joined, await _announced(peer, joined, net)
        reach = await stack.enter_async_context(_visiting(settings, site=bool(where), dht=dht))
        began = time.perf_counter()
        session = await reach.connect(peer, place, timeout=_CONNECT_SECONDS)
        handshake_ms = (time.perf_counter() - began) * 1000
        await reach.settled(session)
        trips = [await _trip(session) for _ in range(arguments.count)]
        way, remote = reach.path(session), session.remote
    value = {
        "peer": str(peer),
        "way": way,
        "wire": visit.text_of(remote),
        "handshake_ms": round(handshake_ms, 2),
        "round_trips_ms": [round(trip, 3) for trip in trips],
    }
    visit.show(
        arguments,
        value,
        lambda: (
            f"{peer.short} at {value['wire']} ({way}) proved its key in {handshake_ms:.1f} ms\n"
            f"{len(trips)} round trips: {min(trips):.2f} to {max(trips):.2f} ms, mean {sum(trips) / len(trips):.2f} ms"
        ),
    )
    return 0


async def _trip(session: Any) -> float:
    """Milliseconds until the peer has said that it serves no such method."""
    began = time.perf_counter()
    with suppress(Unsupported):
        await session.call(_PROBE, b"", timeout=_CALL_SECONDS)
    return (time.perf_counter() - began) * 1000


def _carded(peer: PeerId, settings: config.Common) -> Place | None:
    """Where a peer of the running `haif up` is reached; None for others."""
    from haif.protocol.reach import Place

    for role in visit.roles(settings.folder):
        if role.get("peer") == str(peer) and "wire" in role:
            return Place((config.parse_address(role["wire"]),))
    return None


async def _announced(peer: PeerId, dht: Dht, net: NetId) -> Place:
    """Where a peer itself says that it is reached."""
    from haif.protocol.offers import whereabouts
    from haif.protocol.records import presence_topic

    try:
        place, _ = whereabouts(await dht.lookup(presence_topic(net, peer)), peer)
    except HaifError:
        known = f"{str(peer)[:8]}…@HOST:PORT"
        raise Unavailable(f"{peer.short} has announced no address; if you know it, ask for {known}") from None
    return place
