"""Answers told apart while they come, whatever the pieces they come in."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haif.base import limits
from haif.base.conversation import Said
from haif.engine.speech import Form, Speech, Thought

HERMES = Form('<tool_call>\n{"name": "', '", "arguments": ', "}\n</tool_call>", '\n<tool_call>\n{"name": "', "")
LLAMA = Form('{"name": "', '", "parameters": ', "}", None, "")
MISTRAL = Form('[TOOL_CALLS] [{"name": "', '", "arguments": ', "}", ', {"name": "', "]")
THINK = Thought("<think>", "</think>")
NAMES = ("get", "get_weather")


def told(answer, *, cuts=(), **options):
    """(reasoning, text, calls) of an answer that comes in these pieces, or letter by letter."""
    speech = Speech(**({"names": NAMES} | options))
    said = Said()
    raw = answer.encode()
    edges = sorted({0, len(raw), *(cut % (len(raw) + 1) for cut in cuts)}) if cuts else range(len(raw) + 1)
    for start, end in zip(edges, [*edges[1:], len(raw)], strict=False):
        if speech.stopped:
            break
        text = speech.feed(raw[start:end])
        said.add(text, speech.asides())
    if not speech.stopped:
        text = speech.finish()
        said.add(text, speech.asides())
    return said.reasoning, said.text, said.calls


def call(name="get", arguments='{"a": 1}'):
    return f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'


def test_text_before_a_call_is_text_and_the_space_between_is_none():
    assert told(f"I look.\n\n{call()}", form=HERMES) == ("", "I look.", [("get", '{"a": 1}')])


def test_several_calls_and_text_after_them():
    answer = f"{call()}\n{call('get_weather', '{}')}\nThat is all."
    assert told(answer, form=HERMES) == ("", "That is all.", [("get", '{"a": 1}'), ("get_weather", "{}")])


def test_a_single_call_ends_the_answer():
    assert told(f"{call()}\n{call()}more", form=HERMES, single=True) == ("", "", [("get", '{"a": 1}')])
    assert told('{"name": "get", "parameters": {}} and more', form=LLAMA) == ("", "", [("get", "{}")])


def test_space_in_and_around_json_does_not_matter():
    answer = '<tool_call>{"name":"get","arguments":{"a":1}}</tool_call>'
    assert told(answer, form=HERMES) == ("", "", [("get", '{"a":1}')])
    assert told('[TOOL_CALLS][{"name":"get","arguments":{ }}]', form=MISTRAL) == ("", "", [("get", "{ }")])


def test_members_that_some_models_add_behind_the_arguments_are_dropped():
    answer = '[TOOL_CALLS] [{"name": "get", "arguments": {}, "id": "abcdefghi"}, {"name": "get", "arguments": {}}] ok'
    assert told(answer, form=MISTRAL) == ("", "ok", [("get", "{}"), ("get", "{}")])


@pytest.mark.parametrize(
    "answer",
    [
        "no call at all", "<tool_call", "<tool_call>", '<tool_call>\n{"name": "', call("steal"), call("get_"),
        call("get", '"text"'), call("get", "[1]"), '<tool_call>{"arguments": {}, "name": "get"}</tool_call>',
        "a <tool_call> b", "a < b and c > d", '{"name": "get", "arguments": {}}', "", " ", "\n", "é<tool_call>\n{é",
        "<" * 1000, "<tool_call>" * 30,
    ],
)  # fmt: skip
def test_what_is_no_call_of_an_offered_function_is_text_to_the_letter(answer):
    assert told(answer, form=HERMES) == ("", answer, [])


def test_bare_json_is_a_call_only_where_the_answer_begins_with_it():
    answer = 'As JSON: {"name": "get", "parameters": {}}'
    assert told(answer, form=LLAMA) == ("", answer, [])
    assert told('\n{"name": "get", "parameters": {}}', form=LLAMA) == ("", "", [("get", "{}")])
    assert told('{"name": "nobody", "parameters": {}}', form=LLAMA)[1] == '{"name": "nobody", "parameters": {}}'


def test_an_answer_cut_in_its_arguments_tells_what_there_is():
    assert told(call()[:-15], form=HERMES)[2][0][0] == "get"
    assert told('<tool_call>\n{"name": "get", "arguments": {"a": "x', form=HERMES) == ("", "", [("get", '{"a": "x')])


def test_calls_are_bounded():
    many = call() * (limits.TOOL_CALLS_MAX + 5)
    assert len(told(many, form=HERMES)[2]) == limits.TOOL_CALLS_MAX


def test_a_thought_comes_first_or_not_at_all():
    assert told("<think>\nhm \n</think>\n\nYes.", thought=THINK) == ("hm", "Yes.", [])
    assert told(" \n<think>hm</think>Yes.", thought=THINK) == ("hm", "Yes.", [])
    assert told("Yes. <think>hm</think>", thought=THINK) == ("", "Yes. <think>hm</think>", [])
    assert told("<thinker>", thought=THINK) == ("", "<thinker>", [])
    assert told("hm</think>Yes.", thought=THINK, thinking=True) == ("hm", "Yes.", [])
    assert told("hm", thought=THINK, thinking=True) == ("hm", "", [])
    assert told("<think></think>\nYes.", thought=THINK) == ("", "Yes.", [])


def test_a_call_follows_a_thought_and_none_is_in_it():
    answer = f"<think>{call()}</think>{call('get_weather')}"
    assert told(answer, form=HERMES, thought=THINK) == (call(), "", [("get_weather", '{"a": 1}')])


def test_a_stop_string_ends_text_and_touches_nothing_else():
    answer = "<think>END</think>text " + call("get", '{"x": "END"}') + "more END never"
    assert told(answer, form=HERMES, thought=THINK, stop=["END"]) == (
        "END", "textmore ", [("get", '{"x": "END"}')],
    )  # fmt: skip


def test_tokens_of_reasoning_are_counted():
    speech = Speech(thought=THINK)
    for piece in ("<th", "ink>", "a", "b", "</think>", "text"):
        speech.feed(piece.encode())
    assert speech.reasoning_tokens == 4


BRACES = '{"a": {"b": ["}", "\\""]}, "é": "ü"}'
ANSWERS = [
    f"<think>\nhm\n\n</think>\nI look. {call('get_weather', BRACES)}\n{call()} done",
    f"text {call('steal')} <tool_call>{call()}",
    '{"name": "get", "parameters": {"x": "</think>"}}',
    '[TOOL_CALLS] [{"name": "get", "arguments": {}, "id": "abc"}, {"name": "get_weather", "arguments": {"a": []}}] x',
]


@given(st.sampled_from(ANSWERS), st.sampled_from([HERMES, LLAMA, MISTRAL]), st.lists(st.integers(0, 400), min_size=1))
def test_where_tokens_are_cut_changes_nothing(answer, form, cuts):
    assert told(answer, form=form, thought=THINK, cuts=cuts) == told(answer, form=form, thought=THINK)


@given(st.lists(st.sampled_from(
    ["<tool_call>", "</tool_call>", '{"name": "', "get", '", "arguments": ', "{", "}", "[", "]", '"', "\\", ",", " ",
     "\n", "<think>", "</think>", "x", "é", '"id": "a"', "[TOOL_CALLS]"]
), max_size=30), st.sampled_from([HERMES, LLAMA, MISTRAL]), st.booleans())  # fmt: skip
def test_nothing_a_model_says_breaks_it_and_only_offered_functions_are_called(parts, form, thinking):
    _, text, calls = told("".join(parts), form=form, thought=THINK, thinking=thinking)
    assert {name for name, _ in calls} <= set(NAMES)
    assert all(arguments.startswith("{") for _, arguments in calls)
    assert len(text) <= sum(map(len, parts))


@given(st.dictionaries(st.text(max_size=5), st.recursive(
    st.none() | st.integers() | st.text(max_size=8), lambda x: st.lists(x, max_size=3), max_leaves=5
), max_size=4), st.booleans())  # fmt: skip
def test_any_object_comes_out_as_it_went_in(value, escape):
    arguments = json.dumps(value, ensure_ascii=escape)
    assert told(call("get", arguments), form=HERMES)[2] == [("get", arguments)]
