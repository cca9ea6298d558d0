"""Requests for vectors, heard strictly, answered whole, by the official client unchanged."""

import asyncio
import base64
import struct
from typing import Any

import msgspec
import openai
import pytest

from haif.base import limits
from haif.base.errors import ConnectionLost, Reason, Unsupported
from haif.base.ids import Nonce
from haif.base.tasks import Task
from haif.gateway.embeddings import parse_embeddings, parse_rerank
from haif.gateway.errors import Rejected
from haif.protocol.embeddings import Vectors, vectors_digest
from haif.protocol.receipts import check_bundle
from tests.support.scripted_mesh import RANKS, STRANGER, VECTORS, Attempt, Hang, ScriptedMesh

NONCE = Nonce(bytes(16))
ONE, TWO = struct.pack("<2f", 0.6, 0.8), struct.pack("<2f", -1.0, 0.0)
BOTH = [Vectors(0, [ONE]), Vectors(1, [TWO])]


@pytest.fixture
def mesh() -> ScriptedMesh:
    return ScriptedMesh(models=(VECTORS, RANKS), attempts=[Attempt(vectors=list(BOTH))])


# --- heard ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "texts", "tokens"),
    [
        ('"hello"', ["hello"], None), ('["a","b"]', ["a", "b"], None), ("[1,2]", None, [struct.pack("<2I", 1, 2)]),
        ("[[1],[2,3]]", None, [struct.pack("<I", 1), struct.pack("<2I", 2, 3)]),
    ],
)  # fmt: skip
def test_an_input_is_text_or_tokens_one_or_many(given: str, texts: Any, tokens: Any) -> None:
    ask = parse_embeddings(b'{"model":"m","input":%s,"user":"me"}' % given.encode(), NONCE)
    assert (ask.request.texts, ask.request.tokens, ask.ignored) == (texts, tokens, ("user",))
    assert (ask.task, ask.base64, ask.count) == (Task.EMBED, False, len(texts or tokens))


@pytest.mark.parametrize(
    ("rest", "param"),
    [
        ('"input":""', "input"), ('"input":[]', "input"), ('"input":["a",""]', "input[1]"), ('"input":[[]]', "input"),
        ('"input":["a",1]', "input[1]"), ('"input":[1,"a"]', "input[1]"), ('"input":[[1],2]', "input[1]"),
        ('"input":[-1]', "input"), ('"input":[1.5]', "input"), ('"input":{"a":1}', "input"), ('"input":null', "input"),
        ('"user":"x"', "input"), ('"input":"a","dimensions":0', "dimensions"),
        ('"input":"a","dimensions":9999', "dimensions"), ('"input":"a","encoding_format":"int8"', "encoding_format"),
        ('"input":"a","truncate":true', "truncate"),
        ('"input":[' + '"x",' * limits.EMBEDDING_INPUTS_MAX + '"x"]', "input"),
    ],
)  # fmt: skip
def test_what_cannot_be_honoured_is_refused_by_name(rest: str, param: str) -> None:
    with pytest.raises((Rejected, Unsupported)) as caught:
        parse_embeddings(b'{"model":"m",%s}' % rest.encode(), NONCE)
    assert (caught.value.param or "").startswith(param.split("[", maxsplit=1)[0])


def test_documents_are_texts_or_objects_with_a_text() -> None:
    ask = parse_rerank(b'{"model":"m","query":"q","documents":["a",{"text":"b"}],"top_n":1}', NONCE)
    assert (ask.request.query, ask.request.texts, ask.top_n, ask.with_documents) == ("q", ["a", "b"], 1, False)
    assert ask.task is Task.RERANK


@pytest.mark.parametrize(
    "rest",
    [
        '"query":"q"', '"documents":["a"]', '"query":"","documents":["a"]', '"query":"q","documents":[]',
        '"query":"q","documents":[{"image":"x"}]', '"query":"q","documents":["a"],"top_n":0',
        '"query":"q","documents":["a"],"rank_fields":["x"]', '"query":"q","documents":[[1]]',
    ],
)  # fmt: skip
def test_what_cannot_be_ranked_is_refused(rest: str) -> None:
    with pytest.raises((Rejected, Unsupported)):
        parse_rerank(b'{"model":"m",%s}' % rest.encode(), NONCE)


