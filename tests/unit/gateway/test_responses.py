"""OpenAI's Responses API: it becomes the request a chat would be, and the official client, strict, hears it all."""

import json
from typing import Any

import openai
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haif.base import limits
from haif.base.conversation import ARGUMENTS, CALL, REASONING, Aside, Call, Turn
from haif.base.errors import ConnectionLost, HaifError, NoWorker, Unsupported
from haif.base.ids import Nonce
from haif.base.sampling import Likelihood
from haif.gateway.errors import Rejected
from haif.gateway.openai import parse_chat
from haif.gateway.responses import parse_response
from haif.protocol.inference import Answer, Chunk
from haif.protocol.receipts import check_bundle
from tests.support.scripted_mesh import Attempt, Hang, ScriptedMesh

NONCE = Nonce(b"n" * 16)
TOOL: dict[str, Any] = {"type": "function", "name": "get_weather", "parameters": {"type": "object"}}
CALLED: dict[str, Any] = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"a":1}'}
PIECES: list[Any] = [
    [Aside(REASONING, "hm, ")], [Aside(REASONING, "yes")], "I ", "look.",
    [Aside(CALL, "get_weather")], [Aside(ARGUMENTS, '{"place":')], [Aside(ARGUMENTS, '"Rome"}')],
]  # fmt: skip


def heard(given: Any = "hi", **options: Any) -> Any:
    return parse_response(json.dumps({"model": "tiny", "input": given, **options}).encode(), NONCE)


def turns(given: Any, **options: Any) -> Any:
    return heard(given, **options).request.chat


def param_of(given: Any = "hi", **options: Any) -> str | None:
    with pytest.raises((Rejected, Unsupported, HaifError)) as caught:
        heard(given, **options)
    return caught.value.param


# --- what is heard ----------------------------------------------------------------------------------------------------


def test_a_text_is_the_request_that_a_chat_makes() -> None:
    options = {"temperature": 0.5, "top_p": 0.9, "seed": 7, "top_k": 3}
    chat = {"model": "tiny", "messages": [{"role": "system", "content": "Be."}, {"role": "user", "content": "hi"}]}
    wanted = parse_chat(json.dumps({**chat, **options, "max_tokens": 9}).encode(), NONCE)
    ask = heard(instructions="Be.", max_output_tokens=9, **options)
    assert wanted.request == ask.request
    assert (wanted.seed, wanted.model, wanted.task) == (ask.seed, ask.model, ask.task)
    assert heard().request.fit


def test_items_in_a_row_are_one_turn_of_the_assistant() -> None:
    items = [
        {"role": "user", "content": [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]},
        {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
        {"type": "message", "role": "assistant", "id": "msg_1", "status": "completed",
         "content": [{"type": "output_text", "text": "I look.", "annotations": [], "logprobs": []}]},
        CALLED, CALLED | {"call_id": "c2"},
        {"type": "function_call_output", "call_id": "c2", "output": "two"},
        {"type": "function_call_output", "call_id": "c1", "output": [{"type": "input_text", "text": "one"}]},
        {"role": "assistant", "content": "So."},
        {"role": "developer", "content": "Go on."},
    ]  # fmt: skip
    assert turns(items, instructions="Be.") == [
        Turn("system", "Be."), Turn("user", "ab"),
        Turn("assistant", "I look.", calls=[Call("c1", "f", '{"a":1}'), Call("c2", "f", '{"a":1}')], reasoning="hm"),
        Turn("tool", "two", call_id="c2"), Turn("tool", "one", call_id="c1"), Turn("assistant", "So."),
        Turn("system", "Go on."),
    ]  # fmt: skip


def test_what_follows_a_call_or_a_text_is_another_turn() -> None:
    said = {"role": "assistant", "content": "a"}
    thought = {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]}
    assert turns([said, said, CALLED, said, thought]) == [
        Turn("assistant", "a"), Turn("assistant", "a", calls=[Call("c1", "f", '{"a":1}')]), Turn("assistant", "a"),
        Turn("assistant", "", reasoning="hm"),
    ]  # fmt: skip


