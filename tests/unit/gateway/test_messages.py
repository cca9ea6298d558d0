"""Anthropic's Messages API: it becomes the request a chat would be, and the official client, strict, hears it all."""

import json
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from haif.base import limits
from haif.base.conversation import ARGUMENTS, CALL, REASONING, Aside, Call, Turn
from haif.base.errors import ConnectionLost, EngineDied, HaifError, Timeout, Unsupported
from haif.base.ids import Nonce
from haif.gateway.errors import Rejected
from haif.gateway.messages import parse_message
from haif.gateway.openai import parse_chat
from haif.protocol.receipts import check_bundle
from tests.support.scripted_mesh import Attempt, Hang, ScriptedMesh

NONCE = Nonce(b"n" * 16)
HI: list[Any] = [{"role": "user", "content": "hi"}]
TOOL: dict[str, Any] = {"name": "get_weather", "input_schema": {"type": "object"}}
USED: dict[str, Any] = {"type": "tool_use", "id": "c1", "name": "f", "input": {"a": 1}}
RESULT: dict[str, Any] = {"type": "tool_result", "tool_use_id": "c1", "content": "sunny"}
PIECES: list[Any] = [
    [Aside(REASONING, "hm, ")], [Aside(REASONING, "yes")], "I ", "look.",
    [Aside(CALL, "get_weather")], [Aside(ARGUMENTS, '{"place":')], [Aside(ARGUMENTS, '"Rome"}')],
]  # fmt: skip


def heard(messages: Any = HI, **options: Any) -> Any:
    return parse_message(
        json.dumps({"model": "tiny", "max_tokens": 9, "messages": messages, **options}).encode(), NONCE
    )


def param_of(messages: Any = HI, **options: Any) -> str | None:
    with pytest.raises((Rejected, Unsupported, HaifError)) as caught:
        heard(messages, **options)
    return caught.value.param


@pytest.fixture
async def client(house: Any) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(
        base_url=house.url, api_key=house.key, max_retries=0, _strict_response_validation=True
    ) as made:
        yield made


async def ask(client: anthropic.AsyncAnthropic, **options: Any) -> Any:
    return await client.messages.create(**({"model": "tiny", "max_tokens": 40, "messages": HI} | options))


# --- what is heard ----------------------------------------------------------------------------------------------------


def test_a_text_is_the_request_that_a_chat_makes() -> None:
    chat = {"model": "tiny", "messages": [{"role": "system", "content": "Be."}, *HI], "max_tokens": 9, "stop": ["x"]}
    wanted = parse_chat(json.dumps({**chat, "temperature": 0.5, "top_k": 3, "seed": 7}).encode(), NONCE)
    ask = heard(system="Be.", temperature=0.5, top_k=3, seed=7, stop_sequences=["x"])
    assert replace(wanted.request, fit=True) == ask.request
    assert (wanted.seed, wanted.model, wanted.task) == (ask.seed, ask.model, ask.task)


def test_blocks_are_turns() -> None:
    cache = {"cache_control": {"type": "ephemeral"}}
    ask = heard(
        [
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b", **cache}]},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "hm", "signature": "s"}, {"type": "text", "text": "I look."},
                USED, USED | {"id": "c2", "input": {}},
            ]},
            {"role": "user", "content": [
                RESULT | {"tool_use_id": "c2", "is_error": True, "content": [{"type": "text", "text": "no"}]}, RESULT,
                {"type": "text", "text": "and?"},
            ]},
            {"role": "system", "content": "Go on."},
        ],
        system=[{"type": "text", "text": "Be", **cache}, {"type": "text", "text": "."}],
    )  # fmt: skip
    assert ask.request.chat == [
        Turn("system", "Be."), Turn("user", "ab"),
        Turn("assistant", "I look.", calls=[Call("c1", "f", '{"a":1}'), Call("c2", "f", "{}")], reasoning="hm"),
        Turn("tool", "no", call_id="c2"), Turn("tool", "sunny", call_id="c1"), Turn("user", "and?"),
        Turn("system", "Go on."),
    ]  # fmt: skip
    assert set(ask.ignored) == {"cache_control", "is_error"}


