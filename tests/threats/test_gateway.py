"""What the gateway must withstand, by the ids of docs/threats.md."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest
from msgspec.structs import replace

from haif.base import limits
from haif.base.errors import ConnectionLost, EngineDied, Reason
from haif.gateway.tenants import Tenant
from tests.support.scripted_mesh import STRANGER, Attempt, Hang, ScriptedMesh
from tests.unit.gateway.conftest import House, open_house

CANARY = "the-canary-sings-at-midnight"


def everything_in(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.iterdir())


@pytest.fixture
def mesh() -> ScriptedMesh:
    return ScriptedMesh()


@pytest.fixture
async def house(tmp_path: Path, mesh: ScriptedMesh) -> AsyncIterator[House]:
    async with open_house(tmp_path, mesh) as opened:
        yield opened


async def test_h_s2_wrong_and_revoked_keys_are_401_and_start_nothing(house: House, mesh: ScriptedMesh) -> None:
    await house.store.revoke("acme")
    await house.front.tenants.refresh()
    for key in (house.key, "haif-" + "A" * 43, "sk-1234", "haif-"):
        with pytest.raises(openai.AuthenticationError):
            await house.client.with_options(api_key=key).chat.completions.create(
                model="tiny", messages=[{"role": "user", "content": "hi"}]
            )
    assert mesh.traceparents == []
    assert f'haif_dropped_total{{reason="{Reason.UNAUTHENTICATED}"}} 4.0' in house.metrics()


async def test_h_i2_prompt_and_answer_stay_out_of_metrics_spans_and_the_database(
    tmp_path: Path, mesh: ScriptedMesh
) -> None:
    mesh.attempts = [Attempt([CANARY]), Attempt([CANARY])]
    async with open_house(tmp_path, mesh) as house:
        await house.chat(messages=[{"role": "user", "content": CANARY}])
        with pytest.raises(openai.NotFoundError):
            await house.chat(model=CANARY)
        seen = house.metrics()
    stored = everything_in(tmp_path)
    assert CANARY not in seen
    assert CANARY.encode() not in stored
    assert house.key.encode() not in stored


async def test_h_d1_a_tenant_over_its_rate_does_not_use_up_another_ones(house: House) -> None:
    _, greedy = await house.store.create(Tenant("greedy", 1, 2))
    flood = house.client.with_options(api_key=greedy)
    outcomes = await asyncio.gather(*(flood.models.list() for _ in range(50)), return_exceptions=True)
    assert sum(isinstance(outcome, openai.RateLimitError) for outcome in outcomes) == 48
    assert (await house.chat()).choices
    assert f'haif_dropped_total{{reason="{Reason.OVER_QUOTA}"}} 48.0' in house.metrics()


async def test_h_d3_attempts_have_an_end(house: House, mesh: ScriptedMesh) -> None:
    mesh.attempts = [Attempt([EngineDied("killed")])] * 10
    with pytest.raises(openai.InternalServerError):
        await house.chat()
    assert len(mesh.retried) == limits.ATTEMPTS_MAX - 1
    assert mesh.failures == [(limits.ATTEMPTS_MAX, Reason.ENGINE_DIED)]


async def test_h_r1_every_job_ends_in_the_records_whatever_happens(house: House, mesh: ScriptedMesh) -> None:
    mesh.attempts = [Attempt()]
    await house.chat()
    mesh.attempts = [Attempt(["half", ConnectionLost("gone")])]
    with pytest.raises(openai.APIError):
        [chunk async for chunk in await house.chat(stream=True)]
    mesh.attempts = [Attempt(["half", Hang()])]
    stream = await house.chat(stream=True)
    await anext(aiter(stream))
    mesh.failed.clear()
    await stream.close()
    async with asyncio.timeout(5):
        await mesh.failed.wait()
    assert (len(mesh.finalised), mesh.failures) == (1, [(1, Reason.CONNECTION_LOST), (1, "cancelled")])


@pytest.mark.parametrize(
    "attempt",
    [
        Attempt(signer=STRANGER),
        Attempt(alter=lambda receipt: replace(receipt, model=type(receipt.model)(b"x" * 32))),
        Attempt(alter=lambda receipt: replace(receipt, output_text=type(receipt.output_text)(b"x" * 32))),
        Attempt(alter=lambda receipt: replace(receipt, job=type(receipt.job)(b"x" * 16))),
        Attempt(alter=lambda receipt: replace(receipt, completion_tokens=receipt.completion_tokens + 50)),
    ],
    ids=["another signer", "another model", "another text", "another job", "a padded bill"],
)
async def test_p_3_a_forged_receipt_never_becomes_a_finished_answer(
    house: Any, mesh: ScriptedMesh, attempt: Attempt
) -> None:
    mesh.attempts = [attempt] * limits.ATTEMPTS_MAX
    with pytest.raises(openai.APIStatusError) as caught:
        await house.chat()
    assert caught.value.status_code == 502
    assert mesh.finalised == []


async def test_p_4_an_old_receipt_for_a_new_job_is_refused(house: Any, mesh: ScriptedMesh) -> None:
    await house.chat()
    old = mesh.finalised[0].evidence
    mesh.attempts = [Attempt(end=lambda end: replace(end, receipt=old))] * limits.ATTEMPTS_MAX
    with pytest.raises(openai.APIStatusError) as caught:
        await house.chat()
    assert caught.value.code == "verification_failed"
    assert len(mesh.finalised) == 1
