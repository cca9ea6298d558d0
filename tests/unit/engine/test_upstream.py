"""A server that is not ours as an engine: asked for what it can do, and believed as far as that can be bounded."""

import asyncio
import json
from contextlib import suppress
from random import Random

import msgspec
import pytest

from haif.base import limits
from haif.base.conversation import REASONING, Aside, Tool, Toolbox, Turn
from haif.base.errors import (
    ContextTooLong,
    EngineDied,
    HaifError,
    InvalidRequest,
    Malformed,
    Misuse,
    Overloaded,
    Oversize,
    Unsupported,
)
from haif.engine.request import Generate
from haif.engine.service import server_at
from haif.engine.upstream import AnswerReader, asking, refused
from haif.protocol.inference import NO_TOKEN
from tests.fuzz.mutate import mutated
from tests.support.engines import read, request
from tests.support.upstreams import DONE, HANG, MODEL, event, http, said, scripted, upstream, usage

# --- what is asked ----------------------------------------------------------------------------------------------------

JUDGED = {
    "id", "chat", "text", "tokens_max", "sampling", "stop", "seed", "suffix", "logprobs", "json_schema", "scope",
    "resumed", "fit", "draft", "tools", "settings", "adapter",
}  # fmt: skip


def test_every_field_of_a_request_was_judged() -> None:
    """A new one is passed on or refused in `engine/upstream.py`, and then named here."""
    assert JUDGED == {field.name for field in msgspec.structs.fields(Generate)}


def test_a_chat_and_its_options_are_asked_for_in_the_dialect() -> None:
    what = request(
        chat=[("system", "be"), ("user", "hi")], tokens_max=9, temperature=0.5, top_p=0.9, stop=["x"], seed=5
    )
    path, body = asking(msgspec.structs.replace(what, json_schema='{"type":"object"}'), MODEL, 100)
    found = json.loads(body)
    assert "/chat/completions" == path
    assert [{"role": "system", "content": "be"}, {"role": "user", "content": "hi"}] == found["messages"]
    assert (MODEL, True, 9, 0.5, 0.9, ["x"]) == tuple(
        found[name] for name in ("model", "stream", "max_tokens", "temperature", "top_p", "stop")
    )
    assert {"type": "object"} == found["response_format"]["json_schema"]["schema"]
    assert {"include_usage": True} == found["stream_options"]


def test_a_text_is_asked_for_with_what_follows_it() -> None:
    path, body = asking(msgspec.structs.replace(request("once"), suffix="end"), MODEL, 100)
    assert ("/completions", "once", "end") == (path, json.loads(body)["prompt"], json.loads(body)["suffix"])


def test_an_answer_as_long_as_fits_has_no_limit_in_a_chat_and_half_of_the_context_in_a_text() -> None:
    chat = msgspec.structs.replace(request(chat=[("user", "x")], tokens_max=30_000), fit=True)
    text = msgspec.structs.replace(request(tokens_max=30_000), fit=True)
    assert "max_tokens" not in json.loads(asking(chat, MODEL, 100)[1])
    assert 50 == json.loads(asking(text, MODEL, 100)[1])["max_tokens"]


@pytest.mark.parametrize(
    ("what", "param"),
    [
        (request(top_k=5), "top_k"),
        (request(min_p=0.1), "min_p"),
        (request(repeat_penalty=1.1), "repeat_penalty"),
        (request(bias=[(1, 2.0)]), "logit_bias"),
        (request(logprobs=2), "logprobs"),
        (request(chat=[("user", "x")], tools=Toolbox([Tool("f", None, "{}", strict=False)])), "tools"),
        (request(chat=[("user", "x")], settings=[("enable_thinking", False)]), "chat_template_kwargs"),
        (request(chat=[Turn("tool", "x", call_id="c")]), "messages"),
    ],
)
def test_what_such_a_server_does_not_promise_is_refused_and_named(what: Generate, param: str) -> None:
    with pytest.raises(Unsupported) as caught:
        asking(what, MODEL, 100)
    assert param == caught.value.param


def test_an_answer_that_was_begun_elsewhere_cannot_be_gone_on_with() -> None:
    with pytest.raises(EngineDied, match="begun elsewhere"):
        asking(msgspec.structs.replace(request(), resumed=[1, 2]), MODEL, 100)


# --- what comes back --------------------------------------------------------------------------------------------------


