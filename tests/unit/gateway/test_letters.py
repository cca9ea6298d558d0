"""What failed for good lies in the dead-letter queue with its history, and runs again where its tenant comes back."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from haif.base import limits
from haif.base.clock import WallTime
from haif.base.errors import DigestMismatch, EngineDied, InvalidRequest
from haif.base.ids import JobId
from haif.cli.main import main
from haif.gateway.letters import Letter, Payload, Standing, Try, cause_of, open_payload, seal_payload
from haif.gateway.service.letters import Depth
from haif.protocol.jobs import JobView
from tests.support.scripted_mesh import WORKER, Attempt, ScriptedMesh
from tests.unit.gateway.conftest import House, open_house

BODY: dict[str, Any] = {"model": "tiny", "messages": [{"role": "user", "content": "the-prompt-itself"}]}
DYING = Attempt(["half", EngineDied("killed")])


async def fail(house: House, key: str | None = "k-1") -> Letter:
    """A request that comes to nothing, and its letter."""
    house.mesh.attempts = [DYING] * limits.POISON_DEATHS
    reply = await (house.post(BODY) if key is None else house.post(BODY, idempotency_key=key))
    assert reply.status_code == 503
    letter = (await house.letters.all())[0]
    house.mesh.jobs[letter.job] = JobView(letter.job, "acme", "tiny", "failed", 3, WORKER.peer, "", b"", b"")
    return letter


async def until_standing(house: House, job: JobId, standing: Standing) -> Letter:
    async with asyncio.timeout(60):
        while True:
            for letter in await house.letters.all():
                if letter.job == job and letter.standing is standing and letter.redriven:
                    return letter


async def test_h_d3_a_request_that_kills_engines_is_a_letter_with_its_history_and_cause(house: House) -> None:
    letter = await fail(house)
    assert (letter.tenant, letter.model, letter.cause) == ("acme", "tiny", "poison")
    assert [(each.attempt, each.reason, each.tokens) for each in letter.history] == [
        (1, "engine_died", 1), (2, "engine_died", 2), (3, "engine_died", 3),
    ]  # fmt: skip
    assert {each.worker for each in letter.history} == {WORKER.peer}
    assert (await house.letters.depth()).letters == 1


async def test_what_the_tenant_got_wrong_is_no_letter(house: House, mesh: ScriptedMesh) -> None:
    mesh.attempts = [Attempt([InvalidRequest("too many", param="max_tokens")])]
    await house.post(BODY)
    await house.post(BODY | {"model": "none"})
    assert await house.letters.all() == []


async def test_a_letter_runs_again_and_its_tenant_finds_the_answer(house: House, mesh: ScriptedMesh) -> None:
    letter = await fail(house)
    mesh.attempts = [Attempt(["whole"])]
    assert await house.letters.ask([letter.job], 100.0) == 1
    done = await until_standing(house, letter.job, Standing.ANSWERED)
    assert done.redriven == 1
    reply = await house.post(BODY, idempotency_key="k-1")
    assert (reply.status_code, reply.headers["idempotent-replayed"]) == (200, "true")
    assert reply.json()["choices"][0]["message"]["content"] == "whole"
    assert len(mesh.finalised) == 1
    assert 'haif_dlq_redriven_total{outcome="answered"} 1.0' in house.metrics()


async def test_a_letter_that_fails_again_lies_there_with_all_its_history(house: House, mesh: ScriptedMesh) -> None:
    letter = await fail(house)
    await house.letters.ask([letter.job], 100.0)
    again = await until_standing(house, letter.job, Standing.DEAD)
    assert len(again.history) == 2 * limits.POISON_DEATHS
    assert len(await house.letters.all()) == 1


async def test_a_letter_of_a_tenant_whose_keys_were_revoked_is_not_run(house: House, mesh: ScriptedMesh) -> None:
    letter = await fail(house)
    await house.store.revoke("acme")
    await house.front.tenants.refresh()
    mesh.attempts = [Attempt()]
    await house.letters.ask([letter.job], 100.0)
    await until_standing(house, letter.job, Standing.DEAD)
    assert mesh.finalised == []


async def test_without_a_key_there_is_a_letter_and_nothing_of_the_request(house: House) -> None:
    letter = await fail(house, key=None)
    assert letter.payload is None
    assert await house.letters.ask([letter.job], 1.0) == 0


async def test_what_was_being_run_when_the_gateway_was_killed_is_run_by_the_next(
    tmp_path: Path, mesh: ScriptedMesh
) -> None:
    async with open_house(tmp_path, mesh) as house:
        letter = await fail(house)
        await house.letters._database.write(
            lambda connection: connection.execute("UPDATE letters SET standing = 'running', redriven = 1")
        )
    mesh.attempts = [Attempt()]
    async with open_house(tmp_path, mesh) as house:
        await until_standing(house, letter.job, Standing.ANSWERED)
    assert len(mesh.finalised) == 1


async def test_letters_are_bounded_in_number_and_time(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LETTERS_MAX", 2)
    for key in ("a", "b", "c"):
        last = await fail(house, key)
    assert {letter.job for letter in await house.letters.all()} >= {last.job}
    assert len(await house.letters.all()) == 2
    monkeypatch.setattr(limits, "LETTERS_KEPT_MS", -1)
    await house.letters.begin()
    assert await house.letters.depth() == Depth(0, 0.0)


async def test_what_was_asked_for_can_be_taken_back_and_letters_forgotten(house: House) -> None:
    letter = await fail(house)
    assert await house.letters.ask([letter.job, JobId(bytes(16))], 0.001) == 1
    assert await house.letters.ask([letter.job], 1.0) == 0
    await house.letters.cancel([letter.job])
    assert await house.letters.purge([letter.job, letter.job]) == 1
    assert await house.letters.all() == []


async def test_h_i2_a_letter_has_no_word_of_its_request_in_the_clear(tmp_path: Path, mesh: ScriptedMesh) -> None:
    async with open_house(tmp_path, mesh) as house:
        letter = await fail(house, "the-key-itself")
    stored = everything_in(tmp_path)
    assert b"the-prompt-itself" not in stored
    assert b"the-key-itself" not in stored
    assert letter.payload is not None
    for secret, job in ((b"t" * 32, letter.job), (b"s" * 32, JobId(bytes(16)))):
        with pytest.raises(DigestMismatch):
            open_payload(secret, job, letter.payload)
    assert open_payload(b"s" * 32, letter.job, letter.payload).key == b"the-key-itself"


def everything_in(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_a_letter_is_redrivable_for_as_long_as_its_key_is_known() -> None:
    history = (Try(1, WORKER.peer, "timeout", 0),)
    sealed = seal_payload(b"s" * 32, JobId(bytes(16)), Payload("/", b"k", b"{}"))
    letter = Letter(JobId(bytes(16)), "a", "m", WallTime(0), cause_of(history), Standing.DEAD, 0, history, sealed)
    assert letter.cause == "timeout"
    assert letter.redrivable(WallTime(limits.IDEMPOTENCY_MS - 1))
    assert not letter.redrivable(WallTime(limits.IDEMPOTENCY_MS))


async def test_the_operator_lists_shows_redrives_and_purges(
    tmp_path: Path, mesh: ScriptedMesh, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gateway").mkdir(mode=0o700)
    async with open_house(tmp_path / "gateway", mesh) as house:
        letter = await fail(house)
        job, state = str(letter.job), ["--state", str(tmp_path)]

        async def haif(*words: str) -> tuple[int, str]:
            code = await asyncio.to_thread(main, ["dlq", *words, *state])
            return code, capsys.readouterr().out

        assert await haif("ls", "--cause", "timeout") == (0, "")
        assert job in (await haif("ls"))[1]
        code, shown = await haif("show", job[:8])
        assert code == 0
        assert "poison" in shown
        assert "engine_died" in shown
        assert (await haif("show", "ffff"))[0] == 3
        assert (await haif("redrive", job, "--dry-run"))[1] == "1 of 1 letters: to be run again (not done: --dry-run)\n"
        mesh.attempts = [Attempt()]
        assert (await haif("redrive", "--all", "--rate", "50"))[1] == "1 of 1 letters: to be run again\n"
        await until_standing(house, letter.job, Standing.ANSWERED)
        assert (await haif("redrive"))[0] == 2
        assert (await haif("redrive", "--all", "--rate", "0"))[0] == 2
        assert (await haif("purge", job))[1] == "1 of 1 letters: forgotten\n"
        assert (await haif("purge", job))[0] == 3
