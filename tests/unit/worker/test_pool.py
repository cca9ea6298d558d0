"""The pool with real engines: models come into memory when asked for, leave for one another, and no answer is cut."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from haif.base import limits
from haif.base.errors import (
    DigestMismatch,
    EngineDied,
    Misuse,
    ModelLoading,
    Overloaded,
    Reason,
    UnknownModel,
)
from haif.base.ids import ModelDigest
from haif.engine.request import Finished, Piece
from haif.worker.quarantine import Case, Quarantine
from haif.worker.service import Pool
from haif.worker.standing import State
from tests.support.engines import LIAR, read, request
from tests.support.pools import CLOCK, pool_of, served, standing, states, until
from tests.support.tiny_model import build_tiny_model
from tools.random_adapter import random_adapter

COLD, LOADING, WARM, LEAVING = State.COLD, State.LOADING, State.WARM, State.LEAVING
LONG = request(tokens_max=400)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("models")
    return [build_tiny_model(folder / f"{name}.gguf", seed=seed) for seed, name in enumerate("abc")]


def room_for(count: int, models: list[Path]) -> int:
    """Memory for so many of the models, which are of one size, and not for one more."""
    return int((count + 0.5) * served(models[0]).needs.total)


async def ask(pool: Pool, model: Path, seconds: float = 60.0) -> tuple[list[int], str, Finished]:
    async with pool.lease(pool.find(model.stem), seconds=seconds) as engine:
        return await read(engine, request())


async def test_every_model_that_fits_is_loaded_and_each_answers_as_itself(models) -> None:
    async with pool_of(*models) as pool:
        await until(pool, lambda: set(states(pool).values()) == {WARM})
        answers = await asyncio.gather(*(ask(pool, model) for model in models))
        assert 3 == len({tuple(tokens) for tokens, *_ in answers})
        assert pool.memory_used == sum(each.size for each in pool.standings())
        assert (3, 0, 0) == pool.counts


async def test_the_least_recently_used_leaves_for_one_that_is_asked_for(models) -> None:
    a, b, c = models
    async with pool_of(a, b, c, memory_bytes=room_for(2, models)) as pool:
        await until(pool, lambda: states(pool) == {"a": WARM, "b": WARM, "c": COLD})
        first = await ask(pool, a)
        await ask(pool, c)
        assert {"a": WARM, "b": COLD, "c": WARM} == states(pool)
        assert standing(pool, b).ready_seconds > 0 == standing(pool, c).ready_seconds
        assert first[:2] == (await ask(pool, a))[:2]
        assert pool.memory_used <= pool.memory_bytes


async def test_a_model_at_work_leaves_when_its_last_answer_has_ended_and_not_before(models) -> None:
    a, b, _ = models
    async with pool_of(a, b, memory_bytes=room_for(1, models)) as pool, AsyncExitStack() as stack:
        engine = await stack.enter_async_context(pool.lease(pool.find("a"), seconds=60))
        pieces = await stack.enter_async_context(engine.generate(LONG))
        assert isinstance(await anext(pieces), Piece)
        asked = asyncio.create_task(ask(pool, b))
        await until(pool, lambda: states(pool)["a"] is LEAVING)
        again = asyncio.create_task(ask(pool, a))  # while it leaves: its next turn
        events = [event async for event in pieces]
        assert 400 == events[-1].completion_tokens
        assert {"a": LEAVING, "b": COLD} == states(pool)
        await stack.aclose()
        await asyncio.gather(asked, again)
        assert {"a": WARM, "b": COLD} == states(pool)


async def test_who_waited_for_a_model_has_it_before_another_can_have_it_leave(models) -> None:
    """Two models take turns in room for one, each asked for by four at once: every one of them is answered."""
    a, b, _ = models
    async with pool_of(a, b, memory_bytes=room_for(1, models)) as pool:
        await asyncio.gather(*(ask(pool, model) for model in (a, b, a, b, b, a, b, a)))
        loads, unloads, deaths = pool.counts
        assert (loads - 1, 0) == (unloads, deaths)
        assert loads <= 4


async def test_a_request_that_cannot_wait_so_long_is_told_when_to_come_back(models, monkeypatch) -> None:
    a, b, _ = models
    async with pool_of(a, b, memory_bytes=room_for(1, models)) as pool:
        with pytest.raises(ModelLoading, match="ask again") as told:
            await ask(pool, b, seconds=0.0)
        assert Reason.MODEL_LOADING is told.value.reason
        assert told.value.retry_after > 0
        await until(pool, lambda: states(pool)["b"] is WARM)  # it was loaded all the same
        monkeypatch.setattr(limits, "MODEL_LOAD_SECONDS_BASE", 0.0)
        with pytest.raises(ModelLoading):
            async with pool.lease(pool.find("b"), seconds=60):  # b is at work, so a cannot come in
                await ask(pool, a, seconds=0.5)


async def test_more_waiting_requests_than_the_bound_are_overloaded(models, monkeypatch) -> None:
    a, b, _ = models
    monkeypatch.setattr(limits, "ENGINE_QUEUE_MAX", 0)
    async with pool_of(served(a), served(b, slots=1), memory_bytes=room_for(1, models)) as pool:
        waiting = asyncio.create_task(ask(pool, b))
        await until(pool, lambda: standing(pool, b).waiting == 1)
        with pytest.raises(Overloaded, match="wait for this model"):
            await ask(pool, b)
        await waiting


async def test_whoever_gives_up_waiting_leaves_nothing_behind(models) -> None:
    a, b, _ = models
    async with pool_of(a, b, memory_bytes=room_for(1, models)) as pool:
        waiting = asyncio.create_task(ask(pool, b))
        await until(pool, lambda: standing(pool, b).waiting == 1)
        waiting.cancel()
        await asyncio.wait([waiting])
        await until(pool, lambda: states(pool)["b"] is WARM)
        assert 0 == standing(pool, b).waiting
        await ask(pool, a)  # so nobody holds b


async def test_a_pinned_model_stays_and_what_does_not_fit_beside_it_is_not_offered(models) -> None:
    a, b, _ = models
    async with pool_of(served(a), served(b, pinned=True), memory_bytes=room_for(1, models)) as pool:
        assert {"a": COLD, "b": WARM} == states(pool)
        assert (False, True) == (standing(pool, a).fits, standing(pool, b).fits)
        with pytest.raises(Overloaded, match="unpin"):
            await ask(pool, a)
        with pytest.raises(Overloaded, match="pinned"):
            pool.pin(pool.find("a"), pinned=True)
        pool.pin(pool.find("b"), pinned=False)
        await ask(pool, a)
        assert {"a": WARM, "b": COLD} == states(pool)


async def test_a_person_may_have_a_model_unloaded_and_answers_that_take_too_long_are_cut_and_counted(models) -> None:
    a, _, _ = models
    async with pool_of(a) as pool:
        model = pool.find("a")
        assert 0 == await pool.unload(model, seconds=60)
        assert {"a": COLD} == states(pool)
        await pool.load(model)
        async with pool.lease(model, seconds=60) as engine, engine.generate(LONG) as pieces:
            await anext(pieces)
            assert 1 == await pool.unload(model, seconds=0)
            with pytest.raises(EngineDied, match="closed"):
                async for _ in pieces:
                    pass
        assert 24 == (await ask(pool, a))[2].completion_tokens  # whoever asks has it loaded again


async def test_one_model_that_cannot_be_loaded_does_not_keep_the_others_from_being_served(models) -> None:
    died: list[tuple[str, str]] = []
    altered = served(models[0], digest=ModelDigest(bytes(32)))
    async with pool_of(altered, models[1], on_died=lambda *told: died.append(told)) as pool:
        assert {"a": State.QUARANTINED, "b": WARM} == states(pool)
        await ask(pool, models[1])
        pool.release(altered.model)
        with pytest.raises(EngineDied, match=r"could not be loaded.*altered"):
            await ask(pool, models[0])
    assert ["a", "a"] == [name for name, _ in died]


async def test_a_pool_without_any_model_that_can_be_loaded_is_not_entered(models) -> None:
    with pytest.raises(DigestMismatch):
        await pool_of(served(models[0], digest=ModelDigest(bytes(32)))).__aenter__()


async def test_models_that_cannot_fit_are_named_before_anything_is_loaded(models) -> None:
    with pytest.raises(Misuse, match=r"a needs about .*--memory"):
        pool_of(models[0], memory_bytes=1 << 20)
    with pytest.raises(Misuse, match="pinned"):
        pool_of(*(served(each, pinned=True) for each in models), memory_bytes=room_for(2, models))
    with pytest.raises(Misuse, match="1 to 16 models"):
        pool_of()


async def test_progress_rises_through_checking_and_loading(models) -> None:
    told: list[tuple[str, str, int]] = []
    async with pool_of(models[0], on_progress=lambda *each: told.append(each)) as pool:
        assert {"a": WARM} == states(pool)
    assert told == sorted(told)
    assert {("a", "checking", 100), ("a", "loading", 100)} <= set(told)


async def test_a_pool_that_is_left_while_models_load_and_wait_leaves_no_task_behind(models) -> None:
    before = asyncio.all_tasks()
    async with pool_of(*models, memory_bytes=room_for(1, models)) as pool:
        waiting = [asyncio.create_task(ask(pool, model)) for model in models[1:]]
        await until(pool, lambda: sum(each.waiting for each in pool.standings()) == 2)
    told = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(each) for each in told} <= {EngineDied, tuple}  # one that was quick has its answer
    assert before == asyncio.all_tasks()


async def test_a_model_that_is_not_served_is_unknown(models) -> None:
    async with pool_of(models[0]) as pool:
        with pytest.raises(UnknownModel, match="it serves: a"):
            pool.find("b")
        with pytest.raises(UnknownModel):
            async with pool.lease(ModelDigest(bytes(32)), seconds=1):
                pass


# --- quarantine -------------------------------------------------------------------------------------------------------

LOADS_NO_MORE = LIAR.split("os.read")[0] + "os.read(orders, 9999); os.abort()"
DIES_OF_REQUESTS = LIAR.replace("LIE", "os.abort()")


async def test_a_model_whose_child_dies_while_loading_is_quarantined_with_its_cause_and_others_live_on(
    models,
) -> None:
    a, b, _ = models
    cases: list[tuple[str, Case | None]] = []
    broken = served(a, program=LOADS_NO_MORE)
    async with pool_of(broken, b, on_quarantine=lambda *told: cases.append(told)) as pool:
        await until(pool, lambda: states(pool) == {"a": State.QUARANTINED, "b": WARM})
        at = standing(pool, broken)
        assert not at.is_offered
        assert "SIGABRT" in at.case.cause
        assert [("a", at.case)] == cases
        for _ in range(3):  # no further child is tried
            with pytest.raises(EngineDied, match=r"quarantined.*SIGABRT"):
                await ask(pool, a)
        with pytest.raises(EngineDied, match="quarantined"):
            await pool.load(pool.find("a"))
        assert (1, 0, 1) == pool.counts
        assert 24 == (await ask(pool, b))[2].completion_tokens


async def test_a_model_that_dies_again_and_again_at_work_is_quarantined_and_released_by_hand(models) -> None:
    a, b, _ = models
    cases: list[tuple[str, Case | None]] = []
    deadly = served(a, program=DIES_OF_REQUESTS)
    async with pool_of(deadly, b, on_quarantine=lambda *told: cases.append(told)) as pool:
        for _ in range(limits.QUARANTINE_DEATHS):
            assert State.QUARANTINED is not states(pool)["a"]
            async with pool.lease(pool.find("a"), seconds=60) as engine:
                await engine.wait_alive()
                with pytest.raises(EngineDied, match="SIGABRT"):
                    await read(engine, request())
            assert 24 == (await ask(pool, b))[2].completion_tokens
        await until(pool, lambda: states(pool)["a"] is State.QUARANTINED and not pool._loader._ending)
        assert limits.QUARANTINE_DEATHS == pool.counts[2]
        assert standing(pool, deadly).statistics is None  # no child is started any more
        assert pool.release(pool.find("a"))
        assert ["a", "a"] == [name for name, _ in cases]
        assert None is cases[1][1]
        await pool.load(pool.find("a"))
        assert {"a": WARM, "b": WARM} == states(pool)


async def test_after_its_pause_a_model_is_on_trial_and_a_restarted_worker_remembers(models) -> None:
    a, b, _ = models
    now = CLOCK.wall()
    kept = Quarantine({served(a).model: Case(cause="x", times=2, since=now, until=now + 3_600_000)})
    async with pool_of(a, b, quarantine=kept) as pool:
        assert {"a": State.QUARANTINED, "b": WARM} == states(pool)
    over = Quarantine({served(a).model: Case(cause="x", times=2, since=now - 9, until=now - 1)})
    async with pool_of(served(a, program=LOADS_NO_MORE), b, quarantine=over) as pool:
        await until(pool, lambda: states(pool) == {"a": State.QUARANTINED, "b": WARM})
        assert 3 == standing(pool, a).case.times
    with pytest.raises(EngineDied, match="release a"):
        await pool_of(a, quarantine=kept).__aenter__()


async def test_a_setting_that_cannot_work_is_no_reason_to_quarantine_a_model(models) -> None:
    with pytest.raises(Misuse, match="trained for a context"):
        await (pool := pool_of(served(models[0], context_tokens=5000))).__aenter__()
    assert {"a": COLD} == states(pool)


# --- adapters ---------------------------------------------------------------------------------------------------------


async def test_a_model_with_an_adapter_is_served_by_the_engine_of_its_base(models, tmp_path) -> None:
    adapter = random_adapter(models[0], tmp_path / "tuned.gguf")
    async with pool_of(served(models[0], adapters=[adapter]), models[1], memory_bytes=room_for(2, models)) as pool:
        base, tuned = pool.find("a"), pool.find("tuned")
        assert {base, tuned, pool.find("b")} == set(pool.models)
        assert (tuned, "tuned") == (pool.find(str(tuned)), pool.name(tuned))
        adapted = pool.adapted(tuned)
        assert adapted is not None
        assert (base, tuned, None) == (adapted.base, adapted.model, pool.adapted(base))
        async with pool.lease(tuned, seconds=60) as one, pool.lease(base, seconds=60) as other:
            assert one is other
            assert (await read(one, request()))[0] != (await read(one, request(adapter=adapted.adapter)))[0]
        told = standing(pool, "tuned")
        assert (adapted, WARM, adapter.stat().st_size) == (told.adapted, told.state, told.size)
        assert told.about == standing(pool, "a").about
        await pool.unload(tuned, seconds=5)
        assert (COLD, COLD) == (states(pool)["a"], states(pool)["tuned"])


async def test_models_with_adapters_count_as_models(models, tmp_path) -> None:
    most = limits.WORKER_MODELS_MAX
    adapters = [random_adapter(models[0], tmp_path / f"{seed}.gguf", seed=seed) for seed in range(most - 1)]
    assert most == len(pool_of(served(models[0], adapters=adapters)).models)
    with pytest.raises(Misuse, match=f"1 to {most} models, those with adapters counted, not {most + 1}"):
        pool_of(served(models[0], adapters=adapters), models[1])


async def test_a_base_that_is_quarantined_takes_its_adapters_with_it(models, tmp_path) -> None:
    adapter = random_adapter(models[0], tmp_path / "tuned.gguf")
    altered = tmp_path / "altered.gguf"
    altered.write_bytes(models[0].read_bytes() + b"x")
    broken = served(altered, digest=ModelDigest(bytes(32)), adapters=[adapter])
    async with pool_of(broken, models[1]) as pool:
        assert {"altered": State.QUARANTINED, "tuned": State.QUARANTINED} == {
            name: state for name, state in states(pool).items() if name != "b"
        }
        assert pool.release(pool.find("tuned"))
        assert standing(pool, "tuned").case is None