def heard(raw: bytes, *cuts: int, tokens_max: int = 24) -> tuple[list[int], str, AnswerReader]:
    reader = AnswerReader(request(tokens_max=tokens_max))
    pieces = []
    for start, end in zip((0, *cuts), (*cuts, len(raw)), strict=True):
        pieces += reader.feed(raw[start:end])
    pieces += reader.end()
    tokens: list[int] = []
    for piece in pieces:
        assert piece.first == len(tokens)
        tokens += piece.tokens
    return tokens, "".join(piece.text for piece in pieces), reader


STREAM = said("on") + b": keep-alive\n\n" + said("ce é") + said(None, "stop") + usage(7, 5) + DONE


def test_pieces_count_as_tokens_without_ids_and_the_servers_own_count_adds_the_rest() -> None:
    tokens, text, reader = heard(STREAM)
    assert ([NO_TOKEN] * 5, "once é") == (tokens, text)
    done = reader.finished(submitted_ns=1, first_ns=2, last_ns=5)
    assert ("stop", 7, 5, 2, 3) == (
        done.finish_reason, done.prompt_tokens, done.completion_tokens, done.prefill_ns, done.decode_ns,
    )  # fmt: skip


def test_what_is_thought_comes_beside_the_text_and_is_counted() -> None:
    thought = event(choices=[{"delta": {"reasoning_content": "hm"}}])
    reader = AnswerReader(request())
    first, second = reader.feed(thought + said("so", "stop") + usage(1, 2))
    assert ([Aside(REASONING, "hm")], "") == (first.asides, first.text)
    assert ([], "so") == (second.asides, second.text)
    assert 1 == reader.finished(submitted_ns=0, first_ns=0, last_ns=0).reasoning_tokens


def test_wherever_the_stream_is_cut_it_is_heard_the_same() -> None:
    whole = heard(STREAM)[:2]
    for cut in range(1, len(STREAM)):
        assert whole == heard(STREAM, cut)[:2]


def test_without_a_count_pieces_are_counted_and_an_answer_cut_for_its_length_is_as_long_as_asked() -> None:
    assert 2 == len(heard(said("a") + said("b", "stop"))[0])
    assert 24 == len(heard(said("a") + said("b", "length"))[0])
    assert 0 == heard(said("a", "stop"))[2].finished(submitted_ns=0, first_ns=0, last_ns=0).prompt_tokens


def test_never_more_tokens_are_counted_than_were_asked_for() -> None:
    assert 3 == len(heard(b"".join(said("x") for _ in range(5)) + said(None, "stop") + usage(1, 99), tokens_max=3)[0])


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        (b"<html>", EngineDied),
        (b"<html>\n", Malformed),
        (b"data: {\n", Malformed),
        (b"data: " + b"[" * 5000 + b"\n", Malformed),
        (b"data: []\n", Malformed),
        (b"data: \xff\xfe\n", Malformed),
        (b"data: " + b"x" * (limits.UPSTREAM_EVENT_BYTES_MAX + 9), Oversize),
        (event(choices=[{"index": 1, "delta": {"content": "x"}}]), Malformed),
        (event(choices=[{"delta": {"content": 7}}]), Malformed),
        (event(choices=[{"delta": {"tool_calls": [{}]}}]), Malformed),
        (event(error={"message": "boom"}), EngineDied),
        (said("x", "content_filter"), Malformed),
        (said("x", "stop") + said("y"), Malformed),
        (said("x", "stop") + DONE + said(None), Malformed),
        (said("x", "stop") + usage(-1, 1), Malformed),
        (said("x", "stop") + usage(1 << 60, 1), Malformed),
        (said("x" * 20_000, "stop"), Oversize),
        (said(None) * 200, Oversize),
        (said("x"), EngineDied),
        (said("x", "length") + usage(1, 2), EngineDied),
        (b"", EngineDied),
    ],
)
def test_what_no_honest_server_sends_is_refused(raw: bytes, error: type[HaifError]) -> None:
    with pytest.raises(error):
        heard(raw)


def test_no_mutated_stream_does_more_than_be_refused() -> None:
    for seed in range(3000):
        random = Random(seed)
        raw = mutated(STREAM, random)
        with suppress(HaifError):
            tokens, text, _ = heard(raw, random.randrange(len(raw) + 1))
            assert len(tokens) <= 24
            assert len(text) <= 24 * limits.ANSWER_BYTES_PER_TOKEN_MAX


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (400, b'{"error":{"message":"no\\u0007 such option","code":null}}', InvalidRequest),
        (400, b'{"error":{"message":"m","code":"context_length_exceeded"}}', ContextTooLong),
        (422, b"nonsense", InvalidRequest),
        (429, b"", Overloaded),
        (503, b'{"error":"loading"}', Overloaded),
        (401, b"{}", EngineDied),
        (302, b"", EngineDied),
        (500, b"\xff" * 99, EngineDied),
    ],
)
def test_a_refusal_is_told_apart_from_a_failure(status: int, body: bytes, error: type[HaifError]) -> None:
    found = refused(status, body, 1e9)
    assert isinstance(found, error)
    assert found.message.isprintable()
    assert (getattr(found, "retry_after", None) or 0) <= 60


