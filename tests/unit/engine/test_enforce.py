"""What grammars for calls let through, letter by letter, over the vocabulary of single letters."""

import json

import numpy as np
import pytest

from haif.base.conversation import Tool, Toolbox
from haif.engine.enforce import calls_answer, json_answer, literals
from haif.engine.speech import Form, Thought
from tests.unit.engine.test_grammar import END, GRAMMARS, Letters

HERMES = Form('<tool_call>\n{"name": "', '", "arguments": ', "}\n</tool_call>", '\n<tool_call>\n{"name": "', "")
LLAMA = Form('{"name": "', '", "parameters": ', "}", None, "")
LIST = Form('<turn>[{"name": "', '", "arguments": ', "}", ', {"name": "', "]")  # <turn> is a control token
THINK = Thought("<think>", "</think>")
SCHEMA = {"type": "object", "additionalProperties": False, "required": ["a"], "properties": {"a": {"type": "integer"}}}
STRICT = Tool("f", None, json.dumps(SCHEMA), strict=True)
LOOSE = Tool("g", None, json.dumps(SCHEMA), strict=False)
TURN = 1


def literal(text):
    parts = text.replace("<turn>", "\0<turn>\0").split("\0")
    return literals(parts, {"<turn>": TURN})


def fits(lark, text):
    """Whether an answer may be this, and may end there."""
    grammar = GRAMMARS.parse(lark, "tools")
    tokens = [
        token for part in text.replace("<turn>", "\0<turn>\0").split("\0")
        for token in ([TURN] if part == "<turn>" else [byte + 1 for byte in part.encode()])
    ]  # fmt: skip
    for token in tokens:
        if not grammar.allows(token):
            return False
        grammar.accept(token)
    return bool(np.isfinite(grammar.masked(np.zeros(Letters.size, np.float32))[END]))


def call(name="f", arguments='{"a": 1}'):
    return f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'


def lark(box, form, thought=None, *, thinking=False):
    return calls_answer(box, form, thought, thinking=thinking, literal=literal)


def test_where_no_call_is_due_and_nothing_is_strict_nothing_is_enforced():
    assert lark(Toolbox([LOOSE]), HERMES) is None


@pytest.mark.parametrize(
    ("text", "may"),
    [
        (call(), True), (call("g"), True), (f"{call()}\n{call()}", True), ("", False), ("I had rather not.", False),
        (call("h"), False), (call("f", "{}"), False), (call("f", '{"a": "x"}'), False), (f"{call()} and", False),
        (call("g", '{"b": 1}'), False), (call()[:-3], False),
    ],
)  # fmt: skip
def test_a_call_that_is_due_is_one_of_an_offered_function_and_fits(text, may):
    assert may == fits(lark(Toolbox([STRICT, LOOSE], required=True), HERMES), text)


def test_one_call_or_a_named_function_is_just_that():
    single = lark(Toolbox([STRICT], parallel=False, required=True), HERMES)
    assert fits(single, call())
    assert not fits(single, f"{call()}\n{call()}")
    named = lark(Toolbox([STRICT, LOOSE], only="g"), HERMES)
    assert fits(named, call("g"))
    assert not fits(named, call("f"))


@pytest.mark.parametrize(
    ("text", "may"),
    [
        ("Just text, é.", True), ("", True), (call(), True), (f"I look. {call()}", True), (f"{call()} done", True),
        (f"a {call()} b {call('g')} c", True), (call("f", "{}"), False), (call("g", "{}"), True),
        (call("g", "[]"), False), (call("h"), False), ("<tool_call>x", False), ("<tool_cal", True),
    ],
)  # fmt: skip
def test_text_is_free_until_a_call_opens(text, may):
    assert may == fits(lark(Toolbox([STRICT, LOOSE]), HERMES), text)


def test_a_bare_form_binds_only_an_answer_that_begins_with_json():
    rules = lark(Toolbox([STRICT]), LLAMA)
    assert fits(rules, '{"name": "f", "parameters": {"a": 1}}')
    assert fits(rules, 'As JSON: {"name": "x"}')
    assert fits(rules, "")
    assert not fits(rules, '{"name": "f", "parameters": {}}')
    assert not fits(rules, '{"answer": 1}')


def test_control_tokens_are_tokens_and_their_text_is_not():
    rules = lark(Toolbox([STRICT], required=True), LIST)
    one = '{"name": "f", "arguments": {"a": 1}}'
    assert fits(rules, f"<turn>[{one}]")
    assert fits(rules, f"<turn>[{one}, {one}]")
    assert not fits(rules, f"[{one}]")
    free = lark(Toolbox([STRICT]), LIST)
    assert fits(free, f"Well. <turn>[{one}]")
    assert not fits(free, "<turn>Well.")


def test_a_thought_may_come_first_and_must_where_the_prompt_opened_it():
    box = Toolbox([STRICT], required=True)
    assert fits(lark(box, HERMES, THINK), call())
    assert fits(lark(box, HERMES, THINK), f"<think>hm <tool_call> </think>\n\n{call()}")
    assert not fits(lark(box, HERMES, THINK), f"<think>hm {call()}")
    assert fits(lark(box, HERMES, THINK, thinking=True), f"hm</think>{call()}")
    assert not fits(lark(box, HERMES, THINK, thinking=True), call())


def test_json_comes_behind_a_thought():
    rules = json_answer(json.dumps(SCHEMA), THINK, thinking=True, literal=literal)
    assert fits(rules, 'hm {"a": 2} </think>\n\n{"a": 1}')
    assert not fits(rules, '{"a": 1}')
    with pytest.raises(ValueError, match="object"):
        json_answer("[]", THINK, thinking=True, literal=literal)


def test_a_schemas_words_cannot_write_the_grammar():
    evil = {"type": "object", "properties": {'"\nstart: "x"': {"const": '"/\n%json {}'}},
            "x-guidance": {"whitespace_pattern": "x*"}}  # fmt: skip
    rules = lark(Toolbox([Tool("f", None, json.dumps(evil), strict=True)], required=True), HERMES)
    assert not fits(rules, "x")
    assert fits(rules, call("f", "{}"))
    assert not fits(rules, call("f", "{xx}"))