def test_tools_formats_and_effort_are_those_of_a_chat() -> None:
    function = {key: value for key, value in TOOL.items() if key != "type"}
    chat = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5}

    def same(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
        assert (
            parse_chat(json.dumps(chat | theirs).encode(), NONCE).request == heard(max_output_tokens=5, **ours).request
        )

    offered = {"tools": [{"type": "function", "function": function}]}
    named = {"type": "function", "function": {"name": "get_weather"}}
    same({"tools": [TOOL]}, offered)
    same({"tools": [TOOL], "tool_choice": "required", "parallel_tool_calls": False},
         offered | {"tool_choice": "required", "parallel_tool_calls": False})  # fmt: skip
    same(
        {"tools": [TOOL], "tool_choice": {"type": "function", "name": "get_weather"}}, offered | {"tool_choice": named}
    )
    same({"tools": [TOOL], "tool_choice": "none"}, {})
    shape = {"name": "n", "schema": {"type": "object"}}
    same({"text": {"format": {"type": "json_schema", **shape}}},
         {"response_format": {"type": "json_schema", "json_schema": shape}})  # fmt: skip
    same({"text": {"format": {"type": "json_object"}}}, {"response_format": {"type": "json_object"}})
    same({"text": {"format": {"type": "text"}, "verbosity": "medium"}}, {})
    same({"reasoning": {"effort": "low", "summary": "auto"}}, {"reasoning_effort": "low"})
    same({"include": ["message.output_text.logprobs"], "top_logprobs": 2}, {"logprobs": True, "top_logprobs": 2})


def test_demands_of_haif_are_heard_and_hints_named() -> None:
    ask = heard(haif={"sandbox": "full", "execution": "any", "transcript": True}, user="u", store=False,
                include=["reasoning.encrypted_content"], prompt_cache_key="k")  # fmt: skip
    assert (ask.sandbox_min, ask.execution, ask.transcript) == ("full", "any", True)
    assert set(ask.ignored) == {"user", "prompt_cache_key", "include"}


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"), ({"store": True}, "store"),
        ({"conversation": "conv_1"}, "conversation"), ({"prompt": {"id": "p"}}, "prompt"),
        ({"background": True}, "background"), ({"truncation": "auto"}, "truncation"), ({"n": 2}, "n"),
        ({"max_tool_calls": 3}, "max_tool_calls"), ({"service_tier": "flex"}, "service_tier"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"), ({"tools": "all"}, "tools"),
        ({"tools": [TOOL | {"name": "a b"}]}, "tools[0].name"), ({"tools": [TOOL, TOOL]}, "tools"),
        ({"tools": [TOOL | {"parameters": {"type": "string"}}]}, "tools[0].parameters"),
        ({"tools": [TOOL | {"defer_loading": True}]}, "tools[0].defer_loading"),
        ({"tools": [TOOL] * (limits.TOOLS_MAX + 1)}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "name": "f"}}, "tool_choice"),
        ({"tool_choice": {"type": "allowed_tools"}}, "tool_choice.type"),
        ({"text": {"verbosity": "low"}}, "text.verbosity"), ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
        ({"text": {"format": {"type": "json_schema", "name": "n"}}}, "text.format.schema"),
        ({"text": {"format": {"type": "json_schema", "schema": {}}}}, "text.format.name"),
        ({"text": {"format": {"type": "text", "schema": {}}}}, "text.format.schema"),
        ({"tools": [TOOL], "text": {"format": {"type": "json_object"}}}, "text.format"),
        ({"tools": [TOOL], "include": ["message.output_text.logprobs"]}, "top_logprobs"),
        ({"top_logprobs": 2}, "top_logprobs"), ({"include": ["file_search_call.results"]}, "include[0]"),
        ({"reasoning": {"effort": "enormous"}}, "reasoning.effort"),
        ({"reasoning": {"summary": "detailed"}}, "reasoning.summary"),
        ({"reasoning": {"effort": "low"}, "chat_template_kwargs": {"reasoning_effort": "low"}}, "reasoning.effort"),
        ({"metadata": {"a": 1}}, "metadata"), ({"metadata": {"k" * 65: "v"}}, "metadata"),
        ({"metadata": {"k": "v" * 513}}, "metadata"), ({"metadata": {str(n): "" for n in range(17)}}, "metadata"),
        ({"max_output_tokens": 0}, "max_output_tokens"), ({"stream_options": {}}, "stream_options"),
        ({"stream": True, "stream_options": {"include_obfuscation": True}}, "stream_options.include_obfuscation"),
        ({"temperature": 3}, "temperature"), ({"haif": {"sandbox": "best"}}, "haif.sandbox"), ({"wibble": 1}, "wibble"),
    ],
)  # fmt: skip
def test_what_cannot_be_honoured_is_named(options: dict[str, Any], param: str) -> None:
    assert param_of(**options) == param