# --- as an engine -----------------------------------------------------------------------------------------------------


async def test_a_server_answers_as_an_engine_that_nobody_can_verify() -> None:
    async with scripted() as stand, upstream(stand.url, key="secret") as running:
        tokens, text, done = await read(running, request(tokens_max=9))
        assert ([NO_TOKEN] * 3, "once upon", "stop", 3) == (tokens, text, done.finish_reason, done.prompt_tokens)
        about = running.model
        assert (False, "none", 900) == (about.verifiable, about.sandbox, about.context_tokens)
        assert "unverifiable" in about.engine
        assert "secret" not in about.engine + repr(running._settings)
        _, headers, _ = stand.requests[0]
        assert "Bearer secret" == headers["Authorization"]
        now = running.statistics()
        assert (0, 0, 3, True) == (now.running, now.queued, now.completion_tokens, now.usable)


async def test_leaving_early_closes_the_connection() -> None:
    async with scripted(script=[http(said("once ")), HANG]) as stand, upstream(stand.url) as running:
        async with running.generate(request()) as pieces:
            assert "once " == (await anext(pieces)).text
            assert 1 == running.statistics().running
        await asyncio.wait_for(stand.left.wait(), 30)
        assert (0, 0) == (running.statistics().running, running.statistics().queued)


async def test_more_requests_than_slots_wait_and_more_than_the_bound_are_overloaded(monkeypatch) -> None:
    monkeypatch.setattr(limits, "ENGINE_QUEUE_MAX", 1)
    async with scripted(script=[http(said("a")), HANG]) as stand, upstream(stand.url, slots=1) as running:
        first = asyncio.create_task(read(running, request()))
        await stand.asked.wait()
        second = asyncio.create_task(read(running, request()))
        while running.statistics().queued < 1:
            await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await read(running, request())
        for task in (first, second):
            task.cancel()
        await asyncio.wait([first, second])


async def test_a_server_that_goes_away_is_unusable_until_it_is_back(monkeypatch) -> None:
    monkeypatch.setattr(limits, "UPSTREAM_LOOK_SECONDS", 0.01)
    died: list[str] = []
    async with scripted() as stand, upstream(stand.url, died=died.append) as running:
        stand.models = http(b"{}", status="500 Oops")
        while running.statistics().usable:
            await asyncio.sleep(0)
        with pytest.raises(EngineDied, match="not there"):
            await read(running, request())
        stand.models = http(json.dumps({"data": [{"id": MODEL}]}).encode())
        await asyncio.wait_for(running.wait_alive(), 30)
        assert 3 == len((await read(running, request()))[0])
    assert 1 == len(died)


async def test_a_server_without_the_model_or_without_sense_is_not_entered() -> None:
    for models, error in (
        (http(b'{"data":[{"id":"other"}]}'), Unsupported),
        (http(b"[]"), Malformed),
        (http(b"x" * (2 << 20)), Oversize),
        (http(b"", status="401 No"), EngineDied),
        (b"SSH-2.0-OpenSSH\r\n", EngineDied),
    ):
        async with scripted(models=models) as stand:
            with pytest.raises(error):
                await upstream(stand.url).__aenter__()
    with pytest.raises(EngineDied, match="nobody answers"):
        await upstream("http://127.0.0.1:9/v1").__aenter__()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:8000",
        "ftp://127.0.0.1/v1",
        "http://user:word@127.0.0.1/v1",
        "http://127.0.0.1/v1?key=x",
        "http://[::1",
    ],
)
def test_what_is_no_plain_url_is_refused(url: str) -> None:
    with pytest.raises(Misuse, match="--upstream"):
        server_at(url, allowed=(), key="")


def test_a_key_is_one_line_and_never_shown() -> None:
    with pytest.raises(Misuse, match="one line"):
        server_at("http://localhost/v1", allowed=(), key="a\r\nHost: evil")
    assert "secret" not in repr(server_at("http://localhost/v1", allowed=(), key="secret"))
