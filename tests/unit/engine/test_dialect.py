"""What templates teach, learnt from them alone: each writes calls its own way, and hears its own calls."""

import json

import pytest

from haif.base.conversation import Aside, Call, Tool, Turn
from haif.engine.dialect import learn, thought
from haif.engine.scene import scene
from haif.engine.speech import Form, Speech
from haif.engine.template import ChatTemplate
from tests.support import templates
from tests.support.tiny_model import TEMPLATE

ENDS = ["</s>", "<|end|>"]
WEATHER = Tool(
    "get_weather", "The weather of a place.", '{"type":"object","properties":{"place":{"type":"string"}}}', False
)
TIME = Tool("get", None, '{"type":"object","properties":{}}', False)
ARGUMENTS = '{"place": "Rome }]\\" \\u00e9", "days": [1, {"n": 2}]}'

NAMES = ("HERMES", "THINKING", "OPENED", "LLAMA", "MISTRAL", "ARGS", "DEEPSEEK", "GRANITE", "ACTIONS")


def learnt(source):
    template = ChatTemplate(source, bos="<s>", eos="</s>")
    return template, learn(lambda shown, prompt: template.render(shown.messages, shown.tools, prompt=prompt), ENDS)


def test_a_form_is_what_stands_around_names_and_arguments():
    assert learnt(templates.HERMES)[1].form == Form(
        '<tool_call>\n{"name": "', '", "arguments": ', "}\n</tool_call>", '<tool_call>\n{"name": "', ""
    )
    assert learnt(templates.LLAMA)[1].form == Form('{"name": "', '", "parameters": ', "}", None, "")


def test_an_id_before_the_arguments_is_any_and_one_behind_them_is_not_asked_of_the_model():
    assert learnt(templates.MISTRAL)[1].form == Form(
        '[TOOL_CALLS] [{"name": "', '", "arguments": ', "}", ', {"name": "', "]"
    )
    assert learnt(templates.ACTIONS)[1].form.opening == '<|START_ACTION|>[    {"tool_call_id": "\0", "tool_name": "'


def test_manners_differ_and_are_found_by_trying():
    manner = learnt(templates.DEEPSEEK)[1].manner
    assert (manner.objects, manner.empty) == (False, None)
    assert learnt(templates.HERMES)[1].manner.objects


@pytest.mark.parametrize(
    ("source", "why"),
    [(TEMPLATE, "shows a model no tools"), (templates.XML, "JSON object"), ("{{ 1 // 0 }}", "no tools"),
     ("{{ raise_exception('never') }}", "no tools"), ("{{ tools | tojson }}", "JSON object")],
)  # fmt: skip
def test_a_template_that_teaches_no_calls_says_why(source, why):
    dialect = learnt(source)[1]
    assert dialect.form is None
    assert why in dialect.why


def test_a_template_that_drops_results_is_known():
    source = templates.GRANITE.replace("<|{{ m.role }}|>{{ m.content }}<|end|>", "<|{{ m.role }}|>"
                                       "{{ m.content if m.role != 'tool' }}<|end|>")  # fmt: skip
    assert not learnt(source)[1].results
    assert learnt(templates.GRANITE)[1].results


def test_thoughts_are_marked_in_the_source():
    assert thought(templates.THINKING).closing == "</think>"
    assert thought(templates.ACTIONS).opening == "<|START_THINKING|>"
    assert thought(templates.HERMES) is None


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("count", [1, 2])
def test_each_template_hears_the_calls_it_writes_letter_by_letter(name, count):
    template, dialect = learnt(getattr(templates, name))
    count = count if dialect.form.between is not None else 1
    calls = [Call(f"haifcall{n}", tool.name, ARGUMENTS) for n, tool in enumerate((WEATHER, TIME)[:count])]

    def rendered(turn):
        view = scene([Turn("user", "hi"), turn], [WEATHER, TIME], dialect.manner)
        return template.render(view.messages, view.tools, prompt=False)

    written, plain = rendered(Turn("assistant", "", calls=calls)), rendered(Turn("assistant", "haif"))
    start = next(place for place, pair in enumerate(zip(written, plain, strict=False)) if pair[0] != pair[1])
    answer = written[start:]
    for end in ENDS:
        answer = answer.split(end)[0]
    speech = Speech(form=dialect.form, names=["get", "get_weather"])
    text, asides = "", []
    for letter in answer:
        text += speech.feed(letter.encode())
        asides += speech.asides()
    text += speech.finish()
    assert text == ""
    assert [aside.text for aside in asides if aside.kind == "call"] == [call.name for call in calls]
    told = "".join("\n" if aside == Aside("call", aside.text) else aside.text for aside in asides).split("\n")
    assert [json.loads(each) for each in told if each] == [json.loads(ARGUMENTS)] * count