@pytest.mark.parametrize(
    ("items", "param"),
    [
        ([], "input"), (None, "input"), (5, "input"), ("", None), ([5], "input[0]"), ([{}], "input[0].type"),
        ([{"type": "item_reference", "id": "msg_1"}], "input[0].type"), ([{"type": 5}], "input[0].type"),
        ([{"type": "web_search_call", "id": "w"}], "input[0].type"),
        ([{"role": "robot", "content": "x"}], "input[0].role"),
        ([{"role": ["user"], "content": []}], "input[0].role"), ([{"role": "user"}], "input[0].content"),
        ([{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}], "input[0].content[0].type"),
        ([{"role": "user", "content": [{"type": "output_text", "text": "x"}]}], "input[0].content[0].type"),
        ([{"role": "assistant", "content": [{"type": "refusal", "refusal": "x"}]}], "input[0].content[0].type"),
        ([{"role": "user", "content": [{"type": "input_text", "text": "x", "wibble": 1}]}],
         "input[0].content[0].wibble"),
        ([{"role": "user", "content": "x", "phase": "commentary"}], "input[0].phase"),
        ([{"type": "function_call_output", "call_id": "c1", "output": "x"}], "input[0].call_id"),
        ([CALLED, {"type": "function_call_output", "call_id": "c1", "output": [{"type": "input_file"}]}],
         "input[1].output[0].type"),
        ([CALLED | {"name": "a b"}], "input[0].name"), ([CALLED | {"call_id": ""}], "input[0].call_id"),
        ([{"type": "reasoning", "summary": [], "encrypted_content": "x"}], "input[0].encrypted_content"),
        ([{"role": "user", "content": "x"}] * (limits.MESSAGES_PER_PROMPT_MAX + 1), "input"),
        ([CALLED] * (limits.TOOL_CALLS_MAX + 1), "input"), ([CALLED] * (limits.RESPONSE_ITEMS_MAX + 1), "input"),
    ],
)  # fmt: skip
def test_items_that_cannot_be_honoured_are_named_by_their_path(items: Any, param: str | None) -> None:
    if param is None:
        assert turns(items) == [Turn("user", "")]
    else:
        assert param_of(items) == param


def test_what_is_not_kept_is_refused_with_what_to_do_instead() -> None:
    with pytest.raises(Unsupported, match="send the conversation's items again as input"):
        heard(previous_response_id="resp_1")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["type", "role", "content", "name", "text", "call_id", "arguments", "output", "format", "x"]),
        inner, max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip
FIELDS = st.sampled_from([
    "input", "instructions", "tools", "tool_choice", "text", "reasoning", "metadata", "include", "stream_options",
    "max_output_tokens", "chat_template_kwargs", "haif", "store", "previous_response_id", "top_logprobs", "wibble",
])  # fmt: skip


@given(st.dictionaries(FIELDS, JSON, max_size=4), JSON)
def test_nonsense_is_refused_or_heard_and_never_an_error_of_ours(fields: dict[str, Any], items: Any) -> None:
    try:
        heard(**({"given": items} | {("given" if name == "input" else name): fields[name] for name in fields}))
    except HaifError as refusal:
        assert isinstance(refusal, Rejected | Unsupported) or refusal.reason.value == "invalid_request"


# --- what is said -----------------------------------------------------------------------------------------------------


async def test_a_response_carries_its_text_usage_receipt_and_what_was_asked(house: Any, mesh: ScriptedMesh) -> None:
    made = await house.client.responses.create(
        model="tiny", input="hi", instructions="Be.", metadata={"a": "b"}, temperature=0, max_output_tokens=40
    )
    assert (made.output_text, made.status, made.store, made.error) == ("Hello world", "completed", False, None)
    assert (made.instructions, made.metadata, made.temperature, made.max_output_tokens) == ("Be.", {"a": "b"}, 0, 40)
    assert (made.usage.input_tokens, made.usage.output_tokens, made.usage.total_tokens) == (5, 2, 7)
    assert made.usage.input_tokens_details.cached_tokens == 3
    checked = check_bundle(made.model_extra["haif"], "Hello world")
    assert checked.receipt == mesh.finalised[0]
    assert made.id == f"resp_{checked.receipt.payload.job}"
    await house.counted('endpoint="responses",model="tiny"} 1.0')


