"""The official client, unchanged, against a real mesh."""

from __future__ import annotations

import json
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import httpx
import llama_cpp
import openai
import pydantic
import pytest

from haif.artifacts.service import DEMO_FOLDER
from haif.protocol.receipts import check_bundle
from tests.e2e.conftest import Mesh, haif

pytestmark = pytest.mark.xdist_group("mesh")
QUESTION: list[Any] = [{"role": "user", "content": "Who is the baker?"}]


def ask(client: openai.OpenAI, model: str, **options: Any) -> Any:
    arguments: dict[str, Any] = {"model": model, "messages": QUESTION, "temperature": 0, "max_tokens": 40}
    return client.chat.completions.create(**(arguments | options))


def text_of(answer: Any) -> str:
    return str(answer.choices[0].message.content)


def test_a_chat_is_answered_with_usage_and_a_receipt(client: openai.OpenAI, model: str) -> None:
    answer = ask(client, model)
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    checked = check_bundle(answer.model_extra["haif"], text_of(answer))
    assert checked.receipt.payload.completion_tokens == answer.usage.completion_tokens
    assert text_of(answer)


def test_a_stream_brings_the_same_text_in_pieces(client: openai.OpenAI, model: str) -> None:
    story: dict[str, Any] = {"messages": [{"role": "user", "content": "Tell me a story."}], "max_tokens": 120}
    whole = ask(client, model, **story)
    chunks = list(ask(client, model, stream=True, stream_options={"include_usage": True}, **story))
    pieces = [choice.delta.content or "" for chunk in chunks for choice in chunk.choices]
    assert text_of(whole) == "".join(pieces)
    assert len([piece for piece in pieces if piece]) > 1
    assert chunks[-1].choices == []
    told, wanted = chunks[-1].usage, whole.usage
    assert (told.prompt_tokens, told.completion_tokens) == (wanted.prompt_tokens, wanted.completion_tokens)
    assert len({chunk.id for chunk in chunks}) == 1
    bundles = [chunk.model_extra["haif"] for chunk in chunks if "haif" in (chunk.model_extra or {})]
    check_bundle(bundles[-1], "".join(pieces))


def test_a_response_is_the_chats_answer_whole_and_streamed(mesh: Mesh, client: openai.OpenAI, model: str) -> None:
    asked: dict[str, Any] = {"model": model, "input": QUESTION[0]["content"], "temperature": 0, "max_output_tokens": 40}
    with mesh.client(_strict_response_validation=True) as strict:
        whole = strict.responses.create(**asked)
        events = list(strict.responses.create(stream=True, **asked))
    assert whole.output_text == text_of(ask(client, model)) == events[-1].response.output_text
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == whole.output_text
    check_bundle(whole.model_extra["haif"], whole.output_text)
    check_bundle(events[-1].response.model_extra["haif"], whole.output_text)
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(model=model, input=[{"role": "user", "content": "the river " * 3000}])
    assert caught.value.code == "context_length_exceeded"


def test_the_stream_ends_with_done(mesh: Mesh, model: str) -> None:
    body = {"model": model, "messages": QUESTION, "max_tokens": 5, "stream": True}
    headers = {"Authorization": f"Bearer {mesh.first_card['key']}"}
    reply = httpx.post(f"{mesh.first_card['gateway']}/v1/chat/completions", json=body, headers=headers, timeout=60)
    events = reply.text.strip().split("\n\n")
    assert events[-1] == "data: [DONE]"
    assert all(event.startswith(("data: {", ": ")) for event in events[:-1])
    assert reply.headers["content-type"].startswith("text/event-stream")


def test_a_text_is_continued(client: openai.OpenAI, model: str) -> None:
    made = client.completions.create(model=model, prompt="One day the baker", max_tokens=12, temperature=0)
    assert made.choices[0].text
    assert made.usage is not None
    assert made.usage.completion_tokens <= 12


def test_models_are_listed(client: openai.OpenAI, model: str) -> None:
    assert model in [each.id for each in client.models.list()]
    assert client.models.retrieve(model).id == model


def test_a_stop_string_ends_the_answer(client: openai.OpenAI, model: str) -> None:
    whole = text_of(ask(client, model))
    word = whole.split()[2]
    cut = ask(client, model, stop=[word])
    assert text_of(cut) == whole[: whole.index(word)]
    assert cut.choices[0].finish_reason == "stop"


def test_max_tokens_ends_the_answer_with_length(client: openai.OpenAI, model: str) -> None:
    answer = ask(client, model, max_tokens=3)
    assert (answer.choices[0].finish_reason, answer.usage.completion_tokens) == ("length", 3)


