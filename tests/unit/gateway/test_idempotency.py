"""A request under an Idempotency-Key runs once, whatever its sender, the network and the gateway go through."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haif.base import limits
from haif.base.errors import DigestMismatch, EngineDied, NoWorker, Reason
from haif.base.ids import JobId
from haif.gateway.errors import Rejected, problem_of
from haif.gateway.once import Kept, in_progress, keyed, open_answer, seal_answer
from haif.gateway.tenants import Tenant
from haif.protocol.jobs import JobView
from tests.support.scripted_mesh import WORKER, Attempt, Hang, ScriptedMesh
from tests.unit.gateway.conftest import House, open_house

BODY: dict[str, Any] = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}
SECRET = b"s" * 32


async def ask(house: House, key: str = "k-1", body: dict[str, Any] = BODY, **headers: str) -> httpx.Response:
    return await house.post(body, idempotency_key=key, **headers)


def everything_in(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def view(job: JobId, state: str) -> JobView:
    return JobView(job, "acme", "tiny", state, 1, WORKER.peer, "", b"", b"")


@pytest.mark.parametrize("stream", [False, True])
async def test_the_same_key_gives_the_same_answer_and_runs_nothing(
    house: House, mesh: ScriptedMesh, stream: bool
) -> None:
    mesh.attempts = [Attempt(["Hello", " world"])]
    first = await ask(house, body=BODY | {"stream": stream})
    again = await ask(house, body=BODY | {"stream": stream})
    assert (again.status_code, again.text) == (200, first.text)
    assert again.headers["content-type"] == first.headers["content-type"]
    assert again.headers["idempotent-replayed"] == "true"
    assert "idempotent-replayed" not in first.headers
    assert len(mesh.finalised) == len(mesh.requests) == 1


async def test_another_key_another_tenant_and_no_key_are_other_requests(house: House, mesh: ScriptedMesh) -> None:
    _, other = await house.store.create(Tenant("other", 600, 60))
    await ask(house, "a")
    await ask(house, "b")
    await ask(house, "a", authorization=f"Bearer {other}")
    await house.post(BODY)
    assert len(mesh.finalised) == 4


async def test_another_request_under_the_key_is_refused_for_good(house: House, mesh: ScriptedMesh) -> None:
    await ask(house)
    reply = await ask(house, body=BODY | {"max_tokens": 9})
    assert (reply.status_code, reply.json()["error"]["code"]) == (422, "idempotency_key_reused")
    assert reply.headers["x-should-retry"] == "false"
    assert len(mesh.requests) == 1


async def test_while_it_is_answered_the_same_key_is_told_to_wait(house: House, mesh: ScriptedMesh) -> None:
    mesh.attempts = [Attempt(["a", Hang()])]
    waiting = asyncio.create_task(ask(house))
    await mesh.running.wait()
    reply = await ask(house)
    assert (reply.status_code, reply.json()["error"]["code"]) == (409, "idempotency_in_progress")
    assert reply.json()["error"]["type"] == "conflict_error"
    assert (await ask(house, body=BODY | {"max_tokens": 9})).status_code == 422
    assert len(mesh.requests) == 1
    waiting.cancel()


async def test_who_hangs_up_finds_the_answer_when_it_comes_back(house: House, mesh: ScriptedMesh) -> None:
    mesh.gate = asyncio.Event()
    waiting = asyncio.create_task(ask(house))
    await mesh.running.wait()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    mesh.gate.set()
    while (reply := await ask(house)).status_code == 409:
        pass
    assert reply.json()["choices"][0]["message"]["content"] == "Hello world"
    assert len(mesh.finalised) == len(mesh.requests) == 1


async def test_a_request_that_failed_is_answered_anew(house: House, mesh: ScriptedMesh) -> None:
    mesh.attempts = [Attempt([EngineDied("killed")])]
    assert (await ask(house)).status_code == 503
    mesh.attempts = [Attempt()]
    assert (await ask(house)).status_code == 200
    mesh.attempts = []
    assert (await ask(house)).status_code == 200
    assert len(mesh.finalised) == 1


@pytest.mark.parametrize(
    ("state", "status", "code"),
    [("reserved", 409, "idempotency_in_progress"), ("finalised", 409, "idempotency_answer_lost"), ("failed", 200, "")],
)
async def test_after_a_crash_only_a_job_that_failed_for_certain_runs_again(
    tmp_path: Path, mesh: ScriptedMesh, state: str, status: int, code: str
) -> None:
    mesh.attempts = [Attempt(["a", Hang()])]
    async with open_house(tmp_path, mesh) as house:
        waiting = asyncio.create_task(ask(house))
        await mesh.running.wait()
        (job,) = [JobId(row[0]) for row in await house.requests._database.read("SELECT jobs FROM requests")]
    await asyncio.gather(waiting, return_exceptions=True)
    mesh.jobs[job] = view(job, state)
    mesh.attempts = [Attempt()]
    async with open_house(tmp_path, mesh) as house:
        reply = await ask(house)
    assert reply.status_code == status
    assert len(mesh.finalised) == (status == 200)
    if code:
        assert reply.json()["error"]["code"] == code
        assert str(job) in reply.json()["error"]["message"]


async def test_answers_survive_a_restart(tmp_path: Path, mesh: ScriptedMesh) -> None:
    async with open_house(tmp_path, mesh) as house:
        first = await ask(house)
    async with open_house(tmp_path, mesh) as house:
        assert (await ask(house)).text == first.text
    assert len(mesh.finalised) == 1


async def test_a_request_for_several_choices_runs_again_only_if_all_of_them_failed(
    house: House, mesh: ScriptedMesh
) -> None:
    mesh.attempts = [Attempt([EngineDied("killed")])]
    assert (await ask(house, body=BODY | {"n": 2})).status_code == 503
    ((jobs,),) = await house.requests._database.read("SELECT jobs FROM requests")
    first, second = JobId(jobs[:16]), JobId(jobs[16:])
    mesh.jobs = {first: view(first, "failed"), second: view(second, "finalised")}
    reply = await ask(house, body=BODY | {"n": 2})
    assert (reply.status_code, reply.json()["error"]["code"]) == (409, "idempotency_answer_lost")
    assert mesh.finalised == []


async def test_while_nobody_knows_what_became_of_a_job_it_does_not_run_again(
    house: House, mesh: ScriptedMesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    mesh.attempts = [Attempt([EngineDied("killed")])]
    await ask(house)

    async def unknown(_: JobId) -> None:
        raise NoWorker("the job cannot be looked up now")

    monkeypatch.setattr(mesh, "show", unknown)
    mesh.attempts = [Attempt()]
    assert (await ask(house)).status_code == 503
    assert mesh.finalised == []


async def test_what_is_kept_is_bounded(house: House, mesh: ScriptedMesh, monkeypatch: pytest.MonkeyPatch) -> None:
    first = await ask(house, "a")
    monkeypatch.setattr(limits, "ANSWERS_KEPT_BYTES_PER_TENANT", 2 * len(first.content))
    await ask(house, "b")
    await ask(house, "c")
    assert (await ask(house, "a")).json()["error"]["code"] == "idempotency_answer_lost"
    assert (await ask(house, "c")).status_code == 200
    monkeypatch.setattr(limits, "ANSWER_KEPT_BYTES_MAX", 10)
    await ask(house, "d")
    assert (await ask(house, "d")).json()["error"]["code"] == "idempotency_answer_lost"
    monkeypatch.setattr(limits, "IDEMPOTENCY_KEYS_MAX", 4)
    assert (await ask(house, "e")).status_code == 503
    assert f'haif_dropped_total{{reason="{Reason.OVERLOADED}"}} 1.0' in house.metrics()
    monkeypatch.setattr(limits, "IDEMPOTENCY_MS", -1)
    assert (await ask(house, "a")).status_code == 200
    assert len(mesh.finalised) == 5


async def test_h_i2_neither_key_nor_prompt_nor_answer_is_in_the_clear_on_disk(
    tmp_path: Path, mesh: ScriptedMesh
) -> None:
    mesh.attempts = [Attempt(["the-answer-itself"])]
    async with open_house(tmp_path, mesh) as house:
        await ask(house, "the-key-itself", BODY | {"messages": [{"role": "user", "content": "the-prompt-itself"}]})
    stored = everything_in(tmp_path)
    for secret in (b"the-answer-itself", b"the-key-itself", b"the-prompt-itself"):
        assert secret not in stored


@pytest.mark.parametrize("key", ["", " ", "ü", "x" * 256, "a b"])
async def test_a_key_that_is_none_is_refused(house: House, mesh: ScriptedMesh, key: str) -> None:
    with pytest.raises(Rejected):
        keyed(SECRET, "acme", {b"idempotency-key": key.encode()}, "/", b"")


@given(st.binary(max_size=200), st.integers(0, 2000))
def test_a_kept_answer_opens_only_for_its_request_and_unchanged(body: bytes, bit: int) -> None:
    headers = {b"idempotency-key": b"k"}
    request, other = (keyed(secret, "acme", headers, "/", b"{}") for secret in (SECRET, b"t" * 32))
    assert request is not None
    assert other is not None
    job, answer = JobId(b"j" * 16), Kept(200, b"text", body)
    sealed = seal_answer(request, job, answer)
    assert open_answer(request, job, sealed) == answer
    changed = bytearray(sealed)
    changed[bit // 8 % len(sealed)] ^= 1 << bit % 8
    for who, which, what in ((request, job, bytes(changed)), (other, job, sealed), (request, JobId(bytes(16)), sealed)):
        with pytest.raises(DigestMismatch) as caught:
            open_answer(who, which, what)
        assert Reason.DIGEST_MISMATCH is caught.value.reason


def test_the_error_is_one_that_clients_know() -> None:
    problem = problem_of(in_progress(JobId(bytes(16))))
    assert (b"retry-after", b"1") in problem.headers()
    assert set(json.loads(problem.body("r"))["error"]) == {"message", "type", "param", "code"}
