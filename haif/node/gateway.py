"""`haif gateway`: serves the OpenAI-compatible API to tenants."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from haif import config
from haif.base.errors import Misuse
from haif.base.execution import ANY, VERIFIABLE
from haif.gateway.service import (
    LETTERS_SCHEMA,
    REQUESTS_SCHEMA,
    TENANTS_SCHEMA,
    Gateway,
    GatewaySettings,
    Tls,
    TlsFiles,
)
from haif.node.ground import open_ground
from haif.node.settings import address_text, peers
from haif.runtime import disk
from haif.runtime.clock import entropy
from haif.storage.service import Database


@asynccontextmanager
async def open_gateway(settings: config.GatewaySettings) -> AsyncIterator[dict[str, str]]:
    """The gateway while the block is entered, and what to tell whoever started it.

    Raises `Misuse` without an orchestrator to use.
    """
    orchestrators = tuple(peers(settings.orchestrators, "orchestrator"))
    if not orchestrators:
        raise Misuse("a gateway uses only orchestrators it knows: give --orchestrator PEER (see `haif keys show`)")
    tls = _tls(settings)
    async with (
        open_ground(settings) as ground,
        Database(ground.folder / "tenants.sqlite", TENANTS_SCHEMA) as tenants,
        Database(ground.folder / "requests.sqlite", REQUESTS_SCHEMA, exclusive=True) as requests,
        Database(ground.folder / "letters.sqlite", LETTERS_SCHEMA) as letters,
        Gateway(
            settings=GatewaySettings(
                host=settings.http_host, port=settings.http_port, orchestrators=orchestrators, tls=tls,
                cors_origins=settings.cors_origins, address_rpm=settings.address_rpm,
                admin=(settings.admin_host, settings.admin_port) if settings.admin else None,
                first_token_seconds=settings.first_token_ms / 1000, token_seconds=settings.token_ms / 1000,
                validators=tuple(peers(settings.validators, "validator")),
                execution=ANY if settings.allow_unverifiable else VERIFIABLE,
            ),
            identity=ground.identity, reach=ground.reach, dht=ground.dht, voice=ground.voice, tenants=tenants,
            requests=requests, letters=letters, secret=_secret(ground.folder / "requests.key"),
            telemetry=ground.telemetry, clock=ground.clock, entropy=entropy,
        ) as gateway,
        ground.announced("gateway"),
    ):  # fmt: skip
        scheme = "http" if tls is None else "https"
        ready = {"http": f"{scheme}://{address_text(gateway.address)}"}
        if gateway.admin_address is not None:
            ready["admin"] = f"{scheme}://{address_text(gateway.admin_address)}/admin/v1"
        with _reloading(tls):
            yield ground.ready | ready


def _tls(settings: config.GatewaySettings) -> Tls | None:
    """What the settings say of TLS. Raises `Misuse` for files that will not do."""
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    return Tls(TlsFiles(certificate=settings.tls_cert, key=settings.tls_key, client_ca=settings.client_ca))


@contextmanager
def _reloading(tls: Tls | None) -> Iterator[None]:
    """Read the certificate again at SIGHUP, too, as those who renew certificates expect."""
    if tls is None:
        yield
        return
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, tls.reload)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGHUP)


def _secret(path: Path) -> bytes:
    """What kept answers are sealed with, made at the first start. Raises `Misuse` if others may read it."""
    try:
        return disk.read_private(path)
    except FileNotFoundError:
        disk.write_private(path, entropy(32))
        return disk.read_private(path)
