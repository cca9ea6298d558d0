"""Several answers to one request: each a job with a seed and a receipt of its own."""

import asyncio
from collections.abc import Callable
from typing import Any

import openai
import pytest

from haif.base import limits
from haif.base.errors import ConnectionLost
from haif.gateway.session import choice_seed
from haif.gateway.tenants import Tenant
from haif.protocol.receipts import check_bundle
from tests.support.scripted_mesh import Attempt, Hang, ScriptedMesh


async def test_each_choice_has_its_own_job_seed_and_receipt(house: Any, mesh: ScriptedMesh) -> None:
    mesh.of_choice = {1: Attempt(["another"]), 2: Attempt(["a", " third"])}
    answer = await house.chat(n=3, seed=5)
    assert [(each.index, each.message.content) for each in answer.choices] == [
        (0, "Hello world"), (1, "another"), (2, "a third"),
    ]  # fmt: skip
    jobs = {check_bundle(each.model_extra["haif"], each.message.content).receipt.payload.job for each in answer.choices}
    assert (len(jobs), len(mesh.finalised)) == (3, 3)
    assert mesh.seeds == [5, choice_seed(5, 1), choice_seed(5, 2)]
    assert len(set(mesh.seeds)) == 3
    assert len({request.nonce for request in mesh.requests}) == 1
    usage = answer.usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.prompt_tokens_details.cached_tokens) == (15, 5, 9)


async def test_choices_without_a_seed_leave_it_to_the_orchestrator(house: Any, mesh: ScriptedMesh) -> None:
    await house.client.completions.create(model="tiny", prompt="Once", n=2, best_of=2)
    assert mesh.seeds == [None, None]


async def test_a_stream_of_several_choices_tells_them_apart_by_their_index(house: Any, mesh: ScriptedMesh) -> None:
    mesh.of_choice = {1: Attempt(["another"])}
    stream = await house.chat(n=2, stream=True, stream_options={"include_usage": True})
    chunks = [chunk async for chunk in stream]
    texts = {0: "", 1: ""}
    bundles: dict[int, Any] = {}
    for chunk in chunks:
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            if choice.finish_reason:
                bundles[choice.index] = chunk.model_extra["haif"]
    assert texts == {0: "Hello world", 1: "another"}
    for index, bundle in bundles.items():
        check_bundle(bundle, texts[index])
    assert len({chunk.id for chunk in chunks}) == 1
    assert (len(bundles), chunks[-1].choices, chunks[-1].usage.completion_tokens) == (2, [], 3)


async def test_others_wait_until_the_prompt_of_the_first_was_computed(house: Any, mesh: ScriptedMesh) -> None:
    mesh.attempts = [Attempt([Hang()])]
    asked = asyncio.create_task(house.chat(n=4))
    await mesh.running.wait()
    assert len(mesh.seeds) == 1
    asked.cancel()
    await asyncio.gather(asked, return_exceptions=True)


async def test_one_choice_that_fails_ends_all_and_nothing_is_left_running(house: Any, mesh: ScriptedMesh) -> None:
    mesh.attempts = [Attempt(["Hello", Hang()])]
    mesh.of_choice = {1: Attempt(["half", ConnectionLost("gone")])}
    with pytest.raises(openai.APIError, match="gone"):
        [chunk async for chunk in await house.chat(n=2, stream=True)]
    assert sorted(reason for _, reason in mesh.failures) == ["cancelled", "connection_lost"]
    assert mesh.finalised == []


async def test_each_choice_counts_as_a_request_of_its_tenant(a_house: Callable[..., Any]) -> None:
    async with a_house(rpm=1, burst=4) as house:
        answer = await house.client.chat.completions.with_raw_response.create(
            model="tiny", messages=[{"role": "user", "content": "hi"}], n=3
        )
        assert answer.headers["x-ratelimit-remaining-requests"] == "1"
        with pytest.raises(openai.RateLimitError):
            await house.chat(n=2)
        _, key = await house.store.create(Tenant("small", 60, 2))
        with pytest.raises(openai.BadRequestError, match="at once") as caught:
            await house.client.with_options(api_key=key).chat.completions.create(
                model="tiny", messages=[{"role": "user", "content": "hi"}], n=3
            )
        assert caught.value.param == "n"


def test_the_seeds_of_choices_are_the_same_every_time_and_differ() -> None:
    seeds = [choice_seed(-7, choice) for choice in range(limits.CHOICES_MAX)]
    assert seeds[0] == -7
    assert len(set(seeds)) == limits.CHOICES_MAX
    assert seeds == [choice_seed(-7, choice) for choice in range(limits.CHOICES_MAX)]
    assert all(seed is not None and -(2**63) <= seed < 2**63 for seed in seeds)
