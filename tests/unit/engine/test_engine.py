"""The engine with a real child, real pipes and a real model made on the spot."""

import asyncio
import contextlib
import itertools
import json
import os
import select
import signal
import subprocess
import sys

import llama_cpp
import pytest

from haif.base import limits
from haif.base.errors import (
    ContextTooLong,
    DigestMismatch,
    EngineDied,
    InvalidRequest,
    Misuse,
    Overloaded,
    Reason,
    Unsupported,
)
from haif.engine.request import Piece
from haif.engine.sandbox import ENVIRONMENT
from haif.engine.sandbox.layers import LAYERS, REQUIRED, level
from tests.support.engines import LIAR, engine, read, request
from tests.support.tiny_model import build_tiny_model

PERSON = """{"type":"object","additionalProperties":false,"required":["name","age"],
"properties":{"name":{"enum":["ann","bob"]},"age":{"type":"integer","minimum":0,"maximum":99}}}"""

MIXED = [
    request("the", temperature=1.0, seed=1, tokens_max=40),
    request("a", temperature=0.7, top_p=0.9, seed=2, tokens_max=33),
    request("he is", tokens_max=40),
    request(chat=[("user", "was it in the?")], temperature=1.3, seed=3, tokens_max=20),
    request("x" * 300, temperature=1.0, seed=4, tokens_max=30),
    request("they", temperature=2.0, seed=5, tokens_max=40),
    request("we", temperature=1.0, top_p=0.5, seed=6, tokens_max=10),
    request("you", temperature=0.2, seed=7, tokens_max=40),
]


async def test_an_answer_is_the_same_alone_and_batched_with_seven_others(tiny):
    async with engine(tiny) as running:
        assert running.model.exact
        alone = [(await read(running, what))[:2] for what in MIXED]
        batched = [found[:2] for found in await asyncio.gather(*(read(running, what) for what in MIXED))]
        assert alone == batched
        assert running.statistics().batch_tokens > 1
    async with engine(tiny, slots=2) as other:
        assert alone == [found[:2] for found in await asyncio.gather(*(read(other, what) for what in MIXED))]


@pytest.mark.parametrize("quantisation", ["F32", "F16", "Q8_0"])  # Llama repacks Q4_0 weights, which is not exact
async def test_greedy_answers_equal_those_of_llama_cpp_python_driven_directly(tmp_path, quantisation):
    model = build_tiny_model(tmp_path / "m.gguf", quantisation=quantisation, seed=3)
    direct = llama_cpp.Llama(str(model), n_ctx=512, n_threads=1, flash_attn=True, verbose=False)
    prompt = direct.tokenize(b"once upon a time", add_bos=True)
    expected = [
        token for token, _ in zip(direct.generate(prompt, temp=0.0, repeat_penalty=1.0), range(40), strict=False)
    ]
    direct.close()
    async with engine(model) as running:
        tokens, _, finished = await read(running, request(tokens_max=40))
    assert expected == tokens
    assert ("length", len(prompt), 40) == (finished.finish_reason, finished.prompt_tokens, finished.completion_tokens)


async def scored(running, what):
    """Every token that was computed of an answer, with its logprobs, and its end."""
    pieces = []
    async with running.generate(what) as stream:
        async for piece in stream:
            if not isinstance(piece, Piece):
                return pieces, piece
            if piece.first or not what.resumed:
                pieces += itertools.zip_longest(piece.tokens, piece.scores)
    raise AssertionError("no end")


