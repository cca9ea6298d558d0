"""The gateway's edge, by the ids of docs/threats.md: TLS, and whoever is in front of it, on real sockets."""

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from haif.base import limits
from haif.base.errors import Misuse, Reason
from haif.config import GatewaySettings
from haif.gateway.service import Tls, TlsFiles, door, doorkeeper
from haif.gateway.tenants import Scope, Tenant
from haif.wire.crowd import origin
from tests.support.certificates import Authority
from tests.support.scripted_mesh import Attempt, Hang, ScriptedMesh
from tests.unit.gateway.conftest import House, open_house


@pytest.fixture
def mesh() -> ScriptedMesh:
    return ScriptedMesh()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "authority")


@pytest.fixture
def a_house(tmp_path: Path, mesh: ScriptedMesh) -> Callable[..., Any]:
    return lambda tls, **settings: open_house(tmp_path, mesh, tls=tls, **settings)


def trusting(authority: Authority, shown: TlsFiles | None = None) -> ssl.SSLContext:
    """A client that trusts this authority, and shows a certificate if it has one."""
    context = ssl.create_default_context(cafile=authority.file)
    if shown is not None:
        context.load_cert_chain(shown.certificate, shown.key)
    return context


async def healthy(house: House, context: ssl.SSLContext) -> httpx.Response:
    async with httpx.AsyncClient(base_url=house.url.replace("http", "https"), verify=context) as client:
        return await client.get("/healthz")


@asynccontextmanager
async def tenant(house: House, context: ssl.SSLContext) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        base_url=house.url.replace("http", "https") + "/v1", api_key=house.key, max_retries=0,
        http_client=httpx.AsyncClient(verify=context),
    ) as client:  # fmt: skip
        yield client


async def serial(house: House, context: ssl.SSLContext) -> bytes:
    """Which certificate a new connection is shown."""
    _, writer = await asyncio.open_connection(*house.front.address, ssl=context)
    shown: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return shown


ASKED: dict[str, Any] = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}


async def test_n_7_tenants_talk_over_tls_1_3(a_house: Any, authority: Authority) -> None:
    async with a_house(Tls(authority.issue("gateway"))) as house:
        _, writer = await asyncio.open_connection(*house.front.address, ssl=trusting(authority))
        assert writer.get_extra_info("ssl_object").version() == "TLSv1.3"
        writer.close()
        async with tenant(house, trusting(authority)) as client:
            assert (await client.chat.completions.create(**ASKED)).choices
            assert [chunk async for chunk in await client.chat.completions.create(**ASKED, stream=True)]


async def test_n_7_tls_1_2_is_refused(a_house: Any, authority: Authority) -> None:
    async with a_house(Tls(authority.issue("gateway"))) as house:
        old = trusting(authority)
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises(OSError):  # an alert, or the end of the connection, as the loop of the server has it
            await asyncio.open_connection(*house.front.address, ssl=old)
        assert (await healthy(house, trusting(authority))).status_code == 200


async def test_n_7_plain_http_is_not_answered_where_tls_is_spoken(
    a_house: Any, authority: Authority, dial: Any
) -> None:
    async with a_house(Tls(authority.issue("gateway"))) as house:
        assert not await (await dial(house)).is_answered()


async def test_n_7_a_client_without_a_certificate_of_the_authority_is_not_answered(
    a_house: Any, authority: Authority, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path, "stranger")
    files = replace(authority.issue("gateway"), client_ca=authority.file)
    async with a_house(Tls(files)) as house:
        for shown in (None, stranger.issue("mallory", client=True), authority.issue("server")):
            with pytest.raises((httpx.TransportError, ssl.SSLError)):
                await healthy(house, trusting(authority, shown))
        admitted = trusting(authority, authority.issue("ann", client=True))
        async with tenant(house, admitted) as client:
            assert (await client.chat.completions.create(**ASKED)).choices


async def test_n_7_a_new_certificate_is_used_while_an_old_stream_goes_on(
    a_house: Any, authority: Authority, mesh: ScriptedMesh
) -> None:
    go_on = asyncio.Event()
    mesh.attempts = [Attempt(["Hello", Hang(go_on), " world"])]
    tls = Tls(authority.issue("gateway"))
    async with a_house(tls) as house, tenant(house, trusting(authority)) as client:
        before = await serial(house, trusting(authority))
        stream = aiter(await client.chat.completions.create(**ASKED, stream=True))
        said = [await anext(stream)]
        authority.issue("gateway")  # the same files
        assert tls.look()
        assert not tls.look()  # nothing is newer than that
        after = await serial(house, trusting(authority))
        assert before != after
        go_on.set()
        said += [chunk async for chunk in stream]
        text = "".join(chunk.choices[0].delta.content or "" for chunk in said if chunk.choices)
        assert text == "Hello world"
        assert await serial(house, trusting(authority)) == after


