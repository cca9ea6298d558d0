"""Ask the router at home for ports outside that lead to ours: by NAT-PMP, or by UPnP-IGD where that is not spoken.

UPnP is spoken by miniupnpc (the extra `nat`), in a thread, for it blocks. What a router says of its address outside is
believed by nobody: it is announced only where observers see us at that address, and peers only dial it.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from haif.base import limits
from haif.base.errors import Dropped, HaifError, Unsupported
from haif.base.machine import Address
from haif.reach import natpmp
from haif.reach.natpmp import Opcode

_DISCOVERY_MS: Final = 500
_DESCRIPTION: Final = "HAIF"
_ROUTES: Final = Path("/proc/net/route")


@dataclass(frozen=True, slots=True)
class PortMapping:
    """The address `outside` leads to our port `inside`, as the router said by the protocol `by`."""

    opcode: Opcode
    inside: int
    outside: Address
    by: str


class PortMapper:
    """Use as `async with PortMapper(...)`: keeps mappings for `ports`, renews them, and ends them on leaving.

    `on_mapped` hears of the mappings that hold, whenever they change; of none where no router gives any.
    """

    def __init__(
        self,
        ports: tuple[tuple[Opcode, int], ...],
        *,
        on_mapped: Callable[[tuple[PortMapping, ...]], None],
        on_dropped: Callable[[Dropped], None],
    ) -> None:
        self._ports, self._on_mapped, self._on_dropped = ports, on_mapped, on_dropped
        self._held: tuple[PortMapping, ...] = ()

    async def __aenter__(self) -> Self:
        self._keeping = asyncio.create_task(self._keep(), name="reach: port mapping")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._keeping.cancel()
        with suppress(asyncio.CancelledError):
            await self._keeping
        with suppress(HaifError, TimeoutError):
            async with asyncio.timeout(limits.DRAIN_SECONDS):
                for mapping in self._held:
                    await _WAYS[mapping.by](mapping.opcode, mapping.inside, 0)

    async def _keep(self) -> None:
        while True:
            held, pause = list[PortMapping](), limits.MAPPING_LEASE_SECONDS / 2
            for opcode, port in self._ports:
                try:
                    held.append(await map_port(opcode, port))
                except HaifError as error:
                    self._on_dropped(Dropped(error.reason, None, f"port mapping: {error.message}"))
                    pause = limits.MAPPING_RETRY_SECONDS
            if tuple(held) != self._held:
                self._held = tuple(held)
                self._on_mapped(self._held)
            await asyncio.sleep(pause)


async def map_port(opcode: Opcode, port: int) -> PortMapping:
    """A port outside for this one of ours. Raises what the last way failed with: `Unsupported` or `Malformed`."""
    failed: HaifError = Unsupported("no router can be asked")
    for name, way in _WAYS.items():
        try:
            return PortMapping(opcode, port, await way(opcode, port, limits.MAPPING_LEASE_SECONDS), name)
        except HaifError as error:
            failed = error
    raise failed


# --- ways: each maps a port for so many seconds, or ends its mapping after 0, and says where it leads from ------------


async def _by_natpmp(opcode: Opcode, port: int, seconds: int) -> Address:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as router:
        router.setblocking(False)
        try:
            router.connect((_gateway(), natpmp.PORT))
            answer = await _exchange(router, natpmp.map_request(opcode, port, port if seconds else 0, seconds))
            if not seconds:
                return "", 0
            mapped = natpmp.read_mapped(answer, opcode, port)
            return natpmp.read_address(await _exchange(router, natpmp.ADDRESS_REQUEST)), mapped.outside
        except OSError as error:
            raise Unsupported(f"the router does not speak NAT-PMP ({error})") from None


async def _exchange(router: socket.socket, request: bytes) -> bytes:
    """What the router answers. Raises `Unsupported` if it stays silent."""
    loop, pause = asyncio.get_running_loop(), limits.NATPMP_SECONDS_FIRST
    for _ in range(limits.NATPMP_TRIES_MAX):
        router.send(request)
        with suppress(TimeoutError):
            async with asyncio.timeout(pause):
                return await loop.sock_recv(router, natpmp.RESPONSE_BYTES_MAX + 1)
        pause *= 2
    raise Unsupported("the router does not answer NAT-PMP")


def _gateway() -> str:
    """The IPv4 router of the default route. Raises `Unsupported` where the system does not say."""
    with suppress(OSError, ValueError, IndexError):
        for line in _ROUTES.read_text().splitlines()[1:]:
            _, destination, gateway, flags, *_ = line.split()
            if int(destination, 16) == 0 and int(flags, 16) & 2:
                return str(IPv4Address(struct.pack("<I", int(gateway, 16))))
    raise Unsupported("this system does not say which router it uses")


async def _by_upnp(opcode: Opcode, port: int, seconds: int) -> Address:
    return await asyncio.to_thread(_igd, opcode, port, seconds)


def _igd(opcode: Opcode, port: int, seconds: int) -> Address:
    try:
        import miniupnpc  # noqa: PLC0415 - an extra
    except ImportError:
        raise Unsupported("UPnP needs the extra: pip install 'haif[nat]'") from None
    router = miniupnpc.UPnP()
    router.discoverdelay = _DISCOVERY_MS
    try:
        router.discover()
        router.selectigd()
        if not seconds:
            router.deleteportmapping(port, opcode.name)
            return "", 0
        router.addportmapping(port, opcode.name, router.lanaddr, port, _DESCRIPTION, "", seconds)
        return str(router.externalipaddress()), port
    except Exception as error:  # noqa: BLE001 - what it raises for anything that went wrong
        raise Unsupported(f"no router gives a port by UPnP ({error})") from None


_WAYS: Final[dict[str, Callable[[Opcode, int, int], Awaitable[Address]]]] = {"nat-pmp": _by_natpmp, "upnp": _by_upnp}