# --- answered ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["float", "base64", None])
async def test_the_official_client_gets_vectors_in_every_encoding(
    house: Any, mesh: ScriptedMesh, encoding: Any
) -> None:
    """In strict validation with "float": by itself the client asks for base64, which its own type then forbids."""
    said = {} if encoding is None else {"encoding_format": encoding}
    async with openai.AsyncOpenAI(base_url=f"{house.url}/v1", api_key=house.key, max_retries=0) as loose:
        client = house.client if encoding == "float" else loose
        answer = await client.embeddings.create(model="vectors", input=["a", "b"], **said)
    found = [entry.embedding for entry in answer.data]
    if encoding == "base64":
        found = [list(struct.unpack("<2f", base64.b64decode(each))) for each in found]
    assert found == [pytest.approx([0.6, 0.8]), [-1.0, 0.0]]
    assert [entry.index for entry in answer.data] == [0, 1]
    assert (answer.usage.prompt_tokens, answer.usage.total_tokens, answer.model) == (5, 5, "vectors")
    checked = check_bundle(answer.model_extra["haif"])
    assert checked.receipt.payload.output_vectors == vectors_digest([ONE, TWO])
    assert len(mesh.finalised) == 1
    while house.front.app.open_requests:
        await asyncio.sleep(0)
    assert 'haif_gateway_requests_total{code="200",endpoint="embeddings",model="vectors"} 1.0' in house.metrics()


async def test_ranks_come_best_first_in_the_shared_dialect(house: Any, mesh: ScriptedMesh) -> None:
    mesh.attempts = [Attempt(vectors=[Vectors(0, [struct.pack("<f", each) for each in (-2.0, 7.5, 0.0)])])]
    body = {"model": "ranks", "query": "q", "documents": ["x", {"text": "y"}, "z"], "top_n": 2}
    reply = await house.post(body | {"return_documents": True}, "/v1/rerank")
    assert reply.json()["results"] == [
        {"index": 1, "relevance_score": 7.5, "document": {"text": "y"}},
        {"index": 2, "relevance_score": 0.0, "document": {"text": "z"}},
    ]
    assert (reply.json()["usage"], reply.json()["model"]) == ({"prompt_tokens": 5, "total_tokens": 5}, "ranks")
    assert set(check_bundle(reply.json()["haif"]).receipt.payload.output_vectors or b"") != set()


async def test_a_model_that_cannot_is_refused_by_name_before_any_work(house: Any, mesh: ScriptedMesh) -> None:
    for path, body in (
        ("/v1/embeddings", {"model": "ranks", "input": "x"}),
        ("/v1/rerank", {"model": "vectors", "query": "q", "documents": ["d"]}),
        ("/v1/chat/completions", {"model": "vectors", "messages": [{"role": "user", "content": "x"}]}),
        ("/v1/completions", {"model": "ranks", "prompt": "x"}),
    ):
        reply = await house.post(body, path)
        error = reply.json()["error"]
        assert (reply.status_code, error["param"]) == (400, "model")
        assert "cannot do" in error["message"]
    assert not mesh.embeds
    assert not mesh.requests


async def test_models_say_what_they_can_do(house: Any) -> None:
    listed = [model.model_extra["haif"] async for model in house.client.models.list()]
    assert [(each["tasks"], each["dimensions"]) for each in listed] == [(["embedding"], 2), (["rerank"], None)]


NAN = struct.pack("<2f", float("nan"), 1.0)