async def test_when_the_certificate_in_use_expires_is_a_metric(a_house: Any, authority: Authority) -> None:
    tls = Tls(authority.issue("gateway", days=5))
    async with a_house(tls) as house:

        def days() -> float:
            name = "haif_gateway_certificate_expires_timestamp_seconds "
            (line,) = (line for line in house.metrics().splitlines() if line.startswith(name))
            return (float(line.removeprefix(name)) - time.time()) / 86_400

        assert 4.9 < days() < 5.1
        authority.issue("gateway", days=90)
        assert tls.look()
        assert 89.9 < days() < 90.1


@pytest.mark.parametrize("broken", ["half", "other key", "gone", "empty authorities", "for all to read"])
async def test_n_7_a_broken_new_file_keeps_the_old_certificate_and_says_so(
    a_house: Any, authority: Authority, caplog: pytest.LogCaptureFixture, tmp_path: Path, broken: str
) -> None:
    authorities = tmp_path / "clients.pem"
    authorities.write_bytes(authority.file.read_bytes())
    files = replace(authority.issue("gateway"), client_ca=authorities)
    tls = Tls(files)
    known = trusting(authority, authority.issue("ann", client=True))
    async with a_house(tls) as house:
        before = await serial(house, known)
        match broken:
            case "half":
                files.certificate.write_bytes(files.certificate.read_bytes()[:200])
            case "other key":
                files.key.write_bytes(authority.issue("other").key.read_bytes())
            case "gone":
                files.certificate.unlink()
            case "empty authorities":
                authorities.write_bytes(b"")
            case "for all to read":
                authority.issue("gateway")
                files.key.chmod(0o644)
        assert not tls.look()
        assert "the certificate in use stays" in caplog.text
        assert await serial(house, known) == before
        assert (await healthy(house, known)).status_code == 200
        files.key.chmod(0o600)
        authorities.write_bytes(authority.file.read_bytes())
        authority.issue("gateway")
        assert tls.look()  # whole again
        assert await serial(house, known) != before


async def test_n_7_an_authority_that_was_taken_out_lets_nobody_in_any_more(
    a_house: Any, authority: Authority, tmp_path: Path
) -> None:
    former = Authority(tmp_path, "former")
    both = tmp_path / "clients.pem"
    both.write_bytes(authority.file.read_bytes() + former.file.read_bytes())
    tls = Tls(replace(authority.issue("gateway"), client_ca=both))
    async with a_house(tls) as house:
        leaver = trusting(authority, former.issue("ben", client=True))
        assert (await healthy(house, leaver)).status_code == 200
        both.write_bytes(authority.file.read_bytes())
        assert tls.look()
        with pytest.raises((httpx.TransportError, ssl.SSLError)):
            await healthy(house, leaver)