def test_tools_formats_and_effort_are_those_of_a_chat() -> None:
    function = {"name": "get_weather", "parameters": {"type": "object"}}

    def same(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
        chat = {"model": "tiny", "messages": HI, "max_tokens": 9, **theirs}
        assert replace(parse_chat(json.dumps(chat).encode(), NONCE).request, fit=True) == heard(**ours).request

    offered = {"tools": [{"type": "function", "function": function}]}
    same({"tools": [TOOL | {"type": "custom", "cache_control": None}], "tool_choice": {"type": "auto"}}, offered)
    same({"tools": [TOOL], "tool_choice": {"type": "any", "disable_parallel_tool_use": True}},
         offered | {"tool_choice": "required", "parallel_tool_calls": False})  # fmt: skip
    same({"tools": [TOOL], "tool_choice": {"type": "tool", "name": "get_weather"}},
         offered | {"tool_choice": {"type": "function", "function": {"name": "get_weather"}}})  # fmt: skip
    same({"tools": [TOOL], "tool_choice": {"type": "none"}}, {})
    schema = {"type": "object", "properties": {}}
    same({"output_config": {"format": {"type": "json_schema", "schema": schema}}},
         {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}})  # fmt: skip
    same({"output_config": {"effort": "low"}}, {"reasoning_effort": "low"})


def test_demands_of_haif_are_heard_and_hints_named() -> None:
    ask = heard(haif={"sandbox": "full", "execution": "any"}, metadata={"user_id": "u"}, service_tier="auto",
                thinking={"type": "enabled", "budget_tokens": 1024})  # fmt: skip
    assert (ask.sandbox_min, ask.execution) == ("full", "any")
    assert set(ask.ignored) == {"metadata", "service_tier", "thinking"}


def messages(*content: Any, role: str = "user") -> list[Any]:
    return [{"role": role, "content": list(content)}, *HI]


@pytest.mark.parametrize(
    ("given", "options", "param"),
    [
        (HI, {"max_tokens": None}, "max_tokens"), (HI, {"max_tokens": limits.COMPLETION_TOKENS_MAX + 1}, "max_tokens"),
        ([], {}, "messages"), (None, {}, "messages"), ([5], {}, "messages[0]"), ([{}], {}, "messages[0].role"),
        ([{"role": "robot", "content": "x"}], {}, "messages[0].role"),
        ([*HI, {"role": "assistant", "content": "I"}], {}, "messages[1].role"),
        (messages({"type": "image", "source": {}}), {}, "messages[0].content[0].type"),
        (messages({"type": "document", "source": {}}), {}, "messages[0].content[0].type"),
        (messages(USED), {}, "messages[0].content[0].type"),
        (messages(RESULT, role="assistant"), {}, "messages[0].content[0].type"),
        (messages({"type": "redacted_thinking", "data": "x"}, role="assistant"), {}, "messages[0].content[0].type"),
        (messages(RESULT), {}, "messages[0].content[0].tool_use_id"),
        (messages(RESULT | {"content": [{"type": "image"}]}), {}, "messages[0].content[0].content[0].type"),
        (messages({"type": "text", "text": "x", "wibble": 1}), {}, "messages[0].content[0].wibble"),
        (messages({"type": "text"}), {}, "messages[0].content[0].text"),
        (messages({}), {}, "messages[0].content[0].type"),
        (messages(USED | {"input": "{}"}, role="assistant"), {}, "messages[0].content[0].input"),
        (messages(*[{"type": "text", "text": ""}] * (limits.MESSAGE_BLOCKS_MAX + 1)), {}, "messages[0].content"),
        (HI, {"system": [{"type": "image"}]}, "system[0].type"), (HI, {"system": 5}, "system"),
        (HI, {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0].type"),
        (HI, {"tools": [{"name": "f"}]}, "tools[0].input_schema"),
        (HI, {"tools": [TOOL | {"name": "a b"}]}, "tools[0].name"),
        (HI, {"tools": [TOOL | {"input_schema": {"type": "string"}}]}, "tools[0].input_schema"),
        (HI, {"tools": [TOOL | {"defer_loading": True}]}, "tools[0].defer_loading"),
        (HI, {"tools": [TOOL, TOOL]}, "tools"), (HI, {"tools": [TOOL] * (limits.TOOLS_MAX + 1)}, "tools"),
        (HI, {"tool_choice": {"type": "any"}}, "tool_choice"),
        (HI, {"tool_choice": {"type": "best"}}, "tool_choice.type"),
        (HI, {"tools": [TOOL], "tool_choice": {"type": "tool"}}, "tool_choice.name"),
        (HI, {"tools": [TOOL], "tool_choice": {"type": "any", "name": "get_weather"}}, "tool_choice.name"),
        (HI, {"tools": [TOOL], "tool_choice": {"type": "tool", "name": "nobody"}}, "tool_choice"),
        (HI, {"tools": [TOOL], "output_config": {"format": {"type": "json_schema", "schema": {}}}},
         "output_config.format"),
        (HI, {"output_config": {"format": {"type": "xml"}}}, "output_config.format.type"),
        (HI, {"output_config": {"effort": "low"}, "chat_template_kwargs": {"reasoning_effort": "low"}},
         "output_config.effort"),
        (HI, {"stop_sequences": ["a"] * 5}, "stop_sequences"), (HI, {"stop_sequences": [""]}, "stop_sequences[0]"),
        (HI, {"stop_sequences": ["x" * 257]}, "stop_sequences"), (HI, {"container": "c"}, "container"),
        (HI, {"inference_geo": "eu"}, "inference_geo"), (HI, {"mcp_servers": [{}]}, "mcp_servers"),
        (HI, {"context_management": {}}, "context_management"), (HI, {"speed": "fast"}, "speed"),
        (HI, {"temperature": 3}, "temperature"), (HI, {"n": 2}, "n"), (HI, {"wibble": 1}, "wibble"),
    ],
)  # fmt: skip
def test_what_cannot_be_honoured_is_named_by_its_path(given: Any, options: dict[str, Any], param: str) -> None:
    assert param_of(given, **options) == param


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["type", "role", "content", "name", "text", "id", "input", "tool_use_id", "thinking", "x"]),
        inner, max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip
FIELDS = st.sampled_from([
    "system", "tools", "tool_choice", "output_config", "thinking", "metadata", "stop_sequences", "max_tokens",
    "chat_template_kwargs", "haif", "container", "wibble",
])  # fmt: skip


@given(
    st.dictionaries(FIELDS, JSON, max_size=4),
    JSON | st.lists(st.fixed_dictionaries({"role": st.just("user"), "content": JSON})),
)
def test_nonsense_is_refused_or_heard_and_never_an_error_of_ours(fields: dict[str, Any], given: Any) -> None:
    try:
        heard(given, **fields)
    except HaifError as refusal:
        assert isinstance(refusal, Rejected | Unsupported) or refusal.reason.value == "invalid_request"


# --- what is said -----------------------------------------------------------------------------------------------------


async def test_a_message_carries_its_text_usage_and_receipt(
    client: anthropic.AsyncAnthropic, house: Any, mesh: ScriptedMesh
) -> None:
    made = await ask(client, system="Be.", extra_body={"temperature": 0})
    (block,) = made.content
    assert (block.type, block.text, made.role, made.stop_reason) == ("text", "Hello world", "assistant", "end_turn")
    assert (made.usage.input_tokens, made.usage.cache_read_input_tokens, made.usage.output_tokens) == (2, 3, 2)
    checked = check_bundle(made.model_extra["haif"], "Hello world")
    assert checked.receipt == mesh.finalised[0]
    assert made.id == f"msg_{checked.receipt.payload.job}"
    assert made._request_id.startswith("req_")
    await house.counted('endpoint="messages",model="tiny"} 1.0')


async def test_thoughts_text_and_calls_are_blocks(client: anthropic.AsyncAnthropic, mesh: ScriptedMesh) -> None:
    mesh.attempts = [Attempt(PIECES)]
    made = await ask(client, tools=[TOOL])
    thought, text, call = made.content
    assert (thought.type, thought.thinking, text.text) == ("thinking", "hm, yes", "I look.")
    assert (call.type, call.name, call.input, made.stop_reason) == (
        "tool_use", "get_weather", {"place": "Rome"}, "tool_use",
    )  # fmt: skip
    check_bundle(made.model_extra["haif"], "I look.", "hm, yes", [("get_weather", '{"place":"Rome"}')])


async def test_a_stream_has_the_whole_sequence_of_events(client: anthropic.AsyncAnthropic, mesh: ScriptedMesh) -> None:
    mesh.attempts = [Attempt(PIECES)]
    events = [event async for event in await ask(client, tools=[TOOL], stream=True)]
    block = ["content_block_start", "content_block_delta", "content_block_delta", "content_block_stop"]
    assert [event.type for event in events] == ["message_start", *block * 3, "message_delta", "message_stop"]
    assert [event.index for event in events[1:-2]] == [0] * 4 + [1] * 4 + [2] * 4
    assert (events[0].message.content, events[0].message.stop_reason) == ([], None)
    assert (events[-2].delta.stop_reason, events[-2].usage.output_tokens) == ("tool_use", 7)
    check_bundle(events[-2].model_extra["haif"], "I look.", "hm, yes", [("get_weather", '{"place":"Rome"}')])


