"""The gateway: tenants on one side over HTTP, the mesh on the other over Noise."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from haif.base import limits
from haif.base.clock import Clock
from haif.base.errors import Dropped, HaifError, Reason
from haif.base.execution import VERIFIABLE
from haif.base.ids import PeerId
from haif.base.machine import Address
from haif.dht.service import Dht
from haif.gateway.service.admin import AdminApp
from haif.gateway.service.admins import AdminStore, open_admins
from haif.gateway.service.asgi import App
from haif.gateway.service.cors import CrossOrigin
from haif.gateway.service.inference import Means
from haif.gateway.service.letters import LETTERS_SCHEMA, Letters, open_letters
from haif.gateway.service.lines import Lines
from haif.gateway.service.live import LiveDirectory
from haif.gateway.service.mesh import Mesh, PeerMesh
from haif.gateway.service.redrive import Redriver
from haif.gateway.service.requests import REQUESTS_SCHEMA, Requests
from haif.gateway.service.server import HttpServer
from haif.gateway.service.tenants import TENANTS_SCHEMA, TenantStore, Usage, open_store, tenant_key
from haif.gateway.service.tls import Tls, TlsFiles, expires
from haif.gateway.service.treasury import Treasury
from haif.identity.keys import Identity
from haif.identity.voice import Voice
from haif.reach.service import Reach
from haif.storage.service import Database
from haif.telemetry import names
from haif.telemetry.service import Telemetry

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class GatewaySettings:
    """Where HTTP listens (port 0: a free one), and which orchestrators place this gateway's jobs, in order.

    A worker may be silent for so many seconds before its first token, and between two. `execution` is what is demanded
    of workers for requests that demand nothing (`base.execution`). `validators` may see requests that they drew, but
    for those whose tenants said no. Without `tls` HTTP is not encrypted; pages of `cors_origins` may call it. An
    address may send `address_rpm` requests of inference in any minute, 0 for as many as it likes. `admin`: where the
    admin API listens, if it does.
    """

    host: str
    port: int
    orchestrators: tuple[PeerId, ...]
    tls: Tls | None = None
    cors_origins: tuple[str, ...] = ()
    address_rpm: int = limits.ADDRESS_REQUESTS_PER_MINUTE
    admin: Address | None = None
    first_token_seconds: float = limits.FIRST_TOKEN_SECONDS
    token_seconds: float = limits.TOKEN_SECONDS
    execution: str = VERIFIABLE
    validators: tuple[PeerId, ...] = ()


@dataclass(frozen=True, slots=True)
class GatewayStatistics:
    """Requests being answered, keys known, models that can be asked for, now."""

    open_requests: int
    keys: int
    models: int


class Front:
    """Tenants and HTTP in front of a mesh, whichever that is. Inside `async with` it answers at `address`."""

    def __init__(
        self, *, host: str, port: int, mesh: Mesh, peer: PeerId, tenants: Database, requests: Requests,
        letters: Letters, telemetry: Telemetry, clock: Clock, entropy: Callable[[int], bytes],
        keepalive_seconds: float = limits.SSE_KEEPALIVE_SECONDS,
        first_token_seconds: float = limits.FIRST_TOKEN_SECONDS, token_seconds: float = limits.TOKEN_SECONDS,
        execution: str = VERIFIABLE, tls: Tls | None = None, cors_origins: tuple[str, ...] = (),
        address_rpm: int = limits.ADDRESS_REQUESTS_PER_MINUTE, admin: Address | None = None,
    ) -> None:  # fmt: skip
        self._admin_where, self._tenants_database = admin, tenants
        self._address_rpm = address_rpm
        self._execution = execution
        self._tls, self._cors_origins = tls, cors_origins
        self._where = (host, port)
        self._mesh = mesh
        self._peer = peer
        self._telemetry = telemetry
        self._clock = clock
        self._entropy = entropy
        self._keepalive_seconds = keepalive_seconds
        self._first_token_seconds, self._token_seconds = first_token_seconds, token_seconds
        self.tenants, self._treasury = LiveDirectory(tenants, clock), Treasury(tenants, clock)
        self._requests, self._letters = requests, letters
        self.address: Address = self._where

    async def __aenter__(self) -> Self:
        await self.tenants.refresh()
        means = Means(
            mesh=self._mesh, lines=Lines(self._mesh, self._telemetry, self._clock), telemetry=self._telemetry,
            clock=self._clock, entropy=self._entropy, peer=self._peer,
            stopping=asyncio.get_running_loop().create_future(), keepalive_seconds=self._keepalive_seconds,
            first_token_seconds=self._first_token_seconds, token_seconds=self._token_seconds,
            execution=self._execution,
        )  # fmt: skip
        self.app = App(
            means=means, tenants=self.tenants, treasury=self._treasury, requests=self._requests, letters=self._letters,
            address_rpm=self._address_rpm, origins=self._cors_origins,
        )  # fmt: skip
        app = CrossOrigin(self.app, self._cors_origins) if self._cors_origins else self.app
        self._server = HttpServer(app, *self._where, self._tls)
        self.address = self._server.address
        await self._server.start()
        self._admin_server = await self._open_admin()
        redriver = Redriver(self.app, self._letters, self._requests.secret, self._telemetry)
        self._chores = [
            asyncio.create_task(self._refresh(), name="gateway: tenants"),
            asyncio.create_task(redriver.run(), name="gateway: letters"),
        ]
        if (tls := self._tls) is not None:
            self._telemetry.watch(lambda: self._telemetry.gauge(names.GATEWAY_CERTIFICATE_EXPIRES, tls.not_after))
            self._chores.append(asyncio.create_task(tls.watch(), name="gateway: certificate"))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for chore in self._chores:
            chore.cancel()
        await asyncio.gather(*self._chores, return_exceptions=True)
        if self._admin_server is not None:
            await self._admin_server.stop()
        await self.app.drain()
        await self._server.stop()
        await self._treasury.close(self.tenants.directory.allowances.values())

    @property
    def admin_address(self) -> Address | None:
        """Where the admin API listens, if it does."""
        return None if self._admin_server is None else self._admin_server.address

    async def _open_admin(self) -> HttpServer | None:
        if self._admin_where is None:
            return None
        database, clock, entropy = self._tenants_database, self._clock, self._entropy
        app = AdminApp(
            store=TenantStore(database, clock=clock, entropy=entropy),
            admins=AdminStore(database, clock=clock, entropy=entropy),
            telemetry=self._telemetry, clock=clock, entropy=entropy,
        )  # fmt: skip
        server = HttpServer(app, *self._admin_where, self._tls)
        await server.start()
        return server

    async def _refresh(self) -> None:
        """Hear of new and revoked keys, and write what was used.

        A failure is reported; requests then ask for themselves, and are refused, and what was used is written later.
        """
        while True:
            await asyncio.sleep(limits.TENANT_REFRESH_SECONDS)
            try:
                await self.tenants.refresh()
                await self._treasury.write()
            except (HaifError, sqlite3.Error) as error:
                _log.warning("the tenants' database could not be read or written: %s", error)
                self._telemetry.dropped(Dropped(getattr(error, "reason", Reason.MISUSE), detail="tenants"))


class Gateway:
    """The gateway role. Inside `async with` it serves at `address`; leaving ends every answer and closes.

    `tenants` is a `Database` opened with `TENANTS_SCHEMA`, `requests` one with `REQUESTS_SCHEMA` and `letters`
    one with `LETTERS_SCHEMA`; what they keep of requests and answers is sealed with keys made of `secret`.
    Entering does not wait for an orchestrator: `/readyz` tells.
    """

    def __init__(
        self, *, settings: GatewaySettings, identity: Identity, reach: Reach, dht: Dht, voice: Voice,
        tenants: Database, requests: Database, letters: Database, secret: bytes, telemetry: Telemetry, clock: Clock,
        entropy: Callable[[int], bytes],
    ) -> None:  # fmt: skip
        self._mesh = PeerMesh(
            orchestrators=settings.orchestrators, identity=identity, net=voice.net, reach=reach, dht=dht, voice=voice,
            telemetry=telemetry, clock=clock, validators=settings.validators,
        )  # fmt: skip
        self._front = Front(
            host=settings.host, port=settings.port, mesh=self._mesh, peer=identity.peer, tenants=tenants,
            requests=Requests(requests, secret, clock), letters=Letters(letters, clock),
            telemetry=telemetry, clock=clock, entropy=entropy, first_token_seconds=settings.first_token_seconds,
            token_seconds=settings.token_seconds, execution=settings.execution, tls=settings.tls,
            cors_origins=settings.cors_origins, address_rpm=settings.address_rpm, admin=settings.admin,
        )  # fmt: skip
        self._scope = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as scope:
            await scope.enter_async_context(self._mesh)
            await scope.enter_async_context(self._front)
            self._scope = scope.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._scope.aclose()

    @property
    def address(self) -> Address:
        """Where HTTP listens."""
        return self._front.address

    @property
    def admin_address(self) -> Address | None:
        """Where the admin API listens, if it does."""
        return self._front.admin_address

    def statistics(self) -> GatewayStatistics:
        """A snapshot."""
        keys = len(self._front.tenants.directory)
        return GatewayStatistics(self._front.app.open_requests, keys, len(self._mesh.models))


__all__ = [
    "LETTERS_SCHEMA", "REQUESTS_SCHEMA", "TENANTS_SCHEMA", "AdminStore", "Front", "Gateway", "GatewaySettings",
    "GatewayStatistics", "Letters", "Requests", "TenantStore", "Tls", "TlsFiles", "Usage", "expires", "open_admins",
    "open_letters", "open_store", "tenant_key",
]  # fmt: skip
