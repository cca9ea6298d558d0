"""A worker's upstream server lies, breaks off, floods: that request fails, in words, and the next one is answered."""

import pytest

from haif.base import limits
from haif.base.errors import EngineDied, Misuse
from haif.engine.service import server_at
from tests.support.engines import read, request
from tests.support.upstreams import DONE, HANG, HONEST, http, said, scripted, upstream, usage

FLOOD = b"data: {}\n\n" * 10_000
HOSTILE = {
    "not http": [b"\x00" * 4096],
    "closes at once": [],
    "half a head": [b"HTTP/1.1 200 OK\r\nContent-Type: text/event-"],
    "endless head": [b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 40_000],
    "a redirect to elsewhere": [http(b"", status="307 Away", extra="Location: http://192.0.2.1/\r\n")],
    "another kind": [http(b"{}", kind="text/html")],
    "packed": [http(b"\x1f\x8b", extra="Content-Encoding: gzip\r\n")],
    "cut short": [http(said("once "))],
    "shorter than its length": [http(said("x", "stop"), extra="Content-Length: 9000\r\n")],
    "a bad chunk": [http(b"zz\r\n", extra="Transfer-Encoding: chunked\r\n")],
    "endless events": [http(FLOOD)],
    "an endless line": [http(b"data: " + b"x" * (1 << 20))],
    "more text than tokens": [http(said("x" * 60_000, "stop"))],
    "after its end": [http(said("x", "stop") + said("y"))],
    "impossible counts": [http(said("x", "stop") + usage(-5, 3) + DONE)],
    "nonsense": [http(b"data: nonsense\n\n")],
    "an error": [http(b'data: {"error":{"message":"boom"}}\n\n')],
    "http 500": [http(b"x" * 100, status="500 Oops")],
    "an endless refusal": [http(b"x" * (3 << 20), status="500 Oops")],
}


@pytest.mark.parametrize("lie", HOSTILE)
async def test_a_hostile_upstream_costs_that_request_and_no_more(lie: str) -> None:
    async with scripted(script=HOSTILE[lie]) as stand, upstream(stand.url) as running:
        with pytest.raises(EngineDied) as caught:
            await read(running, request())
        assert caught.value.message.isprintable()
        assert len(caught.value.message) < 400
        stand.script = [HONEST]
        assert "once upon" == (await read(running, request()))[1]
        now = running.statistics()
        assert (0, 0, True) == (now.running, now.queued, now.usable)


async def test_an_upstream_that_owes_an_answer_and_says_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "UPSTREAM_SILENCE_SECONDS", 0.2)
    for script in ([HANG], [http(said("once ")), HANG]):
        async with scripted(script=script) as stand, upstream(stand.url) as running:
            with pytest.raises(EngineDied, match="said nothing"):
                await read(running, request())


def test_prompts_leave_this_machine_only_for_a_host_that_was_allowed_by_its_name() -> None:
    for host in ("192.0.2.1", "example.org", "0.0.0.0", "127.0.0.1.example.org", "[2001:db8::1]"):
        with pytest.raises(Misuse, match="not this machine"):
            server_at(f"http://{host}/v1", allowed=(), key="")
    assert server_at("https://example.org/v1", allowed=("example.org",), key="").tls
    for host in ("127.0.0.1", "localhost", "[::1]", "127.8.9.1"):
        assert not server_at(f"http://{host}:8000/v1/", allowed=(), key="").allowed
