"""Tools, reasoning, template settings: what a tenant may say and hears, and what a worker cannot make us say."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from haif.base import limits
from haif.base.conversation import ARGUMENTS, CALL, REASONING, Aside, Call, Tool, Toolbox, Turn
from haif.base.errors import ConnectionLost, Reason
from haif.base.ids import JobId
from haif.gateway.told import call_id
from haif.protocol.inference import Answer, Chunk
from haif.protocol.receipts import check_bundle
from tests.support.scripted_mesh import Attempt, ScriptedMesh
from tests.unit.gateway.test_openai import CALL as HISTORY
from tests.unit.gateway.test_openai import chat, refusal

SCHEMA = {"type": "object", "properties": {"place": {"type": "string"}}}
WEATHER = {"type": "function", "function": {"name": "get_weather", "description": "The weather.", "parameters": SCHEMA}}
CLOCK = {"type": "function", "function": {"name": "clock", "strict": True}}
ASKED: dict[str, Any] = {"tools": [WEATHER, CLOCK]}


def call(name: str = "get_weather", *arguments: str) -> list[Aside]:
    return [Aside(CALL, name), *(Aside(ARGUMENTS, each) for each in arguments or ('{"place":', '"Rome"}'))]


# --- what arrives -----------------------------------------------------------------------------------------------------


def test_tools_arrive_with_their_schemas_and_how_they_may_be_called() -> None:
    box = chat(**ASKED).request.tools
    assert box == Toolbox([
        Tool("get_weather", "The weather.", json.dumps(SCHEMA, separators=(",", ":")), strict=False),
        Tool("clock", None, '{"type":"object","properties":{},"additionalProperties":false}', strict=True),
    ])  # fmt: skip
    assert chat(**ASKED, tool_choice="auto", parallel_tool_calls=True).request.tools == box
    required = chat(**ASKED, tool_choice="required", parallel_tool_calls=False).request.tools
    named = chat(**ASKED, tool_choice={"type": "function", "function": {"name": "clock"}}).request.tools
    assert required is not None
    assert named is not None
    assert (required.required, required.parallel, required.single, named.only, named.must) == (
        True, False, True, "clock", True,
    )  # fmt: skip


def test_without_a_choice_or_tools_nothing_is_offered() -> None:
    assert chat(**ASKED, tool_choice="none") == chat()
    assert chat(tools=[], tool_choice="auto", parallel_tool_calls=False) == chat()


def test_a_conversation_with_calls_results_and_reasoning_arrives() -> None:
    messages = [
        {"role": "user", "content": "hi", "name": "bob"},
        {"role": "assistant", "content": None, "tool_calls": [HISTORY], "reasoning_content": "hm", "refusal": None},
        {
            "role": "tool",
            "tool_call_id": "c1",
            "content": [{"type": "text", "text": "su"}, {"type": "text", "text": "n"}],
        },
    ]
    assert chat(messages=messages).request.chat == [
        Turn("user", "hi", name="bob"),
        Turn("assistant", "", calls=[Call("c1", "f", '{"a":1}')], reasoning="hm"),
        Turn("tool", "sun", call_id="c1"),
    ]


def test_settings_of_the_template_arrive() -> None:
    ask = chat(chat_template_kwargs={"enable_thinking": False, "budget": 3}, reasoning_effort="low")
    assert ask.request.settings == [("enable_thinking", False), ("budget", 3), ("reasoning_effort", "low")]


def deep(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


def tool(**changes: Any) -> dict[str, Any]:
    return {"tools": [{"type": "function", "function": {"name": "f", **changes}}]}


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"), ({"tools": "all"}, "tools"),
        ({"tools": [WEATHER] * 2}, "tools"), ({"tools": [WEATHER] * (limits.TOOLS_MAX + 1)}, "tools"),
        (tool(name="a b"), "tools[0].function.name"), (tool(name="<|end|>"), "tools[0].function.name"),
        (tool(name="x" * 65), "tools[0].function.name"), (tool(wibble=1), "tools[0].function.wibble"),
        (tool(parameters=[]), "tools[0].function.parameters"),
        (tool(parameters={"type": "string"}), "tools[0].function.parameters"),
        (tool(parameters=deep(limits.JSON_DEPTH_MAX)), "tools[0].function.parameters"),
        (tool(description="x" * limits.TOOLS_BYTES_MAX), "tools"),
        ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"), (ASKED | {"tool_choice": "always"}, "tool_choice"),
        (ASKED | {"tool_choice": {"type": "function", "function": {"name": "nobody"}}}, "tool_choice"),
        (ASKED | {"tool_choice": {"type": "allowed_tools"}}, "tool_choice.type"),
        (ASKED | {"response_format": {"type": "json_object"}}, "response_format"),
        (ASKED | {"logprobs": True}, "logprobs"), ({"parallel_tool_calls": 1}, "parallel_tool_calls"),
        ({"reasoning_effort": "enormous"}, "reasoning_effort"),
        ({"reasoning_effort": "low", "chat_template_kwargs": {"reasoning_effort": "low"}}, "reasoning_effort"),
        ({"chat_template_kwargs": {"a": [1]}}, "chat_template_kwargs"),
        ({"chat_template_kwargs": {"a": "b c"}}, "chat_template_kwargs"),
        ({"chat_template_kwargs": {"a": "x" * 65}}, "chat_template_kwargs"),
        ({"chat_template_kwargs": {f"a{n}": n for n in range(17)}}, "chat_template_kwargs"),
        ({"audio": {"voice": "x"}}, "audio"), ({"modalities": ["audio"]}, "modalities"), ({"store": True}, "store"),
        ({"prediction": {"type": "content"}}, "prediction"), ({"functions": [{"name": "f"}]}, "functions"),
        ({"function_call": {"name": "f"}}, "function_call"), ({"verbosity": "low"}, "verbosity"),
        ({"web_search_options": {}}, "web_search_options"),
    ],
)  # fmt: skip
def test_what_cannot_be_honoured_is_named_by_its_path(options: dict[str, Any], param: str) -> None:
    assert refusal(chat, **options)[0] == param


# --- what is heard ----------------------------------------------------------------------------------------------------


async def test_calls_are_told_whole_and_streamed_as_openai_does(house: Any, mesh: ScriptedMesh) -> None:
    second = [Aside(CALL, "clock"), Aside(ARGUMENTS, "{}")]
    mesh.attempts = [Attempt([[Aside(REASONING, "hm, ")], [Aside(REASONING, "yes")], "I look.", call(), second])]
    answer = await house.chat(**ASKED)
    message = answer.choices[0].message
    job = mesh.finalised[0].payload.job
    assert (message.content, message.model_extra["reasoning_content"]) == ("I look.", "hm, yes")
    assert [(each.id, each.type, each.function.name, each.function.arguments) for each in message.tool_calls] == [
        (call_id(job, 0), "function", "get_weather", '{"place":"Rome"}'), (call_id(job, 1), "function", "clock", "{}"),
    ]  # fmt: skip
    assert answer.choices[0].finish_reason == "tool_calls"
    parts = [("get_weather", '{"place":"Rome"}'), ("clock", "{}")]
    check_bundle(answer.model_extra["haif"], "I look.", "hm, yes", parts)

    chunks = [chunk async for chunk in await house.chat(**ASKED, stream=True)]
    deltas = [choice.delta for chunk in chunks for choice in chunk.choices]
    assert deltas[0].role == "assistant"
    assert "".join(delta.model_extra.get("reasoning_content", "") for delta in deltas) == "hm, yes"
    calls = [each for delta in deltas for each in delta.tool_calls or ()]
    assert [(each.index, each.function.name, each.function.arguments) for each in calls] == [
        (0, "get_weather", ""), (0, None, '{"place":'), (0, None, '"Rome"}'), (1, "clock", ""), (1, None, "{}"),
    ]  # fmt: skip
    assert [(each.id is None, each.type is None) for each in calls] == [
        (False, False), (True, True), (True, True), (False, False), (True, True),
    ]  # fmt: skip
    assert chunks[-1].choices[0].finish_reason == "tool_calls"
    check_bundle(chunks[-1].model_extra["haif"], "I look.", "hm, yes", parts)


async def test_the_official_client_gathers_a_streams_calls_by_itself(house: Any, mesh: ScriptedMesh) -> None:
    mesh.attempts = [Attempt([call()])]
    asked = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "tools": [WEATHER]}
    async with house.client.chat.completions.stream(**asked) as stream:
        final = await stream.get_final_completion()
    assert final.choices[0].message.tool_calls[0].function.arguments == '{"place":"Rome"}'
    assert final.choices[0].finish_reason == "tool_calls"
    sent_back = final.choices[0].message.model_dump(exclude_none=True)
    history = [*asked["messages"], sent_back, {
        "role": "tool", "tool_call_id": final.choices[0].message.tool_calls[0].id, "content": "sunny"}]  # fmt: skip
    mesh.attempts = [Attempt()]
    await house.chat(messages=history)
    turns = mesh.requests[-1].chat
    assert turns is not None
    assert (turns[1].calls[0].name, turns[2].role, turns[2].content) == ("get_weather", "tool", "sunny")


async def test_a_message_with_calls_alone_has_no_content(house: Any, mesh: ScriptedMesh) -> None:
    mesh.attempts = [Attempt([call()])]
    assert (await house.chat(**ASKED)).choices[0].message.content is None
    first, *_ = [chunk async for chunk in await house.chat(**ASKED, stream=True)]
    assert first.choices[0].delta.content is None


async def test_an_answer_cut_in_a_call_ends_for_its_length(house: Any, mesh: ScriptedMesh) -> None:
    mesh.attempts = [Attempt([call("get_weather", '{"pla')], finish_reason="length")]
    answer = await house.chat(**ASKED, tool_choice="required", max_tokens=1)
    assert (answer.choices[0].finish_reason, answer.choices[0].message.tool_calls[0].function.arguments) == (
        "length", '{"pla',
    )  # fmt: skip


async def test_reasoning_is_counted_by_the_workers_word(house: Any, mesh: ScriptedMesh) -> None:
    mesh.attempts = [Attempt([[Aside(REASONING, "hm")], "yes"], end=lambda end: replace(end, reasoning_tokens=1))]
    answer = await house.chat()
    assert answer.usage.completion_tokens_details.reasoning_tokens == 1


def raw(*asides: Aside) -> Answer:
    return Answer(chunk=Chunk(0, [7], "", [], list(asides)))


HOSTILE: list[tuple[dict[str, Any], list[Any]]] = [
    ({}, [call()]), (ASKED, [call("rm_rf")]),
    (ASKED, [raw(Aside("wibble", "x"))]), (ASKED, [raw(Aside(ARGUMENTS, "{}"))]),
    (ASKED | {"parallel_tool_calls": False}, [call(), call()]),
    (ASKED | {"tool_choice": {"type": "function", "function": {"name": "clock"}}}, [call()]),
    (ASKED | {"tool_choice": "required"}, ["I had rather not."]),
    (ASKED | {"tool_choice": "required"}, [call("clock", '{"a":1')]),
    (ASKED | {"tool_choice": "required"}, [call("clock", "[]")]),
    (ASKED | {"tool_choice": "required"}, [call("clock", '{"a":1,"a":2}')]),
    (ASKED | {"tool_choice": "required"}, [call("clock", '{"a":' * 5000 + "1" + "}" * 5000)]),
    (ASKED | {"tool_choice": "required"}, [call("clock", '{"a":NaN}')]),
    (ASKED | {"tool_choice": "required"}, [call("clock", '{"a":"\\ud800"}')]),
    (ASKED, [[Aside(CALL, "clock")] * (limits.TOOL_CALLS_MAX + 1)]),
    (ASKED | {"max_tokens": 1}, [[Aside(REASONING, "x" * 100_000)]]),
]  # fmt: skip


@pytest.mark.parametrize(("options", "steps"), HOSTILE)
async def test_a_hostile_worker_cannot_make_calls_that_were_not_allowed(
    house: Any, mesh: ScriptedMesh, options: dict[str, Any], steps: list[Any]
) -> None:
    mesh.attempts = [Attempt(steps)] * limits.ATTEMPTS_MAX
    with pytest.raises(openai.InternalServerError) as caught:
        await house.chat(**options)
    assert caught.value.code == "bad_worker_response"
    assert mesh.finalised == []
    dropped = Reason.OVERSIZE if options.get("max_tokens") else Reason.MALFORMED
    assert f'haif_dropped_total{{reason="{dropped}"}}' in house.metrics()


PIECES = [[Aside(REASONING, "hm")], "I look.", [Aside(CALL, "get_weather")], [Aside(ARGUMENTS, '{"place":')],
          [Aside(ARGUMENTS, '"Rome"}')], call("clock", "{}")]  # fmt: skip


@pytest.mark.parametrize("cut", range(1, len(PIECES)))
async def test_an_answer_cut_in_a_call_or_thought_goes_on_elsewhere_as_if_nothing_had_happened(
    house: Any, mesh: ScriptedMesh, cut: int
) -> None:
    mesh.attempts = [Attempt([*PIECES[:cut], ConnectionLost("gone")]), Attempt(PIECES[cut:])]
    chunks = [chunk async for chunk in await house.chat(**ASKED, stream=True)]
    deltas = [choice.delta for chunk in chunks for choice in chunk.choices]
    calls = [each for delta in deltas for each in delta.tool_calls or ()]
    assert [each.function.name for each in calls if each.function.name] == ["get_weather", "clock"]
    assert "".join(each.function.arguments for each in calls) == '{"place":"Rome"}{}'
    parts = [("get_weather", '{"place":"Rome"}'), ("clock", "{}")]
    check_bundle(chunks[-1].model_extra["haif"], "I look.", "hm", parts)


async def test_two_workers_that_hear_different_calls_in_the_same_tokens_are_not_believed(
    house: Any, mesh: ScriptedMesh
) -> None:
    lies = Attempt(PIECES[3:], retold=lambda given: replace(given, asides=call("clock")))
    mesh.attempts = [Attempt([*PIECES[:3], ConnectionLost("gone")]), lies, lies]
    with pytest.raises(openai.APIError):
        [chunk async for chunk in await house.chat(**ASKED, stream=True)]
    assert mesh.finalised == []


async def test_a_text_completion_has_no_asides(house: Any, mesh: ScriptedMesh) -> None:
    mesh.attempts = [Attempt([[Aside(REASONING, "hm")]])] * limits.ATTEMPTS_MAX
    with pytest.raises(openai.InternalServerError):
        await house.client.completions.create(model="tiny", prompt="Once")


@given(st.binary(min_size=16, max_size=16), st.integers(0, limits.TOOL_CALLS_MAX - 1))
def test_ids_of_calls_are_nine_letters_and_digits(raw: bytes, place: int) -> None:
    made = call_id(JobId(raw), place)
    assert len(made) == 9
    assert made.isalnum()
    assert made.isascii()
    assert made == call_id(JobId(raw), place) != call_id(JobId(raw), place + 1)
