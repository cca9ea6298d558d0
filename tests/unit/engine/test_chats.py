"""Chats with tools and thoughts, in real children on random models: what they say fits, whatever they would say."""

import asyncio
import json

import pytest

from haif.base.conversation import Call, Said, Tool, Toolbox, Turn, merged
from haif.base.errors import InvalidRequest, Unsupported
from haif.engine.request import Piece
from tests.support import templates
from tests.support.engines import engine, request
from tests.support.tiny_model import build_tiny_model

CONTROLS = (
    "[TOOL_CALLS]", "[ARGS]", "<think>", "</think>", "<|tool_calls_begin|>", "<|tool_call_begin|>", "<|tool_sep|>",
    "<|tool_call_end|>", "<|tool_calls_end|>", "<|tool_call|>", "<|START_THINKING|>", "<|END_THINKING|>",
)  # fmt: skip
CALLS, _, _, CLOSED, *_, DONE = range(263, 263 + len(CONTROLS))  # the ids of some of them
SCHEMA = {
    "type": "object", "additionalProperties": False, "required": ["place", "days"],
    "properties": {"place": {"enum": ["Rome", "Oslo"]}, "days": {"type": "integer", "minimum": 0, "maximum": 9}},
}  # fmt: skip
WEATHER = Tool("get_weather", "The weather.", json.dumps(SCHEMA), strict=False)
STRICT = Tool("set_clock", None, json.dumps(SCHEMA), strict=True)
ASKED = [("user", "hi")]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A model with a template, made once."""
    folder = tmp_path_factory.mktemp("models")

    def make(name):
        path = folder / f"{name}.gguf"
        if not path.exists():
            build_tiny_model(path, template=getattr(templates, name), more_controls=CONTROLS, end_bias=1.0,
                             context=2048)  # fmt: skip
        return path

    return make


def child(model):
    return engine(model, slots=4, context_tokens=2048)


async def ask(running, **options):
    """What was said, and how it ended."""
    said, end = Said(), None
    async with running.generate(request(chat=options.pop("chat", ASKED), **options)) as pieces:
        async for piece in pieces:
            if isinstance(piece, Piece):
                said.add(piece.text, piece.asides)
            else:
                end = piece
    return said, end


def fits(arguments):
    value = json.loads(arguments)
    return set(value) == {"place", "days"} and value["place"] in {"Rome", "Oslo"} and 0 <= value["days"] <= 9


@pytest.mark.parametrize("name", ["HERMES", "LLAMA", "MISTRAL", "ARGS", "DEEPSEEK", "GRANITE", "ACTIONS"])
async def test_a_call_that_is_due_comes_in_the_templates_form_and_fits_the_schema(made, name):
    async with child(made(name)) as running:
        for seed in range(3):
            box = Toolbox([WEATHER, STRICT], parallel=False, required=True)
            brief = {"bias": [(CLOSED, 8.0), (DONE, 8.0)], "temperature": 1.0, "tokens_max": 500}
            said, end = await ask(running, tools=box, seed=seed, **brief)
            assert end.finish_reason == "stop", said.text
            assert (said.text, len(said.calls)) == ("", 1)
            assert fits(said.calls[0][1])
        only, _ = await ask(running, tools=Toolbox([WEATHER, STRICT], only="set_clock"), **brief)
        assert [called for called, _ in only.calls] == ["set_clock"]
        assert fits(only.calls[0][1])


async def test_several_calls_may_follow_one_another(made):
    async with child(made("HERMES")) as running:
        counts = set()
        for seed in range(6):
            said, end = await ask(
                running, tools=Toolbox([WEATHER], required=True), tokens_max=450, temperature=1.5, seed=seed
            )
            assert all(
                fits(arguments) for _, arguments in said.calls[: len(said.calls) - (end.finish_reason != "stop")]
            )
            counts.add(len(said.calls))
    assert max(counts) > 1


async def test_a_strict_function_is_called_with_what_fits_or_not_at_all(made):
    """The bias makes the model open a call by itself; without `strict` nothing holds it to its form."""
    async with child(made("ARGS")) as running:
        opened = {"temperature": 0.0, "tokens_max": 300, "bias": [(CALLS, 60.0)]}
        said, _ = await ask(running, tools=Toolbox([STRICT], parallel=False), **opened)
        assert [called for called, _ in said.calls] == ["set_clock"]
        assert fits(said.calls[0][1])
        free, _ = await ask(running, tools=Toolbox([WEATHER], parallel=False), **opened)
        assert free.calls == []


async def test_a_thought_goes_before_a_call_that_is_due_and_is_told_apart(made):
    async with child(made("OPENED")) as running:
        closed = {"bias": [(CLOSED, 6.0)], "temperature": 1.0, "tokens_max": 500}
        said, end = await ask(running, tools=Toolbox([WEATHER], only="get_weather"), **closed)
        assert end.finish_reason == "stop"
        assert said.reasoning
        assert 1 <= end.reasoning_tokens < end.completion_tokens
        assert fits(said.calls[0][1])
        schema, _ = await ask(running, json_schema=json.dumps(SCHEMA), **closed)
        assert schema.reasoning
        assert fits(schema.text)
        plain, _ = await ask(running, **closed)
        assert plain.reasoning


async def test_settings_reach_the_template_and_unknown_ones_are_refused(made):
    async with child(made("THINKING")) as running:
        plain = (await ask(running, tokens_max=1))[1].prompt_tokens
        told = (await ask(running, tokens_max=1, settings=[("enable_thinking", False)]))[1].prompt_tokens
        assert told > plain
        said, _ = await ask(running, tokens_max=3, logprobs=0, settings=[("enable_thinking", False)])
        assert said.reasoning == ""
        for name, param in (("wibble", "chat_template_kwargs.wibble"), ("reasoning_effort", "reasoning_effort"),
                            ("messages", "chat_template_kwargs.messages")):  # fmt: skip
            with pytest.raises(Unsupported) as refused:
                await ask(running, settings=[(name, "low")])
            assert refused.value.param == param


@pytest.mark.parametrize(
    ("name", "options", "error", "param"),
    [
        ("XML", {"tools": Toolbox([WEATHER])}, Unsupported, "tools"),
        ("XML", {"chat": [Turn("assistant", "", calls=[Call("1", "f", "{}")])]}, Unsupported, "messages"),
        ("HERMES", {"tools": Toolbox([WEATHER]), "logprobs": 1}, Unsupported, "logprobs"),
        ("THINKING", {"logprobs": 1}, Unsupported, "logprobs"),
        ("HERMES", {"tools": Toolbox([WEATHER]), "json_schema": "{}"}, InvalidRequest, "response_format"),
        ("HERMES", {"chat": [Turn("user", "hi", name="bob")]}, Unsupported, "messages[0].name"),
        ("HERMES", {"tools": Toolbox([Tool("f", None, '{"type":"wibble"}', strict=True)])}, InvalidRequest,
         "tools[0].function.parameters"),
        ("HERMES", {"tools": Toolbox([Tool("f", None, '{"properties":{"a":{"type":"wibble"}}}', strict=True)])},
         InvalidRequest, "tools"),
        ("HERMES", {"tools": Toolbox([Tool("f", None, '{"not":{}}', strict=False)], required=True)}, InvalidRequest,
         "tools"),
    ],
)  # fmt: skip
async def test_what_cannot_be_honoured_is_refused_by_name(made, name, options, error, param):
    async with child(made(name)) as running:
        with pytest.raises(error) as refused:
            await ask(running, **options)
        assert refused.value.param == param


async def test_a_whole_conversation_with_tools_is_a_prompt(made):
    call = Call("haifcall1", "get_weather", '{"place": "Rome", "days": 1}')
    chat = [Turn("user", "hi"), Turn("assistant", "", calls=[call]), Turn("tool", "sunny", call_id="haifcall1")]
    for name in ("HERMES", "LLAMA", "MISTRAL", "ARGS", "DEEPSEEK", "THINKING"):
        async with child(made(name)) as running:
            _, end = await ask(running, chat=chat, tools=Toolbox([WEATHER]), tokens_max=2)
            assert end.completion_tokens == 2


async def test_the_same_seed_gives_the_same_calls_beside_others(made):
    async with child(made("HERMES")) as running:
        options = {"tools": Toolbox([WEATHER], required=True, parallel=False), "tokens_max": 300, "temperature": 1.3}
        alone = (await ask(running, seed=3, **options))[0].calls
        crowd = await asyncio.gather(*(ask(running, seed=seed, **options) for seed in (1, 2, 3, 4)))
    assert crowd[2][0].calls == alone


async def test_an_answer_resumed_after_any_of_its_tokens_says_the_same(made):
    async def whole(running, **options):
        tokens, parts = [], []
        async with running.generate(request(chat=ASKED, tools=box, seed=5, **options)) as pieces:
            async for piece in pieces:
                if isinstance(piece, Piece):
                    tokens += piece.tokens
                    parts += piece.asides
                else:
                    return tokens, merged(parts), piece
        raise AssertionError

    box = Toolbox([WEATHER], only="get_weather")
    options = {"bias": [(CLOSED, 8.0)], "temperature": 1.0, "tokens_max": 400}
    async with child(made("OPENED")) as running:
        tokens, parts, end = await whole(running, **options)
        assert {part.kind for part in parts} == {"reasoning", "call", "arguments"}
        for cut in {1, 2, len(tokens) // 3, len(tokens) // 2, len(tokens) - 2, len(tokens) - 1, len(tokens)}:
            again = await whole(running, resumed=tokens[:cut], **options)
            assert again[:2] == (tokens, parts)
            assert again[2].reasoning_tokens == end.reasoning_tokens
