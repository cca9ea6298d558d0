"""A second socket that never sent anything: what arrives there shows that this machine can be reached."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from haif.base import limits
from haif.base.errors import PeerFault, Unauthenticated
from haif.base.machine import Address
from haif.dht import messages
from haif.dht.envelope import Envelope
from haif.dht.sightings import Sighting

_RECEIVE_BYTES: Final = limits.DATAGRAM_BYTES_MAX + 1  # one more than allowed shows that a datagram is too long


@dataclass(frozen=True, slots=True)
class Survey:
    """What others see of us. `dialled_back`: of those `asked`, how many reached a port of ours they never heard of."""

    sightings: tuple[Sighting, ...]
    asked: int
    dialled_back: int


async def dialled_back(
    second: socket.socket, asked: Collection[Address], nonce: bytes, envelope: Envelope | None
) -> int:
    """How many of those asked have sent the nonce to this socket, within `limits.SURVEY_SECONDS`."""
    back: set[Address] = set()
    done = asyncio.Event()

    def readable() -> None:
        data, source = _received(second)
        if source in asked and _is_dialback(data, nonce, envelope):
            back.add(source)
        if len(back) == len(asked):
            done.set()

    loop = asyncio.get_running_loop()
    loop.add_reader(second, readable)
    try:
        with suppress(TimeoutError):  # the rest did not get through, or did not want to
            async with asyncio.timeout(limits.SURVEY_SECONDS if asked else 0):
                await done.wait()
    finally:
        loop.remove_reader(second)
    return len(back)


def _received(second: socket.socket) -> tuple[bytes, Address]:
    """A datagram and where it came from; an empty one if there is none after all."""
    try:
        data, source = second.recvfrom(_RECEIVE_BYTES)
    except OSError:
        return b"", ("", 0)
    return data, source[:2]


def _is_dialback(data: bytes, nonce: bytes, envelope: Envelope | None) -> bool:
    try:
        datagram = messages.read(data if envelope is None else envelope.open(data))
    except (PeerFault, Unauthenticated):
        return False
    return datagram.kind is messages.Kind.DIALBACK and datagram.rest == nonce
