"""What settings name: the models of this machine, peers and relays; and what they say of a node among the others."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

from haif import config
from haif.artifacts.service import ModelStore
from haif.base import limits
from haif.base.amounts import parse_bytes
from haif.base.errors import Misuse
from haif.base.ids import PeerId
from haif.base.machine import Address
from haif.identity.service import Keyring
from haif.protocol.relay import RelayAt
from haif.runtime.clock import SystemClock


def model_store(settings: config.Common) -> ModelStore:
    """The models of this machine, trusting its own publisher key and the publishers in the settings."""
    ring = Keyring(settings.folder / "keys")
    own = [ring.load("publisher").peer] if ring.path("publisher").exists() else []
    named = peers(getattr(settings, "publishers", ()), "publisher")
    return ModelStore(settings.folder / "models", publishers=[*own, *named], clock=SystemClock())


def memory_bytes(settings: config.WorkerSettings) -> int:
    """What models may take of this machine's memory: as told, else a share of what there is. Raises `Misuse`."""
    if settings.memory:
        return parse_bytes(settings.memory)
    return int(limits.MEMORY_SHARE * _machine_bytes())


def _machine_bytes() -> int:
    """The memory of this machine, or of the container we are in."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for path in (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")):
        with suppress(OSError, ValueError):
            machine = min(machine, int(path.read_text()))
    return machine


def begins_persistent(settings: config.Common) -> bool:
    """Whether others may rely on this node from its start: as told, or because its mesh is one machine or one site.

    Elsewhere a node must have been reachable for long, unless it is the first and there is nobody to say so.
    """
    if settings.dht_mode != "auto":
        return settings.dht_mode == "persistent"
    return settings.allow_private or config.is_loopback(settings.host) or not settings.bootstrap


def looks_nearby(settings: config.Common) -> bool:
    """Whether to look for nodes nearby: never for those who listen where nobody else is."""
    try:
        address = ip_address(settings.host)
    except ValueError:
        return False  # a name; `--bootstrap` finds the others
    return settings.lan and not address.is_loopback


async def relay_at(text: str) -> RelayAt:
    """A relay by PEER@HOST:PORT; a name is looked up once, for sessions are told apart by the relay's address."""
    peer, at, where = text.partition("@")
    if not at:
        raise Misuse(f"--relay: {text!r} is not PEER@HOST:PORT, as `haif relay` prints it")
    host, port = config.parse_address(where)
    (relay,) = peers((peer,), "relay")
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise Misuse(f"--relay: {host!r} is no address and no known name ({error})") from None
    return RelayAt(relay, str(found[0][4][0]), port)


def peers(texts: tuple[str, ...], what: str) -> list[PeerId]:
    """The peers these texts name. Raises `Misuse`, naming the flag `what`."""
    try:
        return [PeerId.parse(text) for text in texts]
    except ValueError as error:
        raise Misuse(f"--{what}: {error}") from None


def address_text(address: Address) -> str:
    """HOST:PORT, or [IPv6]:PORT; what `config.parse_address` reads."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
