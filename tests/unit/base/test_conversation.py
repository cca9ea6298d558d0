"""Conversations as values: what is one, what is said in one, and JSON that may be believed to be an object."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haif.base import limits
from haif.base.conversation import (
    ARGUMENTS,
    CALL,
    REASONING,
    Aside,
    Call,
    Said,
    Tool,
    Toolbox,
    Turn,
    check_settings,
    check_toolbox,
    check_turns,
    json_object,
    merged,
)
from haif.base.errors import InvalidRequest


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "1", "null", '{"a":1,"a":2}', '{"a":NaN}', '{"a":Infinity}', '{"a":"\\ud800"}', '{"\\udfff":1}',
     "{}{}", '{"a":' * 50_000, '{"a":' * limits.JSON_DEPTH_MAX + "1" + "}" * limits.JSON_DEPTH_MAX],
)  # fmt: skip
def test_what_is_no_plain_object_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        json_object(text)


@given(st.dictionaries(st.text(max_size=4), st.recursive(st.none() | st.integers() | st.text(max_size=4),
       lambda inner: st.lists(inner, max_size=3), max_leaves=5)))  # fmt: skip
def test_any_other_object_is_itself(value: dict[str, object]) -> None:
    assert json_object(json.dumps(value)) == value


_ASIDES = st.lists(st.builds(Aside, st.sampled_from([REASONING, CALL, ARGUMENTS]), st.text(max_size=3)), max_size=12)


@given(_ASIDES)
def test_merging_changes_nothing_that_is_said(asides: list[Aside]) -> None:
    asides = [Aside(CALL, "f"), *asides]
    plain, fewer = Said(), Said()
    plain.add("text", asides)
    fewer.add("text", merged(asides))
    assert (plain.text, plain.reasoning, plain.calls) == (fewer.text, fewer.reasoning, fewer.calls)
    assert plain.called == len(plain.calls) == sum(aside.kind == CALL for aside in asides)


@pytest.mark.parametrize("aside", [Aside(ARGUMENTS, "{}"), Aside("wibble", "x")])
def test_an_aside_that_is_not_due_is_a_value_error(aside: Aside) -> None:
    with pytest.raises(ValueError, match="where none is due"):
        Said().add("", [aside])


@pytest.mark.parametrize(
    "turns",
    [
        [], [Turn("wizard", "x")], [Turn("tool", "x")], [Turn("user", "x", call_id="c")],
        [Turn("user", "x", calls=[Call("c", "f", "{}")])],
        [Turn("assistant", "", calls=[Call("c", "f", "{}")] * (limits.TOOL_CALLS_MAX + 1))],
        [Turn("user", "x")] * (limits.MESSAGES_PER_PROMPT_MAX + 1),
    ],
)  # fmt: skip
def test_what_is_no_conversation_is_refused(turns: list[Turn]) -> None:
    with pytest.raises(InvalidRequest) as refused:
        check_turns(turns)
    assert refused.value.param == "messages"


def tool(name: str = "f", parameters: str = "{}") -> Tool:
    return Tool(name, None, parameters, strict=False)


@pytest.mark.parametrize(
    ("box", "param"),
    [
        (Toolbox([]), "tools"), (Toolbox([tool(), tool()]), "tools"), (Toolbox([tool()], only="g"), "tool_choice"),
        (Toolbox([tool(f"f{n}") for n in range(limits.TOOLS_MAX + 1)]), "tools"),
        (Toolbox([tool("f", '{"a":"' + "x" * limits.TOOLS_BYTES_MAX + '"}')]), "tools"),
        (Toolbox([tool(), tool("a b")]), "tools[1].function.name"), (Toolbox([tool("")]), "tools[0].function.name"),
        (Toolbox([tool("é")]), "tools[0].function.name"), (Toolbox([tool("f", "[]")]), "tools[0].function.parameters"),
        (Toolbox([tool("f", '{"type":"array"}')]), "tools[0].function.parameters"),
    ],
)  # fmt: skip
def test_what_can_be_offered_to_nobody_is_refused_by_its_path(box: Toolbox, param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        check_toolbox(box)
    assert refused.value.param == param


def test_settings_are_few_short_and_plain() -> None:
    check_settings([("enable_thinking", True), ("budget", 7), ("effort", "x-high"), ("share", 0.5), ("empty", "")])
    for settings in ([("a", "b c")], [("", 1)], [("a", 1), ("a", 2)], [("a", "x" * 65)], [("a.b", 1)],
                     [(f"a{n}", n) for n in range(limits.TEMPLATE_SETTINGS_MAX + 1)]):  # fmt: skip
        with pytest.raises(InvalidRequest):
            check_settings(settings)