async def test_thoughts_text_and_calls_are_items(house: Any, mesh: ScriptedMesh) -> None:
    mesh.attempts = [Attempt(PIECES)]
    made = await house.client.responses.create(model="tiny", input="hi", tools=[TOOL], tool_choice="auto")
    thought, message, call = made.output
    assert (thought.type, thought.content[0].text, message.content[0].text) == ("reasoning", "hm, yes", "I look.")
    assert (call.type, call.name, call.arguments) == ("function_call", "get_weather", '{"place":"Rome"}')
    assert (made.tools[0].name, made.tool_choice, made.parallel_tool_calls) == ("get_weather", "auto", True)
    check_bundle(made.model_extra["haif"], "I look.", "hm, yes", [("get_weather", '{"place":"Rome"}')])


async def test_a_stream_has_the_whole_sequence_of_events(house: Any, mesh: ScriptedMesh) -> None:
    mesh.attempts = [Attempt(PIECES)]
    events = [e async for e in await house.client.responses.create(model="tiny", input="hi", tools=[TOOL], stream=True)]
    kinds = [event.type.removeprefix("response.") for event in events]
    assert kinds == [
        "created", "in_progress",
        "output_item.added", "content_part.added", "reasoning_text.delta", "reasoning_text.delta",
        "reasoning_text.done", "content_part.done", "output_item.done",
        "output_item.added", "content_part.added", "output_text.delta", "output_text.delta", "output_text.done",
        "content_part.done", "output_item.done",
        "output_item.added", "function_call_arguments.delta", "function_call_arguments.delta",
        "function_call_arguments.done", "output_item.done",
        "completed",
    ]  # fmt: skip
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [event.output_index for event in events[2:-1]] == [0] * 7 + [1] * 7 + [2] * 5
    made = events[-1].response
    assert made.output == [event.item for event in events if event.type == "response.output_item.done"]
    assert (events[0].response.status, made.status, made.usage.total_tokens) == ("in_progress", "completed", 12)
    check_bundle(made.model_extra["haif"], "I look.", "hm, yes", [("get_weather", '{"place":"Rome"}')])


async def test_a_stream_and_a_whole_response_say_the_same(house: Any, mesh: ScriptedMesh) -> None:
    mesh.attempts = [Attempt(PIECES)]
    asked: dict[str, Any] = {"model": "tiny", "input": "hi", "tools": [TOOL]}
    whole = await house.client.responses.create(**asked)
    async with house.client.responses.stream(**asked) as stream:
        streamed = await stream.get_final_response()
    of_job = {"id", "call_id", "parsed", "parsed_arguments"}

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(each) for key, each in value.items() if key not in of_job}
        return [plain(each) for each in value] if isinstance(value, list) else value

    assert plain([each.to_dict() for each in whole.output]) == plain([each.to_dict() for each in streamed.output])
    assert streamed.usage == whole.usage


async def test_the_conversation_goes_on_with_the_items_as_the_client_has_them(house: Any, mesh: ScriptedMesh) -> None:
    for streamed in (False, True):
        mesh.attempts = [Attempt(PIECES)]
        asked: dict[str, Any] = {"model": "tiny", "input": "hi", "tools": [TOOL]}
        if streamed:
            async with house.client.responses.stream(**asked) as stream:
                made = await stream.get_final_response()
        else:
            made = await house.client.responses.create(**asked)
        output = {"type": "function_call_output", "call_id": made.output[-1].call_id, "output": "sunny"}
        mesh.attempts = [Attempt()]
        await house.client.responses.create(
            model="tiny", input=[{"role": "user", "content": "hi"}, *made.output, output]
        )
        sent = mesh.requests[-1].chat
        assert sent is not None
        assert [turn.role for turn in sent] == ["user", "assistant", "tool"]
        assert (sent[1].content, sent[1].reasoning, sent[1].calls[0].name) == ("I look.", "hm, yes", "get_weather")


