"""Anthropic's official client, unchanged, against a real mesh."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest

from haif.protocol.receipts import check_bundle
from tests.e2e.conftest import Mesh

pytestmark = pytest.mark.xdist_group("mesh")
QUESTION: list[Any] = [{"role": "user", "content": "Who is the baker?"}]
GREEDY = {"temperature": 0}


@pytest.fixture
def claude(mesh: Mesh) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(
        base_url=mesh.first_card["gateway"], api_key=mesh.first_card["key"], max_retries=0,
        _strict_response_validation=True,
    ) as made:  # fmt: skip
        yield made


def ask(client: anthropic.Anthropic, model: str, **options: Any) -> Any:
    given: dict[str, Any] = {"model": model, "max_tokens": 40, "messages": QUESTION, "extra_body": GREEDY}
    return client.messages.create(**(given | options))


def text_of(message: Any) -> str:
    return "".join(block.text for block in message.content)


def test_a_message_is_the_chats_answer_whole_and_streamed(
    claude: anthropic.Anthropic, client: openai.OpenAI, model: str
) -> None:
    chat = client.chat.completions.create(model=model, messages=QUESTION, max_tokens=40, temperature=0)
    whole = ask(claude, model)
    with claude.messages.stream(model=model, max_tokens=40, messages=QUESTION, extra_body=GREEDY) as stream:
        pieces = list(stream.text_stream)
        streamed = stream.get_final_message()
    assert chat.choices[0].message.content == text_of(whole) == "".join(pieces) == text_of(streamed)
    assert whole.stop_reason == streamed.stop_reason
    checked = check_bundle(whole.model_extra["haif"], text_of(whole)).receipt.payload
    usage = whole.usage
    assert (usage.input_tokens + usage.cache_read_input_tokens, usage.output_tokens) == (
        checked.prompt_tokens, checked.completion_tokens,
    )  # fmt: skip


def test_the_stop_sequence_that_ended_a_message_is_named(claude: anthropic.Anthropic, model: str) -> None:
    whole = text_of(ask(claude, model))
    word = whole.split()[2]
    cut = ask(claude, model, stop_sequences=["never said", word])
    assert (text_of(cut), cut.stop_reason, cut.stop_sequence) == (whole[: whole.index(word)], "stop_sequence", word)


def test_an_answer_ends_where_the_context_does_and_says_so(claude: anthropic.Anthropic, model: str) -> None:
    story: list[Any] = [{"role": "user", "content": "Tell me a story of the river and the bridge."}]
    made = ask(claude, model, messages=story, max_tokens=20_000)
    assert made.stop_reason in ("end_turn", "model_context_window_exceeded")
    with pytest.raises(anthropic.BadRequestError) as caught:
        ask(claude, model, messages=[{"role": "user", "content": "the river " * 3000}])
    assert caught.value.error_code == "context_length_exceeded"


def test_what_the_model_cannot_do_is_refused_in_this_dialects_words(claude: anthropic.Anthropic, model: str) -> None:
    tool: Any = {"name": "f", "input_schema": {"type": "object"}}
    with pytest.raises(anthropic.BadRequestError) as caught:
        ask(claude, model, tools=[tool])  # the demo's template knows none
    assert caught.value.body["error"]["details"]["param"] == "tools"
