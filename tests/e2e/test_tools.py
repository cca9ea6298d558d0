"""Tools and thoughts through a whole mesh: the demo model with a template that teaches calls, and the official client.

It was never taught what a call is, so it shows what grammar enforces, and nothing about sense.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from haif.artifacts.service import DEMO_FOLDER
from haif.protocol.receipts import check_bundle
from tests.e2e.conftest import Mesh, haif, start, stop
from tests.support import templates
from tests.support.taught import taught

pytestmark = pytest.mark.xdist_group("tools")
SCHEMA = {
    "type": "object", "additionalProperties": False, "required": ["place", "days"],
    "properties": {"place": {"enum": ["river", "bridge"]}, "days": {"type": "integer", "minimum": 0, "maximum": 9}},
}  # fmt: skip
TOOL: Any = {
    "type": "function",
    "function": {"name": "get_weather", "description": "The weather.", "parameters": SCHEMA},
}
QUESTION: list[Any] = [{"role": "user", "content": "How is the weather at the river?"}]


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    """A mesh that serves the demo model, told how to call functions."""
    folder = tmp_path_factory.mktemp("tools")
    (demo,) = DEMO_FOLDER.glob("*.gguf")
    running = start(folder, "--model", str(taught(demo, folder / "taught.gguf", templates.THINKING)))
    yield running
    stop(running)


@pytest.fixture
def client(mesh: Mesh) -> Iterator[openai.OpenAI]:
    with mesh.client(_strict_response_validation=True) as made:
        yield made


def ask(client: openai.OpenAI, model: str, **options: Any) -> Any:
    given: dict[str, Any] = {"model": model, "messages": QUESTION, "tools": [TOOL], "tool_choice": "required"}
    return client.chat.completions.create(**(given | {"seed": 1, "max_tokens": 400, "extra_body": BRIEF} | options))


BRIEF = {"chat_template_kwargs": {"enable_thinking": False}}


def fits(arguments: str) -> bool:
    value = json.loads(arguments)
    return set(value) == {"place", "days"} and value["place"] in ("river", "bridge") and 0 <= value["days"] <= 9


def test_a_required_call_fits_its_schema_and_its_receipt(
    mesh: Mesh, client: openai.OpenAI, model: str, tmp_path: Path
) -> None:
    answer = ask(client, model, parallel_tool_calls=False)
    choice = answer.choices[0]
    (call,) = choice.message.tool_calls
    assert (choice.finish_reason, call.type, call.function.name) == ("tool_calls", "function", "get_weather")
    assert fits(call.function.arguments)
    said = choice.message.content or "", choice.message.model_extra.get("reasoning_content", "")
    check_bundle(answer.model_extra["haif"], *said, [(call.function.name, call.function.arguments)])
    file, message = tmp_path / "receipt.json", tmp_path / "message.json"
    file.write_text(json.dumps(answer.model_extra["haif"]))
    message.write_text(choice.message.model_dump_json())
    verified = haif("receipt", "verify", str(file), "--message", str(message))
    assert verified.returncode == 0, verified.stderr
    message.write_text(choice.message.model_dump_json().replace("get_weather", "get_whether"))
    assert haif("receipt", "verify", str(file), "--message", str(message)).returncode == 6


def test_a_streamed_call_is_the_whole_one_in_pieces(client: openai.OpenAI, model: str) -> None:
    named = {"tool_choice": {"type": "function", "function": {"name": "get_weather"}}}
    (whole,) = ask(client, model, **named).choices[0].message.tool_calls
    deltas = [each for chunk in ask(client, model, stream=True, **named) for choice in chunk.choices
              for each in choice.delta.tool_calls or ()]  # fmt: skip
    assert (deltas[0].index, deltas[0].function.name, deltas[0].function.arguments) == (0, "get_weather", "")
    assert all(each.index == 0 and each.id is None for each in deltas[1:])
    assert "".join(each.function.arguments for each in deltas) == whole.function.arguments
    assert fits(whole.function.arguments)


def test_the_clients_own_helper_gathers_calls_and_the_conversation_goes_on(client: openai.OpenAI, model: str) -> None:
    given: dict[str, Any] = {"model": model, "tools": [TOOL], "seed": 2, "max_tokens": 400, "extra_body": BRIEF}
    with client.chat.completions.stream(
        messages=QUESTION, tool_choice="required", parallel_tool_calls=False, **given
    ) as stream:
        message = stream.get_final_completion().choices[0].message
    assert message.tool_calls
    result: Any = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "Sunny.<|end|>"}
    history = [*QUESTION, message.model_dump(exclude_none=True), result]
    answer = client.chat.completions.create(messages=history, tool_choice="none", **(given | {"max_tokens": 20}))
    assert answer.choices[0].message.tool_calls is None
    assert answer.choices[0].message.content


def verified(folder: Path, answer: Any) -> int:
    """How `haif receipt verify` ends for an answer and its receipt."""
    file, message = folder / "receipt.json", folder / "answer.json"
    file.write_text(json.dumps(answer.model_extra["haif"]))
    message.write_text(answer.to_json())
    return haif("receipt", "verify", str(file), "--message", str(message)).returncode


def test_a_responses_call_comes_back_with_its_output(client: openai.OpenAI, model: str, tmp_path: Path) -> None:
    tool: Any = {"type": "function", "strict": True, **TOOL["function"]}
    given: dict[str, Any] = {"model": model, "tools": [tool], "extra_body": BRIEF | {"seed": 3}}
    with client.responses.stream(
        input=QUESTION, tool_choice="required", parallel_tool_calls=False, max_output_tokens=400, **given
    ) as stream:
        made = stream.get_final_response()
    call = made.output[-1]
    assert (call.type, call.name, fits(call.arguments)) == ("function_call", "get_weather", True)
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "Sunny.<|end|>"}
    answer = client.responses.create(
        input=[*QUESTION, *made.output, result], tool_choice="none", max_output_tokens=20, **given
    )
    assert answer.output_text
    assert [verified(tmp_path, each) for each in (made, answer)] == [0, 0]


def test_a_messages_tool_use_comes_back_with_its_result(mesh: Mesh, model: str, tmp_path: Path) -> None:
    tool: Any = {"name": "get_weather", "description": "The weather.", "input_schema": SCHEMA}
    given: dict[str, Any] = {"model": model, "tools": [tool], "extra_body": BRIEF | {"seed": 3}}
    gateway, key = mesh.first_card["gateway"], mesh.first_card["key"]
    with anthropic.Anthropic(base_url=gateway, api_key=key, max_retries=0) as client:
        choice: Any = {"type": "any", "disable_parallel_tool_use": True}
        with client.messages.stream(messages=QUESTION, max_tokens=400, tool_choice=choice, **given) as stream:
            made = stream.get_final_message()
        call: Any = made.content[-1]
        assert (made.stop_reason, call.name, fits(json.dumps(call.input))) == ("tool_use", "get_weather", True)
        result = {"type": "tool_result", "tool_use_id": call.id, "content": "Sunny.<|end|>"}
        history: list[Any] = [*QUESTION, {"role": "assistant", "content": made.content},
                              {"role": "user", "content": [result]}]  # fmt: skip
        answer = client.messages.create(messages=history, max_tokens=20, tool_choice={"type": "none"}, **given)
        assert answer.content
        whole = client.messages.create(messages=QUESTION, max_tokens=400, tool_choice=choice, **given)
    assert [verified(tmp_path, each) for each in (answer, whole)] == [0, 0]


def test_choices_call_each_for_itself(client: openai.OpenAI, model: str) -> None:
    answer = ask(client, model, n=3, temperature=1.5, parallel_tool_calls=False)
    assert all(fits(choice.message.tool_calls[0].function.arguments) for choice in answer.choices)
    ids = {choice.message.tool_calls[0].id for choice in answer.choices}
    assert len(ids) == 3


def test_thoughts_are_told_apart_and_counted(client: openai.OpenAI, model: str) -> None:
    answer = ask(client, model, tools=[], tool_choice="auto", extra_body={}, max_tokens=30)
    message = answer.choices[0].message
    thought = message.model_extra.get("reasoning_content", "")
    assert (answer.usage.completion_tokens_details.reasoning_tokens > 0) == bool(thought)
    check_bundle(answer.model_extra["haif"], message.content, thought)


def test_what_the_template_cannot_do_is_refused_with_its_name(client: openai.OpenAI, model: str) -> None:
    for options, param in (
        ({"extra_body": {"chat_template_kwargs": {"wibble": 1}}}, "chat_template_kwargs.wibble"),
        ({"reasoning_effort": "low"}, "reasoning_effort"),
        ({"messages": [{"role": "user", "content": "hi", "name": "bob"}]}, "messages[0].name"),
        ({"tools": [], "tool_choice": "auto", "logprobs": True, "extra_body": {}}, "logprobs"),
    ):
        with pytest.raises(openai.BadRequestError) as caught:
            ask(client, model, **options)
        assert caught.value.param == param