async def test_n_7_a_handshake_that_does_not_go_on_ends(
    a_house: Any, authority: Authority, dial: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "TLS_HANDSHAKE_SECONDS", 0.05)
    async with a_house(Tls(authority.issue("gateway"))) as house:
        caller = await dial(house)
        caller.writer.write(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")  # the beginning of a ClientHello
        async with asyncio.timeout(10):
            with suppress(ConnectionError):
                assert await caller.reader.read() == b""


def test_n_7_nothing_but_loopback_is_listened_on_without_tls_unless_that_is_said_by_name(tmp_path: Path) -> None:
    for host in ("0.0.0.0", "192.0.2.7", "::", "gateway.example"):
        with pytest.raises(Misuse, match="--tls-cert") as caught:
            GatewaySettings(http_host=host)
        assert caught.value.reason is Reason.MISUSE
        assert GatewaySettings(http_host=host, insecure_plain_http=True).http_host == host
        assert GatewaySettings(http_host=host, tls_cert=tmp_path, tls_key=tmp_path).http_host == host
    assert GatewaySettings(host="192.0.2.7").http_host == "127.0.0.1"  # peers, not tenants


async def test_n_7_answers_carry_headers_that_keep_them_from_being_pages(a_house: Any, authority: Authority) -> None:
    async with a_house(Tls(authority.issue("gateway"))) as house:
        told = (await healthy(house, trusting(authority))).headers
        assert told["strict-transport-security"].startswith("max-age=")
        assert told["x-content-type-options"] == "nosniff"
        assert told["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert "server" not in told


async def test_pages_of_other_origins_are_not_let_in_unless_they_are_named(a_house: Any) -> None:
    page = {"origin": "https://app.example"}
    asks = {**page, "access-control-request-method": "POST", "access-control-request-headers": "authorization"}
    async with a_house(None) as house:
        assert (await house.http.options("/v1/chat/completions", headers=asks)).status_code == 405
        plain = await house.http.get("/healthz", headers=page)
        assert not [name for name in plain.headers if name.startswith("access-control-")]
        assert "strict-transport-security" not in plain.headers


async def test_pages_of_a_named_origin_are_let_in_and_no_others(a_house: Any) -> None:
    page = {"origin": "https://app.example"}
    asks = {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}
    async with a_house(None, cors_origins=("https://app.example",)) as house:
        told = await house.http.options("/v1/chat/completions", headers=page | asks)
        assert (told.status_code, told.headers["access-control-allow-headers"]) == (204, "authorization")
        answer = await house.post(ASKED, **page)
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, "https://app.example")
        assert "access-control-allow-credentials" not in answer.headers
        other = {"origin": "https://app.example.evil"}
        assert (await house.http.options("/v1/chat/completions", headers=other | asks)).status_code == 405
        assert "access-control-allow-origin" not in (await house.post(ASKED, **other)).headers


@pytest.fixture
def from_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections are counted as if they did not come from this machine, whose addresses have every place."""
    for room in (doorkeeper, door):
        monkeypatch.setattr(room, "origin", lambda source: replace(origin(source), here=False))


class Caller:
    """A connection to the gateway from an address of this machine."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def is_answered(self) -> bool:
        try:
            self.writer.write(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
            async with asyncio.timeout(10):
                return (await self.reader.read(12)) == b"HTTP/1.1 200"
        except ConnectionError:
            return False

    async def close(self) -> None:
        self.writer.close()
        with suppress(ConnectionError):
            await self.writer.wait_closed()


@pytest.fixture
async def dial() -> AsyncIterator[Callable[..., Any]]:
    """`await dial(house, source)`; all are closed at the end."""
    callers: list[Caller] = []

    async def dialled(house: House, source: str = "127.0.0.1") -> Caller:
        callers.append(Caller(*await asyncio.open_connection(*house.front.address, local_addr=(source, 0))))
        return callers[-1]

    yield dialled
    for caller in callers:
        await caller.close()


@pytest.mark.usefixtures("from_elsewhere")
async def test_h_d1_a_flood_of_connections_of_one_address_leaves_room_for_others(
    a_house: Any, dial: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "HTTP_CONNECTIONS_PER_ADDRESS_MAX", 4)
    monkeypatch.setattr(limits, "HTTP_CONNECTIONS_PER_NETWORK_MAX", 6)
    async with a_house(None) as house:
        flood = [await dial(house, "127.0.0.2") for _ in range(8)]
        assert [await each.is_answered() for each in flood] == [True] * 4 + [False] * 4
        assert await (await dial(house, "127.0.0.3")).is_answered()
        assert await (await dial(house, "127.0.0.4")).is_answered()
        assert not await (await dial(house, "127.0.0.5")).is_answered()  # that network has its places
        assert await (await dial(house, "127.0.7.1")).is_answered()
        await flood[0].close()
        while not await (await dial(house, "127.0.0.2")).is_answered():  # until its end was noticed
            pass


async def test_h_d1_a_client_that_sends_a_header_now_and_then_is_let_go_and_others_are_answered(
    a_house: Any, dial: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slow-loris: what counts is when the headers began, not when something came last."""
    monkeypatch.setattr(limits, "HTTP_HEADER_SECONDS", 0.5)
    async with a_house(None) as house:
        slow = [await dial(house) for _ in range(50)]

        async def drip(caller: Caller) -> bytes:
            caller.writer.write(b"GET / HTTP/1.1\r\n")
            answer = asyncio.create_task(caller.reader.read(13))
            while not answer.done():
                caller.writer.write(b"a: b\r\n")
                await asyncio.wait({answer}, timeout=0.02)
            return answer.result()

        dripping = [asyncio.create_task(drip(each)) for each in slow]
        assert (await house.http.get("/healthz")).status_code == 200
        async with asyncio.timeout(30):
            assert await asyncio.gather(*dripping) == [b"HTTP/1.1 408 "] * 50


async def test_h_d1_a_client_that_reads_nothing_of_its_answer_is_let_go(
    a_house: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "HTTP_UNREAD_SECONDS", 0.3)
    async with a_house(None) as house:
        deaf = socket.create_connection(house.front.address)
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        await asyncio.to_thread(deaf.sendall, b"GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n" * 500)
        connections = house.front._server._server.server_state.connections
        async with asyncio.timeout(60):
            while not connections:
                await asyncio.sleep(0)
            while connections:
                await asyncio.sleep(0.05)
        deaf.close()
        assert (await house.http.get("/healthz")).status_code == 200


async def test_h_e3_a_model_that_is_not_the_tenants_or_not_the_keys_is_denied_at_the_gateway(
    a_house: Any, mesh: ScriptedMesh
) -> None:
    async with a_house(None) as house:
        _, of_tenant = await house.store.create(Tenant("narrow", 600, 60, models=("asleep",)))
        _, of_key = await house.store.add_key("acme", Scope(models=("asleep",)))
        for key in (of_tenant, of_key):
            client = house.client.with_options(api_key=key)
            assert [model.id async for model in client.models.list()] == ["asleep"]
            for path in ("/v1/chat/completions", "/v1/responses", "/v1/messages"):
                body = ASKED if "chat" in path else {"model": "tiny", "input": "hi"}
                body = body if "messages" not in path else ASKED | {"max_tokens": 5}
                sent = {"authorization": f"Bearer {key}", "anthropic-version": "2023-06-01"}
                assert (await house.http.post(path, json=body, headers=sent)).status_code == 403
            with pytest.raises(openai.PermissionDeniedError):
                await client.models.retrieve("tiny")
        assert mesh.requests == []


async def asked_from(house: House, source: str, **sent: str) -> httpx.Response:
    transport = httpx.AsyncHTTPTransport(local_address=source)
    async with httpx.AsyncClient(base_url=house.url, transport=transport) as client:
        return await client.post("/v1/chat/completions", json=ASKED, headers=sent)


@pytest.mark.usefixtures("from_elsewhere")
async def test_n_8_an_address_sends_a_hundred_requests_in_any_minute_and_not_one_more(a_house: Any) -> None:
    async with a_house(None) as house:
        right = {"authorization": f"Bearer {house.key}"}
        async with httpx.AsyncClient(
            base_url=house.url, transport=httpx.AsyncHTTPTransport(local_address="127.0.0.2")
        ) as client:
            for number in range(limits.ADDRESS_REQUESTS_PER_MINUTE):  # wrong keys count, too: nobody guesses for free
                sent = right if number % 10 == 0 else {"authorization": "Bearer wrong"}
                answer = await client.post("/v1/chat/completions", json=ASKED, headers=sent)
                assert answer.status_code == (200 if number % 10 == 0 else 401)
            refused = await client.post("/v1/chat/completions", json=ASKED, headers=right)
            assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")
            assert refused.headers["x-ratelimit-limit-requests"] == "100"
            assert refused.headers["x-ratelimit-remaining-requests"] == "0"
            assert 1 <= int(refused.headers["retry-after"]) <= 60
            assert (await client.get("/v1/models", headers=right)).status_code == 200  # which computes nothing
        assert (await asked_from(house, "127.0.0.3", **right)).status_code == 200
        await house.counted('haif_gateway_rate_limited_total{dimension="address"} 1.0')
        assert f'haif_dropped_total{{reason="{Reason.OVER_QUOTA}"}} 1.0' in house.metrics()


async def test_n_8_this_machines_own_requests_are_not_counted_nor_anybodys_where_the_operator_says_so(
    a_house: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_house(None, address_rpm=1) as house:
        assert {(await house.post(ASKED)).status_code for _ in range(3)} == {200}
        for room in (doorkeeper, door):
            monkeypatch.setattr(room, "origin", lambda source: replace(origin(source), here=False))
        assert [(await house.post(ASKED)).status_code for _ in range(2)] == [200, 429]
    async with a_house(None, address_rpm=0) as house:
        assert {(await house.post(ASKED)).status_code for _ in range(3)} == {200}