async def test_the_clients_own_helper_builds_the_whole_message_and_sends_it_back(
    client: anthropic.AsyncAnthropic, mesh: ScriptedMesh
) -> None:
    mesh.attempts = [Attempt(PIECES)]
    whole = await ask(client, tools=[TOOL])
    async with client.messages.stream(model="tiny", max_tokens=40, messages=HI, tools=[TOOL]) as stream:
        streamed = await stream.get_final_message()
    of_one = {"id": "", "partial_json": ""}
    assert [block.to_dict() | of_one for block in whole.content] == [
        block.to_dict() | of_one for block in streamed.content
    ]
    assert (streamed.usage.input_tokens, streamed.usage.cache_read_input_tokens) == (
        whole.usage.input_tokens, whole.usage.cache_read_input_tokens,
    )  # fmt: skip
    for made in (whole, streamed):
        mesh.attempts = [Attempt()]
        result = {"type": "tool_result", "tool_use_id": made.content[-1].id, "content": "sunny"}
        history = [*HI, {"role": "assistant", "content": made.content}, {"role": "user", "content": [result]}]
        await ask(client, messages=history)
        sent = mesh.requests[-1].chat
        assert sent is not None
        assert [turn.role for turn in sent] == ["user", "assistant", "tool"]
        assert (sent[1].content, sent[1].reasoning, sent[1].calls[0].arguments) == (
            "I look.", "hm, yes", '{"place":"Rome"}',
        )  # fmt: skip


async def test_an_answer_is_parsed_into_the_type_that_was_asked_for(
    client: anthropic.AsyncAnthropic, mesh: ScriptedMesh
) -> None:
    class Animal(pydantic.BaseModel):
        kind: str
        legs: int

    mesh.attempts = [Attempt(['{"kind":"dog",', '"legs":4}'])]
    parsed = await client.messages.parse(model="tiny", max_tokens=40, messages=HI, output_format=Animal)
    assert parsed.parsed_output == Animal(kind="dog", legs=4)
    schema = mesh.requests[0].json_schema
    assert schema is not None
    assert json.loads(schema)["required"] == ["kind", "legs"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("attempt", "options", "reason", "sequence"),
    [
        (Attempt(), {}, "end_turn", None),
        (Attempt(finish_reason="length"), {"max_tokens": 2}, "max_tokens", None),
        (Attempt(finish_reason="length"), {"max_tokens": 3}, "model_context_window_exceeded", None),
        (Attempt(end=lambda end: replace(end, stopped_by="b")), {"stop_sequences": ["a", "b"]}, "stop_sequence", "b"),
        (Attempt([]), {}, "end_turn", None),
    ],
)
async def test_the_reason_of_an_end_is_told(
    client: anthropic.AsyncAnthropic, mesh: ScriptedMesh, stream: bool, attempt: Attempt, options: dict[str, Any],
    reason: str, sequence: str | None,
) -> None:  # fmt: skip
    mesh.attempts = [attempt]
    made = await ask(client, stream=stream, **options)
    told = [event async for event in made][-2].delta if stream else made
    assert (told.stop_reason, told.stop_sequence) == (reason, sequence)


@pytest.mark.parametrize("arguments", ['{"pla', "[]", '{"a":1,"a":2}', ""])
async def test_arguments_that_are_no_object_are_told_as_they_were_written(
    client: anthropic.AsyncAnthropic, mesh: ScriptedMesh, arguments: str
) -> None:
    mesh.attempts = [Attempt([[Aside(CALL, "get_weather"), Aside(ARGUMENTS, arguments)]])]
    (block,) = (await ask(client, tools=[TOOL])).content
    assert (block.input, block.model_extra["partial_json"]) == ({}, arguments)


def sent(text: str) -> list[Any]:
    """The data of each event; an event is two lines and an empty one, its name its type."""
    assert text.endswith("\n\n")
    events = []
    for block in text[:-2].split("\n\n"):
        name, data = block.split("\n")
        events.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {events[-1]['type']}"
    return events


BODY: dict[str, Any] = {"model": "tiny", "max_tokens": 40, "messages": HI, "stream": True}