async def test_a_prompt_whose_beginning_was_computed_before_has_the_same_answer(tiny):
    """By going on in the same slot, by cutting it back, and by a copy from an answer at work; each to the last bit."""
    history = "once upon a time there was a baker who had a dog and a river and " * 4
    hot = {"temperature": 1.0, "logprobs": 3, "tokens_max": 12, "seed": 5}
    asks = [history, history + "a market", history + "a bridge", history[:90] + "in winter"]
    async with engine(tiny, context_tokens=1024) as running:
        alone = [await scored(running, request(ask, **hot)) for ask in asks]
        again = [await scored(running, request(ask, scope=b"a", **hot)) for ask in asks]
        async with running.generate(request(history, scope=b"b", tokens_max=600)) as at_work:
            await anext(at_work)
            copied = await asyncio.gather(*(scored(running, request(ask, scope=b"b", **hot)) for ask in asks))
    for ways in (again, copied):
        assert [pieces for pieces, _ in alone] == [pieces for pieces, _ in ways]
    assert [0] * 4 == [end.cached_tokens for _, end in alone]
    assert 0 == again[0][1].cached_tokens
    lengths = [end.prompt_tokens for _, end in alone]
    assert all(end.cached_tokens >= lengths[0] - 1 for _, end in (*again[1:3], *copied[:3]))
    assert 64 <= copied[3][1].cached_tokens < lengths[3]


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 1.0, "logprobs": 2, "tokens_max": 20},
        {
            "temperature": 1.5,
            "repeat_penalty": 1.3,
            "frequency_penalty": 1.0,
            "presence_penalty": 0.5,
            "tokens_max": 24,
        },
        {"temperature": 1.0, "tokens_max": 300, "json_schema": PERSON},
        {"temperature": 0.0, "stop": ["the a"], "scope": b"a", "tokens_max": 24},
    ],
)
async def test_an_answer_goes_on_elsewhere_to_the_last_bit(tiny, options):
    async with engine(tiny, context_tokens=1024) as first, engine(tiny, context_tokens=1024, slots=2) as second:
        told, end = await scored(first, request(seed=9, **options))
        text = (await read(first, request(seed=9, **options)))[1]
        tokens = [token for token, _ in told]
        for cut in {1, 2, len(told) // 2, len(told) - 1, len(told)}:
            asked = request(seed=9, resumed=tokens[:cut], **options)
            async with second.generate(asked) as pieces:
                begun = await anext(pieces)
                assert (0, tokens[:cut], []) == (begun.first, begun.tokens, begun.scores)
                assert text.startswith(begun.text)
            assert (tokens, text) == (found := await read(second, asked))[:2]
            assert (end.finish_reason, end.completion_tokens) == (found[2].finish_reason, found[2].completion_tokens)
            assert told[cut:] == (await scored(second, asked))[0]


@pytest.mark.parametrize(
    "options", [{"temperature": 1.0}, {"temperature": 1.0, "tokens_max": 300, "json_schema": PERSON}]
)
async def test_a_draft_changes_how_long_an_answer_takes_and_not_a_bit_of_it(tiny, options):
    async with engine(tiny, context_tokens=1024) as running:
        tokens, text, end = await read(running, request(seed=9, **options))
        whole = running.statistics().steps
        for draft in (tokens, tokens[:9], [*tokens[:20], tokens[20] ^ 1, *tokens[21:]], [7] * len(tokens)):
            before = running.statistics().steps
            again = await read(running, request(seed=9, draft=draft, **options))
            assert (tokens, text, end.rows, end.finish_reason) == (*again[:2], again[2].rows, again[2].finish_reason)
            if draft == tokens:
                assert running.statistics().steps - before < whole / 4
        other = await read(running, request(seed=10, **options))
        assert len(end.rows) == -(-len(tokens) // limits.TRANSCRIPT_WINDOW_TOKENS)
        assert end.rows != other[2].rows


async def test_the_model_is_described_and_the_sandbox_level_is_true(tiny):
    async with engine(tiny, context_tokens=500) as running:
        model = running.model
    assert ("tiny random llama", "llama", 512, 1024, 500, True) == (
        model.name, model.architecture, model.vocabulary, model.context_trained, model.context_tokens,
        model.has_chat_template,
    )  # fmt: skip
    assert level(model.enforced) == model.sandbox
    assert set(LAYERS) == {*model.enforced, *model.missing}
    assert REQUIRED <= set(model.enforced)
    assert len(model.missing) == len(model.residual)
    assert "profile exact, bit-exact; numerics " in model.engine
    assert model.engine.endswith("; haif-sampler-v1")
    assert len(model.engine) < 200


async def test_the_profile_fast_answers_and_claims_no_exactness(tiny):
    async with engine(tiny, profile="fast") as running:
        assert not running.model.exact
        assert "profile fast, not bit-exact; numerics " in running.model.engine
        found = await asyncio.gather(*(read(running, what) for what in MIXED))
    assert [what.tokens_max for what in MIXED] == [end.completion_tokens for *_, end in found]
    assert all(end.rows == () for *_, end in found)  # of logits that nobody can compute again nothing is said


async def test_more_answers_than_the_cache_holds_are_all_answered_in_full(tiny):
    asks = [request("the", temperature=1.0, seed=seed, tokens_max=200) for seed in range(6)]
    async with engine(tiny, profile="fast", context_tokens=256, kv_tokens=700) as running:
        found = await asyncio.gather(*(read(running, ask) for ask in asks))
        assert [200] * 6 == [end.completion_tokens for *_, end in found]
        now = running.statistics()
    assert now.preemptions > 0
    assert (700, 0) == (now.kv_tokens_max, now.queued)


async def test_a_cache_smaller_than_one_context_is_refused(tiny):
    with pytest.raises(Misuse, match="does not hold one context"):
        async with engine(tiny, profile="fast", context_tokens=256, kv_tokens=255):
            pass


async def test_an_end_of_text_token_ends_the_answer_and_has_no_text(tmp_path):
    model = build_tiny_model(tmp_path / "m.gguf", end_bias=4.0)
    async with engine(model) as running:
        tokens, text, finished = await read(running, request(tokens_max=400, temperature=1.0))
    assert ("stop", 2, len(tokens)) == (finished.finish_reason, tokens[-1], finished.completion_tokens)
    assert "</s>" not in text


async def test_a_stop_string_ends_the_answer_and_is_not_in_it(tiny):
    async with engine(tiny) as running:
        _, whole, _ = await read(running, request(tokens_max=60))
        stop = whole[len(whole) // 2 :][:3]
        _, text, finished = await read(running, request(tokens_max=60, stop=[stop]))
    assert whole[: whole.index(stop)] == text
    assert "stop" == finished.finish_reason


async def test_leaving_early_frees_the_only_slot_for_the_next(tiny):
    async with engine(tiny, slots=1, context_tokens=1024) as running:
        async with running.generate(request(tokens_max=1000)) as pieces:
            assert isinstance(await anext(pieces), Piece)
        _, _, finished = await read(running, request(tokens_max=1))
        assert 1 == finished.completion_tokens
        statistics = running.statistics()
    assert (0, 0) == (statistics.running, statistics.queued)
    assert statistics.completion_tokens < 900


async def test_a_killed_child_fails_running_requests_with_the_cause_and_is_replaced(tiny):
    causes = []
    async with engine(tiny, context_tokens=1024, died=causes.append) as running:
        before = await read(running, request())
        async with running.generate(request(tokens_max=1000)) as pieces:
            await anext(pieces)
            os.kill(running._child.pid, signal.SIGKILL)
            with pytest.raises(EngineDied, match="SIGKILL") as caught:
                async for _ in pieces:
                    pass
        assert Reason.ENGINE_DIED == caught.value.reason
        await running.wait_alive()
        assert before[:2] == (await read(running, request()))[:2]
        assert 1 == running.statistics().deaths
    assert 1 == len(causes)
    assert "SIGKILL" in causes[0]


async def test_between_two_children_requests_are_refused_at_once(tiny):
    died = asyncio.Event()
    async with engine(tiny, died=lambda _: died.set()) as running:
        os.kill(running._child.pid, signal.SIGKILL)
        await died.wait()
        with pytest.raises(EngineDied, match=r"not running.*SIGKILL"):
            await read(running, request())


async def test_closing_ends_the_child_and_fails_who_still_waits(tiny):
    async with contextlib.AsyncExitStack() as stack:
        running = await stack.enter_async_context(engine(tiny, context_tokens=1024))
        process = running._child._child._process
        pieces = await stack.enter_async_context(running.generate(request(tokens_max=1000)))
        await anext(pieces)
        await running.__aexit__()
        with pytest.raises(EngineDied, match="closed"):
            async for _ in pieces:
                pass
    assert process.returncode is not None


def test_a_child_dies_with_its_parent(tiny):
    program = (
        "import asyncio, sys; from pathlib import Path; from tests.support.engines import engine\n"
        "async def main():\n"
        "    async with engine(Path(sys.argv[1])) as running:\n"
        "        print(running._child.pid, flush=True); await asyncio.Event().wait()\n"
        "asyncio.run(main())"
    )
    with subprocess.Popen([sys.executable, "-c", program, tiny], stdout=subprocess.PIPE) as parent:
        child = os.pidfd_open(int(parent.stdout.readline()))
        parent.kill()
    poll = select.poll()
    poll.register(child, select.POLLIN)
    assert poll.poll(10_000), "the child outlived its parent"
    os.close(child)


async def test_an_altered_file_is_never_loaded(tiny, tmp_path):
    altered = tmp_path / "altered.gguf"
    raw = bytearray(tiny.read_bytes())
    raw[len(raw) // 2] ^= 1
    altered.write_bytes(raw)
    right = engine(tiny)._settings.digest
    with pytest.raises(DigestMismatch, match="altered") as caught:
        await engine(altered, digest=right).__aenter__()
    assert Reason.DIGEST_MISMATCH == caught.value.reason


async def test_a_file_that_is_no_model_is_unsupported(tmp_path):
    path = tmp_path / "no.gguf"
    path.write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(Unsupported, match="cannot read this file as a model"):
        await engine(path).__aenter__()


async def test_settings_that_cannot_work_are_named(tiny, tmp_path):
    with pytest.raises(Misuse, match="trained for a context of 1024"):
        await engine(tiny, context_tokens=2000).__aenter__()
    with pytest.raises(Misuse, match="slots"):
        engine(tiny, slots=0)
    with pytest.raises(Misuse, match="cannot be opened"):
        await engine(tmp_path / "none", digest=engine(tiny)._settings.digest).__aenter__()
    with pytest.raises(Misuse, match="not a regular file"):
        await engine(tmp_path, digest=engine(tiny)._settings.digest).__aenter__()


@pytest.mark.parametrize(
    ("what", "param"),
    [
        (request(tokens_max=0), "max_tokens"),
        (request(tokens_max=limits.COMPLETION_TOKENS_MAX + 1), "max_tokens"),
        (request(temperature=-1), "temperature"),
        (request(temperature=float("nan")), "temperature"),
        (request(top_p=0), "top_p"),
        (request(stop=["a"] * 5), "stop"),
        (request(stop=[""]), "stop"),
        (request("\ud800"), "messages"),
        (request(chat=[("tool", "x")]), "messages"),
        (request(chat=[("<|end|>", "x")]), "messages"),
        (request(chat=[("user", "x")] * 300), "messages"),
    ],
)
async def test_what_nobody_can_compute_is_refused_and_named(tiny, what, param):
    running = engine(tiny)
    with pytest.raises(InvalidRequest) as caught:
        await read(running, what)
    assert param == caught.value.param


async def test_refusals_of_the_child_reach_the_caller_and_hurt_nobody_else(tmp_path):
    model = build_tiny_model(tmp_path / "m.gguf", template=None)
    async with engine(model, context_tokens=256) as running:
        with pytest.raises(ContextTooLong, match="context of 256") as caught:
            await read(running, request("x" * 300))
        assert ("max_tokens", Reason.CONTEXT_TOO_LONG) == (caught.value.param, caught.value.reason)
        with pytest.raises(Unsupported, match="cannot do chat"):
            await read(running, request(chat=[("user", "x")]))
        assert 24 == (await read(running, request()))[2].completion_tokens
        assert 0 == running.statistics().deaths


async def test_an_answer_fits_its_schema_inside_the_jail_and_others_beside_it_are_as_ever(tiny):
    async with engine(tiny, context_tokens=1024) as running:
        alone = [(await read(running, what))[:2] for what in MIXED[:4]]
        bound = [request(temperature=1.0, seed=seed, tokens_max=300, json_schema=PERSON) for seed in range(4)]
        found = await asyncio.gather(*(read(running, what) for what in (*MIXED[:4], *bound)))
    assert alone == [each[:2] for each in found[:4]]
    for _, text, finished in found[4:]:
        assert "stop" == finished.finish_reason
        assert {"name", "age"} == set(json.loads(text))


async def test_a_schema_that_cannot_be_honoured_is_refused_and_hurts_nobody_else(tiny):
    async with engine(tiny) as running:
        with pytest.raises(InvalidRequest, match="uniqueItems") as refused:
            await read(running, request(json_schema='{"type":"array","uniqueItems":true}'))
        assert "response_format" == refused.value.param
        assert 24 == (await read(running, request()))[2].completion_tokens
        assert 0 == running.statistics().deaths


async def test_more_waiting_requests_than_the_bound_are_overloaded(tiny):
    async with engine(tiny, slots=1, context_tokens=1024) as running, contextlib.AsyncExitStack() as stack:
        for _ in range(1 + limits.ENGINE_QUEUE_MAX):
            await stack.enter_async_context(running.generate(request(tokens_max=1000)))
        with pytest.raises(Overloaded):
            await read(running, request())


async def lie(tiny, what, died=None):
    """The error a request ends with when the child does `what` in place of answering it."""
    async with engine(tiny, program=LIAR.replace("LIE", what), died=died) as running:
        with pytest.raises(EngineDied) as caught:
            await read(running, request())
    return caught.value.message


STEP = "Report(step=Step([Output({number}, {tokens}, 'x', {end}, [], {rows})], [], 1, {running}, 0, 1))"


def step(number=0, tokens="[1]", end=None, running=1, rows="[]"):
    return f"say({STEP.format(number=number, tokens=tokens, end=end, running=running, rows=rows)})"


@pytest.mark.parametrize(
    ("what", "cause"),
    [
        ("os.write(reports, (1 << 30).to_bytes(4, 'big'))", "over the limit"),
        ("os.write(reports, b'\\0\\0\\0\\4none')", "not a valid msgpack"),
        ("os.write(reports, b'\\0\\0\\0\\6\\x95\\1\\2\\3\\4\\5')", "not a Report"),
        ("os.write(reports, b'\\0\\0\\1\\0half'); os._exit(0)", "in the middle of a message"),
        ("say(Report())", "not due"),
        ("say(Report(loading=100))", "not due"),
        ("say(Report(sealed=Sealed([], {}, [], 1)))", "not due"),
        ("say(Report(failed=Failed('engine_died', 'x')))", "not due"),
        (step(number=1), "never made"),
        (step(number=-1), "never made"),
        (step(tokens="[100]"), "vocabulary"),
        (step(tokens="[1] * 25"), "more tokens than were asked"),
        (step(running=99), "at most 8"),
        (step(end="End('length', 1, 1, 0, 0, 0, 0)", rows="[b'r' * 32]"), "does not add up"),
        (step(end="End('stop', 1, 1, 0, 0, 0, 0)"), "does not add up"),
        (step(rows="[b'r' * 32] * 9"), "more digests"),
        (step(rows="[b'r']"), "not a Report"),
        ("say(Report(refused=Refused(0, 'engine_died', 'x', None)))", "no reason to refuse"),
        ("say(Report(refused=Refused(0, 'nonsense', 'x', None)))", "no reason to refuse"),
        ("os.abort()", "SIGABRT"),
        ("print('ggml: oh', file=sys.stderr); os._exit(3)", "exited with status 3; its last words: ggml: oh"),
        ("os.close(reports)", "ended"),
    ],
)
async def test_a_child_that_breaks_the_protocol_is_killed_and_the_cause_told(tiny, what, cause):
    assert cause in await lie(tiny, what)


async def test_a_child_that_falls_silent_is_killed(tiny, monkeypatch):
    monkeypatch.setattr(limits, "ENGINE_SILENCE_SECONDS", 0.2)
    assert "said nothing" in await lie(tiny, "sleep(100)")


async def test_a_child_that_stalls_is_not_usable_until_it_goes_on(tiny, monkeypatch):
    monkeypatch.setattr(limits, "ENGINE_STALL_SECONDS", 0.05)
    late = "sleep(2); " + step(end="End('stop', 1, 1, 0, 0, 0, 0)", running=0, rows="[b'r' * 32]")
    async with engine(tiny, program=LIAR.replace("LIE", late)) as running:
        assert running.statistics().usable
        answer = asyncio.create_task(read(running, request()))
        seen = {True}
        while not answer.done():
            await asyncio.sleep(0.01)
            seen.add(running.statistics().usable)
        assert [1] == answer.result()[0]
        assert running.statistics().usable
    assert {True, False} == seen


async def test_a_child_that_computes_though_it_owes_nothing_is_killed(tiny, monkeypatch):
    monkeypatch.setattr(limits, "ENGINE_SILENCE_SECONDS", 0.4)  # it was cancelled
    causes = asyncio.Queue()
    program = LIAR.replace("LIE", "any(None for _ in iter(int, 1))")
    async with engine(tiny, program=program, died=causes.put_nowait) as running:
        async with running.generate(request(tokens_max=1)):
            pass  # withdrawn: nothing is owed any more
        assert "owed nothing and computed" in await causes.get()


async def test_a_child_that_floods_its_error_stream_is_heard_to_the_end_and_no_more(tiny):
    assert "its last words: end" in await lie(
        tiny, "sys.stderr.write('x' * 1_000_000 + '\\nend'); sys.stderr.flush(); os._exit(1)"
    )


@pytest.mark.parametrize(
    ("program", "cause"),
    [
        ("import sys; sys.exit('no such library')", "no such library"),
        ("import os, sys; os.write(int(sys.argv[4]), b'\\xff\\xff\\xff\\xff'); os.read(int(sys.argv[3]), 1)", "limit"),
        ("import os, select; select.poll().poll(100_000)", "in time"),
        (LIAR.replace("seal(parent", "unsealed(parent"), "did not: .*CapEff"),
        (LIAR.replace("say(Report(ready", "say(Report(loading=101)); say(Report(ready"), "does not rise"),
        (LIAR.replace("say(Report(ready", "[say(Report(loading=7)) for _ in '12']; say(Report(ready"), "does not rise"),
    ],
)
async def test_a_child_that_does_not_start_properly_is_told_at_once(tiny, monkeypatch, program, cause):
    if cause == "in time":
        monkeypatch.setattr(limits, "ENGINE_START_SECONDS", 2.0)
    with pytest.raises(EngineDied, match=cause):
        await engine(tiny, program=program).__aenter__()


async def test_the_child_inherits_three_files_and_none_of_our_environment(tiny, monkeypatch):
    monkeypatch.setenv("HAIF_SECRET", "canary")
    program = "import os, sys; sys.exit(str((sorted(os.environ), len(os.listdir('/proc/self/fd')) - 1)))"
    with open(tiny, "rb") as leak:  # noqa: ASYNC230, PTH123
        os.set_inheritable(leak.fileno(), True)
        with pytest.raises(EngineDied) as caught:
            await engine(tiny, program=program).__aenter__()
    assert str((sorted(ENVIRONMENT), 6)) in caught.value.message