@pytest.mark.parametrize(
    "vectors",
    [
        [Vectors(0, [NAN, TWO])], [Vectors(0, [struct.pack("<2f", 9.0, 9.0), TWO])], [Vectors(0, [ONE, TWO[:4]])],
        [Vectors(0, [ONE, TWO, ONE])], [Vectors(1, [ONE])], [Vectors(0, [ONE])], [Vectors(0, [])], [],
        [Vectors(0, [b""] * 2)], [Vectors(0, [bytes(3)] * 2)], [Vectors(0, [bytes(1 << 20)] * 2)],
        [Vectors(0, [ONE]), Vectors(0, [TWO])],
    ],
)  # fmt: skip
async def test_what_no_honest_worker_sends_is_not_passed_on(house: Any, mesh: ScriptedMesh, vectors: Any) -> None:
    mesh.attempts = [Attempt(vectors=vectors), Attempt(vectors=list(BOTH))]
    answer = await house.client.embeddings.create(model="vectors", input=["a", "b"], encoding_format="float")
    assert len(answer.data) == 2
    assert mesh.retried[0] in {Reason.MALFORMED, Reason.OVERSIZE}


async def test_a_receipt_for_other_vectors_is_not_a_receipt(house: Any, mesh: ScriptedMesh) -> None:
    def other(receipt: Any) -> Any:
        return msgspec.structs.replace(receipt, output_vectors=vectors_digest([ONE]))

    mesh.attempts = [Attempt(vectors=list(BOTH), alter=other), Attempt(vectors=list(BOTH), signer=STRANGER)]
    with pytest.raises(openai.InternalServerError):
        await house.client.embeddings.create(model="vectors", input=["a", "b"], encoding_format="float")
    assert not mesh.finalised
    assert set(mesh.retried) == {Reason.BAD_SIGNATURE}


async def test_a_worker_that_is_lost_is_replaced(house: Any, mesh: ScriptedMesh) -> None:
    mesh.attempts = [Attempt(vectors=[BOTH[0], ConnectionLost("gone")]), Attempt(vectors=list(BOTH))]
    assert (
        len((await house.client.embeddings.create(model="vectors", input=["a", "b"], encoding_format="float")).data)
        == 2
    )


async def test_whoever_hangs_up_cancels_the_work_and_its_room_is_given_back(house: Any, mesh: ScriptedMesh) -> None:
    mesh.attempts = [Attempt(vectors=[BOTH[0], Hang()])]
    with pytest.raises(openai.APITimeoutError):
        await house.client.with_options(timeout=0.2).embeddings.create(
            model="vectors", input=["a", "b"], encoding_format="float"
        )
    await mesh.cancelled.wait()
    while house.front.app.open_requests:
        await asyncio.sleep(0)
    assert house.front.app.asking._room._taken == 0


async def test_the_vectors_held_for_everybody_are_bounded(
    house: Any, mesh: ScriptedMesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "GATEWAY_VECTOR_BYTES_MAX", 12)
    with pytest.raises(openai.InternalServerError) as caught:
        await house.client.embeddings.create(model="vectors", input=["a", "b"], encoding_format="float")
    assert caught.value.code == "server_is_overloaded"
    assert house.front.app.asking._room._taken == 0


async def test_more_vectors_than_go_at_once_are_refused_before_any_work(
    house: Any, mesh: ScriptedMesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "EMBEDDING_BYTES_MAX", 15)
    with pytest.raises(openai.BadRequestError, match="ask in parts"):
        await house.client.embeddings.create(model="vectors", input=["a", "b"])
    assert not mesh.embeds


async def test_dimensions_go_to_the_worker_and_its_vectors_must_have_them(house: Any, mesh: ScriptedMesh) -> None:
    mesh.attempts = [Attempt(vectors=list(BOTH)), Attempt(vectors=[Vectors(0, [TWO[:4], TWO[:4]])])]
    answer = await house.client.embeddings.create(
        model="vectors", input=["a", "b"], dimensions=1, encoding_format="float"
    )  # fmt: skip
    assert [entry.embedding for entry in answer.data] == [[-1.0], [-1.0]]
    assert [each.dimensions for each in mesh.embeds] == [1, 1]
