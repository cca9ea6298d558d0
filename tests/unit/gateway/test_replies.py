"""What tenants receive, byte for byte."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from haif.base.conversation import Aside, Said, Turn
from haif.base.ids import Digest, JobId, ModelDigest, Nonce, PeerId
from haif.base.sampling import Likelihood, Sampling
from haif.gateway.ask import Ask
from haif.gateway.replies import DONE, Envelope, Stream, base64url, seconds_text
from haif.gateway.told import Choice, Settled
from haif.protocol.inference import Request
from haif.protocol.receipts import Receipt

REQUEST = Request(Nonce(b"n" * 16), [Turn("user", "hi")], None, 5, Sampling(), [])
RECEIPT = Receipt(
    JobId(b"j" * 16), 1, PeerId(b"g" * 32), Digest(b"r" * 32), Digest(b"q" * 32), ModelDigest(b"m" * 32), 3, 2, "stop",
    Digest(b"o" * 32), Digest(b"t" * 32), "build", "none", 1, 2,
)  # fmt: skip
SETTLED = Settled(RECEIPT, {"job": "j"}, 2)


def said(text: str, *asides: Aside) -> Said:
    spoken = Said()
    spoken.add(text, asides)
    return spoken


ID = "chatcmpl-" + "6a" * 16


def envelope(
    kind: str = "chat", *, include_usage: bool = False, logprobs: int | None = None, echo: str = ""
) -> Envelope:
    request = structs.replace(REQUEST, logprobs=logprobs)
    ask = Ask(
        dialect=kind, model='ti"ny', request=request, seed=None, stream=True, include_usage=include_usage, ignored=(),
        echo=echo,
    )  # fmt: skip
    return Envelope(JobId(b"j" * 16), ask, 1_700_000_000)


def test_the_events_of_a_chat_are_golden() -> None:
    stream = Stream(envelope())
    head = f'data: {{"id":"{ID}","object":"chat.completion.chunk","created":1700000000,"model":"ti\\"ny","choices":['
    assert stream.text('a"b\n').decode() == (
        head + '{"index":0,"delta":{"content":"a\\"b\\n"},"logprobs":null,"finish_reason":null}]}\n\n'
    )
    assert stream.first().decode() == (
        head + '{"index":0,"logprobs":null,"finish_reason":null,'
        '"delta":{"role":"assistant","content":"","refusal":null}}]}\n\n'
    )
    assert (stream.last(SETTLED) + envelope().done([SETTLED])).decode() == (
        head + '{"index":0,"logprobs":null,"finish_reason":"stop","delta":{}}],"haif":{"job":"j"}}\n\ndata: [DONE]\n\n'
    )


def test_with_usage_every_event_has_it_null_and_one_more_has_it_full() -> None:
    wanted = envelope(include_usage=True)
    stream = Stream(wanted)
    told = stream.first() + stream.text("x") + stream.last(SETTLED) + wanted.done([SETTLED])
    events = told.decode().removesuffix("data: [DONE]\n\n")
    *others, last = [json.loads(event[6:]) for event in events.strip().split("\n\n")]
    assert [event["usage"] for event in others] == [None, None, None]
    assert last["usage"] == {
        "prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5, "prompt_tokens_details": {"cached_tokens": 2},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }  # fmt: skip
    assert last["choices"] == []


@pytest.mark.parametrize("kind", ["chat", "text"])
def test_a_whole_answer_says_the_same_as_its_stream(kind: str) -> None:
    body = json.loads(envelope(kind).whole([Choice(said("hello"), [], SETTLED)]))
    choice = body["choices"][0]
    assert (choice["message"]["content"] if kind == "chat" else choice["text"]) == "hello"
    assert (choice["finish_reason"], choice["logprobs"], body["haif"]) == ("stop", None, {"job": "j"})
    assert body["usage"]["total_tokens"] == 5
    assert body["id"] == envelope(kind).id


@given(st.text(), st.sampled_from(["chat", "text"]), st.booleans())
def test_any_text_is_one_event_on_one_line(text: str, kind: str, include_usage: bool) -> None:
    event = Stream(envelope(kind, include_usage=include_usage)).text(text)
    assert event.count(b"\n") == 2
    choice = json.loads(event[6:])["choices"][0]
    assert (choice["delta"]["content"] if kind == "chat" else choice["text"]) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0ms"), (0.012, "12ms"), (1, "1s"), (59.4, "59s"), (60, "1m0s"), (361, "6m1s")]
)
def test_durations_are_written_as_openai_writes_them(seconds: float, text: str) -> None:
    assert seconds_text(seconds) == text


def test_base64url_has_no_padding_and_done_is_golden() -> None:
    assert base64url(b"\xff\xfe\xfd\xfc") == "__79_A"
    assert DONE == b"data: [DONE]\n\n"


# --- logprobs ---------------------------------------------------------------------------------------------------------

A, B = Likelihood(1, -0.5, "é".encode()), Likelihood(2, -1.5, b"b")
END = Likelihood(0, -0.25, b"")
SCORES = [[A, A, B], [B, A, B], [END, END, A]]


def test_several_choices_have_their_own_index_and_receipt_and_one_sum() -> None:
    other = structs.replace(RECEIPT, completion_tokens=4, finish_reason="length")
    both = [Choice(said("a"), [], SETTLED), Choice(said("b"), [], Settled(other, {"job": "k"}, 1))]
    body = json.loads(envelope().whole(both))
    assert [(each["index"], each["message"]["content"], each["haif"]) for each in body["choices"]] == [
        (0, "a", {"job": "j"}), (1, "b", {"job": "k"}),
    ]  # fmt: skip
    assert "haif" not in body
    assert body["usage"] == {
        "prompt_tokens": 6, "completion_tokens": 6, "total_tokens": 12, "prompt_tokens_details": {"cached_tokens": 3},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }  # fmt: skip
    assert json.loads(Stream(envelope(), 1).text("b")[6:])["choices"][0]["index"] == 1


def test_logprobs_of_a_chat_are_as_openai_shows_them() -> None:
    choice = json.loads(envelope(logprobs=2).whole([Choice(said("éb"), SCORES, SETTLED)]))["choices"][0]
    e, b = (
        {"token": "é", "logprob": -0.5, "bytes": [0xC3, 0xA9]},
        {"token": "b", "logprob": -1.5, "bytes": [0x62]},
    )
    assert choice["logprobs"] == {
        "content": [{**e, "top_logprobs": [e, b]}, {**b, "top_logprobs": [e, b]}], "refusal": None,
    }  # fmt: skip


def test_logprobs_of_a_completion_are_as_openai_shows_them_and_its_stream_says_the_same() -> None:
    whole = envelope("text", logprobs=2)
    choice = json.loads(whole.whole([Choice(said("éb"), SCORES, SETTLED)]))["choices"][0]
    assert choice["logprobs"] == {
        "tokens": ["é", "b"], "token_logprobs": [-0.5, -1.5],
        "top_logprobs": [{"é": -0.5, "b": -1.5}, {"é": -0.5, "b": -1.5}], "text_offset": [0, 1],
    }  # fmt: skip
    stream = Stream(whole)
    events = [stream.text("é", SCORES[:1]), stream.text("b", SCORES[1:])]
    parts = [json.loads(event[6:])["choices"][0]["logprobs"] for event in events]
    assert {name: parts[0][name] + parts[1][name] for name in parts[0]} == choice["logprobs"]


def test_a_probability_of_zero_is_a_number_json_has() -> None:
    scores = [[Likelihood(1, float("-inf"), b"x")]]
    body = json.loads(envelope(logprobs=0).whole([Choice(said("x"), scores, SETTLED)]))
    assert body["choices"][0]["logprobs"]["content"][0]["logprob"] == -9999.0


def test_an_echoed_prompt_comes_before_the_answer() -> None:
    echoing = envelope("text", echo="Once ")
    assert json.loads(echoing.whole([Choice(said("upon"), [], SETTLED)]))["choices"][0]["text"] == "Once upon"
    assert json.loads(Stream(echoing).first()[6:])["choices"][0]["text"] == "Once "
    assert Stream(envelope("text")).first() == b""
