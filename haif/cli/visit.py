"""What the verbs share that join the mesh for a moment: flags, a node of their own, tables.

Without --bootstrap they join the mesh that `haif up` runs from the same state folder.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from haif import config
from haif.base.errors import Misuse
from haif.cli.household import OBSERVER

if TYPE_CHECKING:
    from haif.base.ids import NetId, PeerId
    from haif.base.machine import Address
    from haif.dht.service import Dht
    from haif.identity.admission import Book
    from haif.identity.keys import Identity
    from haif.identity.networks import Charter


def add_common(verb: argparse.ArgumentParser) -> None:
    """The flags of every verb that joins for a moment."""
    verb.add_argument("--bootstrap", action="append", metavar="HOST:PORT", help="a DHT node (default: `haif up`'s)")
    verb.add_argument("--network", help="name of the network, or the file its owner gave you (default: local)")
    verb.add_argument("--host", help="own address; loopback reaches only loopback (default: 127.0.0.1)")
    verb.add_argument("--host6", help="an IPv6 address of ours beside an IPv4 --host, to ask in both directories")
    verb.add_argument("--state", metavar="DIR", help="the state folder of `haif up`")
    verb.add_argument("--json", action="store_true", help="as JSON")


@asynccontextmanager
async def joined(arguments: argparse.Namespace) -> AsyncIterator[tuple[Dht, NetId]]:
    """A node of ours in the directory, under a key that nobody will see again. Raises `Misuse` if none is named."""
    from haif.dht.service import Dht
    from haif.identity.keys import Identity
    from haif.runtime.clock import SystemClock, entropy

    settings = config.load(config.NodeSettings, vars(arguments))
    charter = network_of(settings)
    addresses = settings.bootstrap_addresses or tuple(
        config.parse_address(role["dht"]) for role in roles(settings.folder) if "dht" in role
    )
    if not addresses:
        raise Misuse(
            f"no mesh runs from {settings.folder}: start one with `haif up`, or name a node with --bootstrap HOST:PORT"
        )
    node = Dht(
        identity=Identity(entropy(32)), net=charter.network.net, clock=SystemClock(), entropy=entropy,
        bootstrap=addresses, host=settings.host, beside=settings.host6, on_dropped=lambda _: None, ephemeral=True,
        key=charter.key,
    )  # fmt: skip
    async with node as dht:
        yield dht, charter.network.net


def network_of(settings: config.Common) -> Charter:
    """The network these settings mean."""
    from haif.identity.service import Networks
    from haif.runtime.clock import SystemClock

    return Networks(settings.folder / "networks").find(settings.network, SystemClock().wall())


def visitor(settings: config.Common) -> tuple[Identity, Book]:
    """Under which key to dial: in an open network one that nobody will see again, in a closed one the observer's."""
    from haif.identity.admission import Book
    from haif.identity.keys import Identity
    from haif.identity.service import Keyring, Networks
    from haif.runtime.clock import SystemClock, entropy

    network = network_of(settings).network
    if not network.closed:
        return Identity(entropy(32)), Book(network)
    identity = Keyring(settings.folder / "keys").load_or_create(OBSERVER, entropy)
    networks = Networks(settings.folder / "networks")
    book = networks.book(network, SystemClock().wall(), identity.peer)
    if not book.own:
        raise Misuse(
            f"{network.name} is a closed network, and this machine's observer is not admitted. Its owner can run:\n"
            f"  haif network admit {identity.peer} --role observer --network {network.name}"
        )
    return identity, book


def roles(folder: Path) -> list[dict[str, Any]]:
    """The roles of the running `haif up`; none when none is running."""
    from haif.cli.mesh import read_card

    card = read_card(folder)
    return [] if card is None else list(card.get("roles", []))


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """Columns as wide as they must be."""
    texts = [[str(cell) for cell in row] for row in [head, *rows]]
    widths = [max(len(row[column]) for row in texts) for column in range(len(texts[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
                     for row in texts)  # fmt: skip


def show(arguments: argparse.Namespace, value: object, text: Callable[[], str]) -> None:
    """Print a result for a machine or for a person."""
    print(json.dumps(value) if arguments.json else text())


def parse_peer(text: str) -> PeerId:
    """A peer id. Raises `Misuse`."""
    from haif.base.ids import PeerId

    try:
        return PeerId.parse(text)
    except ValueError as error:
        raise Misuse(f"{error}; `haif peers --json` lists whole peer ids") from None


def text_of(address: Address) -> str:
    """HOST:PORT."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
