"""A mesh that serves a model of vectors, for the official client unchanged."""

import json
from contextlib import ExitStack
from pathlib import Path

import httpx
import numpy as np
import openai
import pytest

from haif.protocol.embeddings import vectors_digest
from haif.protocol.receipts import check_bundle
from tests.e2e.conftest import haif, start, stop
from tests.support.tiny_encoder import (
    build_tiny_encoder,
    tiny_encoder_tokens,
    tiny_encoder_vector,
    tiny_encoder_weights,
)

TEXTS = ["the cat sat on the mat", "red car"]


def test_a_mesh_embeds_for_the_official_client_with_receipts(tmp_path: Path) -> None:
    mesh = start(tmp_path, "--model", str(build_tiny_encoder(tmp_path / "tiny-bert.gguf")), "--workers", "1")
    with ExitStack() as stack:
        stack.callback(stop, mesh)
        mesh.until_ready()
        client = stack.enter_context(mesh.client(_strict_response_validation=True))
        loose = stack.enter_context(mesh.client())
        (model,) = [each for each in client.models.list() if each.id == "tiny-bert"]
        said = (model.model_extra or {})["haif"]
        assert (said["tasks"], said["dimensions"]) == (["embedding"], 64)
        answer = client.embeddings.create(model=model.id, input=TEXTS, encoding_format="float")
        weights = tiny_encoder_weights()
        wanted = [tiny_encoder_vector(tiny_encoder_tokens(text), weights, pooling="mean") for text in TEXTS]
        assert np.allclose(wanted, [entry.embedding for entry in answer.data], atol=2e-4)
        vectors = [np.array(entry.embedding, "<f4").tobytes() for entry in answer.data]
        receipt = check_bundle((answer.model_extra or {})["haif"]).receipt.payload
        assert (receipt.output_vectors, receipt.prompt_tokens) == (vectors_digest(vectors), answer.usage.prompt_tokens)
        kept = tmp_path / "answer.json"
        proof = json.dumps((answer.model_extra or {})["haif"])
        for whole in (answer, loose.embeddings.create(model=model.id, input=TEXTS, encoding_format="base64")):
            kept.write_text(whole.to_json() if whole is answer else json.dumps({"data": [dict(e) for e in whole.data]}))
            verified = haif("receipt", "verify", "-", "--vectors", str(kept), input=proof)
            assert "yes, exactly the vectors given" in verified.stdout, verified.stderr
        kept.write_text(kept.read_text().replace('"index": 0', '"index": 9'))
        assert haif("receipt", "verify", "-", "--vectors", str(kept), input=proof).returncode == 6
        tokens = client.embeddings.create(
            model=model.id, input=[tiny_encoder_tokens(text) for text in TEXTS], encoding_format="float"
        )  # fmt: skip
        assert tokens.data == answer.data
        assert loose.embeddings.create(model=model.id, input=TEXTS).data == answer.data  # asks for base64
        with pytest.raises(openai.BadRequestError, match="cannot do chat"):
            client.chat.completions.create(model=model.id, messages=[{"role": "user", "content": "x"}])
        with pytest.raises(openai.BadRequestError, match="lengths"):
            client.embeddings.create(model=model.id, input="the cat", dimensions=7)
        refused = httpx.post(
            f"{mesh.first_card['gateway']}/v1/rerank", headers={"authorization": f"Bearer {mesh.first_card['key']}"},
            json={"model": model.id, "query": "q", "documents": ["d"]},
        )  # fmt: skip
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "model")