def test_a_seed_gives_the_same_answer_alone_and_beside_seven_others(mesh: Mesh, model: str) -> None:
    hot: dict[str, Any] = {"temperature": 1.5, "top_p": 0.99, "seed": 42, "max_tokens": 48}
    with mesh.client() as client, ThreadPoolExecutor(8) as pool:
        alone = text_of(ask(client, model, **hot))
        topics = ("river", "school", "market", "bridge", "winter", "baker", "dog")
        others = [[{"role": "user", "content": f"Tell me a story about the {topic}."}] for topic in topics]
        crowd = [
            pool.submit(ask, client, model, **(hot | {"messages": other, "seed": n})) for n, other in enumerate(others)
        ]
        amid = [pool.submit(ask, client, model, **hot) for _ in range(4)]
        assert [alone] * 4 == [text_of(each.result()) for each in amid]
        assert len({text_of(each.result()) for each in crowd}) == 7
        assert text_of(ask(client, model, **(hot | {"seed": 43}))) != alone


def test_greedy_answers_are_those_of_llama_cpp_itself(client: openai.OpenAI, model: str) -> None:
    (path,) = DEMO_FOLDER.glob("*.gguf")
    direct = llama_cpp.Llama(str(path), n_ctx=512, verbose=False, n_threads=1)
    for prompt in ("One day the baker", "The river was", "In winter"):
        ours = client.completions.create(model=model, prompt=prompt, max_tokens=32, temperature=0).choices[0].text
        theirs = direct.create_completion(prompt, max_tokens=32, temperature=0)
        assert theirs["choices"][0]["text"] == ours
    direct.close()


def test_logprobs_add_up_and_name_the_greedy_token(client: openai.OpenAI, model: str) -> None:
    answer = ask(client, model, max_tokens=5, logprobs=True, top_logprobs=3).choices[0]
    assert "".join(entry.token for entry in answer.logprobs.content) == answer.message.content
    for entry in answer.logprobs.content:
        assert (entry.token, entry.logprob) == (entry.top_logprobs[0].token, entry.top_logprobs[0].logprob)
        assert sum(math.exp(each.logprob) for each in entry.top_logprobs) <= 1 + 1e-9


def test_logprobs_of_a_stream_are_those_of_the_whole(client: openai.OpenAI, model: str) -> None:
    whole = ask(client, model, max_tokens=5, logprobs=True, top_logprobs=1).choices[0].logprobs.content
    parts = ask(client, model, max_tokens=5, logprobs=True, top_logprobs=1, stream=True)
    told = [entry for part in parts for entry in (part.choices[0].logprobs.content if part.choices[0].logprobs else [])]
    assert told == whole


def test_a_conversation_is_computed_once_and_only_for_its_own_tenant(mesh: Mesh, model: str) -> None:
    story: list[Any] = [{"role": "user", "content": "Tell me a story about the lighthouse and the storm."}]
    with mesh.client() as client:
        first = ask(client, model, messages=story)
        more = [*story, {"role": "assistant", "content": text_of(first)}, {"role": "user", "content": "And then?"}]
        repeated = [ask(client, model, messages=more, max_tokens=2).usage for _ in range(4)]
    assert max(usage.prompt_tokens_details.cached_tokens for usage in repeated) > first.usage.prompt_tokens
    key = json.loads(haif("tenant", "create", "curious", "--json", state=mesh.state).stdout)["key"]
    with mesh.client(key) as stranger:
        usage = ask(stranger, model, messages=more, max_tokens=2).usage
    assert usage.prompt_tokens_details.cached_tokens == 0


def test_a_penalty_against_repetition_changes_the_answer(client: openai.OpenAI, model: str) -> None:
    assert text_of(ask(client, model)) != text_of(ask(client, model, extra_body={"repeat_penalty": 10}))


def test_an_answer_is_parsed_into_the_type_that_was_asked_for(client: openai.OpenAI, model: str) -> None:
    class Animal(pydantic.BaseModel):
        kind: Literal["dog", "cat", "horse"]
        legs: int = pydantic.Field(ge=0, le=8)

    parsed = client.chat.completions.parse(
        model=model, messages=QUESTION, response_format=Animal, max_tokens=120, temperature=1
    )
    assert parsed.choices[0].finish_reason == "stop"
    assert isinstance(parsed.choices[0].message.parsed, Animal)


def test_an_echo_begins_with_the_prompt(client: openai.OpenAI, model: str) -> None:
    options: dict[str, Any] = {"model": model, "prompt": "In winter", "max_tokens": 8, "temperature": 0}
    plain, echoed = client.completions.create(**options), client.completions.create(echo=True, **options)
    assert echoed.choices[0].text == "In winter" + plain.choices[0].text