@pytest.mark.parametrize(
    "text", ["\n\nevent: message_stop\ndata: {}\n\n", "data: [DONE]\n\n", "\r\n\r", "\u2028\x00", "🦉"]
)
async def test_no_text_is_taken_for_an_event(house: Any, mesh: ScriptedMesh, text: str) -> None:
    mesh.attempts = [Attempt([[Aside(REASONING, text)], text, [Aside(CALL, "get_weather"), Aside(ARGUMENTS, text)]])]
    events = sent((await house.post(BODY | {"tools": [TOOL]}, "/v1/messages")).text)
    deltas = [event["delta"] for event in events if event["type"] == "content_block_delta"]
    assert [text] * 3 == [deltas[0]["thinking"], deltas[1]["text"], deltas[2]["partial_json"]]


async def test_a_tenant_who_waits_is_pinged(a_house: Any, mesh: ScriptedMesh) -> None:
    mesh.attempts = [Attempt([Hang()])]
    async with a_house(keepalive_seconds=0.02) as house:
        headers = {"x-api-key": house.key}
        async with house.http.stream("POST", "/v1/messages", json=BODY, headers=headers) as reply:
            lines = reply.aiter_lines()
            assert [await anext(lines) for _ in range(4)] == ["event: ping", 'data: {"type":"ping"}', "", "event: ping"]


# --- keys, versions and what goes wrong -------------------------------------------------------------------------------


async def test_a_key_comes_as_a_bearers_or_by_itself(house: Any) -> None:
    body = BODY | {"stream": False}
    kind = {"content-type": "application/json"}
    for headers in (
        {"x-api-key": house.key}, {"authorization": f"Bearer {house.key}"},
        {"x-api-key": house.key, "authorization": f"Bearer {house.key}", "anthropic-version": "2023-06-01"},
        {"x-api-key": house.key, "anthropic-version": "2026-10-21"},
    ):  # fmt: skip
        assert (await house.http.post("/v1/messages", json=body, headers=headers)).status_code == 200
    for headers in ({}, {"x-api-key": "haif-wrong"}, {"x-api-key": house.key, "authorization": "Bearer haif-other"}):
        reply = await house.http.post("/v1/messages", json=body, headers=headers | kind)
        assert (reply.status_code, reply.json()["error"]["type"]) == (401, "authentication_error")
    other = await house.post(body, "/v1/messages", anthropic_version="2099-01-01")
    assert (other.status_code, other.json()["error"]["details"]["param"]) == (400, "anthropic-version")


async def test_errors_have_the_form_and_types_of_this_dialect(
    client: anthropic.AsyncAnthropic, house: Any, mesh: ScriptedMesh
) -> None:
    async def refusal(kind: type[anthropic.APIStatusError], **options: Any) -> anthropic.APIStatusError:
        with pytest.raises(kind) as caught:
            await ask(client, **options)
        assert caught.value.request_id.startswith("req_")
        return caught.value

    wrong = await refusal(anthropic.BadRequestError, extra_body={"temperature": 3})
    assert (wrong.type, wrong.error_code, wrong.body["error"]["details"]["param"]) == (
        "invalid_request_error", "invalid_value", "temperature",
    )  # fmt: skip
    missing = await refusal(anthropic.NotFoundError, model="nobody")
    assert (missing.type, missing.error_code) == ("not_found_error", "model_not_found")
    asleep = await refusal(anthropic.InternalServerError, model="asleep")
    assert (asleep.status_code, asleep.type, asleep.response.headers["retry-after"]) == (503, "overloaded_error", "3")
    large = await refusal(anthropic.APIStatusError, messages=[{"role": "user", "content": "x" * (1 << 20)}])
    assert (large.status_code, large.type) == (413, "request_too_large")
    for error, status, kind in ((Timeout("late"), 504, "timeout_error"), (EngineDied("killed"), 502, "api_error")):
        mesh.attempts = [Attempt([error])] * limits.ATTEMPTS_MAX
        failed = await refusal(anthropic.InternalServerError)
        assert (failed.status_code, failed.type) == (status, kind)
    with pytest.raises(anthropic.AuthenticationError):
        await ask(client.with_options(api_key="haif-wrong"))
    with pytest.raises(anthropic.NotFoundError, match="not counted here"):
        await client.messages.count_tokens(model="tiny", messages=HI)
    assert (await house.http.get("/v1/messages")).json()["error"]["details"]["error_code"] == "method_not_allowed"


