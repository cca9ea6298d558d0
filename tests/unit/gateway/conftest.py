"""A gateway's HTTP side on a real socket, in front of a scripted mesh."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from haif.base.errors import InvalidRequest
from haif.gateway.service import LETTERS_SCHEMA, REQUESTS_SCHEMA, TENANTS_SCHEMA, Front, Letters, Requests, TenantStore
from haif.gateway.tenants import Tenant
from haif.runtime.clock import SystemClock, entropy
from haif.storage.service import Database
from haif.telemetry.service import Telemetry
from tests.support.scripted_mesh import GATEWAY, ScriptedMesh


@dataclass
class House:
    """Everything a test may want to touch."""

    mesh: ScriptedMesh
    front: Front
    store: TenantStore
    requests: Requests
    letters: Letters
    telemetry: Telemetry
    key: str
    client: openai.AsyncOpenAI
    http: httpx.AsyncClient

    @property
    def url(self) -> str:
        host, port = self.front.address
        return f"http://{host}:{port}"

    def metrics(self) -> str:
        return self.telemetry.exposition().decode()

    async def counted(self, line: str) -> None:
        """Return when the metrics say so: a request is counted once its answer has left."""
        async with asyncio.timeout(10):
            while line not in self.metrics():
                await asyncio.sleep(0)

    async def chat(self, **options: Any) -> Any:
        asked = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], **options}
        return await self.client.chat.completions.create(**asked)

    async def post(
        self, body: bytes | dict[str, Any], path: str = "/v1/chat/completions", **headers: str
    ) -> httpx.Response:
        sent = {"authorization": f"Bearer {self.key}", "content-type": "application/json"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        if isinstance(body, dict):
            return await self.http.post(path, json=body, headers=sent)
        return await self.http.post(path, content=body, headers=sent)


@asynccontextmanager
async def open_house(
    folder: Path, mesh: ScriptedMesh, *, rpm: int = 60_000, burst: int = 10_000, **settings: Any
) -> AsyncIterator[House]:
    async with AsyncExitStack() as stack:
        telemetry = await stack.enter_async_context(
            Telemetry(role="gateway", instance="test", spans=folder / "spans.sqlite", otlp=None)
        )
        database = await stack.enter_async_context(Database(folder / "tenants.sqlite", TENANTS_SCHEMA))
        kept = await stack.enter_async_context(Database(folder / "requests.sqlite", REQUESTS_SCHEMA, exclusive=True))
        mail = await stack.enter_async_context(Database(folder / "letters.sqlite", LETTERS_SCHEMA))
        letters = Letters(mail, SystemClock())
        requests = Requests(kept, b"s" * 32, SystemClock())
        store = TenantStore(database, clock=SystemClock(), entropy=entropy)
        try:
            _, key = await store.create(Tenant("acme", rpm, burst))
        except InvalidRequest:  # the folder of a gateway that was here before
            _, key = await store.add_key("acme")
        front = await stack.enter_async_context(
            Front(
                host="127.0.0.1",
                port=0,
                mesh=mesh,
                peer=GATEWAY.peer,
                tenants=database,
                requests=requests,
                letters=letters,
                telemetry=telemetry,
                clock=SystemClock(),
                entropy=entropy,
                **settings,
            )
        )
        host, port = front.address
        client = await stack.enter_async_context(
            openai.AsyncOpenAI(
                base_url=f"http://{host}:{port}/v1", api_key=key, max_retries=0, _strict_response_validation=True
            )
        )
        http = await stack.enter_async_context(httpx.AsyncClient(base_url=f"http://{host}:{port}"))
        yield House(mesh, front, store, requests, letters, telemetry, key, client, http)


@pytest.fixture
def mesh() -> ScriptedMesh:
    return ScriptedMesh()


@pytest.fixture
async def house(tmp_path: Path, mesh: ScriptedMesh) -> AsyncIterator[House]:
    async with open_house(tmp_path, mesh) as opened:
        yield opened


@pytest.fixture
def a_house(tmp_path: Path, mesh: ScriptedMesh) -> Callable[..., Any]:
    """`async with a_house(burst=2) as house`: one with other settings."""
    return lambda **settings: open_house(tmp_path, mesh, **settings)
