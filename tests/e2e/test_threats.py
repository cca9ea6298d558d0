"""Strangers with working tools against a live mesh: each line of docs/threats.md that the slice closes, tried."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest

from haif.artifacts.service import DEMO_FOLDER, DEMO_NAME
from haif.base import codec, limits
from haif.base.errors import BadSignature, ConnectionLost, Dropped, Forbidden, HaifError, Reason, Replayed
from haif.base.ids import Digest, JobId, ModelDigest, Nonce, PeerId, Seed
from haif.base.sampling import Sampling
from haif.config import parse_address
from haif.identity.admission import open_network
from haif.identity.keys import Identity, NoiseKey
from haif.identity.signing import Domain, seal
from haif.identity.voice import Voice
from haif.protocol import heartbeats, inference, jobs
from haif.protocol.heartbeats import Heartbeat
from haif.protocol.inference import Request, Run, request_digest
from haif.protocol.jobs import Reservation, SubmitJob
from haif.runtime.clock import SystemClock, entropy
from haif.wire.service import Session, Wire
from tests.e2e.conftest import Mesh, haif, stop, until

pytestmark = pytest.mark.xdist_group("mesh")
CLOCK = SystemClock()
NET = open_network("local").net
CANARY = "xylophone-quartz-canary"


@asynccontextmanager
async def stranger(identity: Identity | None = None, net: Any = NET) -> AsyncIterator[tuple[Wire, Voice, Identity]]:
    """A peer with keys of its own that nobody has heard of."""
    who = identity or Identity(entropy(32))
    dropped: list[Dropped] = []
    wire = Wire(
        identity=who, noise_key=NoiseKey(entropy(32)), net=net, clock=CLOCK, entropy=entropy,
        on_dropped=dropped.append, port=None,
    )  # fmt: skip
    async with wire:
        yield wire, Voice(who, net, CLOCK, entropy), who


async def dial(wire: Wire, role: dict[str, Any]) -> Session:
    return await wire.connect(parse_address(role["wire"]), PeerId.parse(role["peer"]), timeout=5)


def orchestrator(mesh: Mesh) -> dict[str, Any]:
    return mesh.roles("orchestrator")[0]


async def test_h_s1_nobody_speaks_in_anothers_name(mesh: Mesh) -> None:
    before = mesh.dropped("orchestrator", "bad_signature") + mesh.dropped("orchestrator", "wrong_state")
    async with stranger() as (wire, _, _), stranger() as (_, other_voice, _):
        session = await dial(wire, orchestrator(mesh))
        message, _ = other_voice.say(session.peer, session.scope, heartbeats.HEARTBEAT, Heartbeat([]))
        for forged in (message, bytes([message[0] ^ 1]) + message[1:], message[:-1] + bytes([message[-1] ^ 1])):
            with pytest.raises(HaifError):
                await session.call(heartbeats.METHOD, forged, timeout=5)
    async with stranger() as (wire, _, _):
        worker = mesh.roles("worker")[0]
        with pytest.raises(BadSignature):  # somebody else answers there
            await wire.connect(parse_address(worker["wire"]), session.peer, timeout=5)
    after = mesh.dropped("orchestrator", "bad_signature") + mesh.dropped("orchestrator", "wrong_state")
    assert after >= before + 3


async def test_h_s2_nothing_is_served_without_a_key(mesh: Mesh) -> None:
    gateway = mesh.first_card["gateway"]
    for path in ("/v1/models", "/v1/chat/completions", "/v1/completions", f"/haif/v1/jobs/{'0' * 32}"):
        for headers in ({}, {"Authorization": "Bearer x"}, {"Authorization": "Basic x"}):
            method = "GET" if "models" in path or "jobs" in path else "POST"
            assert httpx.request(method, gateway + path, headers=headers, json={}).status_code == 401
    async with stranger() as (wire, voice, me):
        session = await dial(wire, orchestrator(mesh))
        job = SubmitJob(JobId(entropy(16)), "t", DEMO_NAME, Digest(bytes(32)), 5, None, 5000)
        message, _ = voice.say(session.peer, session.scope, jobs.SUBMIT, job)
        with pytest.raises(Forbidden):
            await session.call(jobs.SUBMIT_METHOD, message, timeout=5)
        worker = mesh.roles("worker")[0]
        at_worker = await dial(wire, worker)
        body = codec.encode(Request(Nonce(bytes(16)), None, "hello", 5, Sampling(0.0), []))
        ticket = Reservation(
            JobId(entropy(16)), 1, me.peer, PeerId.parse(worker["peer"]), ModelDigest.parse(worker["model_digest"]),
            request_digest(body), 5, Seed(bytes(32)), None, b"", CLOCK.wall(), CLOCK.wall() + 9000, CLOCK.wall() + 9000,
        )  # fmt: skip
        run = codec.encode(Run(seal(me, Domain.RESERVATION, ticket), body))
        with pytest.raises(Forbidden):
            async with at_worker.stream(inference.METHOD, run, timeout=5) as answers:
                async for _ in answers:
                    pass


async def test_h_s3_a_replayed_heartbeat_changes_nothing(mesh: Mesh) -> None:
    before = mesh.dropped("orchestrator", "replayed")
    async with stranger() as (wire, voice, me):
        session = await dial(wire, orchestrator(mesh))
        message, _ = voice.say(session.peer, session.scope, heartbeats.HEARTBEAT, Heartbeat([]))
        await session.call(heartbeats.METHOD, message, timeout=5)
        with pytest.raises(Replayed):
            await session.call(heartbeats.METHOD, message, timeout=5)
    async with stranger(me) as (wire, _, _):  # recorded, and played into another session
        session = await dial(wire, orchestrator(mesh))
        with pytest.raises(HaifError):
            await session.call(heartbeats.METHOD, message, timeout=5)
    assert mesh.dropped("orchestrator", "replayed") >= before + 1


def test_h_t1_an_altered_model_is_never_loaded(tmp_path: Path) -> None:
    assert haif("model", "add", str(demo_model()), "--name", "mine", state=tmp_path).returncode == 0
    (stored,) = (tmp_path / "models").glob("*.gguf")
    content = bytearray(stored.read_bytes())
    content[len(content) // 2] ^= 1
    stored.unlink()  # it was a hard link to the original
    stored.write_bytes(content)
    told = haif("worker", "--model", "mine", "--orchestrator", "ab" * 32, state=tmp_path)
    assert told.returncode == 6
    assert "digest" in told.stderr
    assert haif("doctor", state=tmp_path).returncode == 1


async def test_h_t2_a_tampered_session_ends(mesh: Mesh) -> None:
    target = parse_address(orchestrator(mesh)["wire"])
    seen = bytearray()
    tamper = asyncio.Event()

    writers: list[asyncio.StreamWriter] = []

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, flip: bool) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                seen.extend(data)
                if flip and tamper.is_set():
                    data = data[:-1] + bytes([data[-1] ^ 1])
                writer.write(data)
        writer.close()

    async def in_the_middle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(*target)
        writers.extend((writer, far_writer))
        await asyncio.gather(relay(reader, far_writer, True), relay(far_reader, writer, False))

    async with await asyncio.start_server(in_the_middle, "127.0.0.1", 0) as server, stranger() as (wire, _, me):
        address = server.sockets[0].getsockname()[:2]
        session = await wire.connect(address, PeerId.parse(orchestrator(mesh)["peer"]), timeout=5)
        await session.call(jobs.MODELS_METHOD, codec.encode(jobs.ListModels()), timeout=5)
        for plain in (b"models.list", DEMO_NAME.encode(), bytes(me.peer)):
            assert plain not in seen  # not even who is calling
        tamper.set()
        with pytest.raises(ConnectionLost):
            await session.call(jobs.MODELS_METHOD, codec.encode(jobs.ListModels()), timeout=5)
        for writer in writers:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)


def test_h_t3_a_hand_edited_journal_is_detected(tmp_path: Path, begin: Callable[..., Mesh]) -> None:
    mesh = begin(tmp_path, "--workers", "1")
    with mesh.client() as client:
        for _ in range(3):
            client.completions.create(model=DEMO_NAME, prompt="The", max_tokens=2)
    stop(mesh)
    path = tmp_path / "orchestrator" / "journal.sqlite"
    with sqlite3.connect(path) as database:
        database.execute("UPDATE journal SET entry = zeroblob(length(entry)) WHERE sequence = 2")
    database.close()
    told = haif("orchestrator", "--gateway", "ab" * 32, state=tmp_path)
    assert told.returncode == 6
    assert "journal" in told.stderr


@pytest.mark.parametrize(
    ("datagram", "reason"),
    [(b"\xa1\x00" + bytes(30), Reason.MALFORMED), (b"\xa1" + bytes(limits.DATAGRAM_BYTES_MAX), Reason.OVERSIZE)],
)
def test_hostile_datagrams_are_counted_by_reason(mesh: Mesh, datagram: bytes, reason: Reason) -> None:
    before = mesh.dropped("orchestrator", reason)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        out.sendto(datagram, parse_address(orchestrator(mesh)["dht"]))
    until(lambda: mesh.dropped("orchestrator", reason) > before, f"the {reason} datagram is counted")


@pytest.mark.parametrize("opening", [b"GET / HTTP/1.1\r\n\r\n", bytes(12), b"HAIF" + bytes(8), os.urandom(300)])
def test_hostile_openings_get_no_session(mesh: Mesh, opening: bytes) -> None:
    with socket.create_connection(parse_address(orchestrator(mesh)["wire"]), timeout=10) as out:
        out.sendall(opening)
        out.shutdown(socket.SHUT_WR)
        try:
            said = out.recv(4096)  # nothing, or, to who speaks our protocol, why not
            assert said == b"" or (opening.startswith(b"HAIF") and said.startswith(b"\xff\xff"))
        except ConnectionResetError:
            return  # refused even more plainly


def test_h_i2_no_prompt_in_logs_spans_or_databases(mesh: Mesh) -> None:
    with mesh.client() as client:
        answer = client.chat.completions.create(
            model=DEMO_NAME, messages=[{"role": "user", "content": f"Say {CANARY}."}], max_tokens=20, user=CANARY
        )
        with pytest.raises(openai.BadRequestError):
            client.chat.completions.create(
                model=DEMO_NAME, messages=[{"role": "user", "content": CANARY}], temperature=9
            )
    job = answer.model_extra["haif"]["job"]  # type: ignore[index]
    until(lambda: "engine.decode" in haif("audit", "trace", job, state=mesh.state).stdout, "the spans are stored")
    for path in mesh.state.rglob("*"):
        if path.is_file() and path.suffix not in (".gguf", ".manifest"):
            assert CANARY.encode() not in path.read_bytes(), path


def test_h_d1_a_flood_is_refused_with_retry_after(mesh: Mesh) -> None:
    made = haif("tenant", "create", "flood", "--rpm", "6", "--burst", "5", "--json", state=mesh.state)
    key = httpx.Response(200, content=made.stdout).json()["key"]
    body = {"model": DEMO_NAME, "prompt": "The", "max_tokens": 1}
    url = f"{mesh.first_card['gateway']}/v1/completions"
    until(
        lambda: httpx.get(url.replace("completions", "models"), headers={"Authorization": f"Bearer {key}"}).is_success,
        "the new key works",
    )
    with httpx.Client(headers={"Authorization": f"Bearer {key}"}, timeout=30) as flood:
        codes = [flood.post(url, json=body) for _ in range(30)]
    refused = [reply for reply in codes if reply.status_code == 429]
    assert len(refused) >= 15
    assert all(int(reply.headers["retry-after"]) >= 1 for reply in refused)
    with mesh.client() as client:
        assert client.completions.create(**body).choices


def test_h_e1_the_engine_child_holds_no_key_and_no_socket(mesh: Mesh) -> None:
    for role in mesh.roles("worker"):
        below = psutil.Process(role["pid"]).children(recursive=True)  # monitor, init and engine
        for child in below:
            descriptors = Path(f"/proc/{child.pid}/fd")
            links = [str(each.readlink()) for each in descriptors.iterdir()]
            assert not [
                link for link in links if link.startswith("socket:") or "/keys/" in link or link.endswith(".sqlite")
            ]
            assert Path(f"/proc/{child.pid}/environ").read_bytes().count(b"HAIF") == 0
        states = [Path(f"/proc/{child.pid}/status").read_text() for child in below]
        assert all("NoNewPrivs:\t1" in status for status in states)
        assert sum("Seccomp:\t2" in status for status in states) == 1


def test_h_e3_a_model_without_a_trusted_manifest_is_not_served(tmp_path: Path) -> None:
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    assert haif("model", "add", str(demo_model()), "--name", "evil", state=theirs).returncode == 0
    shutil.copytree(theirs / "models", ours / "models")  # the files came with the wrong publisher's signature
    told = haif("worker", "--model", "evil", "--orchestrator", "ab" * 32, state=ours)
    assert told.returncode == 3
    listed = haif("model", "ls", state=ours)
    assert "not a trusted publisher" in listed.stderr
    assert "evil" not in listed.stdout


async def test_n_12_networks_do_not_hear_each_other(mesh: Mesh) -> None:
    async with stranger(net=open_network("another").net) as (wire, _, _):
        with pytest.raises(HaifError):
            await dial(wire, orchestrator(mesh))


def demo_model() -> Path:
    (path,) = DEMO_FOLDER.glob("*.gguf")
    return path
