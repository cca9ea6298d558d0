"""The dialect is heard strictly: what is honoured arrives exactly, what cannot be is refused by its name."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haif.base import limits
from haif.base.conversation import Turn
from haif.base.errors import HaifError, InvalidRequest, Reason, Unsupported
from haif.base.ids import Nonce
from haif.base.sampling import Sampling, check_sampling
from haif.gateway.ask import Ask
from haif.gateway.errors import Rejected, problem_of
from haif.gateway.openai import parse_chat, parse_completion
from haif.protocol.inference import Request

NONCE = Nonce(b"n" * 16)
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
CHAT: dict[str, Any] = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}


def chat(**changes: Any) -> Ask:
    return parse_chat(json.dumps(CHAT | changes).encode(), NONCE)


def completion(**changes: Any) -> Ask:
    return parse_completion(json.dumps({"model": "tiny", "prompt": "Once"} | changes).encode(), NONCE)


def refusal(parse: Any, **changes: Any) -> tuple[str | None, str]:
    with pytest.raises(HaifError) as caught:
        parse(**changes)
    problem = problem_of(caught.value)
    assert problem.status == 400
    return problem.param, problem.code


def test_a_jail_may_be_demanded_and_nothing_else_of_haif() -> None:
    assert ["none", "full"] == [chat().sandbox_min, chat(haif={"sandbox": "full"}).sandbox_min]
    assert completion(haif={"sandbox": "reduced"}).sandbox_min == "reduced"
    assert refusal(chat, haif={"sandbox": "padded"}) == ("haif.sandbox", "invalid_value")
    assert refusal(chat, haif={"worker": "x"})[0] == "haif.worker"


# --- what is honoured -------------------------------------------------------------------------------------------------


def test_the_smallest_chat_has_the_documented_defaults() -> None:
    ask = chat()
    most = limits.COMPLETION_TOKENS_UNSAID_MAX
    assert ask.request == Request(NONCE, [Turn("user", "hi")], None, most, Sampling(), [], fit=True)
    assert (ask.kind, ask.model, ask.seed, ask.stream, ask.include_usage, ask.ignored) == (
        "chat", "tiny", None, False, False, (),
    )  # fmt: skip


def test_every_honoured_option_arrives() -> None:
    ask = chat(
        temperature=0, top_p=0.5, max_tokens=7, stop=["a", "b"], seed=-5, stream=True,
        stream_options={"include_usage": True},
    )  # fmt: skip
    assert ask.request == Request(NONCE, [Turn("user", "hi")], None, 7, Sampling(0.0, 0.5), ["a", "b"])
    assert (ask.seed, ask.stream, ask.include_usage) == (-5, True, True)


def test_every_option_of_sampling_arrives() -> None:
    ask = chat(
        temperature=0.5, top_p=0.9, top_k=40, min_p=0.05, repeat_penalty=1.1, presence_penalty=-1,
        frequency_penalty=0.5, logit_bias={"50": -100, "6": 1.5}, logprobs=True, top_logprobs=3,
    )  # fmt: skip
    assert ask.request.sampling == Sampling(0.5, 0.9, 40, 0.05, 1.1, -1, 0.5, [(6, 1.5), (50, -100)])
    assert ask.request.logprobs == 3
    assert chat(logprobs=True).request.logprobs == 0


def test_a_response_format_becomes_the_schema_to_fit() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    wanted = {"type": "json_schema", "json_schema": {"name": "thing", "schema": schema, "strict": True}}
    assert json.loads(chat(response_format=wanted).request.json_schema or "") == schema
    assert chat(response_format={"type": "json_object"}).request.json_schema == '{"type":"object"}'
    assert chat(response_format={"type": "text"}).request.json_schema is None


@pytest.mark.parametrize(
    ("wanted", "param"),
    [
        ({"type": "json_schema"}, "response_format.json_schema"), ({"type": "grammar"}, "response_format.type"),
        ({"type": "json_object", "json_schema": {"name": "a", "schema": {}}}, "response_format.json_schema"),
        ({"type": "json_schema", "json_schema": {"name": "a b", "schema": {}}}, "response_format.json_schema.name"),
        ({"type": "json_schema", "json_schema": {"name": "a"}}, "response_format.json_schema.schema"),
        ({"type": "json_schema", "json_schema": {"name": "a", "schema": {"enum": ["x" * 70_000]}}}, "response_format"),
        ({"type": "json_schema", "json_schema": {"name": "a", "schema": []}}, "response_format.json_schema.schema"),
    ],
)  # fmt: skip
def test_a_wrong_response_format_is_named_by_its_path(wanted: Any, param: str) -> None:
    assert refusal(chat, response_format=wanted)[0] == param


def test_a_completion_can_be_filled_in_echoed_and_scored() -> None:
    ask = completion(suffix="end", echo=True)
    assert (ask.request.suffix, ask.echo) == ("end", "Once")
    assert completion(logprobs=0).request.logprobs == 0
    assert refusal(completion, echo=True, logprobs=1) == ("logprobs", "unsupported_parameter")


def test_a_completion_has_a_text_and_no_chat() -> None:
    ask = completion(max_tokens=3, stop="x")
    assert ask.request == Request(NONCE, None, "Once", 3, Sampling(), ["x"])
    assert ask.kind == "text"
    assert completion(prompt=["Once"]).request == completion().request


def test_several_choices_are_honoured_and_best_of_only_where_it_asks_for_nothing() -> None:
    assert (chat(n=3).choices, completion(n=2, best_of=2).choices) == (3, 2)
    assert chat(n=3).request == chat().request
    assert refusal(completion, n=2, best_of=3) == ("best_of", "unsupported_parameter")


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_both_names_of_the_token_limit_are_honoured(name: str) -> None:
    assert chat(**{name: 9}).request.tokens_max == 9


def test_content_parts_are_joined_and_a_developer_is_a_system() -> None:
    parts = [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]
    messages = [{"role": "developer", "content": "be brief"}, {"role": "user", "content": parts}]
    assert chat(messages=messages).request.chat == [Turn("system", "be brief"), Turn("user", "one two")]


def test_an_answer_of_ours_may_come_back_as_history() -> None:
    echoed = {"role": "assistant", "content": "hello", "refusal": None, "tool_calls": None, "annotations": []}
    assert chat(messages=[echoed]).request.chat == [Turn("assistant", "hello")]


def test_null_means_not_given_for_every_known_field() -> None:
    nothing = dict.fromkeys(
        ("temperature", "top_p", "stop", "seed", "stream", "stream_options", "max_tokens", "n", "tools", "logit_bias",
         "response_format", "audio", "reasoning_effort", "user", "metadata", "store"),
    )  # fmt: skip
    assert chat(**nothing) == chat()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n", 1), ("logprobs", False), ("frequency_penalty", 0), ("presence_penalty", 0.0), ("logit_bias", {}),
        ("top_k", 0), ("min_p", 0), ("repeat_penalty", 1), ("tools", []), ("tool_choice", "none"),
        ("parallel_tool_calls", True), ("response_format", {"type": "text"}),
        ("modalities", ["text"]), ("stream", False),
    ],
)  # fmt: skip
def test_a_value_that_asks_for_nothing_is_accepted_silently(name: str, value: Any) -> None:
    assert chat(**{name: value}) == chat()


def test_hints_are_ignored_and_said_to_be() -> None:
    ask = chat(user="u", metadata={"a": "b"}, store=False, service_tier="auto", safety_identifier="s",
               prompt_cache_key="k")  # fmt: skip
    assert ask.ignored == ("user", "metadata", "store", "safety_identifier", "prompt_cache_key")


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("functions", [{}]),
        ("audio", {"voice": "x"}),
        ("modalities", ["audio"]), ("store", True),
        ("verbosity", "low"), ("prediction", {}), ("web_search_options", {}), ("wibble", 1), ("wibble", None),
        ("prompt", "x"), ("echo", True), ("suffix", "x"),
    ],
)  # fmt: skip
def test_an_option_that_cannot_be_honoured_is_a_400_that_names_it(name: str, value: Any) -> None:
    assert refusal(chat, **{name: value}) == (name, "unsupported_parameter")
    with pytest.raises(Unsupported) as caught:
        chat(**{name: value})
    assert caught.value.reason is Reason.UNSUPPORTED


@pytest.mark.parametrize(
    ("name", "value"),
    [("best_of", 2), ("top_logprobs", 1), ("prompt", ["a", "b"]), ("prompt", [1, 2]),
     ("prompt", [[1]]), ("messages", [])],
)  # fmt: skip
def test_a_completion_refuses_what_it_cannot_honour(name: str, value: Any) -> None:
    assert refusal(completion, **{name: value}) == (name, "unsupported_parameter")


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("temperature", "hot", "invalid_type"), ("temperature", 2.1, "invalid_value"),
        ("temperature", -1, "invalid_value"),
        ("top_p", 0, "invalid_value"), ("top_p", 1.5, "invalid_value"), ("max_tokens", 0, "invalid_value"),
        ("max_tokens", 10**9, "invalid_value"), ("max_tokens", 1.5, "invalid_type"), ("seed", "x", "invalid_type"),
        ("seed", 2**63, "invalid_value"), ("stop", ["a"] * 5, "invalid_value"), ("stop", "", "invalid_value"),
        ("stop", "x" * 300, "invalid_value"), ("stop", 5, "invalid_type"), ("stream", "yes", "invalid_type"),
        ("model", "", "invalid_value"), ("model", 5, "invalid_type"), ("messages", [], "invalid_value"),
        ("messages", "hi", "invalid_type"), ("top_logprobs", 3, "invalid_value"), ("top_logprobs", 21, "invalid_value"),
        ("frequency_penalty", 2.1, "invalid_value"), ("presence_penalty", "x", "invalid_type"),
        ("logit_bias", {"x": 1}, "invalid_value"), ("logit_bias", {"01": 1}, "invalid_value"),
        ("logit_bias", {"-1": 1}, "invalid_value"), ("logit_bias", {"9" * 30: 1}, "invalid_value"),
        ("logit_bias", {"5": 101}, "invalid_value"), ("logit_bias", {str(n): 1 for n in range(1025)}, "invalid_value"),
        ("logit_bias", {"٣": 1}, "invalid_value"),
        ("top_k", -1, "invalid_value"), ("min_p", 2, "invalid_value"), ("repeat_penalty", 0, "invalid_value"),
        ("n", 0, "invalid_value"), ("n", limits.CHOICES_MAX + 1, "invalid_value"), ("n", True, "invalid_type"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_a_400_that_names_it(name: str, value: Any, code: str) -> None:
    assert refusal(chat, **{name: value}) == (name, code)


@pytest.mark.parametrize(
    ("message", "param", "code"),
    [
        ({"role": "tool", "content": "x"}, "messages[0].tool_call_id", "invalid_value"),
        ({"role": "tool", "content": "x", "tool_call_id": "c"}, "messages[0].tool_call_id", "invalid_value"),
        ({"role": "function", "content": "x"}, "messages[0].role", "unsupported_parameter"),
        ({"role": "user", "content": "x", "tool_call_id": "c"}, "messages[0].tool_call_id", "invalid_value"),
        ({"role": "wizard", "content": "x"}, "messages[0].role", "unsupported_parameter"),
        ({"role": 5, "content": "x"}, "messages[0].role", "invalid_type"),
        ({"role": "user"}, "messages[0].content", "missing_required_parameter"),
        ({"content": "x"}, "messages[0].role", "missing_required_parameter"),
        ({"role": "user", "content": None}, "messages[0].content", "invalid_type"),
        ({"role": "user", "content": "x", "name": "b b"}, "messages[0].name", "invalid_value"),
        ({"role": "user", "content": "x", "tool_calls": [CALL]}, "messages[0].tool_calls", "invalid_value"),
        ({"role": "assistant", "content": None}, "messages[0].content", "invalid_type"),
        (
            {"role": "assistant", "content": "x", "tool_calls": [{}]},
            "messages[0].tool_calls[0].id", "missing_required_parameter",
        ),
        ({"role": "user", "content": [{"type": "image_url"}]}, "messages[0].content[0].type", "unsupported_content"),
        ({"role": "user", "content": [{"type": "text"}]}, "messages[0].content[0].text", "missing_required_parameter"),
        ("hi", "messages[0]", "invalid_type"),
    ],
)  # fmt: skip
def test_a_wrong_message_is_named_by_its_path(message: Any, param: str, code: str) -> None:
    assert refusal(chat, messages=[message]) == (param, code)


def test_a_missing_field_is_named() -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_chat(b'{"messages":[{"role":"user","content":"x"}]}', NONCE)
    assert (caught.value.param, problem_of(caught.value).code) == ("model", "missing_required_parameter")
    assert caught.value.reason is Reason.INVALID_REQUEST


def test_stream_options_need_a_stream_and_know_no_obfuscation() -> None:
    assert refusal(chat, stream_options={"include_usage": True}) == ("stream_options", "invalid_value")
    options = {"include_obfuscation": True}
    assert refusal(chat, stream=True, stream_options=options) == (
        "stream_options.include_obfuscation", "unsupported_parameter",
    )  # fmt: skip
    assert chat(stream=True, stream_options={"include_obfuscation": False}) == chat(stream=True)


def test_two_token_limits_that_disagree_are_refused() -> None:
    assert refusal(chat, max_tokens=5, max_completion_tokens=6) == ("max_tokens", "invalid_value")
    assert chat(max_tokens=5, max_completion_tokens=5).request.tokens_max == 5


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b'"x"', b"nul", b'{"a":NaN}', b'{"a":1e999}', b"[" * 100_000, b'{"a":' * 5000,
        b'{"model":"a","model":"b","messages":[]}', b'{"a":{"b":1,"b":2}}', b"\xff\xfe", b'{"a":"\\ud800"}', b"{} {}",
    ],
)  # fmt: skip
def test_what_is_not_one_plain_json_object_is_invalid_json(body: bytes) -> None:
    with pytest.raises(Rejected) as caught:
        parse_chat(body, NONCE)
    assert caught.value.code == "invalid_json"


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_no_bytes_raise_anything_but_a_refusal(body: bytes) -> None:
    with pytest.raises((Rejected, Unsupported)):
        parse_chat(body, NONCE)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
_names = st.sampled_from(
    ["model", "messages", "stream", "stream_options", "stop", "seed", "temperature", "top_p", "max_tokens", "n",
     "tools", "user", "metadata", "store", "logprobs", "wibble", "max_completion_tokens", "response_format",
     "tool_choice", "parallel_tool_calls", "chat_template_kwargs", "reasoning_effort", "best_of"]
)  # fmt: skip


@given(st.dictionaries(_names, _json, max_size=4))
def test_any_value_in_any_field_is_honoured_or_refused_with_a_400(changes: dict[str, Any]) -> None:
    try:
        ask = chat(**changes)
    except HaifError as refused:
        status = problem_of(refused).status
    else:
        status = 400
        assert 1 <= ask.request.tokens_max <= limits.COMPLETION_TOKENS_MAX
        check_sampling(ask.request.sampling)
    assert status == 400