async def test_over_quota_is_a_rate_limit_error(a_house: Any) -> None:
    async with (
        a_house(rpm=1, burst=1) as house,
        anthropic.AsyncAnthropic(base_url=house.url, api_key=house.key, max_retries=0) as client,
    ):
        await ask(client)
        with pytest.raises(anthropic.RateLimitError) as caught:
            await ask(client)
    assert caught.value.type == "rate_limit_error"
    assert 1 <= int(caught.value.response.headers["retry-after"]) <= 60


async def test_a_stream_that_breaks_says_so_and_never_stops_well(
    client: anthropic.AsyncAnthropic, house: Any, mesh: ScriptedMesh
) -> None:
    mesh.attempts = [Attempt(["half", ConnectionLost("gone")])]
    seen = []
    with pytest.raises(anthropic.APIStatusError, match="gone") as caught:
        async for event in await ask(client, stream=True):
            seen.append(event.type)  # noqa: PERF401 - it ends with an error
    assert (caught.value.type, caught.value.error_code) == ("api_error", "worker_lost")
    assert seen == ["message_start", "content_block_start", "content_block_delta"]
    assert sent((await house.post(BODY, "/v1/messages")).text)[-1]["type"] == "error"


async def test_a_stream_that_fails_before_anything_was_said_is_pings_and_an_error(
    a_house: Any, mesh: ScriptedMesh
) -> None:
    mesh.attempts = [Attempt([Hang()])]
    async with a_house(keepalive_seconds=0.02) as house:
        *pings, error = sent((await house.post(BODY, "/v1/messages", x_haif_deadline_ms="200")).text)
    assert {"ping"} == {event["type"] for event in pings}
    assert (error["error"]["type"], error["error"]["details"]["error_code"]) == ("timeout_error", "deadline_exceeded")


@pytest.mark.parametrize("stream", [False, True])
async def test_refusals_of_workers_have_the_names_of_this_dialect(
    client: anthropic.AsyncAnthropic, mesh: ScriptedMesh, stream: bool
) -> None:
    for ours, theirs in (
        ("messages[3].name", "messages"), ("reasoning_effort", "output_config.effort"), ("max_tokens", "max_tokens"),
        ("tools[1].function.parameters", "tools[1].input_schema"), ("response_format", "output_config.format"),
        ("stop", "stop_sequences"), ("model", "model"),
    ):  # fmt: skip
        mesh.attempts = [Attempt([Unsupported("not this", param=ours)])]
        with pytest.raises(anthropic.BadRequestError) as caught:
            await ask(client, stream=stream)
        assert caught.value.body["error"]["details"]["param"] == theirs


@pytest.mark.parametrize("cut", range(1, len(PIECES)))
async def test_a_stream_cut_anywhere_goes_on_elsewhere(
    client: anthropic.AsyncAnthropic, mesh: ScriptedMesh, cut: int
) -> None:
    mesh.attempts = [Attempt([*PIECES[:cut], ConnectionLost("gone")]), Attempt(PIECES[cut:])]
    async with client.messages.stream(model="tiny", max_tokens=40, messages=HI, tools=[TOOL]) as stream:
        thought, text, call = (await stream.get_final_message()).content
    assert (thought.thinking, text.text, call.input) == ("hm, yes", "I look.", {"place": "Rome"})


async def test_a_message_under_a_key_is_answered_once(house: Any, mesh: ScriptedMesh) -> None:
    first = await house.post(BODY, "/v1/messages", idempotency_key="k1")
    again = await house.post(BODY, "/v1/messages", idempotency_key="k1")
    assert first.text == again.text
    assert again.headers["idempotent-replayed"] == "true"
    assert len(mesh.finalised) == 1


async def test_no_nesting_is_an_error_of_ours(house: Any, mesh: ScriptedMesh) -> None:
    for depth in (30, 100, 500, 900, 50_000):
        deep = b'{"a":' * depth + b"1" + b"}" * depth
        used = b'{"type":"tool_use","id":"c1","name":"f","input":' + deep + b"}"
        turns = b'{"role":"assistant","content":[' + used + b']},{"role":"user","content":"hi"}'
        tool = b'{"name":"f","input_schema":' + deep + b"}"
        for body in (
            b'{"model":"tiny","max_tokens":4,"messages":[' + turns + b"]}",
            b'{"model":"tiny","max_tokens":4,"messages":[{"role":"user","content":"hi"}],"tools":[' + tool + b"]}",
        ):
            assert (await house.post(body, "/v1/messages")).status_code in (200, 400)
