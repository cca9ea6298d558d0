"""Vectors and ranks as a tenant reads them, one entry at a time: a whole answer can be tens of megabytes.

Sources as in `gateway.embeddings`. Singles in base64 are little-endian, as OpenAI's clients read them.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import msgspec

from haif.base.tasks import Task
from haif.base.vectors import numbers_of
from haif.gateway.embeddings import VectorAsk
from haif.gateway.told import Settled

_json = msgspec.json.encode


def entries(ask: VectorAsk, vectors: list[bytes]) -> Iterator[bytes]:
    """The JSON of each entry of the answer's list, in its order."""
    if ask.task is Task.EMBED:
        for index, vector in enumerate(vectors):
            given: Any = base64.b64encode(vector).decode() if ask.base64 else numbers_of(vector)
            yield _json({"object": "embedding", "index": index, "embedding": given})
        return
    scores = [numbers_of(vector)[0] for vector in vectors]
    best = sorted(range(len(scores)), key=lambda index: (-scores[index], index))[: ask.top_n]
    documents = ask.request.texts or []
    for index in best:
        entry: dict[str, Any] = {"index": index, "relevance_score": scores[index]}
        if ask.with_documents:
            entry["document"] = {"text": documents[index]}
        yield _json(entry)


def around(ask: VectorAsk, settled: Settled) -> tuple[bytes, bytes]:
    """What stands before the entries, which are joined by commas, and after them."""
    tokens = settled.receipt.prompt_tokens
    rest = {
        "model": ask.model, "usage": {"prompt_tokens": tokens, "total_tokens": tokens}, "haif": settled.proof,
    }  # fmt: skip
    name = b"data" if ask.task is Task.EMBED else b"results"
    return b'{"object":"list","' + name + b'":[', b"]," + _json(rest)[1:]