def test_several_choices_differ_and_the_first_is_the_one_asked_for_alone(client: openai.OpenAI, model: str) -> None:
    hot: dict[str, Any] = {"temperature": 1.5, "seed": 7, "max_tokens": 24}
    several = ask(client, model, n=3, **hot)
    assert text_of(several) == text_of(ask(client, model, **hot))
    assert len({choice.message.content for choice in several.choices}) == 3
    for choice in several.choices:
        check_bundle(choice.model_extra["haif"], choice.message.content)
    texts = {0: "", 1: "", 2: ""}
    for chunk in ask(client, model, n=3, stream=True, **hot):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert list(texts.values()) == [choice.message.content for choice in several.choices]


def test_two_workers_share_the_load(mesh: Mesh, model: str) -> None:
    with mesh.client() as client, ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(ask, client, model, temperature=1, max_tokens=60) for _ in range(8)]
        workers = [answer.result().model_extra["haif"]["worker"] for answer in answers]
    assert {role["peer"] for role in mesh.roles("worker")} == set(workers)
    assert min(workers.count(worker) for worker in set(workers)) >= 2


# --- errors -----------------------------------------------------------------------------------------------------------


def test_a_wrong_key_is_an_authentication_error(mesh: Mesh, model: str) -> None:
    with mesh.client("haif-wrong") as client, pytest.raises(openai.AuthenticationError):
        ask(client, model)


def test_an_unknown_model_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        ask(client, "gpt-unknown")
    assert caught.value.code == "model_not_found"


def test_over_quota_is_a_rate_limit_error_with_retry_after(mesh: Mesh, model: str) -> None:
    made = haif("tenant", "create", "hasty", "--rpm", "1", "--burst", "1", "--json", state=mesh.state)
    assert made.returncode == 0, made.stderr
    with mesh.client(json.loads(made.stdout)["key"]) as client:
        ask(client, model, max_tokens=1)
        with pytest.raises(openai.RateLimitError) as caught:
            ask(client, model, max_tokens=1)
    assert int(caught.value.response.headers["retry-after"]) >= 1


@pytest.mark.parametrize(
    ("option", "param"),
    [
        ({"n": 9}, "n"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),  # the demo's template knows none
        ({"logit_bias": {"5": 101}}, "logit_bias"),
        ({"extra_body": {"suffix": "x"}}, "suffix"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"extra_body": {"mirostat": 2}}, "mirostat"),
        ({"temperature": 5}, "temperature"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(
    client: openai.OpenAI, model: str, option: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, model, **option)
    assert caught.value.param == param


def test_too_long_a_prompt_says_so(client: openai.OpenAI, model: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, model, messages=[{"role": "user", "content": "the river " * 3000}])
    assert caught.value.code == "context_length_exceeded"


def test_a_receipt_verifies_offline_and_a_changed_one_does_not(
    client: openai.OpenAI, model: str, tmp_path: Path
) -> None:
    answer = ask(client, model)
    file, text = tmp_path / "receipt.json", tmp_path / "answer.txt"
    good = json.dumps(answer.model_extra["haif"], separators=(",", ":"))
    file.write_text(good)
    text.write_text(text_of(answer))
    verified = haif("receipt", "verify", str(file), "--text", str(text), "--json")
    assert verified.returncode == 0, verified.stderr
    assert json.loads(verified.stdout)["model_digest"] == answer.model_extra["haif"]["model_digest"]
    for place in range(20, len(good), len(good) // 5):
        changed = bytearray(good.encode())
        changed[place] ^= 1
        file.write_bytes(changed)
        assert haif("receipt", "verify", str(file)).returncode == 6


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
def test_an_answer_is_computed_again_to_the_last_bit(
    client: openai.OpenAI, model: str, tmp_path: Path, streamed: bool
) -> None:
    wanted = {"haif": {"transcript": True}}
    if streamed:
        last = list(ask(client, model, stream=True, temperature=1, max_tokens=50, extra_body=wanted))[-1]
    else:
        last = ask(client, model, temperature=1, max_tokens=50, extra_body=wanted)
    file = tmp_path / "answer.json"
    file.write_text(json.dumps(last.model_extra["haif"]))
    told = haif("receipt", "replay", str(file), "--json", state=tmp_path)
    assert told.returncode == 0, told.stderr
    assert 0 < json.loads(told.stdout)["tokens"] <= 50
    assert haif("receipt", "verify", str(file)).returncode == 0


def test_a_job_is_shown_to_its_own_tenant_only(mesh: Mesh, client: openai.OpenAI, model: str) -> None:
    job = ask(client, model).model_extra["haif"]["job"]
    url = f"{mesh.first_card['gateway']}/haif/v1/jobs/{job}"
    mine = httpx.get(url, headers={"Authorization": f"Bearer {mesh.first_card['key']}"})
    assert (mine.status_code, mine.json()["state"]) == (200, "finalised")
    other = json.loads(haif("tenant", "create", "nosy", "--json", state=mesh.state).stdout)["key"]
    assert httpx.get(url, headers={"Authorization": f"Bearer {other}"}).status_code == 404
