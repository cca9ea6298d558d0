import pytest

from haif.base.errors import InvalidRequest, Unsupported
from haif.engine.template import ChatTemplate

TURNS = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]


def template(source):
    return ChatTemplate(source, bos="<s>", eos="</s>")


def test_a_template_sees_messages_tokens_and_that_an_answer_begins():
    source = (
        "{{ bos_token }}{% for m in messages %}[{{ m['role'] }}]{{ m.content | trim }}{{ eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    assert "<s>[system]Be brief.</s>[user]Hi</s>[assistant]" == template(source).render(TURNS)


def test_what_published_templates_use_is_there():
    source = (
        "{%- set ns = namespace(found=false) -%}"
        "{%- for m in messages if m.role != 'system' -%}{%- if loop.first -%}{%- set ns.found = true -%}{%- endif -%}"
        "{{- '<|im_start|>' + m['role'] + '\n' + m['content'].strip().split('</think>')[-1] -}}"
        "{%- if loop.index0 % 2 == 0 -%}{%- continue -%}{%- endif -%}{%- endfor -%}"
        "{{- messages[::-1] | map(attribute='role') | list | tojson -}}"
        "{%- if strftime_now is defined -%}never{%- endif -%}{{- ns.found -}}"
    )
    assert '<|im_start|>user\nHi["user", "system"]True' == template(source).render(TURNS)


def test_raise_exception_is_the_template_refusing_the_chat():
    with pytest.raises(InvalidRequest, match="roles must alternate") as caught:
        template("{{ raise_exception('roles must alternate') }}").render(TURNS)
    assert "messages" == caught.value.param


@pytest.mark.parametrize("source", ["{% for %}", "{{ x", "{% unknown %}", "{{ x | nofilter }}", "a" * 300_000])
def test_a_template_that_cannot_be_read_is_unsupported(source):
    with pytest.raises(Unsupported, match="chat template"):
        template(source)


@pytest.mark.parametrize("source", ["{{ 1 // 0 }}", "{{ messages['a'].b.c }}", "{{ undefined.x }}", "{{ 1 + 'a' }}"])
def test_a_template_that_fails_is_unsupported(source):
    with pytest.raises(Unsupported, match="failed"):
        template(source).render(TURNS)


def test_a_rendering_that_grows_too_long_is_refused():
    with pytest.raises(InvalidRequest, match="too long"):
        template("{% for i in range(99999) %}{{ 'twelve bytes' }}{% endfor %}").render(TURNS)


def test_settings_are_the_variables_that_a_template_names_and_nobody_else_gives():
    source = (
        "{% set ns = namespace(a=1) %}{% for m in messages if m.role %}{{ m.content }}{% endfor %}{{ tools }}"
        "{% if enable_thinking is defined and enable_thinking %}{{ range(budget) | list }}{% endif %}"
        "{% if not messages %}{{ raise_exception(reasoning_effort) }}{% endif %}"
    )
    assert {"enable_thinking", "budget", "reasoning_effort"} == template(source).settings
    assert "[0, 1]" in template(source).render(TURNS, settings={"enable_thinking": True, "budget": 2})


def test_json_is_written_as_published_templates_ask_for_it():
    source = (
        "{{ tools | tojson(ensure_ascii=False) }}|{{ tools | tojson(separators=(',', ':'), sort_keys=true) }}|"
        "{{ tools | tojson(indent=1) }}"
    )
    plain, tight, indented = template(source).render(TURNS, [{"b": "é", "a": 1}]).split("|")
    assert plain == '[{"b": "é", "a": 1}]'
    assert tight == '[{"a":1,"b":"é"}]'
    assert indented == '[\n {\n  "b": "é",\n  "a": 1\n }\n]'