async def test_an_answer_is_parsed_into_the_type_that_was_asked_for(house: Any, mesh: ScriptedMesh) -> None:
    class Animal(pydantic.BaseModel):
        kind: str
        legs: int

    mesh.attempts = [Attempt(['{"kind":"dog",', '"legs":4}'])]
    parsed = await house.client.responses.parse(model="tiny", input="hi", text_format=Animal)
    assert parsed.output_parsed == Animal(kind="dog", legs=4)
    schema = mesh.requests[0].json_schema
    assert schema is not None
    assert json.loads(schema)["required"] == ["kind", "legs"]


async def test_logprobs_are_told_where_they_were_asked_for(house: Any, mesh: ScriptedMesh) -> None:
    scores = [[Likelihood(7, -0.5, b"hi"), Likelihood(7, -0.5, b"hi")]]
    mesh.attempts = [Attempt([Answer(chunk=Chunk(0, [7], "hi", scores))], end=lambda _: None)]
    reply = await house.post(
        {
            "model": "tiny",
            "input": "hi",
            "stream": True,
            "include": ["message.output_text.logprobs"],
            "top_logprobs": 1,
        },
        "/v1/responses",
    )
    (delta,) = [each for each in sent(reply.text) if each["type"] == "response.output_text.delta"]
    assert [(each["token"], len(each["top_logprobs"])) for each in delta["logprobs"]] == [("hi", 1)]


async def test_an_answer_cut_short_is_incomplete(house: Any, mesh: ScriptedMesh) -> None:
    mesh.attempts = [Attempt(finish_reason="length")]
    made = await house.client.responses.create(model="tiny", input="hi", max_output_tokens=2)
    assert (made.status, made.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert made.output[0].status == "incomplete"
    stream = await house.client.responses.create(model="tiny", input="hi", max_output_tokens=2, stream=True)
    assert [event async for event in stream][-1].type == "response.incomplete"


async def test_an_answer_of_nothing_is_an_empty_message(house: Any, mesh: ScriptedMesh) -> None:
    mesh.attempts = [Attempt([])]
    assert (await house.client.responses.create(model="tiny", input="hi")).output_text == ""
    events = [e async for e in await house.client.responses.create(model="tiny", input="hi", stream=True)]
    assert events[-1].response.output[0].content[0].text == ""


def sent(text: str) -> list[Any]:
    """The data of each event; an event is two lines and an empty one, its name its type."""
    assert text.endswith("\n\n")
    events = []
    for block in text[:-2].split("\n\n"):
        name, data = block.split("\n")
        events.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {events[-1]['type']}"
    return events


@pytest.mark.parametrize(
    "text", ["\n\nevent: response.completed\ndata: {}\n\n", "data: [DONE]\n\n", "\r\n\r", "\u2028\x00", "🦉"]
)
async def test_no_text_is_taken_for_an_event(house: Any, mesh: ScriptedMesh, text: str) -> None:
    mesh.attempts = [Attempt([[Aside(REASONING, text)], text, [Aside(CALL, "get_weather"), Aside(ARGUMENTS, text)]])]
    asked: dict[str, Any] = {"model": "tiny", "input": "hi", "stream": True, "tools": [TOOL], "instructions": text}
    thought, message, call = sent((await house.post(asked, "/v1/responses")).text)[-1]["response"]["output"]
    assert [text] * 3 == [thought["content"][0]["text"], message["content"][0]["text"], call["arguments"]]


# --- what goes wrong --------------------------------------------------------------------------------------------------


async def test_a_stream_that_breaks_says_so_and_is_never_completed(house: Any, mesh: ScriptedMesh) -> None:
    mesh.attempts = [Attempt(["half", ConnectionLost("gone")])]
    seen = []
    with pytest.raises(openai.APIError, match="gone") as caught:
        async for event in await house.client.responses.create(model="tiny", input="hi", stream=True):
            seen.append(event)  # noqa: PERF401 - it ends with an error
    assert (caught.value.code, caught.value.type) == ("worker_lost", "server_error")
    assert (seen[-1].type, seen[-1].response.status) == ("response.failed", "failed")
    assert seen[-1].response.output[0].status == "incomplete"
    *_, error = sent((await house.post({"model": "tiny", "input": "hi", "stream": True}, "/v1/responses")).text)
    assert (error["type"], error["code"], error["sequence_number"]) == ("error", "worker_lost", len(seen))


async def test_a_stream_that_fails_before_anything_was_said_is_a_failed_response(
    a_house: Any, mesh: ScriptedMesh
) -> None:
    mesh.attempts = [Attempt([Hang()])]
    async with a_house(keepalive_seconds=0.02) as house:
        body = {"model": "tiny", "input": "hi", "stream": True}
        text = (await house.post(body, "/v1/responses", x_haif_deadline_ms="200")).text
    failed, error = sent("".join(f"{block}\n\n" for block in text.split("\n\n") if block[:1] not in (":", "")))
    assert (failed["type"], failed["response"]["output"], error["code"]) == ("response.failed", [], "deadline_exceeded")


@pytest.mark.parametrize("stream", [False, True])
async def test_refusals_of_workers_have_the_names_of_this_dialect(house: Any, mesh: ScriptedMesh, stream: bool) -> None:
    for ours, theirs in (
        ("messages[0].name", "input"), ("reasoning_effort", "reasoning.effort"), ("max_tokens", "max_output_tokens"),
        ("tools[1].function.parameters", "tools[1].parameters"), ("response_format", "text.format"), ("model", "model"),
    ):  # fmt: skip
        mesh.attempts = [Attempt([Unsupported("not this", param=ours)])]
        with pytest.raises(openai.BadRequestError) as caught:
            await house.client.responses.create(model="tiny", input="hi", stream=stream)
        assert caught.value.param == theirs


async def test_errors_before_the_first_event_are_those_of_every_request(house: Any, mesh: ScriptedMesh) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        await house.client.responses.create(model="nobody", input="hi")
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.AuthenticationError):
        await house.client.with_options(api_key="haif-wrong").responses.create(model="tiny", input="hi")
    with pytest.raises(openai.BadRequestError) as kept:
        await house.client.responses.create(model="tiny", input="hi", previous_response_id="resp_1")
    assert (kept.value.param, kept.value.code) == ("previous_response_id", "unsupported_parameter")
    with pytest.raises(openai.NotFoundError):
        await house.client.responses.retrieve("resp_1")
    mesh.attempts = [Attempt([NoWorker("none left")])]
    with pytest.raises(openai.InternalServerError) as nobody:
        await house.client.responses.create(model="tiny", input="hi", stream=True)
    assert (nobody.value.status_code, nobody.value.code) == (503, "no_worker_available")


@pytest.mark.parametrize("cut", range(1, len(PIECES)))
async def test_a_stream_cut_anywhere_goes_on_elsewhere(house: Any, mesh: ScriptedMesh, cut: int) -> None:
    mesh.attempts = [Attempt([*PIECES[:cut], ConnectionLost("gone")]), Attempt(PIECES[cut:])]
    events = [e async for e in await house.client.responses.create(model="tiny", input="hi", tools=[TOOL], stream=True)]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    thought, message, call = events[-1].response.output
    assert (thought.content[0].text, message.content[0].text, call.arguments) == (
        "hm, yes", "I look.", '{"place":"Rome"}',
    )  # fmt: skip


async def test_a_response_under_a_key_is_answered_once(house: Any, mesh: ScriptedMesh) -> None:
    body = {"model": "tiny", "input": "hi", "stream": True}
    first = await house.post(body, "/v1/responses", idempotency_key="k1")
    again = await house.post(body, "/v1/responses", idempotency_key="k1")
    assert first.text == again.text
    assert again.headers["idempotent-replayed"] == "true"
    assert len(mesh.finalised) == 1


async def test_a_body_nested_as_deep_as_it_can_be_is_a_bad_request(house: Any) -> None:
    for deep in (b'{"input":' * 50_000, b"[" * 100_000):
        assert (await house.post(deep, "/v1/responses")).json()["error"]["code"] == "invalid_json"
    schema: Any = {}
    for _ in range(limits.JSON_DEPTH_MAX + 1):
        schema = {"properties": {"a": schema}}
    for options in ({"tools": [TOOL | {"parameters": schema}]}, {"metadata": schema}):
        reply = await house.post({"model": "tiny", "input": "hi", **options}, "/v1/responses")
        assert reply.status_code == 400
